"use strict";

// Times in the reader's zone; the exact one, with its zone, on hover.
const today = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const before = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localise(part) {
  for (const time of part.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    const same = at.toDateString() === new Date().toDateString();
    time.textContent = (same ? today : before).format(at);
    time.title = exact.format(at) + " (" + time.dateTime + ")";
  }
}

// Loads the page anew; what a form did is not done again.
const again = () => location.replace(location.pathname);

// Parts that keep themselves up to date. Whoever had the focus in one keeps it.
function follow(part) {
  const events = new EventSource(part.dataset.live);
  events.addEventListener("part", (event) => {
    const held = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.innerHTML = event.data;
    localise(part);
    if (held) {
      for (const link of part.querySelectorAll("a[href]")) {
        if (link.getAttribute("href") === held) { link.focus(); break; }
      }
    }
  });
  events.addEventListener("over", () => { events.close(); again(); });
  events.addEventListener("error", () => {
    // The browser tries again by itself, but for an answer that says no.
    part.classList.add("stale");
    if (events.readyState === EventSource.CLOSED) setTimeout(again, 2000);
  });
  events.addEventListener("open", () => part.classList.remove("stale"));
  addEventListener("pagehide", () => events.close());
  // What a form comes to is told by its own answer, which loading the page anew would cut off.
  addEventListener("submit", () => events.close());
}

// A form whose answer comes bit by bit into a part of its page; without this it is sent as any other.
function stream(form) {
  const part = document.getElementById(form.dataset.into), stop = form.querySelector("[data-stop]");
  let asking = null;
  stop.addEventListener("click", () => asking && asking.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (asking) return;
    asking = new AbortController();
    stop.hidden = false;
    part.classList.remove("stale");
    part.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.dataset.stream, { method: "POST", body, signal: asking.signal });
      const kind = answer.headers.get("content-type") || "";
      // What is no stream is a page that says why.
      if (!kind.startsWith("text/event-stream")) { form.submit(); return; }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const lines = event.split("\n");
          if (lines[0] === "event: over") { again(); return; }
          if (lines[0] !== "event: part") continue;
          part.innerHTML = lines.slice(1).map((line) => line.slice(6)).join("\n");
          localise(part);
        }
      }
    } catch (error) {
      // Stopped by the reader, or cut off: what is there is not the whole.
      part.classList.add("stale");
    } finally {
      asking = null;
      stop.hidden = true;
      part.removeAttribute("aria-busy");
    }
  });
}

localise(document);
for (const form of document.querySelectorAll("form[data-stream]")) stream(form);
for (const part of document.querySelectorAll("[data-live]")) follow(part);

// Keys that stand beside buttons act while the part that they belong to has the focus, and once.
for (const part of document.querySelectorAll("[data-keys]")) {
  let done = false;
  part.addEventListener("keydown", (event) => {
    if (done || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const button = part.querySelector('[data-key="' + CSS.escape(event.key.toLowerCase()) + '"]');
    if (!button) return;
    done = true;
    event.preventDefault();
    button.click();
  });
  part.focus({ preventScroll: true });
}

// Menus close by Escape and by a click elsewhere.
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.person[open], .menu details[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.person[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// Judges a receipt of the ledger here: the entry's hash, the way from it to the root (RFC 9162, 2.1.3.2), the root's
// signature (C2SP signed-note), each told as it is found.
function unpacked(text) {
  const letters = atob(text);
  // One spelling alone: the last letter can hide bits.
  if (btoa(letters) !== text) throw new Error("no base64");
  return Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
}
const joined = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));
const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts)));
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
const utf8 = (text) => new TextEncoder().encode(text);

async function root(leaf, index, size, path) {
  let [node, last, hash] = [index, size - 1n, leaf];
  if (index >= size) return null;
  for (const other of path) {
    if (last === 0n) return null;
    if (node & 1n || node === last) {
      hash = await sha256([1], other, hash);
      while (!(node & 1n) && node !== 0n) { node >>= 1n; last >>= 1n; }
    } else {
      hash = await sha256([1], hash, other);
    }
    node >>= 1n;
    last >>= 1n;
  }
  return last === 0n ? hash : null;
}

async function judge(receipt, keyText, tell) {
  const [proof, note] = receipt.split(/\n\n([^]*)/);
  const [head, extra, place, ...path] = proof.split("\n");
  const lines = note.split("\n");
  const [origin, size, rootText, blank, signed] = lines;
  const whole = head === "c2sp.org/tlog-proof@v1" && extra.startsWith("extra ") && /^index \d+$/.test(place)
    && lines.length === 6 && blank === "" && lines[5] === "" && /^\d+$/.test(size) && signed.startsWith("\u2014 " + origin + " ");
  if (!whole) return tell(false, "It is not in the format of a receipt.");
  const entry = unpacked(extra.slice(6));
  const said = JSON.parse(new TextDecoder().decode(entry));
  const index = BigInt(place.slice(6));
  if (BigInt(said.index) !== index) return tell(false, "The entry in it is another one than it says.");
  tell(true, `The receipt is of entry ${index}: ${said.act}, ${said.phase}, by ${said.who.name}, ${new Date(said.time).toISOString()}.`);
  const found = await root(await sha256([0], entry), index, BigInt(size), path.map(unpacked));
  const leads = found !== null && same(found, unpacked(rootText));
  tell(leads, leads ? `Its hash leads by ${path.length} others to the root over ${size} entries.`
    : "Its hash does not lead to the root that was signed: the entry or the proof was changed.");
  if (!leads) return;
  const [name, id, ...packed] = keyText.trim().split("+");
  const key = unpacked(packed.join("+"));
  const mark = (await sha256(utf8(name), [10], key)).slice(0, 4);
  const hex = [...mark].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (name !== origin || key.length !== 33 || key[0] !== 1 || hex !== id) return tell(false, "The key is not one of a ledger.");
  const signature = unpacked(signed.split(" ")[2]);
  if (signature.length !== 68 || !same(signature.slice(0, 4), mark)) return tell(false, "The root was signed by another key.");
  let publicKey;
  try {
    publicKey = await crypto.subtle.importKey("raw", key.slice(1), { name: "Ed25519" }, false, ["verify"]);
  } catch {
    return tell(null, "This browser knows no Ed25519, so that the signature was not judged: use the command line.");
  }
  const text = utf8(lines.slice(0, 3).join("\n") + "\n");
  const good = await crypto.subtle.verify({ name: "Ed25519" }, publicKey, signature.slice(4), text);
  tell(good, good ? "The root is signed with this key." : "The signature of the root is not by this key: it was changed or forged.");
}

for (const panel of document.querySelectorAll("[data-receipt]")) {
  const button = panel.querySelector(".verify");
  const list = panel.querySelector(".checks");
  const tell = (held, words) => {
    const line = document.createElement("li");
    const mark = document.createElement("span");
    mark.className = "chip " + (held ? "good" : held === null ? "waits" : "bad");
    mark.textContent = held ? "holds" : held === null ? "not judged" : "does not hold";
    line.append(mark, " " + words);
    list.append(line);
  };
  button.hidden = !globalThis.crypto?.subtle;
  button.addEventListener("click", async () => {
    list.replaceChildren();
    const receipt = document.querySelector(panel.dataset.receipt).textContent;
    try {
      await judge(receipt, panel.querySelector("#key").value, tell);
    } catch {
      tell(false, "The receipt or the key cannot be read.");
    }
  });
}
