// The walk: from a sealed box to an export that two people agreed to, and back to a sealed box.
import * as assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { HOSTILE, Site, judge, judged } from "./site.mjs";
import { PASSPHRASE, prepare, recipe } from "./prepare.mjs";
import * as data from "./data.mjs";

const site = await Site.make();
const faults = [];
let stops = 0;
const paints = [];
const step = (text) => console.log(`- ${text}`);

// What is wrong with the page that is shown: by axe, by its own script, by what it asked for.
async function look(page, name) {
  faults.push(...await judge(page, name));
  const keyboard = await site.byKeyboard(page);
  if (keyboard.first !== "A #main") faults.push(`${name}: the Tab key begins at ${keyboard.first}`);
  for (const part of keyboard.missed) faults.push(`${name}: not to be reached by the Tab key: ${part}`);
  for (const part of keyboard.hidden) faults.push(`${name}: it is not to be seen that the focus is on ${part}`);
  stops += keyboard.stops;
  faults.push(...page.faults.splice(0).map((fault) => `${name}: ${fault}`));
}

async function open(page, at, name) {
  const answer = await page.goto(site.address + at);
  assert.ok(answer.status() < 400, `${name}: ${answer.status()}`);
  const paint = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  paints.push(await page.waitForFunction(paint).then((found) => found.jsonValue()));
  await look(page, name);
}

