// Pictures of every page, in both colours, at three widths.
import * as path from "node:path";
import { HOSTILE, Site } from "./site.mjs";
import { prepare, recipe } from "./prepare.mjs";
import { choose, sweep } from "./data.mjs";

const SIZES = [[360, 780], [1024, 768], [2560, 1440]];

const site = await Site.make();
const folder = process.env.MOAT_PICTURES;
const wide = [];

// One page as whoever has this state sees it, at every size.
async function picture(state, at, name, before = async () => {}) {
  for (const [width, height] of SIZES) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await site.browser({ storageState: state, viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
      await page.goto(site.address + at);
      await before(page);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (over > 0) wide.push(`${name} at ${width}: ${over} pixels too wide`);
      await page.screenshot({ path: path.join(folder, `${name}-${width}-${colorScheme}.png`), fullPage: width !== 2560 });
      await page.context().close();
    }
  }
}

async function signedIn(name) {
  const page = await site.browser();
  await site.signIn(page, name);
  return { page, state: await page.context().storageState() };
}

try {
  await site.start();
  await picture(undefined, "/", "no-vault");
  const shares = await prepare(site, async () => {
    await picture(undefined, "/", "no-accounts");
    await picture(undefined, "/set-up", "set-up");
  });
  await picture(undefined, "/", "sealed");
  const holder = await site.browser();
  await site.giveShare(holder, shares[0]);
  await picture(undefined, "/unseal", "one-share");
  await site.giveShare(holder, shares[1]);
  await picture(undefined, "/sign-in", "sign-in");
  const ada = await signedIn("ada");
  for (const [at, name] of [["/", "overview-empty"], ["/runs", "runs-empty"], ["/models", "models-empty"], ["/approvals", "approvals-empty"], ["/runs/new", "new-run"]]) {
    await picture(ada.state, at, name);
  }
  for (const [at, name] of [["/sources/postgresql", "source"], ["/new-source", "new-source"], ["/records", "records"], ["/review", "review"], ["/rules", "rules"], ["/bases", "bases"]]) {
    await picture(ada.state, at, name);
  }
  await picture(ada.state, "/sources/postgresql", "source-folder", async (page) => {
    await page.click('main button:text-is("Browse its folder")');
    await page.waitForSelector("text=taken in");
  });
  await picture(ada.state, "/sources/postgresql", "source-test", async (page) => {
    await page.click('main button:text-is("Test whether all of it can be read")');
    await page.waitForSelector("text=Nothing was taken in");
  });
  await picture(ada.state, "/new-source", "new-source-tried", choose);
  const search = async (page) => {
    await page.fill("#words", "index");
    await page.click('main button:text-is("Search")');
    await page.waitForSelector("ul.hits mark");
  };
  await picture(ada.state, "/records", "records-found", search);
  await picture(ada.state, "/records", "record", async (page) => {
    await search(page);
    await page.click("ul.hits h3 a");
    await page.waitForSelector("#document");
  });
  await picture(ada.state, "/rules", "rules-tried", async (page) => {
    await page.selectOption("#kind", "html");
    await page.selectOption("#rule", "min_words");
    await page.fill("#value", "400");
    await page.click('main button:text-is("Try")');
    await page.waitForSelector("#tried");
  });
  await picture(ada.state, "/runs/new", "recipe-previewed", async (page) => {
    await page.fill("#recipe", recipe(240));
    await page.click('main button:text-is("Preview")');
    await page.waitForSelector("#preview", { timeout: 300000 });
  });
  await ada.page.goto(`${site.address}/runs/new`);
  await ada.page.fill("#recipe", recipe(240));
  await ada.page.click('main button:text-is("Start")');
  await ada.page.waitForSelector(".progress strong", { timeout: 120000 });
  const run = new URL(ada.page.url()).pathname;
  await ada.page.waitForFunction(() => Number(document.querySelector(".progress strong")?.textContent) > 40, null, { timeout: 900000 });
  await picture(ada.state, run, "run-training", (page) => page.waitForTimeout(1500));
  await ada.page.waitForSelector("#edge", { timeout: 900000 });
  await picture(ada.state, run, "run-done");
  const model = run.replace("/runs/", "/models/");
  for (const [at, name] of [["/", "overview"], ["/sources", "sources"], ["/data", "data"], ["/runs", "runs"], ["/models", "models"], [model, "model"], ["/people", "people"], ["/people/ben", "person"], ["/boundary", "boundary"]]) {
    await picture(ada.state, at, name);
  }
  await picture(ada.state, "/data", "why", async (page) => {
    await page.fill("#path", HOSTILE);
    await page.click('main button:text-is("Why")');
    await page.waitForSelector("text=SHA-256");
  });
  await picture(ada.state, "/data", "dataset", async (page) => {
    await page.click("tbody th a");
    await page.waitForSelector("#named");
  });
  await picture(ada.state, "/playground", "playground", async (page) => {
    await page.fill("#prompt", "To create an index on a table, use");
    await page.click('main button:text-is("Ask both")');
    await page.waitForSelector("text=tokens/s", { timeout: 120000 });
  });
  await picture(ada.state, `${model}/card`, "card");
  await picture(ada.state, model, "sample", async (page) => {
    await page.click('main button:text-is("Show a sample")');
    await page.waitForSelector("text=Held-back record", { timeout: 300000 });
  });
  await picture(ada.state, "/runs/none", "not-here");
  await sweep({ page: ada.page, look: async () => {}, open: (page, at) => page.goto(site.address + at), site });
  await picture(ada.state, new URL(ada.page.url()).pathname, "runs-compared");
  await picture(ada.state, "/sweeps", "sweeps");
  await picture(ada.state, "/sweeps/rates", "sweep");
  await picture(ada.state, "/data", "diff", async (page) => {
    await page.click('main button:text-is("Compare")');
    await page.waitForSelector("h1:has-text(\"From\")");
  });
  await ada.page.goto(site.address + model);
  await ada.page.fill("#folder", path.join(site.folder, "exports/own"));
  await ada.page.fill("#export-password", site.people.ada.password);
  await ada.page.fill("#export-code", await site.code(site.people.ada));
  await ada.page.click('main button:text-is("Ask for it")');
  await ada.page.waitForSelector("text=waits for somebody else", { timeout: 900000 });
  const ben = await signedIn("ben");
  await picture(ben.state, "/approvals", "approvals");
  await picture(ben.state, new URL(ada.page.url()).pathname, "approval");
  await picture(ben.state, "/runs/new", "not-allowed");
  const eve = await signedIn("eve");
  await picture(eve.state, "/ledger", "ledger");
  await picture(eve.state, "/ledger/entry/1", "entry", async (page) => {
    await page.click("button.verify");
    await page.waitForSelector(".checks li:nth-child(3)");
  });
} finally {
  await site.end();
}
if (wide.length > 0) {
  console.error(wide.join("\n"));
  process.exit(1);
}
