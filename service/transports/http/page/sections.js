// What the page shows of one image beyond its scores: heat maps, the counterfactual, marks, sliders.

import { drawBars, drawFacts, drawNearest } from "./details.js";
import { create } from "./elements.js";
import { drawSliders } from "./latents.js";

/** @typedef {import("./answers.js").Context} Context */
/** @typedef {import("./answers.js").Description} Description */
/** @typedef {import("./answers.js").Picture} Picture */
/** @typedef {import("./page.js").PageItem} PageItem */
/** @typedef {import("./items.js").Item} Item */
/** @typedef {import("./previews.js").Previews} Previews */
/** @typedef {import("./scoring.js").Scorer} Scorer */

const HEAT_MAPS = 2;

/**
 * @typedef {object} Surroundings
 * @property {Scorer} scorer
 * @property {Description} description
 * @property {Previews} previews
 * @property {readonly PageItem[]} items
 * @property {() => Promise<Context>} findContext
 * @property {boolean | null} belongs  whether the image is in the reference set; null where there is none
 * @property {(item: PageItem, belongs: boolean) => void} mark
 * @property {(item: Item) => void} open
 */

/**
 * Return the sections of an image. What the service has to be asked for fills its place when the answer is there.
 * @param {PageItem} item
 * @param {Surroundings} page
 * @returns {(Node | null)[]}
 */
export function drawSections(item, page) {
  const pictures = create("div", { class: "side-by-side" }, figure(page.previews.draw(item.entry, item.id), "the image"));
  if (item.error) return [pictures];
  const sliders = create("section", {});
  fillPictures(item, page, pictures);
  const canDraw = page.description.capabilities.can_decode;
  const exemplar = canDraw ? undefined : findExemplar(item, page.items);
  if (exemplar) pictures.append(figure(page.previews.draw(exemplar.entry, exemplar.id), `an image that fits: ${exemplar.id}`));
  if (canDraw) fillSliders(item, page, sliders);
  const neighbour = (/** @type {{index?: number}} */ each) => (each.index === undefined ? undefined : page.items[each.index]);
  return [
    pictures,
    drawMarks(item, page),
    drawFacts(item),
    drawBars(item),
    drawNearest(item, neighbour, (other) => page.previews.draw(/** @type {PageItem} */ (other).entry), page.open),
    sliders,
  ];
}

/**
 * Return what a model that cannot draw has in place of a counterfactual: the nearest image that fits, or else the one
 * that fits best.
 * @param {PageItem} item
 * @param {readonly PageItem[]} items
 */
function findExemplar(item, items) {
  const near = item.nearest.map(({ index }) => items[index ?? -1]);
  const others = items.filter((other) => other !== item && other.rank !== null).sort((a, b) => Number(b.rank) - Number(a.rank));
  return [...near, ...others].find((other) => other && !other.is_outlier && !other.error);
}

/** @param {Node} picture @param {string} caption */
function figure(picture, caption) {
  return create("figure", {}, picture, create("figcaption", {}, caption));
}

/** @param {string} base64 @param {string} caption */
function drawn(base64, caption) {
  const image = create("img", { src: `data:image/png;base64,${base64}`, alt: caption, class: "pixels" });
  return figure(create("div", { class: "picture" }, image), caption);
}

/**
 * @param {PageItem} item
 * @param {Surroundings} page
 * @param {HTMLElement} pictures
 */
async function fillPictures(item, page, pictures) {
  const { can_decode: canDraw, has_saliency: hasMaps } = page.description.capabilities;
  if (!canDraw && !hasMaps) return;
  const wait = create("p", { class: "wait", role: "status" }, "drawing …");
  pictures.append(wait);
  try {
    const context = await page.findContext();
    const [explained, edited] = await Promise.all([
      hasMaps ? page.scorer.ask("explain", item.entry, context, { heat_maps: "all", top: HEAT_MAPS }) : null,
      canDraw ? page.scorer.ask("edit", item.entry, context, { which: "all" }) : null,
    ]);
    wait.remove();
    for (const map of (explained?.items[0].heat_maps ?? []).slice(0, HEAT_MAPS)) pictures.append(drawn(map.image, `heat map of ${map.latent}`));
    for (const picture of edited?.pictures ?? []) if (picture.image) pictures.append(drawn(picture.image, describeEdit(picture)));
  } catch (error) {
    wait.textContent = /** @type {Error} */ (error).message;
  }
}

/** @param {Picture} picture */
function describeEdit({ changed }) {
  return changed.length ? `as it would look if it belonged: ${changed.join(", ")} changed` : "as the model draws it: nothing to change";
}

/** @param {PageItem} item @param {Surroundings} page */
function drawMarks(item, page) {
  /** @param {boolean} belongs @param {string} text */
  const button = (belongs, text) =>
    create("button", { type: "button", "aria-pressed": String(page.belongs === belongs), click: () => page.mark(item, belongs) }, text);
  return create("div", { class: "buttons marks" }, button(true, "This one belongs"), button(false, "This one does not"));
}

/**
 * @param {PageItem} item
 * @param {Surroundings} page
 * @param {HTMLElement} section
 */
async function fillSliders(item, page, section) {
  section.append(create("h3", {}, "Move its latents"), create("p", { class: "wait" }, "encoding …"));
  try {
    const [context, encoded] = await Promise.all([page.findContext(), page.scorer.ask("encode", item.entry, null, {})]);
    const { mean } = encoded.items[0];
    section.lastChild?.replaceWith(drawSliders(page.scorer.service, page.description, context, mean));
  } catch (error) {
    /** @type {HTMLElement} */ (section.lastChild).textContent = /** @type {Error} */ (error).message;
  }
}
