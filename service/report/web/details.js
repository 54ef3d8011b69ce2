// One image in a dialog: its facts, its attributions as bars, its nearest images, and what else a page adds.

import { create, formatNumber, formatShare } from "./elements.js";
import { statusOf } from "./items.js";

/** @typedef {import("./items.js").Item} Item */

const MOST_BARS = 24;

export class Details {
  /**
   * @param {HTMLDialogElement} dialog  an empty one
   * @param {(item: Item) => (Node | null)[]} drawSections  what the dialog shows below the image's name
   * @param {(item: Item, step: -1 | 1) => Item | undefined} neighbour  the image before or after it
   * @param {(item: Item) => void} closed  called with the image that was shown last
   */
  constructor(dialog, drawSections, neighbour, closed) {
    this.dialog = dialog;
    this.drawSections = drawSections;
    this.neighbour = neighbour;
    /** @type {Item | null} */
    this.item = null;
    dialog.addEventListener("close", () => {
      const item = this.item;
      this.item = null;
      dialog.replaceChildren();
      if (item) closed(item);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside the box
    });
    dialog.addEventListener("keydown", (event) => {
      if (/** @type {HTMLElement} */ (event.target).closest("input, select, textarea")) return;
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
  }

  /**
   * Show an image, also where the dialog is open.
   * @param {Item} item
   */
  open(item) {
    this.item = item;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  /** Draw the image that is shown again. */
  draw() {
    const item = this.item;
    if (!item) return;
    const status = statusOf(item);
    /** @param {-1 | 1} step @param {string} label @param {string} sign */
    const button = (step, label, sign) =>
      create(
        "button",
        { type: "button", "aria-label": label, disabled: !this.neighbour(item, step), click: () => this.#step(step) },
        sign,
      );
    const close = create("button", { type: "button", "aria-label": "Close", click: () => this.dialog.close() }, "✕");
    this.dialog.setAttribute("aria-labelledby", "details-title");
    this.dialog.replaceChildren(
      create(
        "header", {},
        create("h2", { id: "details-title", tabindex: -1 }, item.id),
        create(
          "div", { class: "buttons" },
          button(-1, "Previous image", "←"), button(1, "Next image", "→"), close,
        ),
      ),
      create(
        "p", { class: "verdict" },
        status ? create("span", { class: `badge ${status}` }, status) : create("span", { class: "badge" }, "fits"),
        ` ${item.error || item.reason}`,
      ),
      ...this.drawSections(item).filter((section) => section !== null),
    );
    if (this.dialog.open) this.dialog.querySelector("h2")?.focus();
  }

  /** @param {-1 | 1} step */
  #step(step) {
    const next = this.item && this.neighbour(this.item, step);
    if (next) this.open(next);
  }
}

/**
 * Return the numbers of an image as a list.
 * @param {Item} item
 * @returns {HTMLElement}
 */
export function drawFacts(item) {
  const facts = /** @type {const} */ ([
    ["Group", item.group],
    ["File", item.path === item.id ? "" : item.path],
    ["Rank", item.rank === null ? "" : formatNumber(item.rank)],
    ["Outlier probability", item.outlier_probability === null ? "" : formatShare(item.outlier_probability)],
    ["Outlier score", item.outlier_score === null ? "" : formatNumber(item.outlier_score)],
    ["Mahalanobis distance", item.mahalanobis_squared === null ? "" : formatNumber(Math.sqrt(item.mahalanobis_squared))],
  ]);
  const known = facts.filter(([, value]) => value);
  return create(
    "dl", { class: "facts-list" },
    ...known.map(([name, value]) => create("div", {}, create("dt", {}, name), create("dd", {}, value))),
  );
}

/**
 * Return the attributions of an image as bars, the largest first; null where it has none.
 * @param {Item} item
 * @returns {HTMLElement | null}
 */
export function drawBars(item) {
  const shares = Object.entries(item.attributions).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  if (!shares.length) return null;
  const largest = Math.max(...shares.map(([, share]) => Math.abs(share))) || 1;
  const lowest = Math.min(0, ...shares.map(([, share]) => share)) / largest; // between -1 and 0
  const highest = Math.max(0, ...shares.map(([, share]) => share)) / largest;
  const width = highest - lowest || 1;
  const rows = shares.slice(0, MOST_BARS).map(([latent, share]) => {
    const size = Math.abs(share) / largest;
    const bar = create("span", { class: share < 0 ? "bar against" : "bar" });
    bar.style.width = `${(100 * size) / width}%`;
    bar.style.marginLeft = `${(100 * ((share < 0 ? -size : 0) - lowest)) / width}%`;
    return create(
      "tr", {},
      create("th", { scope: "row" }, latent),
      create("td", { class: "bar-cell" }, bar),
      create("td", { class: "number" }, formatNumber(share)),
    );
  });
  const left = shares.length - rows.length + (item.attributions_left_out ?? 0);
  return create(
    "section", {},
    create("h3", {}, "Why: share of each latent in the score"),
    create(
      "table", { class: "bars" },
      create(
        "thead", { class: "hidden" },
        create(
          "tr", {}, create("th", { scope: "col" }, "latent"), create("th", { scope: "col" }, "bar"),
          create("th", { scope: "col" }, "share"),
        ),
      ),
      create("tbody", {}, ...rows),
    ),
    left > 0 && create("p", { class: "note" }, `${left} more latents have smaller shares.`),
  );
}

/**
 * Return the nearest images of an image as cards that open them; null where none are known.
 * @param {Item} item
 * @param {(neighbour: {id: string, distance: number, index?: number}) => Item | undefined} lookUp
 * @param {(item: Item) => HTMLElement} drawPicture
 * @param {(item: Item) => void} open
 * @returns {HTMLElement | null}
 */
export function drawNearest(item, lookUp, drawPicture, open) {
  if (!item.nearest.length) return null;
  const cards = item.nearest.map((neighbour) => {
    const other = lookUp(neighbour);
    const text = [
      create("span", { class: "name", title: neighbour.id }, neighbour.id.split("/").pop() || neighbour.id),
      create("span", { class: "facts" }, `distance ${formatNumber(neighbour.distance)}`),
    ];
    if (!other) return create("li", { class: "small card" }, ...text);
    const button = create(
      "button", { type: "button", class: `small card ${statusOf(other)}`, click: () => open(other) },
      drawPicture(other), ...text,
    );
    return create("li", {}, button);
  });
  return create(
    "section", {}, create("h3", {}, "Nearest images"), create("ul", { class: "strip", role: "list" }, ...cards),
  );
}
