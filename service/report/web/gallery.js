// A gallery of any number of images: only the cards that are on the screen are in the document.

import { create, formatShare } from "./elements.js";
import { statusOf } from "./items.js";

/** @typedef {import("./items.js").Item} Item */

const LEAST_CARD_WIDTH = 10.5; // in rem, as the two below
const CARD_HEIGHT = 16.5;
const GAP = 0.75;
const PRINTED = 200; // cards
const ROWS_BEYOND = 2; // rows above and below the screen that are drawn as well

export class Gallery {
  /**
   * @param {HTMLElement} list  an empty `ul`
   * @param {(item: Item) => HTMLElement} drawPicture
   * @param {(item: Item) => void} open  what a click does
   */
  constructor(list, drawPicture, open) {
    this.list = list;
    this.drawPicture = drawPicture;
    this.open = open;
    /** @type {readonly Item[]} */
    this.items = [];
    /** @type {Map<number, HTMLElement>} */
    this.cards = new Map();
    this.active = 0; // the card that Tab leads to
    this.columns = 1;
    this.isAsked = false;
    const ask = () => this.#askToDraw();
    addEventListener("scroll", ask, { passive: true });
    new ResizeObserver(ask).observe(list);
    list.addEventListener("keydown", (event) => this.#move(event));
    addEventListener("beforeprint", () => this.#drawForPrint());
    addEventListener("afterprint", () => this.show(this.items));
  }

  /**
   * Show these items in place of the former ones.
   * @param {readonly Item[]} items
   */
  show(items) {
    this.items = items;
    this.active = Math.min(this.active, Math.max(0, items.length - 1));
    this.list.replaceChildren();
    this.cards.clear();
    this.#draw();
  }

  /**
   * Move the focus to an item's card.
   * @param {Item} item
   */
  focus(item) {
    const place = this.items.indexOf(item);
    if (place >= 0) this.#focusPlace(place);
  }

  #askToDraw() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      this.#draw();
    });
  }

  #draw() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const box = this.list.getBoundingClientRect();
    const gap = GAP * rem;
    this.columns = Math.max(1, Math.floor((box.width + gap) / (LEAST_CARD_WIDTH * rem + gap)));
    const width = (box.width - gap * (this.columns - 1)) / this.columns;
    const step = CARD_HEIGHT * rem + gap;
    const rows = Math.ceil(this.items.length / this.columns);
    this.list.style.height = `${Math.max(0, rows * step - gap)}px`;

    const firstRow = Math.floor(-box.top / step) - ROWS_BEYOND;
    const lastRow = Math.ceil((innerHeight - box.top) / step) + ROWS_BEYOND;
    const wanted = new Set(this.items.length ? [this.active] : []); // its card keeps the focus, wherever it is
    const last = Math.min(this.items.length, lastRow * this.columns);
    for (let place = Math.max(0, firstRow * this.columns); place < last; place++) wanted.add(place);
    for (const [place, card] of this.cards) {
      if (wanted.has(place)) continue;
      card.remove();
      this.cards.delete(place);
    }
    for (const place of [...wanted].sort((a, b) => a - b)) {
      let card = this.cards.get(place);
      if (!card) {
        card = this.#drawCard(place);
        this.cards.set(place, card);
        const after = [...this.cards.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
        this.list.insertBefore(card, after === undefined ? null : this.cards.get(after) ?? null);
      }
      card.style.width = `${width}px`;
      card.style.height = `${CARD_HEIGHT}rem`;
      card.style.left = `${(place % this.columns) * (width + gap)}px`;
      card.style.top = `${Math.floor(place / this.columns) * step}px`;
    }
  }

  /** Draw the first cards one after the other: on paper nothing scrolls. */
  #drawForPrint() {
    this.list.replaceChildren(...this.items.slice(0, PRINTED).map((_, place) => this.#drawCard(place)));
    this.list.style.height = "auto";
  }

  /** @param {number} place */
  #drawCard(place) {
    const item = this.items[place];
    const status = statusOf(item);
    const rank = item.rank === null ? "" : `rank ${item.rank}`;
    const probability = item.outlier_probability === null ? "" : formatShare(item.outlier_probability);
    const button = create(
      "button",
      {
        type: "button", class: `card ${status}`, tabindex: place === this.active ? 0 : -1,
        click: () => {
          this.#activate(place);
          this.open(item);
        },
      },
      this.drawPicture(item),
      create("span", { class: "name", title: item.id }, item.id.split("/").pop() || item.id),
      create("span", { class: "facts" }, [rank, probability, item.group].filter(Boolean).join(" · ")),
      status && create("span", { class: `badge ${status}` }, status),
      item.note && create("span", { class: "badge note" }, item.note),
      create("span", { class: "reason" }, item.error || item.reason),
    );
    return create("li", { "aria-setsize": this.items.length, "aria-posinset": place + 1 }, button);
  }

  /** @param {number} place */
  #activate(place) {
    this.cards.get(this.active)?.firstElementChild?.setAttribute("tabindex", "-1");
    this.active = place;
    this.cards.get(place)?.firstElementChild?.setAttribute("tabindex", "0");
  }

  /** @param {number} place */
  #focusPlace(place) {
    this.#activate(place);
    this.#draw();
    const card = this.cards.get(place);
    card?.scrollIntoView({ block: "nearest" });
    /** @type {HTMLElement | null | undefined} */ (card?.firstElementChild)?.focus({ preventScroll: true });
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this.items.length - 1;
    const page = this.columns * 3;
    const place = {
      ArrowLeft: this.active - 1, ArrowRight: this.active + 1, ArrowUp: this.active - this.columns,
      ArrowDown: this.active + this.columns, PageUp: this.active - page, PageDown: this.active + page, Home: 0, End: last,
    }[event.key];
    if (place === undefined || last < 0) return;
    event.preventDefault();
    this.#focusPlace(Math.min(last, Math.max(0, place)));
  }
}
