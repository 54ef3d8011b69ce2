// Sliders that move the latents of an image, the picture that the model draws of them, and how far off they are.

import { create, formatNumber } from "./elements.js";
import { makeDistance } from "./distance.js";

/** @typedef {import("./answers.js").Context} Context */
/** @typedef {import("./answers.js").Description} Description */
/** @typedef {import("./service.js").Service} Service */

const MOST_SLIDERS = 24;
const USUAL_REACH = 3; // the latents of a model's own images lie within some 3 of 0
const SPREADS = 4; // standard deviations of the context on each side

/**
 * Return the sliders of an image.
 * @param {Service} service
 * @param {Description} description
 * @param {Context} context
 * @param {readonly number[]} mean  the image's latents
 * @returns {HTMLElement}
 */
export function drawSliders(service, description, context, mean) {
  const live = description.latents.filter((latent) => !latent.dead);
  const distance = makeDistance(context, live.map((latent) => latent.index));
  const picture = create("img", { alt: "the picture that the model draws of these latents", class: "pixels" });
  const verdict = create("p", { role: "status", class: "note" });
  let values = [...mean];
  let isDrawing = false;
  let isOutdated = false;

  const draw = async () => {
    const squared = distance(values);
    const side = squared <= context.radius_squared ? "within" : "beyond";
    verdict.textContent =
      `Distance ${formatNumber(Math.sqrt(squared))}: ${side} the ${formatNumber(Math.sqrt(context.radius_squared))} ` +
      "that hold 99% of the images that belong.";
    isOutdated = true;
    if (isDrawing) return; // one call at a time: the newest values follow
    isDrawing = true;
    try {
      while (isOutdated) {
        isOutdated = false;
        const answer = await service.call("decode", { body: { latents: [values] } });
        picture.src = `data:image/png;base64,${answer.pictures[0].image}`;
      }
    } catch (error) {
      verdict.textContent = /** @type {Error} */ (error).message;
    } finally {
      isDrawing = false;
    }
  };

  const sliders = live.slice(0, MOST_SLIDERS).map(({ index, name }) => {
    const centre = context.location[index];
    const reach = Math.max(SPREADS * Math.sqrt(context.covariance[index][index]), 1.2 * Math.abs(mean[index] - centre));
    const low = Math.min(-USUAL_REACH, centre - reach);
    const high = Math.max(USUAL_REACH, centre + reach);
    const shown = create("output", {}, formatNumber(mean[index]));
    const slider = create("input", {
      type: "range", min: low, max: high, step: (high - low) / 200,
      input: () => {
        values = values.with(index, Number(slider.value));
        shown.textContent = formatNumber(values[index]);
        draw();
      },
    });
    slider.value = String(mean[index]);
    const reset = () => {
      slider.value = String(mean[index]);
      shown.textContent = formatNumber(mean[index]);
    };
    return { row: create("label", { class: "slider" }, create("span", {}, name), slider, shown), reset };
  });
  const reset = create(
    "button",
    {
      type: "button",
      click: () => {
        values = [...mean];
        for (const slider of sliders) slider.reset();
        draw();
      },
    },
    "Back to the image",
  );
  const left = live.length - sliders.length;
  draw();
  return create(
    "div", { class: "sliders" },
    create(
      "div", {}, ...sliders.map((slider) => slider.row),
      left > 0 && create("p", { class: "note" }, `${left} more latents have no slider.`), create("div", { class: "buttons" }, reset),
    ),
    create("div", {}, create("div", { class: "picture" }, picture), verdict),
  );
}
