// The console in a real browser. Started by browser_test.go with CHROMIUM, URL, PLAYWRIGHT, WANT (JSON: texts that the page must show), CANARY
// (a text that it must not) and SHOTS (a folder for pictures, or nothing). It exits with 0 when all is well.
import { createRequire } from "node:module";
import { strict as assert } from "node:assert";

const { CHROMIUM, URL: base, PLAYWRIGHT, WANT, CANARY, SHOTS } = process.env;
const { chromium } = createRequire(import.meta.url)(PLAYWRIGHT);
const browser = await chromium.launch({
  executablePath: CHROMIUM, headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function open(options = {}) {
  const context = await browser.newContext({ acceptDownloads: true, viewport: { width: 1240, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("pageerror", (e) => { console.error(`page: ${e}`); process.exitCode = 1; });
  page.on("console", (m) => { // violations of the CSP come here too
    if (m.type() === "error" && !/net::ERR_FAILED|net::ERR_ABORTED/.test(m.text())) { console.error(`console: ${m.text()}`); process.exitCode = 1; }
  });
  await page.goto(base);
  await page.locator("#nodes article").first().waitFor({ timeout: 30000 });
  return page;
}

const shot = async (page, name) => { if (SHOTS) await Promise.all([page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true }), page.screenshot({ path: `${SHOTS}/${name}-seen.png` })]); };
const text = (page) => page.evaluate(() => document.body.innerText);
const has = (page, want) => page.waitForFunction((w) => document.body.innerText.includes(w), want, { timeout: 30000 }).catch(async () => { throw new Error(`the page does not show ${want}:\n${await text(page)}`); });

const page = await open();
assert.equal(new URL(page.url()).pathname.slice(-1), "/", "the address ends with a slash");
for (const want of JSON.parse(WANT)) await has(page, want);
await has(page, "live, as of");
assert.ok(!(await text(page)).includes(CANARY), "no secret on the page");

// Colour is never the only sign: each lamp has a name and a mark, each finding begins with its level.
const lamps = await page.evaluate(() => [...document.querySelectorAll(".lamp[role=img]")].map((l) => [l.getAttribute("aria-label"), getComputedStyle(l, "::before").content]));
const marks = { green: '"✓"', amber: '"!"', red: '"✕"' };
for (const [level, mark] of lamps) assert.equal(mark, marks[level], level);
assert.ok(["green", "amber", "red"].every((l) => lamps.some(([level]) => level === l)), "all three are there");
for (const why of await page.locator(".why").allInnerTexts()) assert.match(why, /^(red|amber): /);
await has(page, "(secret)");
await page.locator("#settings tr.differs").first().waitFor();
await page.locator(".spark").first().waitFor({ timeout: 30000 });
await has(page, "/s");
await shot(page, "light");

// Keyboard alone: skip link, then on to a button; the dialog opens with Enter, and closes with Escape.
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
await page.keyboard.press("Enter");
assert.equal(await page.evaluate(() => location.hash), "#nodes-title");
const focusOn = async (name) => {
  for (let i = 0; i < 80; i++) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement.textContent)) === name) return;
  }
  throw new Error(`no Tab comes to ${name}`);
};
await focusOn("recycle connections on every node");
await page.waitForTimeout(2500); // the page is rendered anew twice
assert.equal(await page.evaluate(() => document.activeElement.textContent), "recycle connections on every node", "focus stays");
await page.keyboard.press("Enter");
await page.locator("dialog[open]").waitFor();
await shot(page, "dialog");
await page.keyboard.press("Escape");
assert.equal(await page.locator("dialog[open]").count(), 0);

await page.getByRole("button", { name: "say" }).first().click();
await page.getByLabel("what to say").fill("hello");
await page.getByRole("button", { name: "Run", exact: true }).click();
await has(page, "say: done");
await page.getByRole("button", { name: "log from DEBUG for 10 minutes" }).click();
await page.getByRole("button", { name: "Run", exact: true }).click();
await has(page, "logs from DEBUG, until");
await has(page, "log level changed");
const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download bundle" }).click()]);
assert.match(download.suggestedFilename(), /^bundle-.*\.zip$/);

// A narrow screen, dark.
const phone = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark", isMobile: true, hasTouch: true });
await phone.locator("#settings tr.differs").first().waitFor({ timeout: 30000 });
const width = await phone.evaluate(() => document.documentElement.scrollWidth);
assert.ok(width <= 360, `the page is ${width} wide on a screen of 360`);
await shot(phone, "phone-dark");
const dark = await open({ colorScheme: "dark" });
await dark.locator("#settings tr.differs").first().waitFor({ timeout: 30000 });
await shot(dark, "dark");

// Where the stream does not get through, polling does.
const context = await browser.newContext();
const polled = await context.newPage();
await polled.route("**/events", (route) => route.abort());
await polled.goto(base);
await has(polled, "polling, as of");
await polled.locator("#nodes article").first().waitFor();

await browser.close();
