// Reports in a real browser, opened from disk: REPORTS is a folder with those that tests/tools/pages.py made.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { DARK, PHONE, checkAccessible, checkWidth, keepPicture, launch, openPage } from "./chromium.mjs";

const address = (name) => `file://${process.env.REPORTS}/${name}.html`;
let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

for (const [name, options] of Object.entries({ light: {}, dark: DARK, phone: PHONE }))
  test(`the sample batch is shown and can be used by all: ${name}`, async () => {
    const { page, problems, close } = await openPage(browser, address("sample"), options);
    await page.waitForSelector(".card");
    await checkAccessible(page);
    await checkWidth(page);
    await keepPicture(page, `report-${name}`);
    assert.equal(await page.locator(".tiles dd").nth(1).textContent(), "4");
    await page.check("input[value=flagged]");
    await page.locator(".gallery").scrollIntoViewIfNeeded();
    await page.evaluate("scrollBy(0, 400)");
    await page.waitForFunction(() => document.querySelectorAll(".card").length === 4);
    assert.deepEqual((await page.locator(".card .name").allTextContents()).sort(), ["14.png", "35.png", "49.png", "58.png"]);
    await page.locator(".card").first().click();
    assert.deepEqual(await page.locator("dialog .side-by-side figcaption").allTextContents(), [
      "the image", "heat map of wall hue", "heat map of object hue",
      "as it would look if it belonged: object hue, wall hue, shape changed",
    ]);
    assert.equal(await page.locator("dialog .bars tbody tr").count(), 6);
    await checkAccessible(page);
    await checkWidth(page);
    await keepPicture(page, `report-${name}-details`);
    assert.deepEqual(problems, []);
    await close();
  });

test("filters, search and details are reached by keys alone", async () => {
  const { page, problems, close } = await openPage(browser, address("sample"));
  await page.waitForSelector(".card");
  const count = () => page.locator("#count").textContent();
  await page.locator("input[type=radio]").first().focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await count(), "4 images shown");
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Tab");
  await page.keyboard.type("35.P");
  assert.equal(await count(), "1 image shown");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("no such image");
  assert.ok(await page.locator("#nothing").isVisible());
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Delete");
  await page.keyboard.press("Tab"); // the button of the list
  await page.keyboard.press("Tab");
  await page.keyboard.press("End");
  const focused = () => page.evaluate("document.activeElement.querySelector('.facts')?.textContent");
  assert.match(await focused(), /^rank 60/);
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  assert.match(await focused(), /^rank 2/);
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("dialog h2").textContent(), "49.png");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.locator("dialog h2").textContent(), "35.png");
  await page.locator("dialog .strip button").first().press("Enter");
  assert.notEqual(await page.locator("dialog h2").textContent(), "35.png");
  await page.keyboard.press("Escape");
  assert.ok(await focused());
  assert.deepEqual(problems, []);
  await close();
});

test("the list that is shown is downloaded", async () => {
  const { page, close } = await openPage(browser, address("large"));
  await page.waitForSelector(".card");
  await page.check("input[value=unreadable]");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  const lines = (await readFile(await download.path(), "utf8")).split("\r\n");
  assert.equal(download.suggestedFilename(), "misfit.csv");
  assert.equal(lines[0], "group,id,path,rank,outlier_score,outlier_probability,is_outlier,is_foreign,mahalanobis_squared,reason,error");
  assert.equal(lines.length - 2, Number((await page.locator("#count").textContent()).split(" ")[0]));
  assert.match(lines[1], /The file is no image/);
  await close();
});

test("ten thousand images scroll, and only those on the screen are in the document", async () => {
  const { page, problems, close } = await openPage(browser, address("large"));
  await page.waitForSelector(".card");
  assert.match(await page.locator("#count").textContent(), /^10,000 images/);
  assert.equal(await page.locator("table.groups tbody tr").count(), 3);
  for (const share of [0.3, 0.9, 1]) {
    await page.evaluate(`scrollTo(0, document.body.scrollHeight * ${share})`);
    await page.waitForFunction(() => document.querySelectorAll('.gallery li').length > 2);
    assert.ok((await page.locator(".gallery li").count()) < 80);
  }
  await page.selectOption("select", { index: 2 });
  assert.ok(Number((await page.locator("#count").textContent()).replace(/\D/g, "")) < 5000);
  assert.deepEqual(problems, []);
  await close();
});

test("what files are called is text, wherever it is shown", async () => {
  const { page, problems, close } = await openPage(browser, address("hostile"));
  await page.waitForSelector(".card");
  for (let at = 0; at < 3; at++) {
    await page.locator(".card:not(.small)").nth(at).click();
    await page.keyboard.press("Escape");
  }
  assert.equal(await page.evaluate("window.hacked"), undefined);
  assert.equal(await page.locator("img[src=x], script[src]").count(), 0);
  assert.match(await page.locator(".gallery").textContent(), /<img src=x onerror/);
  assert.deepEqual(problems, []);
  await close();
});
