// What a steward and an engineer do with data: sources looked into, records found, judged and tried, runs compared.
import * as assert from "node:assert/strict";
import { recipe } from "./prepare.mjs";

// Records that a person judges by the keyboard alone.
const JUDGED = 50;

// A source: its folder, a test, a pause.
export async function sources({ page, look, open }) {
  await open(page, "/sources/postgresql", "a source");
  await page.click('main button:text-is("Browse its folder")');
  await page.waitForSelector("text=taken in");
  await look(page, "the folder of a source");
  await open(page, "/sources/postgresql", "a source again");
  await page.click('main button:text-is("Test whether all of it can be read")');
  await page.waitForSelector("text=Nothing was taken in");
  await look(page, "a test of a source");
  await open(page, "/sources/postgresql", "a source once more");
  await page.click('main button:text-is("Pause")');
  await page.waitForSelector("text=It is paused");
  await look(page, "a paused source");
  await page.click('main button:text-is("Resume")');
  await page.waitForSelector("text=It goes on");
}

// Chooses a folder for a new source, and tries it.
export async function choose(page) {
  await page.click('button[name="folder"][value$="/more"]');
  await page.click('button[name="take_folder"][value$="/handbook"]');
  await page.click('main button:text-is("Try it")');
  await page.waitForSelector("#tried");
}

// A new source: chosen, tried, asked for, agreed to by another person, and removed.
export async function newSource({ page, look, open, site }, other) {
  await open(page, "/new-source", "a new source");
  await page.fill("#path", "/etc");
  await page.fill("#name", "etc");
  await page.click('main button:text-is("Try it")');
  await page.waitForSelector("[role=alert]");
  await look(page, "a new source that may not be");
  await open(page, "/new-source", "a new source again");
  await choose(page);
  await look(page, "a new source that was tried");
  await page.fill("#ask-password", site.people.ada.password);
  await page.fill("#ask-code", await site.code(site.people.ada));
  await page.click('main button:text-is("Ask for it")');
  await page.waitForSelector("text=waits for somebody else");
  await look(page, "a new source that is asked for");
  await other.goto(page.url());
  await look(other, "a new source to agree to");
  await other.fill("#agree-password", site.people.ben.password);
  await other.fill("#agree-code", await site.code(site.people.ben));
  await other.click('main button:text-is("Agree to it")');
  await other.waitForSelector("text=the source is being read");
  await page.goto(`${site.address}/sources/handbook`);
  await page.waitForSelector("text=in step");
  await page.click("text=Remove this source");
  await look(page, "a source about to be removed");
  await page.fill("#typed", "handbook");
  await page.click("button.bad");
  await page.waitForSelector("text=Source handbook is");
  await look(page, "a source that was removed");
}

// Records by their words, and what other rules would do with them.
export async function records({ page, look, open }) {
  await open(page, "/records", "records");
  await page.fill("#words", "zzzzzzzz");
  await page.click('main button:text-is("Search")');
  await page.waitForSelector("text=No record holds this");
  await look(page, "a search that finds nothing");
  await page.fill("#words", "index");
  await page.click('main button:text-is("Search")');
  await page.waitForSelector("ul.hits mark");
  await look(page, "records that were found");
  await page.click("ul.hits h3 a");
  await page.waitForSelector("#document");
  await look(page, "a record beside its document");
  await open(page, "/rules", "rules");
  await page.selectOption("#kind", "html");
  await page.selectOption("#rule", "min_words");
  await page.fill("#value", "400");
  await page.click('main button:text-is("Try")');
  await page.waitForSelector("#tried");
  await look(page, "a try-out");
  await page.fill("#value", "many");
  await page.click('main button:text-is("Try")');
  await page.waitForSelector("text=is no number");
  await look(page, "a try-out that cannot be");
}

