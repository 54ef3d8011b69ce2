// Pictures of the files that were chosen, as the browser shows them.

import { create } from "./elements.js";

/** @typedef {import("./archives.js").Entry} Entry */

export class Previews {
  constructor() {
    /** @type {Map<Entry, Promise<string>>} */
    this.urls = new Map();
  }

  /**
   * Return the address of a file's content.
   * @param {Entry} entry
   * @returns {Promise<string>}
   */
  address(entry) {
    let url = this.urls.get(entry);
    if (!url) {
      url = entry.read().then((content) => URL.createObjectURL(content));
      this.urls.set(entry, url);
    }
    return url;
  }

  /**
   * Return a picture of a file. Of a format that the browser does not know, a text stands in its place.
   * @param {Entry} entry
   * @param {string} text  alternative text; "" where a text beside the picture names it
   * @returns {HTMLElement}
   */
  draw(entry, text = "") {
    const image = create("img", { alt: text, decoding: "async" });
    const box = create("span", { class: "picture" }, image);
    const showNone = () => box.replaceChildren(create("span", { class: "none" }, "no preview in this browser"));
    image.addEventListener("error", showNone);
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 96));
    this.address(entry).then((url) => (image.src = url), showNone);
    return box;
  }

  /** Give up all pictures. */
  clear() {
    for (const url of this.urls.values()) url.then(URL.revokeObjectURL, () => {});
    this.urls.clear();
  }
}
