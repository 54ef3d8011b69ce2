// The two rules that flag images, each with a slider: a probability, or a false discovery rate.

import { create, formatShare } from "./elements.js";
import { flagByRate, flagByThreshold } from "./flags.js";

/** @typedef {import("./flags.js").Scored} Scored */
/** @typedef {(items: readonly Scored[]) => boolean[]} Rule */

const THRESHOLD = 0.5; // the service's default
const RATE = 0.1;

/**
 * Fill a form with the rules. It calls `changed` with the rule that a person chose, and begins with the service's own.
 * @param {HTMLElement} form
 * @param {(rule: Rule) => void} changed
 * @returns {Rule} the first rule
 */
export function drawRules(form, changed) {
  const threshold = drawRule("Outlier probability above", THRESHOLD, { min: 0, max: 0.99, step: 0.01 }, true, (value) =>
    changed((items) => flagByThreshold(items, value)),
  );
  const rate = drawRule("False discovery rate", RATE, { min: 0.01, max: 0.5, step: 0.01 }, false, (value) =>
    changed((items) => flagByRate(items, value)),
  );
  form.replaceChildren(create("fieldset", {}, create("legend", {}, "Flag images by"), threshold, rate));
  return (items) => flagByThreshold(items, THRESHOLD);
}

/**
 * @param {string} name
 * @param {number} value
 * @param {{min: number, max: number, step: number}} range
 * @param {boolean} isChosen
 * @param {(value: number) => void} changed
 */
function drawRule(name, value, range, isChosen, changed) {
  const shown = create("output", {}, formatShare(value));
  const choice = create("input", { type: "radio", name: "rule", checked: isChosen, change: () => changed(Number(slider.value)) });
  const slider = create("input", {
    type: "range", ...range, "aria-label": name,
    input: () => {
      choice.checked = true;
      shown.textContent = formatShare(Number(slider.value));
      changed(Number(slider.value));
    },
  });
  slider.value = String(value);
  return create("div", { class: "rule" }, create("label", {}, choice, ` ${name}`), slider, shown);
}
