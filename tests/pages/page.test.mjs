// The page at / in a real browser. SERVICE and GUARDED are addresses of services. The second wants the token TOKEN, and
// takes 40 images in one request.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { listZip, writeZip } from "../../service/transports/http/page/archives.js";
import { makeDistance } from "../../service/transports/http/page/distance.js";
import { flagByRate, flagByThreshold } from "../../service/transports/http/page/flags.js";
import { Scorer, cut, sample } from "../../service/transports/http/page/scoring.js";
import { ServiceError } from "../../service/transports/http/page/service.js";
import { DARK, PHONE, checkAccessible, checkWidth, keepPicture, launch, openPage } from "./chromium.mjs";

const { SERVICE, GUARDED, TOKEN, CASES, BATCH } = process.env;
let browser;
before(async () => (browser = await launch()));
after(() => browser.close());

async function openScored(options, url = SERVICE, files = BATCH) {
  const opened = await openPage(browser, url, options);
  await opened.page.waitForSelector("body[data-ready]");
  await opened.page.setInputFiles("#files", files);
  await opened.page.waitForSelector("#gallery .card");
  return opened;
}

const flagged = async (page) => (await page.locator("#gallery .card.flagged .name").allTextContents()).sort();
const MISFITS = ["14.png", "35.png", "49.png", "58.png"];

for (const [name, options] of Object.entries({ light: {}, dark: DARK, phone: PHONE }))
  test(`the sample batch, from drop to counterfactual: ${name}`, async () => {
    const { page, problems, close } = await openScored(options);
    assert.equal(await page.locator(".tiles dd").nth(1).textContent(), "4");
    await page.locator("#gallery .card").first().click();
    await page.waitForSelector("dialog .side-by-side figure:nth-of-type(4) img");
    assert.match(await page.locator("dialog figcaption").last().textContent(), /object hue, wall hue, shape changed/);
    await page.waitForSelector(".sliders img[src]");
    await checkAccessible(page);
    await checkWidth(page);
    await keepPicture(page, `page-${name}-details`);
    const before = await page.getAttribute(".sliders img", "src");
    await page.locator(".slider input").nth(1).press("Home");
    await page.waitForFunction((old) => document.querySelector(".sliders img").src !== old, before);
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector('dialog[open]'));
    await checkAccessible(page);
    await checkWidth(page);
    await keepPicture(page, `page-${name}`);
    assert.deepEqual(problems, []);
    await close();
  });

test("threshold, rate and filters act without another request", async () => {
  const { page, close } = await openScored();
  await page.waitForLoadState("networkidle");
  let requests = 0;
  page.on("request", (request) => (requests += Number(request.url().startsWith("http"))));
  const [threshold, rate] = [page.locator(".rule input[type=range]").first(), page.locator(".rule input[type=range]").last()];
  await threshold.press("Home");
  assert.ok((await page.locator(".tiles dd").nth(1).textContent()) > 4);
  await rate.press("Home");
  assert.deepEqual(await flagged(page), MISFITS);
  await page.check("input[value=unflagged]");
  assert.equal(await page.locator("#count").textContent(), "56 images shown");
  assert.equal(requests, 0);
  await close();
});

test("what a person says belongs becomes the reference set, and can be taken back", async () => {
  const { page, close } = await openScored();
  await page.locator("#gallery .card").first().click();
  await page.getByText("This one belongs").click();
  await page.waitForSelector("#reference:not([hidden])");
  assert.match(await page.locator("#reference").textContent(), /57 images that belong/);
  assert.match(await page.locator("#gallery .card .badge.note").first().textContent(), /reference/);
  assert.equal(await page.getByText("This one belongs").getAttribute("aria-pressed"), "true");
  await page.getByText("This one does not").click();
  await page.waitForFunction(() => document.getElementById('reference').textContent.includes('56 images'));
  assert.deepEqual(await flagged(page), MISFITS);
  await page.keyboard.press("Escape");
  await page.getByText("Compare with the batch itself").click();
  await page.waitForSelector("#reference", { state: "hidden" });
  await close();
});

