// What is to be known of a batch before its images are looked at.

import { create, formatNumber, formatShare } from "./elements.js";

/**
 * @typedef {object} Group What is known of the images that were compared with each other.
 * @property {string} name
 * @property {number} images
 * @property {number} flagged
 * @property {number} foreign
 * @property {number} unreadable
 * @property {number | null} contamination  estimated share of outliers
 * @property {string | null} reliability  "high" or "low"
 * @property {string[]} warnings
 * @property {number | null} drift  mean squared distance to the population over the expected one
 */

/**
 * Return figures as tiles.
 * @param {[string, string][]} figures  name and value of each
 * @returns {HTMLElement}
 */
export function drawTiles(figures) {
  const tiles = figures.map(([name, value]) => create("div", {}, create("dt", {}, name), create("dd", {}, value)));
  return create("dl", { class: "tiles" }, ...tiles);
}

/**
 * Return warnings as a list; null where there are none.
 * @param {readonly string[]} warnings
 * @returns {HTMLElement | null}
 */
export function drawWarnings(warnings) {
  if (!warnings.length) return null;
  const items = warnings.map((warning) => create("li", {}, warning));
  return create("ul", { class: "warnings", role: "list", "aria-label": "Warnings" }, ...items);
}

/**
 * Return a sentence on the drift of a group, null where it is not known.
 * @param {number | null} drift
 * @returns {string | null}
 */
export function describeDrift(drift) {
  if (drift === null) return null;
  return `${formatNumber(drift)} (1: as the images that the model was trained on)`;
}

const MOST_GROUPS = 500;

/**
 * Return a table with a row for each group, or for those with the most flagged images.
 * @param {readonly Group[]} groups
 * @returns {HTMLElement}
 */
export function drawGroups(groups) {
  const hasDrift = groups.some((group) => group.drift !== null);
  const names = ["group", "images", "flagged", "foreign", "unreadable", "contamination", "reliability"];
  if (hasDrift) names.push("drift");
  const most = [...groups].sort((a, b) => b.flagged - a.flagged).slice(0, MOST_GROUPS);
  const shown = groups.length > most.length ? most : groups;
  const rows = shown.map((group) => {
    const cells = [
      formatNumber(group.images), formatNumber(group.flagged), formatNumber(group.foreign), formatNumber(group.unreadable),
      formatShare(group.contamination), group.reliability ?? "–",
    ];
    if (hasDrift) cells.push(formatNumber(group.drift));
    return create(
      "tr", {}, create("th", { scope: "row" }, group.name || "(none)"), ...cells.map((cell) => create("td", {}, cell)),
    );
  });
  const note = `The ${shown.length} of ${groups.length.toLocaleString("en")} groups with the most flagged images.`;
  return create(
    "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Groups" },
    groups.length > shown.length && create("p", { class: "note" }, note),
    create(
      "table", { class: "groups" },
      create("thead", {}, create("tr", {}, ...names.map((name) => create("th", { scope: "col" }, name)))),
      create("tbody", {}, ...rows),
    ),
  );
}
