// Chromium for tests: Debian's, without a network of its own. CHROMIUM names another one.

import axe from "axe-core";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 };
export const DARK = { colorScheme: "dark" };

/** Return a browser. */
export function launch() {
  return chromium.launch({ executablePath: EXECUTABLE, args: FLAGS });
}

/**
 * Return a page of a new context. `problems` gathers errors of scripts, messages on the console, and what the page asks
 * of other hosts than its own.
 */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (!["data:", "blob:"].includes(asked.protocol) && asked.origin !== new URL(url).origin) problems.push(request.url());
  });
  await page.goto(url);
  return { page, problems, close: () => context.close() };
}

/** Fail where axe finds what people with a screen reader or weak eyes cannot use. */
export async function checkAccessible(page) {
  const { violations } = await page.evaluate(`${axe.source}; axe.run()`);
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html.slice(0, 200))]), []);
}

/** Fail where the page is wider than the screen. */
export async function checkWidth(page) {
  assert.ok((await page.evaluate("document.documentElement.scrollWidth - innerWidth")) <= 0);
}

/** Keep a picture of the page where SHOTS names a folder. */
export async function keepPicture(page, name) {
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}.png` });
}
