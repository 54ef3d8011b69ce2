// The controls above a gallery: which images to show, and words to look for.

import { create } from "./elements.js";

/** @typedef {import("./items.js").Filter} Filter */
/** @typedef {import("./items.js").Show} Show */

/** @type {[Show, string][]} */
const CHOICES = [["all", "All"], ["flagged", "Flagged"], ["unflagged", "Not flagged"], ["foreign", "Foreign"], ["unreadable", "Unreadable"]];

const MOST_GROUPS = 1000; // of more, the search finds one

/**
 * Return the controls, which call `changed` with the filter that they say.
 * @param {readonly string[]} groups  names; a choice of groups is there where there are several
 * @param {(filter: Filter) => void} changed
 * @returns {HTMLElement}
 */
export function drawFilters(groups, changed) {
  /** @type {Filter} */
  const filter = { show: "all", group: null, words: "" };
  const choices = CHOICES.map(([show, label], at) =>
    create(
      "label", {},
      create("input", {
        type: "radio", name: "show", value: show, checked: at === 0,
        change: () => {
          filter.show = show;
          changed({ ...filter });
        },
      }),
      create("span", {}, label),
    ),
  );
  const words = create("input", {
    type: "search", placeholder: "id, path or reason", autocomplete: "off", spellcheck: "false",
    input: () => {
      filter.words = words.value;
      changed({ ...filter });
    },
  });
  const group = create(
    "select",
    {
      change: () => {
        filter.group = group.selectedIndex === 0 ? null : groups[group.selectedIndex - 1];
        changed({ ...filter });
      },
    },
    create("option", {}, "all groups"),
    ...groups.map((name) => create("option", {}, name || "(none)")),
  );
  return create(
    "form", { class: "filters", submit: (/** @type {Event} */ event) => event.preventDefault() },
    create("fieldset", { class: "choices" }, create("legend", { class: "hidden" }, "Show"), ...choices),
    groups.length > 1 && groups.length <= MOST_GROUPS && create("label", {}, "Group ", group),
    create("label", {}, "Search ", words),
  );
}
