// Swagger UI at /docs in a real browser: two images are sent from it, and it shows the sheet of scores. SERVICE is the
// address of a service, and BATCH a zip of images.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { listZip } from "../../service/transports/http/page/archives.js";
import { keepPicture, launch, openPage } from "./chromium.mjs";

const { SERVICE, BATCH } = process.env;
let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

async function readTwoImages() {
  const entries = (await listZip(new Blob([await readFile(BATCH)]))).filter(({ name }) => name.endsWith(".png"));
  return Promise.all(
    entries.slice(0, 2).map(async (entry) => {
      const content = await (await entry.read()).arrayBuffer();
      return { name: entry.name, mimeType: "image/png", buffer: Buffer.from(content) };
    }),
  );
}

test("two images are uploaded, and the sheet is shown", async () => {
  const { page, problems, close } = await openPage(browser, `${SERVICE}docs`);
  const score = page.locator(".opblock", { has: page.locator('[data-path="/score"]') });
  await score.locator(".opblock-summary-control").click();
  await score.getByRole("button", { name: "Try it out" }).click();
  const form = score.locator(".opblock-section-request-body");
  await form.locator("select").first().selectOption("multipart/form-data");
  const images = form.locator("tr", { has: page.locator(".parameter__name", { hasText: /^images/ }) });
  for (const [place, image] of (await readTwoImages()).entries()) {
    await images.getByRole("button", { name: /Add .*item/ }).click();
    await images.locator("input[type=file]").nth(place).setInputFiles(image);
  }
  await score.locator(".responses-wrapper select").first().selectOption("image/png");
  await score.getByRole("button", { name: "Execute" }).click();
  const sheet = score.locator(".live-responses-table img");
  await sheet.waitFor();
  await page.waitForFunction((image) => image.naturalWidth > 0, await sheet.elementHandle());
  assert.match(await score.locator(".live-responses-table td.response-col_status").last().textContent(), /200/);
  await sheet.scrollIntoViewIfNeeded();
  await keepPicture(page, "swagger");
  assert.deepEqual(problems, []);
  await close();
});
