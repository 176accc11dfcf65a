// A site of its own with a real moatd, its people, and browsers that look at it.
import { createRequire } from "node:module";
import { execFileSync, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";

// The packages lie beside no file of the repository, so they are found by NODE_PATH.
const require = createRequire(path.join(process.env.NODE_PATH, "none.js"));
const { chromium } = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

const freePort = () => new Promise((done) => {
  const server = net.createServer();
  server.listen(0, "127.0.0.1", () => { const { port } = server.address(); server.close(() => done(port)); });
});

export const HOSTILE = "<script>document.title='taken'<\u2215script> & \"quoted\".txt";

export class Site {
  static async make() {
    const site = new Site();
    site.folder = process.env.MOAT_SITE;
    site.programs = process.env.MOAT_PROGRAMS;
    site.port = await freePort();
    site.address = `https://localhost:${site.port}`;
    site.people = {};
    for (const name of ["state", "run", "exports", "documents"]) fs.mkdirSync(path.join(site.folder, name));
    for (const name of ["handbook", "wiki"]) fs.mkdirSync(path.join(site.folder, "more", name), { recursive: true });
    site.copyDocuments();
    fs.writeFileSync(path.join(site.folder, "moat.toml"), `
[daemon]
state = "${site.folder}/state"
runtime = "${site.folder}/run"
[admin]
listen = "127.0.0.1:${site.port}"
[boundary]
imports = ["${path.resolve("config/bases")}"]
exports = ["${site.folder}/exports"]
sources = ["${site.folder}/more"]
[review]
sample = 1.0
[[source]]
name = "postgresql"
path = "${site.folder}/documents"
settle_seconds = 0
`);
    return site;
  }

  // Every twelfth page of the documentation, and one that means harm.
  copyDocuments() {
    const from = process.env.MOAT_DOCUMENTS;
    const pages = fs.readdirSync(from).filter((name) => name.endsWith(".html")).sort().filter((_, at) => at % 12 === 0);
    for (const page of pages) fs.copyFileSync(path.join(from, page), path.join(this.folder, "documents", page));
    fs.copyFileSync(path.join(from, pages[2]), path.join(this.folder, "more/handbook", pages[2]));
    const prose = fs.readFileSync(path.join(from, pages[1]), "utf8").replace(/<[^>]*>/g, " ");
    fs.writeFileSync(path.join(this.folder, "documents", HOSTILE), `${prose}\n<script>document.title = "taken"</script>\n`);
  }

  async start() {
    const log = fs.openSync(path.join(this.folder, "moatd.log"), "a");
    const environment = { ...process.env };
    delete environment.CREDENTIALS_DIRECTORY;
    const program = path.join(this.programs, "moatd");
    this.daemon = spawn(program, ["--config", path.join(this.folder, "moat.toml")], { stdio: ["ignore", "ignore", log], env: environment });
    this.ended = new Promise((done) => this.daemon.on("exit", done));
    for (let tries = 0; ; tries += 1) {
      try { this.moat(["status"]); return; } catch (error) { if (tries > 200) throw error; }
      await pause(100);
    }
  }

  async stop(signal) {
    this.daemon.kill(signal);
    await this.ended;
  }

  moat(words, input) {
    const all = ["--socket", path.join(this.folder, "run/control.sock"), "--json", ...words];
    const text = execFileSync(path.join(this.programs, "moat"), all, { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
    return text.trim() ? JSON.parse(text.trim().split("\n").pop()).value : null;
  }

  // Accounts NAME:ROLES:UID, each with a password and a secret for codes.
  setUp(accounts) {
    const passwords = accounts.map(() => "would not be guessed");
    const made = this.moat(["account", "set-up", ...accounts], passwords.map((password) => `${password}\n`).join(""));
    for (const [at, { name, uri }] of made.entries()) {
      this.people[name] = { name, password: passwords[at], secret: /secret=([A-Z2-7]+)/.exec(uri)[1], used: 0 };
    }
  }

  // A code that was not used: those of the steps before and after this one count too.
  async code(person) {
    for (;;) {
      const now = Math.floor(Date.now() / 30000);
      const step = Math.max(now - 1, person.used + 1);
      if (step <= now + 1) {
        person.used = step;
        return execFileSync("oathtool", ["--totp", "--base32", "--now", `@${step * 30}`, person.secret], { encoding: "utf8" }).trim();
      }
      await pause(1000);
    }
  }

  async browse() {
    this.chromium ??= await chromium.launch({ executablePath: process.env.MOAT_CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
    return this.chromium;
  }

  // A browser of its own, with nothing kept from another one.
  async browser(options = {}) {
    const chromium = await this.browse();
    const context = await chromium.newContext({ ignoreHTTPSErrors: true, ...options });
    // A busy machine is slow, and no fault of the page.
    context.setDefaultTimeout(120000);
    const page = await context.newPage();
    page.faults = [];
    page.on("pageerror", (error) => page.faults.push(String(error)));
    page.on("console", (message) => {
      // An answer that says no is told by the page itself.
      if (message.type() === "error" && !/status of (401|403|404|422|429|503)|ERR_CONNECTION|ERR_HTTP2|ERR_EMPTY/.test(message.text())) {
        page.faults.push(message.text());
      }
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(this.address)) page.faults.push(`asked ${request.url()}`);
    });
    return page;
  }

  async signIn(page, name) {
    const person = this.people[name];
    await page.goto(`${this.address}/sign-in`);
    await page.fill("#name", person.name);
    await page.fill("#password", person.password);
    await page.fill("#code", await this.code(person));
    await page.click('main button:text-is("Sign in")');
    await page.waitForSelector("details.person");
  }

  async giveShare(page, share) {
    await page.goto(`${this.address}/unseal`);
    await page.fill("#share", share);
    await page.click('main button:text-is("Give this share")');
    await page.waitForSelector("[role=status], [role=alert]");
  }

  // Gives every part of a page the focus in turn, by the Tab key alone. Says what the first stop is, how many there are,
  // which parts were missed, and which do not show that they have the focus. Parts are known by what they are called, since
  // those that keep themselves up to date are drawn anew meanwhile.
  async byKeyboard(page) {
    await page.evaluate(() => {
      window.called = (part) => [part.tagName, part.getAttribute("href") ?? (part.id || part.name || part.getAttribute("aria-label") || part.textContent)].join(" ");
      document.body.tabIndex = -1;
      document.body.focus();
      document.body.removeAttribute("tabindex");
    });
    const stops = [];
    for (let presses = 0; presses < 500; presses += 1) {
      await page.keyboard.press("Tab");
      const stop = await page.evaluate(() => {
        const held = document.activeElement;
        if (!held || held === document.body) return null;
        const box = held.getBoundingClientRect();
        return { called: window.called(held), shows: box.width > 0 && box.height > 0 && getComputedStyle(held).outlineStyle !== "none" };
      });
      if (stop === null || (presses > 0 && stop.called === stops[0].called)) break;
      stops.push(stop);
    }
    const missed = await page.evaluate((reached) => {
      const wanted = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
      const shown = [...document.querySelectorAll(wanted)].filter((part) => part.checkVisibility());
      return shown.map(window.called).filter((part) => !reached.includes(part));
    }, stops.map(({ called }) => called));
    return { first: stops[0]?.called, stops: stops.length, missed, hidden: stops.filter(({ shows }) => !shows).map(({ called }) => called) };
  }

  async end() {
    await this.chromium?.close();
    if (this.daemon.exitCode === null) await this.stop("SIGTERM");
  }
}

// What axe finds wrong with a page, in both colours.
export const judged = { states: new Set(), runs: 0 };

export async function judge(page, name) {
  const found = [];
  judged.states.add(name);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    // The page's own policy forbids foreign scripts, not what the browser's owner runs.
    await page.evaluate(axe);
    const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const result = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), rules);
    judged.runs += 1;
    for (const violation of result.violations) {
      found.push(`${name} (${colorScheme}): ${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.target.join(" ")).slice(0, 4).join("; ")}`);
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  return found;
}
