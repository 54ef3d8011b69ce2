// A batch of images on the page: scored, shown by rank, compared with what a person says belongs.

import { writeZip } from "./archives.js";
import { Details } from "./details.js";
import { countOf, create, download, find, formatNumber, formatShare } from "./elements.js";
import { sortFiles } from "./files.js";
import { drawFilters } from "./filters.js";
import { Gallery } from "./gallery.js";
import { filterItems, sortItems, toCsv } from "./items.js";
import { drawDistancesByRank, drawHistogram } from "./plots.js";
import { Previews } from "./previews.js";
import { drawRules } from "./rules.js";
import { Scorer } from "./scoring.js";
import { drawSections } from "./sections.js";
import { drawTiles, drawWarnings } from "./summary.js";

/** @typedef {import("./answers.js").Context} Context */
/** @typedef {import("./answers.js").Description} Description */
/** @typedef {import("./answers.js").ScoreAnswer} ScoreAnswer */
/** @typedef {import("./archives.js").Entry} Entry */
/** @typedef {import("./items.js").Item} Item */
/** @typedef {import("./service.js").Service} Service */
/** @typedef {Item & {entry: Entry}} PageItem */

// Of so many images the context is asked for before anybody clicks, so that a click is answered sooner.
const FETCHED_EARLY = 2000;

export class Page {
  /** @param {Service} service @param {Description} description */
  constructor(service, description) {
    this.description = description;
    this.scorer = new Scorer(service, description);
    this.previews = new Previews();
    /** @type {Entry[]} */
    this.images = [];
    /** @type {Entry[]} */
    this.sentReference = []; // of a folder `reference`
    /** @type {Set<Entry> | null} */
    this.reference = null; // what the images are compared with, where a person said what belongs
    /** @type {Context | null} */
    this.sentContext = null;
    /** @type {Promise<Context> | null} */
    this.context = null;
    /** @type {string[]} */
    this.notes = [];
    /** @type {PageItem[]} */
    this.items = [];
    /** @type {PageItem[]} */
    this.shown = [];
    /** @type {ScoreAnswer["context"] | null} */
    this.scored = null;
    /** @type {import("./items.js").Filter} */
    this.filter = { show: "all", group: null, words: "" };
    this.run = new AbortController();
    this.liveLatents = description.latents.filter((latent) => !latent.dead).length;

    this.gallery = new Gallery(
      find("gallery"),
      (item) => this.previews.draw(/** @type {PageItem} */ (item).entry),
      (item) => this.details.open(item),
    );
    this.details = new Details(
      /** @type {HTMLDialogElement} */ (find("details")),
      (item) => drawSections(/** @type {PageItem} */ (item), this.#surroundings(/** @type {PageItem} */ (item))),
      (item, step) => this.shown[this.shown.indexOf(/** @type {PageItem} */ (item)) + step],
      (item) => this.gallery.focus(item),
    );
    this.rule = drawRules(find("rules"), (rule) => {
      this.rule = rule;
      this.show();
    });
    find("filters").append(
      drawFilters([], (filter) => {
        this.filter = filter;
        this.show();
      }),
    );
    find("cancel").addEventListener("click", () => this.run.abort());
    find("export-list").addEventListener("click", () => download("misfit.csv", new Blob([toCsv(this.shown)], { type: "text/csv" })));
    find("export-flagged").addEventListener("click", () => this.#try(() => this.#exportFlagged()));
    find("export-context").addEventListener("click", () => this.#try(() => this.#exportContext()));
  }

  /**
   * Score a person's files.
   * @param {Promise<readonly Entry[]> | readonly Entry[]} files
   */
  async open(files) {
    await this.#try(async () => {
      const choice = await sortFiles(await files);
      if (!choice.images.length && choice.context && this.images.length) {
        this.sentContext = /** @type {Context} */ (choice.context); // a context alone: for the images that are there
        this.reference = null;
        return this.#score();
      }
      if (!choice.images.length) throw new Error(["There is no image among these files.", ...choice.notes].join(" "));
      this.previews.clear();
      this.images = choice.images;
      this.sentReference = choice.reference;
      this.reference = choice.reference.length ? new Set(choice.reference) : null;
      this.sentContext = /** @type {Context | null} */ (choice.context);
      this.notes = choice.notes;
      await this.#score();
    });
  }

  async #score() {
    this.run.abort(); // a run that is still going on
    const run = (this.run = new AbortController());
    const progress = (/** @type {number} */ share, /** @type {string} */ text) => {
      if (run.signal.aborted) return;
      /** @type {HTMLProgressElement} */ (find("progress")).value = share;
      find("doing").textContent = text;
    };
    find("running").hidden = false;
    progress(0, "reading");
    try {
      const signal = run.signal;
      const fitted = this.reference ? await this.scorer.fit([...this.reference], { signal, progress }) : this.sentContext;
      const { answer, context } = await this.scorer.score(this.images, fitted, { signal, progress });
      if (signal.aborted) return;
      this.context = context ? Promise.resolve(context) : null;
      this.#take(answer);
    } finally {
      if (this.run === run) find("running").hidden = true;
    }
  }

