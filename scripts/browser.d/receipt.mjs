// Judges receipts as the ledger's page does, with the page's own script: those that hold, and each with a letter changed.
// The trees and signatures are made here, by node's own SHA-256 and Ed25519.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";

const script = fs.readFileSync(new URL("../../daemon/admin/src/assets/script.js", import.meta.url), "utf8");
const from = script.indexOf("function unpacked");
const upto = script.indexOf('for (const panel of document.querySelectorAll("[data-receipt]"))');
assert.ok(from > 0 && upto > from, "the script has changed its shape");
const judge = new Function(`${script.slice(from, upto)}; return judge;`)();

const sha256 = (...parts) => crypto.createHash("sha256").update(Buffer.concat(parts)).digest();
const leaf = (entry) => sha256(Buffer.from([0]), entry);
const half = (leaves) => { let size = 1; while (size * 2 < leaves.length) size *= 2; return size; };
function root(leaves) {
  if (leaves.length === 1) return leaves[0];
  return sha256(Buffer.from([1]), root(leaves.slice(0, half(leaves))), root(leaves.slice(half(leaves))));
}
function way(index, leaves) {
  if (leaves.length === 1) return [];
  const [at, left, right] = [half(leaves), leaves.slice(0, half(leaves)), leaves.slice(half(leaves))];
  return index < at ? [...way(index, left), root(right)] : [...way(index - at, right), root(left)];
}

const pair = crypto.generateKeyPairSync("ed25519");
const key = Buffer.concat([Buffer.from([1]), pair.publicKey.export({ format: "der", type: "spki" }).subarray(-32)]);
const id = sha256(Buffer.from("moat/ledger\n"), key).subarray(0, 4);
const keyText = `moat/ledger+${id.toString("hex")}+${key.toString("base64")}`;

function receipt(index, entries) {
  const leaves = entries.map(leaf);
  const body = `moat/ledger\n${entries.length}\n${root(leaves).toString("base64")}\n`;
  const signature = Buffer.concat([id, crypto.sign(null, Buffer.from(body), pair.privateKey)]).toString("base64");
  const path = way(index, leaves).map((hash) => hash.toString("base64") + "\n").join("");
  return `c2sp.org/tlog-proof@v1\nextra ${entries[index].toString("base64")}\nindex ${index}\n${path}\n${body}\n\u2014 moat/ledger ${signature}\n`;
}

async function found(text, by) {
  const said = [];
  try { await judge(text, by, (held) => said.push(held)); } catch { said.push(false); }
  return said;
}

let changed = 0;
for (const size of [1, 2, 3, 5, 8, 13, 100]) {
  const entry = (index) => Buffer.from(JSON.stringify({ index, time: 1e12 + index, who: { name: "a", role: "b" }, act: "x.y", phase: "done", on: {}, detail: {} }));
  const entries = [...Array(size).keys()].map(entry);
  for (let index = 0; index < size; index++) {
    const text = receipt(index, entries);
    assert.deepEqual(await found(text, keyText), [true, true, true], text);
    if (index % 7) continue;
    for (let at = 0; at < text.length; at += size > 20 ? 37 : 3) {
      if (text[at] === "\n") continue;
      const other = text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
      assert.ok((await found(other, keyText)).includes(false), other);
      changed++;
    }
  }
}
console.log(`receipts: every one holds, and ${changed} changed ones do not`);