test("the list, the flagged images and the context are saved, and the context is taken again", async () => {
  const { page, close } = await openScored();
  const save = async (id) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(id)]);
    return { name: download.suggestedFilename(), path: await download.path() };
  };
  assert.equal((await readFile((await save("#export-list")).path, "utf8")).trim().split("\r\n").length, 61);
  const zip = await listZip(new Blob([await readFile((await save("#export-flagged")).path)]));
  assert.deepEqual(zip.map((entry) => entry.name).sort(), MISFITS);
  assert.equal((await (await zip[0].read()).arrayBuffer()).byteLength, zip[0].size);
  const context = await save("#export-context");
  const content = await readFile(context.path);
  assert.equal(JSON.parse(content).size, 60);
  await page.setInputFiles("#files", { name: context.name, mimeType: "application/json", buffer: content });
  await page.waitForSelector("#reference:not([hidden])");
  assert.match(await page.locator("#reference").textContent(), /context that came along/);
  await close();
});

test("errors are told in the service's words, by image or for all", async () => {
  const text = { name: "broken.png", mimeType: "image/png", buffer: Buffer.from("no image") };
  const first = (await listZip(new Blob([await readFile(BATCH)]))).filter((entry) => entry.name.endsWith(".png")).slice(0, 5);
  const files = await Promise.all(
    first.map(async (entry) => ({ name: `<b>${entry.name}`, mimeType: "image/png", buffer: Buffer.from(await (await entry.read()).arrayBuffer()) })),
  );
  const { page, close } = await openScored({}, SERVICE, [...files, text]);
  assert.equal(await page.locator(".card.unreadable .name").textContent(), "broken.png");
  assert.equal(await page.locator("#gallery b").count(), 0);
  await page.setInputFiles("#files", { name: "broken.zip", mimeType: "application/zip", buffer: Buffer.from("PK no zip") });
  await page.waitForSelector("#problem:not([hidden])");
  assert.match(await page.locator("#problem").textContent(), /zip is not complete/);
  await page.setInputFiles("#files", text);
  await page.waitForFunction(() => document.getElementById('problem').textContent.includes('image'));
  await close();
});

test("two thousand images are shown, and a run is cancelled", async () => {
  const files = (await listZip(new Blob([await readFile(BATCH)]))).filter((entry) => entry.name.endsWith(".png"));
  const copies = [];
  for (let copy = 0; copies.length < 2000; copy++)
    for (const entry of files) copies.push({ name: `${copy}/${entry.name}`, content: await entry.read() });
  const zip = { name: "many.zip", mimeType: "application/zip", buffer: Buffer.from(await (await writeZip(copies.slice(0, 2000))).arrayBuffer()) };
  const { page, problems, close } = await openScored({}, SERVICE, zip);
  assert.equal(await page.locator("#count").textContent(), "2,000 images shown");
  assert.ok((await page.locator("#gallery li").count()) < 80);
  await page.setInputFiles("#files", zip);
  await page.click("#cancel");
  await page.waitForSelector("#running", { state: "hidden" });
  assert.ok(await page.locator("#problem").isHidden());
  assert.deepEqual(problems, []);
  await close();
});

test("where tokens are on, the page asks for one", async () => {
  const { page, close } = await openPage(browser, GUARDED);
  for (const token of ["wrong", TOKEN]) {
    await page.waitForSelector("#token[open]");
    await checkAccessible(page);
    await page.fill("#token-text", token);
    await page.keyboard.press("Enter");
  }
  await page.waitForSelector("body[data-ready]");
  await page.setInputFiles("#files", BATCH); // 60 images: in pieces
  await page.waitForSelector("#gallery .card");
  assert.match(await page.locator(".warnings").textContent(), /came in 2 pieces, each compared with the same context/);
  assert.deepEqual(await flagged(page), MISFITS);
  assert.match(await page.locator("#gallery .facts").nth(4).textContent(), /^rank 5/);
  await close();
});