  /** @param {ScoreAnswer} answer */
  #take(answer) {
    this.scored = answer.context;
    this.items = answer.items.map((item, at) => ({
      id: item.id, path: item.id, group: "", entry: this.images[at], rank: null, is_outlier: false,
      outlier_score: item.outlier_score, outlier_probability: item.outlier_probability,
      mahalanobis_squared: item.mahalanobis_squared, is_foreign: item.is_foreign ?? false, reason: item.reason ?? "",
      error: item.error ? [item.error.message, item.error.hint].filter(Boolean).join(" ") : "",
      nearest: item.nearest ?? [],
      attributions: Object.fromEntries((item.attributions ?? []).map((each) => [each.latent, each.shapley_odds])),
    }));
    const ranked = this.items.filter((item) => item.outlier_score !== null);
    ranked.sort((a, b) => Number(b.is_foreign) - Number(a.is_foreign) || Number(b.outlier_score) - Number(a.outlier_score));
    ranked.forEach((item, at) => (item.rank = at + 1));
    find("results").hidden = false;
    find("main").classList.add("scored");
    this.show();
    const open = this.details.item;
    if (open) this.details.open(this.items[this.images.indexOf(/** @type {PageItem} */ (open).entry)]);
    else if (!this.context && this.images.length <= FETCHED_EARLY) this.findContext().catch(() => {});
  }

  /** Show the images by the rule and the filter that are set. */
  show() {
    if (!this.scored) return;
    const flags = this.rule(this.items);
    this.items.forEach((item, at) => {
      item.is_outlier = flags[at];
      item.note = this.reference?.has(item.entry) ? "reference" : "";
    });
    this.shown = /** @type {PageItem[]} */ (sortItems(filterItems(this.items, this.filter)));
    const { contamination, reliability, source, warnings } = this.scored;
    const flagged = this.items.filter((item) => item.is_outlier).length;
    const tiles = drawTiles([
      ["Images", formatNumber(this.items.length)], ["Flagged", formatNumber(flagged)],
      ["Foreign", formatNumber(this.items.filter((item) => item.is_foreign).length)],
      ["Unreadable", formatNumber(this.items.filter((item) => item.error).length)],
      [source === "batch" ? "Estimated share of outliers" : "Outliers in the reference", formatShare(contamination)], ["Reliability", reliability],
    ]);
    find("summary").replaceChildren(tiles, drawWarnings([...this.notes, ...warnings]) ?? "");
    this.gallery.show(this.shown);
    find("count").textContent = `${countOf(this.shown.length, "image")} shown`;
    find("nothing").hidden = this.shown.length > 0;
    this.#showReference();
    const scored = this.items.filter((item) => item.mahalanobis_squared !== null);
    const distances = {
      distance: scored.map((item) => Math.sqrt(Number(item.mahalanobis_squared))),
      flagged: scored.map((item) => item.is_outlier), every: 1,
    };
    find("plots").replaceChildren(drawDistancesByRank(distances, this.liveLatents), drawHistogram(distances, this.liveLatents));
  }

  #showReference() {
    const bar = find("reference");
    bar.hidden = !this.reference && !this.sentContext;
    const what = this.reference ? `${countOf(this.reference.size, "image")} that belong` : "the context that came along";
    const reset = create(
      "button",
      {
        type: "button",
        click: () => {
          this.reference = this.sentContext = null;
          this.#try(() => this.#score());
        },
      },
      "Compare with the batch itself",
    );
    bar.replaceChildren(create("span", {}, `The images are compared with ${what}.`), reset);
  }

  /**
   * Return the context that the images are compared with.
   * @returns {Promise<Context>}
   */
  findContext() {
    if (this.context) return this.context;
    const context = this.scorer.fit(this.images, { signal: this.run.signal, progress: () => {} });
    context.catch(() => {
      if (this.context === context) this.context = null; // the next one who asks tries again
    });
    return (this.context = context);
  }

  /** @param {PageItem} item */
  #surroundings(item) {
    return {
      scorer: this.scorer, description: this.description, previews: this.previews, items: this.items,
      findContext: () => this.findContext(),
      belongs: this.reference ? this.reference.has(item.entry) : null,
      mark: (/** @type {PageItem} */ marked, /** @type {boolean} */ belongs) => this.#mark(marked, belongs),
      open: (/** @type {Item} */ other) => this.details.open(other),
    };
  }

  /** @param {PageItem} item @param {boolean} belongs */
  #mark(item, belongs) {
    // The first mark corrects what was flagged: the images that were not are known to belong.
    this.reference ??= new Set(this.items.filter((each) => !each.error && !each.is_outlier).map((each) => each.entry));
    if (belongs) this.reference.add(item.entry);
    else this.reference.delete(item.entry);
    this.#try(() => this.#score());
  }

  async #exportFlagged() {
    const flagged = this.items.filter((item) => item.is_outlier);
    if (!flagged.length) throw new Error("No image is flagged.");
    const names = new Map();
    const files = [];
    for (const { id, entry } of flagged) {
      const times = (names.get(id) ?? 0) + 1;
      names.set(id, times);
      files.push({ name: times > 1 ? `${times}_${id}` : id, content: await entry.read() });
    }
    download("flagged.zip", await writeZip(files));
  }

  async #exportContext() {
    const context = await this.findContext();
    download("context.json", new Blob([JSON.stringify(context)], { type: "application/json" }));
  }

  /** @param {() => Promise<void>} work */
  async #try(work) {
    find("problem").hidden = true;
    try {
      await work();
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name === "AbortError") return;
      find("problem").textContent = message;
      find("problem").hidden = false;
    }
  }
}
