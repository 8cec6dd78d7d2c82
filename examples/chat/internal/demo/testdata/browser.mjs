// Three people in a real browser, each on another node, while the node of the first is killed. Started by browser_test.go with
// CHROMIUM, URL (of the proxy), NODES (a number), PLAYWRIGHT (path of playwright-core) and SHOTS (a folder for pictures, or nothing).
// It says {"kill": "node2"} on standard output when a node is to be killed, and goes on when a line comes back.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { strict as assert } from "node:assert";

const { CHROMIUM, URL: base, NODES, PLAYWRIGHT, SHOTS } = process.env;
const { chromium } = createRequire(import.meta.url)(PLAYWRIGHT);
const nodes = Number(NODES);
const replies = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const browser = await chromium.launch({
  executablePath: CHROMIUM, headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

const header = (page) => page.textContent("#where-text");
const nodeOf = async (page) => /you are on (\S+)/.exec(await header(page))?.[1];

// person opens the chat and signs in; the proxy chooses the node.
async function person(name, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("pageerror", (e) => { console.error(`${name}: ${e}`); process.exitCode = 1; });
  await page.goto(base);
  await page.fill("#sign-name", name);
  await page.click("#sign-in");
  await connected(page);
  return page;
}

async function connected(page) {
  await page.waitForFunction(() => /you are on \S+/.test(document.querySelector("#where-text").textContent), null, { timeout: 30000 });
}

// spread reloads pages until each is on another node.
async function spread(pages) {
  for (let i = 0; i < 60; i++) {
    const names = await Promise.all(pages.map(nodeOf));
    const twice = names.findIndex((n, k) => !n || names.indexOf(n) !== k);
    if (twice < 0) return names;
    await pages[twice].reload();
    await connected(pages[twice]);
  }
  throw new Error("three pages never came to three nodes");
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

async function everybodyHas(pages, texts) {
  for (const page of pages) {
    for (const text of texts) await page.locator("#log li", { hasText: text }).first().waitFor({ timeout: 30000 });
    for (const text of texts) assert.equal(await page.locator("#log li", { hasText: text }).count(), 1, `${text} is shown once`);
  }
}

async function shot(page, name) {
  if (SHOTS) await page.screenshot({ path: `${SHOTS}/${name}.png` });
}

try {
  const pages = await Promise.all(["ada", "grace", "linus"].slice(0, nodes).map((n) => person(n)));
  const names = await spread(pages);
  const texts = [];
  for (const [i, page] of pages.entries()) {
    texts.push(`Hello from ${names[i]}.`);
    await say(page, texts.at(-1));
  }
  await everybodyHas(pages, texts);
  console.log(JSON.stringify({ kill: names[0] }));
  await replies.next();
  for (const [i, page] of pages.entries()) { // at once: the first page has no connection yet
    texts.push(`${["ada", "grace", "linus"][i]} goes on after the death of ${names[0]}.`);
    await say(page, texts.at(-1));
  }
  await everybodyHas(pages, texts);
  for (const page of pages) {
    await connected(page);
    assert.match(await header(page), /lost 0 · duplicates 0/);
    assert.notEqual(await nodeOf(page), names[0]);
  }
  await shot(pages[1], "chat-light-1280");

  if (SHOTS) {
    for (const [scheme, width, height] of [["dark", 1280, 720], ["light", 360, 740], ["dark", 360, 740]]) {
      const page = await person("ada", { colorScheme: scheme, viewport: { width, height } });
      await everybodyHas([page], texts.slice(-1));
      await shot(page, `chat-${scheme}-${width}`);
      await page.context().close();
    }
    for (const [scheme, width, height] of [["light", 1280, 900], ["dark", 1280, 900], ["light", 360, 740], ["dark", 360, 740]]) {
      const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height } });
      const page = await context.newPage();
      await page.goto(`${base}/admin/ha/`);
      await page.locator("#nodes article").first().waitFor({ timeout: 30000 });
      await page.waitForTimeout(1500);
      await shot(page, `console-${scheme}-${width}`);
      await context.close();
    }
  }
  console.log(JSON.stringify({ done: true }));
} finally {
  await browser.close();
  process.stdin.destroy(); // or the wait for another line keeps the process
}