test("a folder that is dropped is read with its folders, and its reference set is known", async () => {
  const { page, close } = await openPage(browser, SERVICE);
  await page.waitForSelector("body[data-ready]");
  const folder = await mkdtemp(`${tmpdir()}/misfit-`);
  const entries = (await listZip(new Blob([await readFile(BATCH)]))).filter((entry) => entry.name.endsWith(".png"));
  for (const entry of entries) {
    const place = MISFITS.includes(entry.name) ? "new/deep" : Number(entry.name.slice(0, 2)) < 40 ? "reference" : "new";
    await mkdir(`${folder}/${place}`, { recursive: true });
    await writeFile(`${folder}/${place}/${entry.name}`, Buffer.from(await (await entry.read()).arrayBuffer()));
  }
  await writeFile(`${folder}/notes.txt`, "no image");
  const devtools = await page.context().newCDPSession(page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await devtools.send("Input.dispatchDragEvent", { type, x: 300, y: 200, data });
  await page.waitForSelector("#gallery .card");
  await rm(folder, { recursive: true });
  assert.match(await page.locator("#reference").textContent(), /38 images that belong/);
  assert.match(await page.locator(".warnings").textContent(), /no image by its name: .*notes.txt/);
  assert.equal(await page.locator("#count").textContent(), "22 images shown");
  assert.deepEqual(await flagged(page), MISFITS);
  await close();
});

test("flags are those of the service", async () => {
  for (const { items, threshold, by_threshold: byThreshold, rate, by_rate: byRate } of JSON.parse(await readFile(CASES, "utf8"))) {
    assert.deepEqual(flagByThreshold(items, threshold), byThreshold);
    assert.deepEqual(flagByRate(items, rate), byRate);
  }
});

test("a distance is that of the inverse covariance", () => {
  const covariance = [[2, 0, 1], [0, 9, 0], [1, 0, 1]];
  const distance = makeDistance({ location: [1, 5, 0], covariance }, [0, 2]);
  // The inverse of [[2, 1], [1, 1]] is [[1, -1], [-1, 2]].
  assert.ok(Math.abs(distance([2, 99, 3]) - (1 - 2 * 3 + 2 * 9)) < 1e-9);
});

test("where a body is too much for the service, smaller ones are sent", async () => {
  const images = Array.from({ length: 8 }, (_, at) => ({ name: `${at}`, size: 2 ** 20, read: async () => new Blob(["."]) }));
  const context = { source: "reference", warnings: [] };
  const asked = [];
  const service = {
    async call(endpoint, { body }) {
      const names = body.getAll("images").map((file) => file.name);
      asked.push([endpoint, names.length]);
      if (names.length > 2) throw new ServiceError(408, "too slow");
      return endpoint === "fit" ? { context: {} } : { context, items: names.map((id, index) => ({ id, index })) };
    },
  };
  const limits = { max_images: 100, max_body_bytes: 10 * 2 ** 20 };
  const run = { signal: new AbortController().signal, progress: () => {} };
  const { answer } = await new Scorer(service, { limits, latents: [] }).score(images, null, run);
  assert.deepEqual(asked, [["score", 8], ["fit", 2], ["score", 2], ["score", 2], ["score", 2], ["score", 2]]);
  assert.deepEqual(answer.items.map((item) => item.index), [0, 1, 2, 3, 4, 5, 6, 7]);
});

test("a batch is cut into what one request holds, and a sample is one of them", () => {
  const images = Array.from({ length: 25 }, (_, at) => ({ name: `${at}`, size: at === 3 ? 50 : 10 }));
  const pieces = cut(images, 10, 60);
  assert.deepEqual(pieces.flat(), images);
  assert.ok(pieces.every((piece) => piece.length <= 10 && piece.reduce((sum, image) => sum + image.size, 0) <= 60));
  const chosen = sample(images, 10, 1000);
  assert.equal(new Set(chosen).size, 10);
  assert.notDeepEqual(chosen, images.slice(0, 10));
  assert.deepEqual(sample(images, 10, 1000), chosen);
});
