// A report: everything that it shows is in its own file.

import { Details, drawBars, drawFacts, drawNearest } from "./details.js";
import { countOf, create, download, find, formatNumber, formatShare } from "./elements.js";
import { drawFilters } from "./filters.js";
import { Gallery } from "./gallery.js";
import { filterItems, sortItems, toCsv } from "./items.js";
import { drawDistancesByRank, drawHistogram } from "./plots.js";
import { describeDrift, drawGroups, drawTiles, drawWarnings } from "./summary.js";

/** @typedef {import("./items.js").Item} Item */
/** @typedef {import("./summary.js").Group} Group */
/** @typedef {Item & {place: number}} ReportItem  `place`: in the columns of the report */

/**
 * @typedef {object} Report What `service.report` writes.
 * @property {string} title
 * @property {[string, string][]} facts  of the model and the options
 * @property {string[]} warnings
 * @property {Group[]} groups
 * @property {Record<string, any[]>} columns  of the images, by name
 * @property {{group: number[], distance: number[], flagged: boolean[], every: number} | null} sample  of all images, where
 *   the columns do not hold all of them
 * @property {number | null} live_latents
 * @property {{side: number, columns: number, per_sheet: number, tiles: Record<string, [number, number]>}} thumbnails
 *   `tiles`: by place of the image, the number of its tile and the ratio of its width to its height
 * @property {Record<string, Pictures>} pictures  by place of the image
 */

/**
 * @typedef {object} Pictures Addresses of pictures.
 * @property {string | null} image
 * @property {{latent: string, image: string}[]} heat_maps
 * @property {{image: string, caption: string} | null} counterfactual
 */