// Judges records by the keyboard alone. Returns one that was kept and one that was dropped.
export async function review({ page, look, open }) {
  await open(page, "/review", "review");
  // Looking moved the focus, which the record has when its page comes.
  await page.reload();
  const shown = () => page.getAttribute('.review form[action$="/drop"]', "action").then((action) => action.split("/")[2]);
  const judged = { k: [], d: [] };
  for (let number = 0; number < JUDGED; number += 1) {
    const [record, key] = [await shown(), number % 5 === 4 ? "d" : "k"];
    await Promise.all([page.waitForEvent("load"), page.keyboard.press(key)]);
    await page.waitForSelector(`text=Record ${record.slice(0, 12)} is ${key === "k" ? "kept" : "dropped"}`);
    judged[key].push(record);
  }
  await look(page, "fifty records judged");
  await page.reload();
  // The last verdict is taken back and given again, and one record is left for later.
  const last = judged.d.at(-1);
  await Promise.all([page.waitForEvent("load"), page.keyboard.press("u")]);
  await page.waitForSelector("text=is taken back");
  await page.goto(`${new URL(page.url()).origin}/records/${last}`);
  await page.click('main button:text-is("Drop")');
  await page.waitForSelector("text=is dropped");
  await look(page, "a record that a person dropped");
  await page.goto(`${new URL(page.url()).origin}/review`);
  const before = await shown();
  await Promise.all([page.waitForEvent("load"), page.keyboard.press("l")]);
  assert.notEqual(await shown(), before);
  assert.equal(new Set([...judged.k, ...judged.d]).size, JUDGED);
  return judged;
}

// Whether the run's dataset did as the person said.
export async function obeyed({ page, look, open }, judged) {
  const reached = async (record) => {
    await open(page, `/records/${record}`, "a record after a run");
    return page.textContent('section[aria-labelledby="reached"]');
  };
  for (const record of judged.d.slice(0, 3)) assert.match(await reached(record), /no dataset and no model/);
  const kept = await Promise.all([reached(judged.k[0])]);
  assert.ok(kept.every((text) => /trained on|held back|chosen by/.test(text)), kept[0]);
  await look(page, "a record with its models");
}

// A preview, and a sweep whose runs are compared.
export async function sweep({ page, look, open, site }) {
  await open(page, "/runs/new", "a new sweep");
  await page.fill("#recipe", `${recipe(10)}\n[sweep]\n"optimizer.learning_rate" = [1e-3, 2e-3]\n`
    .replace("held_out = 0.15", "held_out = 0.15\nvalidation = 0.1").replace('name = "handbook"', 'name = "rates"'));
  await page.click('main button:text-is("Preview")');
  await page.waitForSelector("#preview", { timeout: 300000 });
  await look(page, "a preview");
  await page.click('main button:text-is("Start")');
  await page.waitForSelector("text=runs of sweep rates");
  await look(page, "a sweep in the queue");
  await page.waitForFunction(() => document.querySelector("progress.steps")?.value === 2, null, { timeout: 900000 });
  await look(page, "a sweep that is done");
  await open(page, "/sweeps", "sweeps");
  await page.goto(`${site.address}/runs`);
  for (const box of (await page.$$("input.pick")).slice(0, 2)) await box.check();
  await page.click('main button:text-is("Compare those chosen")');
  await page.waitForSelector("text=Runs side by side");
  await look(page, "two runs side by side");
}

// Datasets and what differs between them; a model's card and samples; bases.
export async function models({ page, look, open, site }, run) {
  await page.goto(`${site.address}/data`);
  await page.click('main button:text-is("Compare")');
  await page.waitForSelector("h1:has-text(\"From\")");
  await look(page, "what differs between two datasets");
  await page.goto(`${site.address}/data`);
  await page.click("tbody th a");
  await page.waitForSelector("#sides");
  await look(page, "a dataset");
  await open(page, `/models/${run}/card`, "a model card");
  await page.goto(`${site.address}/models/${run}`);
  await page.click('main button:text-is("Show a sample")');
  await page.waitForSelector("text=Held-back record", { timeout: 300000 });
  await look(page, "a sample");
  await page.click('main button:text-is("Take it to the playground")');
  await page.waitForSelector("#prompt");
  await look(page, "a sample in the playground");
  await open(page, "/bases", "bases");
}