try {
  step("a box without a vault, without accounts, sealed");
  await site.start();
  const [one, other] = [await site.browser(), await site.browser()];
  await open(one, "/", "no vault");
  const shares = await prepare(site, async () => {
    // The page that told of no vault goes on by itself.
    await one.waitForSelector("text=There are no accounts yet");
    await look(one, "no accounts");
    step("three people take up an invitation, each in a browser of their own");
    await one.click("text=Take up an invitation");
    await look(one, "an invitation");
    const { code } = site.moat(["account", "invite"]);
    const guests = [["eve", ["auditor"], 60003], ["ada", ["steward", "engineer", "admin"], 60001], ["ben", ["approver"], 60002]];
    for (const [name, roles, uid] of guests) {
      const own = await site.browser();
      const fill = async (invitation) => {
        await own.goto(`${site.address}/set-up`);
        await own.fill("#invitation", invitation);
        await own.fill("#name", name);
        await own.fill("#first-password", "would hardly be guessed");
        await own.fill("#first-again", "would hardly be guessed");
        await own.fill("#uid", String(uid));
        for (const role of roles) await own.check(`input[name="${role}"]`);
        await own.click('main button:text-is("Go on to my device")');
      };
      if (name === "eve") {
        await fill("WRONG-WRONG-WRONG-WRONG");
        await own.waitForSelector("text=does not count");
        await look(own, "a wrong invitation");
      }
      await fill(code.toLowerCase());
      await own.waitForSelector("svg.qr");
      await look(own, `the device of ${name}`);
      const secret = (await own.textContent("#secret")).replaceAll(" ", "");
      site.people[name] = { name, password: "would hardly be guessed", secret, used: 0 };
      if (name === "eve") {
        await own.fill("#code", "000000");
        await own.click('main button:text-is("I am ready")');
        await own.waitForSelector("text=Not taken");
        await look(own, "a device that shows something else");
      }
      await own.fill("#code", await site.code(site.people[name]));
      await own.click('main button:text-is("I am ready")');
      await own.waitForSelector(name === "ben" ? "text=The accounts are made" : "text=You are ready");
      await look(own, `${name} is ready`);
      await own.context().close();
    }
  });

  step("two holders open it, each from a browser of their own");
  await open(one, "/", "sealed");
  assert.match(await one.textContent("h1"), /Sealed/);
  await open(other, "/unseal", "unseal");
  await site.giveShare(one, "moat-share-nonsense");
  assert.match(await one.textContent("[role=alert]"), /Not taken/);
  await look(one, "a wrong share");
  await site.giveShare(one, shares[0]);
  assert.match(await one.textContent("[role=status]"), /1 of 2 shares/);
  await look(one, "one share given");
  // The other holder's page tells by itself that one share is there.
  await other.waitForSelector("text=1 of 2 shares given");
  await other.fill("#share", shares[2]);
  await other.click('main button:text-is("Give this share")');
  await other.waitForSelector("text=The vault is open");
  await look(other, "opened");
  // And the first one's that the box is open.
  await one.waitForSelector("#name");

  step("people sign in with password and code");
  const [ada, ben, eve] = [one, other, await site.browser()];
  await ada.goto(`${site.address}/sign-in`);
  await ada.fill("#name", "ada");
  await ada.fill("#password", "wrong");
  await ada.fill("#code", "000000");
  await ada.keyboard.press("Enter");
  await ada.waitForSelector("[role=alert]");
  await look(ada, "a wrong password");
  await site.signIn(ada, "ada");
  await site.signIn(ben, "ben");
  await site.signIn(eve, "eve");
  const cookies = await ada.context().cookies();
  const cookie = cookies.find(({ name }) => name === "__Host-moat");
  assert.ok(cookie.httpOnly && cookie.secure && cookie.sameSite === "Strict" && cookie.expires === -1);

  step("every page, before anything ran");
  const pages = ["/", "/sources", "/data", "/runs", "/models", "/playground", "/approvals", "/boundary", "/people", "/people/ben"];
  for (const at of pages) await open(ada, at, `ada at ${at}, empty`);
  const denied = await ada.goto(`${site.address}/runs/none`);
  assert.equal(denied.status(), 404);
  await look(ada, "a run that is not there");
  assert.equal((await ben.goto(`${site.address}/runs/new`)).status(), 403);
  await look(ben, "not allowed");

  step("an admin makes an account, and its owner signs in with the codes that were shown once");
  await open(ada, "/people", "ada at people");
  await ada.click("text=New account");
  await look(ada, "about to make an account");
  await ada.fill("#account-name", "fay");
  await ada.fill("#new-password", "would not be guessed either");
  await ada.fill("#new-again", "another");
  await ada.click('main button:text-is("Make it")');
  await ada.waitForSelector("text=The two passwords differ");
  await look(ada, "two passwords that differ");
  await ada.goto(`${site.address}/people`);
  await ada.click("text=New account");
  await ada.fill("#account-name", "fay");
  await ada.fill("#new-password", "would not be guessed either");
  await ada.fill("#new-again", "would not be guessed either");
  await ada.click('main button:text-is("Make it")');
  await ada.waitForSelector("svg.qr");
  await look(ada, "the codes of a new account");
  const secret = (await ada.textContent("#secret")).replaceAll(" ", "");
  site.people.fay = { name: "fay", password: "would not be guessed either", secret, used: 0 };
  const fay = await site.browser();
  await site.signIn(fay, "fay");
  await fay.waitForSelector("text=This account has no role yet");
  await look(fay, "an account without a role");
  assert.equal((await fay.goto(`${site.address}/sources`)).status(), 403);
  await look(fay, "fay at sources");

  step("two people give it a role");
  await open(ada, "/people/fay", "ada at fay");
  await ada.check('input[name="viewer"]');
  await ada.fill("#roles-password", site.people.ada.password);
  await ada.fill("#roles-code", await site.code(site.people.ada));
  await ada.click('main button:text-is("Ask for them")');
  await ada.waitForSelector("text=waits for an approver");
  await look(ada, "a role that was asked for");
  await ben.goto(ada.url());
  await ben.fill("#agree-password", site.people.ben.password);
  await ben.fill("#agree-code", "000000");
  await ben.click('main button:text-is("Agree to it")');
  await ben.waitForSelector("text=Not done");
  await look(ben, "a wrong code");
  await ben.goto(ada.url());
  await ben.fill("#agree-password", site.people.ben.password);
  await ben.fill("#agree-code", await site.code(site.people.ben));
  await ben.click('main button:text-is("Agree to it")');
  await ben.waitForSelector("text=Agreed, and in force");
  // It counts at once, without signing in again.
  assert.equal((await fay.goto(`${site.address}/sources`)).status(), 200);
  assert.equal(await fay.locator('button:text-is("Look again now")').count(), 0);
  await open(fay, "/runs", "fay at runs");

  step("a name that means harm is text");
  await open(ada, "/data", "data");
  await ada.fill("#path", HOSTILE);
  await ada.click('main button:text-is("Why")');
  await ada.waitForSelector("text=SHA-256");
  assert.ok((await ada.textContent("main")).includes(HOSTILE));
  assert.match(await ada.title(), /What became of a document/);
  assert.equal(await ada.locator("main script").count(), 0);
  await look(ada, "why");

  const steward = { page: ada, look, open, site };
  step("a source is looked into, tested and paused");
  await data.sources(steward);
  step("a source is added by two people, and removed");
  await data.newSource(steward, ben);
  step("records are found, and other rules tried");
  await data.records(steward);
  step("fifty records are judged by the keyboard alone");
  const verdicts = await data.review(steward);

  step("a run is started, and watched through a restart of the daemon");
  await open(ada, "/runs/new", "new run");
  await ada.fill("#recipe", "name = 1");
  await ada.click('main button:text-is("Start")');
  await ada.waitForSelector("[role=alert]");
  await look(ada, "a recipe with faults");
  await ada.fill("#recipe", recipe(200));
  await ada.click('main button:text-is("Start")');
  await ada.waitForSelector("text=in the queue");
  const run = new URL(ada.url()).pathname;
  const steps = async () => Number((await ada.textContent(".progress strong")).replaceAll(",", ""));
  await ada.waitForSelector(".progress strong", { timeout: 120000 });
  const begun = await steps();
  await ada.waitForFunction((begun) => {
    const shown = document.querySelector(".progress strong");
    return shown && Number(shown.textContent.replaceAll(",", "")) >= begun + 20;
  }, begun, { timeout: 900000 });
  await look(ada, "a run that trains");
  const reached = await steps();
  await site.stop("SIGKILL");
  await site.start();
  // The page notices by itself; the box is sealed, and whoever was signed in is so no more.
  await ada.waitForURL("**/unseal", { timeout: 60000 });
  await site.giveShare(ada, shares[1]);
  await site.giveShare(ben, shares[0]);
  await ben.waitForSelector("text=The vault is open");
  // Whoever wanted to see the run is brought there.
  await ada.goto(site.address + run);
  await site.signIn(ada, "ada");
  assert.equal(new URL(ada.url()).pathname, run);
  await ada.waitForFunction((reached) => {
    const shown = document.querySelector(".progress strong");
    return shown && Number(shown.textContent.replaceAll(",", "")) > reached;
  }, reached, { timeout: 900000 });
  await ada.waitForSelector("#edge", { timeout: 900000 });
  await look(ada, "a run that is done");

  step("its dataset did as the person said");
  await data.obeyed(steward, verdicts);
  step("a sweep, whose runs are compared");
  await data.sweep(steward);
  step("datasets, a model card, samples");
  await data.models(steward, run.replace("/runs/", ""));

  step("what it became");
  for (const at of ["/", "/sources", "/runs", "/models"]) await open(ada, at, `ada at ${at}`);
  await open(ada, run.replace("/runs/", "/models/"), "a model");
  await open(ada, "/playground", "playground");
  await ada.fill("#prompt", "To create an index on a table, use");
  await ada.click('main button:text-is("Ask both")');
  await ada.waitForSelector("text=tokens/s", { timeout: 120000 });
  await look(ada, "answers");

  step("one asks for an export, another one agrees");
  await ada.goto(site.address + run.replace("/runs/", "/models/"));
  const own = path.join(site.folder, "exports/own");
  await ada.fill("#folder", own);
  await ada.fill("#export-password", site.people.ada.password);
  await ada.fill("#export-code", await site.code(site.people.ada));
  await ada.click('main button:text-is("Ask for it")');
  await ada.waitForSelector("text=waits for somebody else", { timeout: 900000 });
  await look(ada, "asked for");
  assert.equal(await ada.locator("text=Agree to it").count(), 0);
  await site.signIn(ben, "ben");
  await ben.waitForSelector("text=request needs a second person");
  await open(ben, "/approvals", "ben at approvals");
  await ben.click("tbody th a");
  await ben.waitForSelector("#agree");
  await look(ben, "to agree to");
  await ben.fill("#agree-password", site.people.ben.password);
  await ben.fill("#agree-code", await site.code(site.people.ben));
  await ben.click('main button:text-is("Agree to it")');
  await ben.waitForSelector("text=Agreed, and done", { timeout: 900000 });
  assert.ok(fs.existsSync(path.join(own, "model/model.safetensors")));
  await look(ben, "agreed");

  step("the ledger tells of it");
  await site.signIn(eve, "eve");
  await open(eve, "/ledger", "ledger");
  await open(eve, "/ledger/statement.", "ledger of approvals");
  const told = await eve.textContent("tbody");
  assert.ok(told.includes("ben (approver)") && told.includes("statement.approve"));
  const key = /--key (\S+)/.exec(await eve.textContent("#verify ~ pre"))[1];
  await eve.click("tbody tr:first-child td:last-child a");
  await eve.waitForSelector("button.verify:visible");
  await look(eve, "an entry");
  await eve.click("button.verify");
  await eve.waitForSelector("text=The root is signed with this key");
  assert.equal(await eve.locator(".checks .bad").count(), 0);
  await eve.fill("#key", key.replace(/.$/, ""));
  await eve.click("button.verify");
  await eve.waitForSelector(".checks .bad");
  await look(eve, "a wrong key");
  const [download] = await Promise.all([eve.waitForEvent("download"), eve.click("text=Take the receipt away")]);
  // What was taken away is verified without the daemon, and so is the whole ledger from a copy of its folder.
  site.moat(["ledger", "check-receipt", await download.path(), "--key", key]);
  const copy = path.join(site.folder, "ledger-copy");
  fs.cpSync(path.join(site.folder, "state/ledger"), copy, { recursive: true });
  site.moat(["ledger", "verify", copy, "--key", key]);
  await open(eve, "/", "eve's overview");
  await open(ben, "/boundary", "ben at boundary");
  await open(ben, "/people", "ben at people");

  step("and the box is sealed again, for everybody");
  await ben.goto(`${site.address}/boundary`);
  await ben.click("text=Seal the vault now");
  await ben.fill("#typed", "no");
  await ben.click("button.bad");
  await ben.waitForSelector("text=was not typed");
  await look(ben, "not typed");
  await ben.goto(`${site.address}/boundary`);
  await ben.click("text=Seal the vault now");
  await look(ben, "about to be sealed");
  await ben.fill("#typed", "seal");
  await ben.click("button.bad");
  await ben.waitForURL("**/unseal");
  // The overview that eve left open says so by itself.
  await eve.waitForURL("**/unseal", { timeout: 30000 }).catch(async () => assert.match(await eve.textContent("h1"), /Sealed/));

  step("a passphrase opens it as well");
  await open(ben, "/unseal", "shares or a passphrase");
  await ben.fill("#passphrase", "another");
  await ben.click('main button:text-is("Open")');
  await ben.waitForSelector("text=Not taken");
  await look(ben, "a wrong passphrase");
  await ben.fill("#passphrase", PASSPHRASE);
  await ben.click('main button:text-is("Open")');
  await ben.waitForSelector("text=The vault is open");
  await site.signIn(ben, "ben");

  // Nothing that somebody typed is in the log, or in what the ledger tells.
  // Her page leaves the sealed one by itself.
  await eve.waitForURL((url) => url.pathname !== "/unseal", { timeout: 30000 });
  await site.signIn(eve, "eve");
  await open(eve, "/ledger/vault.", "ledger of the vault");
  const secrets = [PASSPHRASE, HOSTILE, site.people.ada.password, site.people.fay.secret, ...shares];
  const log = fs.readFileSync(path.join(site.folder, "moatd.log"), "utf8");
  for (const words of [log, await eve.textContent("main")]) {
    assert.ok(!secrets.some((secret) => words.includes(secret)), "a secret is in the log or in the ledger");
  }
} catch (error) {
  console.error(error);
  for (const context of (await site.browse()).contexts()) {
    for (const [at, page] of context.pages().entries()) {
      console.error(page.url(), (await page.textContent("main").catch(() => "")).slice(0, 600));
    }
  }
  console.error(fs.readFileSync(path.join(site.folder, "moatd.log"), "utf8").split("\n").slice(-15).join("\n"));
  faults.push(String(error.message ?? error));
} finally {
  await site.end();
}
if (faults.length > 0) {
  console.error([...new Set(faults)].join("\n"));
  process.exit(1);
}
console.log(`passed: ${judged.states.size} pages and states without a fault in ${judged.runs} runs of axe-core, light and dark; ${stops} stops by the Tab key`);
paints.sort((one, other) => one - other);
const shown = [paints[Math.floor(paints.length / 2)], paints.at(-1)].map(Math.round);
console.log(`first paint of ${paints.length} pages, measured beside everything else: median ${shown[0]} ms, most ${shown[1]} ms`);