/** @returns {Promise<Report>} */
async function readReport() {
  const bytes = decodeBase64(find("report").textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** @param {string | null} text */
function decodeBase64(text) {
  return Uint8Array.from(atob((text ?? "").trim()), (character) => character.charCodeAt(0));
}

/**
 * @param {Report} report
 * @returns {ReportItem[]}
 */
function readItems(report) {
  const columns = report.columns;
  return columns.id.map((id, place) => ({
    id,
    place,
    group: report.groups[columns.group[place]].name,
    path: columns.path[place],
    rank: columns.rank[place],
    outlier_score: columns.outlier_score[place],
    outlier_probability: columns.outlier_probability[place],
    is_outlier: columns.is_outlier[place],
    is_foreign: columns.is_foreign[place],
    mahalanobis_squared: columns.mahalanobis_squared[place],
    reason: columns.reason[place],
    error: columns.error[place],
    nearest: columns.nearest[place],
    attributions: columns.attributions[place],
    attributions_left_out: columns.attributions_left_out[place],
  }));
}

class Thumbnails {
  /** @param {Report["thumbnails"]} layout */
  constructor(layout) {
    this.layout = layout;
    this.sheets = [...document.querySelectorAll("script.sheet")];
    /** @type {Map<number, string>} */
    this.urls = new Map();
  }

  /** @param {number} sheet */
  #address(sheet) {
    let url = this.urls.get(sheet);
    if (!url) {
      const bytes = decodeBase64(this.sheets[sheet].textContent);
      url = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
      this.urls.set(sheet, url);
    }
    return url;
  }

  /**
   * Return an image's thumbnail. The text beside it names the image: it is hidden from screen readers.
   * @param {ReportItem} item
   * @returns {HTMLElement}
   */
  draw(item) {
    const { columns, per_sheet: perSheet, side, tiles } = this.layout;
    const box = create("span", { class: "picture", "aria-hidden": "true" });
    if (!(item.place in tiles)) {
      box.append(create("span", { class: "none" }, item.error ? "unreadable" : "no picture"));
      return box;
    }
    const [tile, ratio] = tiles[item.place];
    const [sheet, at] = [Math.floor(tile / perSheet), tile % perSheet];
    const rows = perSheet / columns;
    const picture = create("span", { class: side <= 64 ? "tile pixels" : "tile" });
    const style = picture.style;
    style.aspectRatio = String(ratio);
    style[ratio > 1 ? "width" : "height"] = "100%";
    style.backgroundImage = `url("${this.#address(sheet)}")`;
    style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    const [column, row] = [at % columns, Math.floor(at / columns)];
    style.backgroundPosition = `${(100 * column) / Math.max(1, columns - 1)}% ${(100 * row) / Math.max(1, rows - 1)}%`;
    box.append(picture);
    return box;
  }
}

/**
 * Return the pictures of an image beside each other: itself, its heat maps, and what it would look like if it belonged.
 * @param {ReportItem} item
 * @param {Pictures | undefined} pictures
 * @param {Thumbnails} thumbnails
 */
function drawPictures(item, pictures, thumbnails) {
  /** @param {string} source @param {string} caption */
  const figure = (source, caption) =>
    create(
      "figure", {},
      create("div", { class: "picture" }, create("img", { src: source, alt: caption, class: "pixels" })),
      create("figcaption", {}, caption),
    );
  const original = pictures?.image
    ? figure(pictures.image, "the image")
    : create("figure", {}, thumbnails.draw(item), create("figcaption", {}, "the image"));
  const maps = (pictures?.heat_maps ?? []).map((map) => figure(map.image, `heat map of ${map.latent}`));
  const counterfactual = pictures?.counterfactual;
  return create(
    "div", { class: "side-by-side" },
    original, ...maps, counterfactual ? figure(counterfactual.image, counterfactual.caption) : null,
  );
}

/**
 * @param {Report} report
 * @param {readonly ReportItem[]} items
 * @param {string | null} group
 */
function collectDistances(report, items, group) {
  /** @type {import("./plots.js").Distances} */
  const result = { distance: [], flagged: [], every: report.sample?.every ?? 1 };
  if (report.sample) {
    const { distance, flagged, group: groups } = report.sample;
    distance.forEach((value, at) => {
      if (group !== null && report.groups[groups[at]].name !== group) return;
      result.distance.push(value);
      result.flagged.push(flagged[at]);
    });
    return result;
  }
  for (const item of items) {
    if (item.mahalanobis_squared === null || (group !== null && item.group !== group)) continue;
    result.distance.push(Math.sqrt(item.mahalanobis_squared));
    result.flagged.push(item.is_outlier);
  }
  return result;
}

/** @param {Report} report */
function showReport(report) {
  const items = readItems(report);
  const thumbnails = new Thumbnails(report.thumbnails);
  /** @type {Map<string, ReportItem | null>} null where several images have the name */
  const byName = new Map();
  for (const item of items) {
    const name = `${item.group}\n${item.id}`;
    byName.set(name, byName.has(name) ? null : item);
  }
  let shown = sortItems(items);

  const sum = (/** @type {"images" | "flagged" | "foreign" | "unreadable"} */ name) =>
    report.groups.reduce((total, group) => total + group[name], 0);
  const [only] = report.groups.length === 1 ? report.groups : [null];
  /** @type {[string, string][]} */
  const figures = [
    ["Images", formatNumber(sum("images"))], ["Flagged", formatNumber(sum("flagged"))],
    ["Foreign", formatNumber(sum("foreign"))], ["Unreadable", formatNumber(sum("unreadable"))],
  ];
  if (!only) figures.push(["Groups", formatNumber(report.groups.length)]);
  if (only && only.contamination !== null) figures.push(["Estimated share of outliers", formatShare(only.contamination)]);
  if (only?.reliability) figures.push(["Reliability", only.reliability]);
  if (only && only.drift !== null) figures.push(["Drift (1: none)", formatNumber(only.drift)]);
  find("title").textContent = report.title;
  document.title = `${report.title} – misfit`;
  find("summary").append(drawTiles(figures));
  const warnings = drawWarnings(report.warnings);
  if (warnings) find("summary").append(warnings);
  const drift = only && describeDrift(only.drift);
  const facts = drift ? [...report.facts, ["Drift against the population", drift]] : report.facts;
  find("facts").append(...facts.map(([name, value]) => create("div", {}, create("dt", {}, name), create("dd", {}, value))));
  if (!only) find("groups").append(create("h2", {}, "Groups"), drawGroups(report.groups));

  /** @param {Item} item */
  const drawPicture = (item) => thumbnails.draw(/** @type {ReportItem} */ (item));
  const gallery = new Gallery(find("gallery"), drawPicture, (item) => details.open(item));
  /** @param {Item} item */
  const drawSections = (item) => {
    const { place } = /** @type {ReportItem} */ (item);
    return [
      drawPictures(/** @type {ReportItem} */ (item), report.pictures[place], thumbnails),
      drawFacts(item),
      drawBars(item),
      drawNearest(item, ({ id }) => byName.get(`${item.group}\n${id}`) ?? undefined, drawPicture, (other) => details.open(other)),
    ];
  };
  const details = new Details(
    /** @type {HTMLDialogElement} */ (find("details")),
    drawSections,
    (item, step) => shown[shown.indexOf(/** @type {ReportItem} */ (item)) + step],
    (item) => gallery.focus(item),
  );

  /** @param {string | null} group */
  const showPlots = (group) => {
    const distances = collectDistances(report, items, group);
    const plots = find("plots");
    if (!distances.distance.length) plots.replaceChildren(create("p", { class: "note" }, "No image has a distance."));
    else plots.replaceChildren(drawDistancesByRank(distances, report.live_latents), drawHistogram(distances, report.live_latents));
  };
  /** @type {string | null} */
  let plotted = null;
  /** @param {import("./items.js").Filter} filter */
  const showFiltered = (filter) => {
    shown = /** @type {ReportItem[]} */ (sortItems(filterItems(items, filter)));
    gallery.show(shown);
    find("count").textContent = `${countOf(shown.length, "image")} shown`;
    find("nothing").hidden = shown.length > 0;
    if (filter.group !== plotted) showPlots((plotted = filter.group));
  };
  find("filters").append(drawFilters(report.groups.map((group) => group.name), showFiltered));
  find("download").addEventListener("click", () =>
    download("misfit.csv", new Blob([toCsv(shown)], { type: "text/csv;charset=utf-8" })),
  );
  showPlots(null);
  showFiltered({ show: "all", group: null, words: "" });
}

readReport().then(showReport, (error) => {
  find("nothing").hidden = false;
  find("nothing").textContent = `This report cannot be read: ${error.message}`;
});
