// A batch of any number of images scored: in one request where it fits, else in pieces against one context.

import { ServiceError } from "./service.js";

/** @typedef {import("./answers.js").Context} Context */
/** @typedef {import("./answers.js").Description} Description */
/** @typedef {import("./answers.js").ScoreAnswer} ScoreAnswer */
/** @typedef {import("./answers.js").ScoredItem} ScoredItem */
/** @typedef {import("./archives.js").Entry} Entry */
/** @typedef {import("./service.js").Service} Service */

/**
 * @typedef {object} Run
 * @property {AbortSignal} signal
 * @property {(share: number, text: string) => void} progress
 */

const BODY_SHARE = 0.9; // of the largest body: boundaries and names need room
const READ_AT_A_TIME = 64; // files of a zip are unpacked beside each other
const TOO_MUCH = [0, 408, 413]; // 0: the service closed the connection
const SHRINK = 4;
const LEAST_BYTES = 2 ** 20;
const NEAREST = 5;
const MOST_LATENTS = 32; // with more, each item names its top ones only
const TOP = 8;
const SEED = 20_240_229;

export class Scorer {
  /** @param {Service} service @param {Description} description */
  constructor(service, description) {
    this.service = service;
    const { max_images: mostImages, max_body_bytes: mostBytes } = description.limits;
    this.mostImages = mostImages;
    this.mostBytes = mostBytes * BODY_SHARE;
    const live = description.latents.filter((latent) => !latent.dead).length;
    /** @type {Record<string, string | number>} */
    this.attributions = live > MOST_LATENTS ? { attributions: "top", top: TOP } : { attributions: "all" };
  }

  /**
   * Score images against each other, or against a context.
   *
   * Images that are more than one request holds are compared with a context, which is fitted to as many of them, drawn
   * at random, as one request holds. Nearest images are known only where all came in one request.
   * @param {readonly Entry[]} images
   * @param {Context | null} context
   * @param {Run} run
   * @returns {Promise<{answer: ScoreAnswer, context: Context | null}>}
   */
  async score(images, context, run) {
    for (let mostBytes = this.mostBytes; ; mostBytes /= SHRINK) {
      try {
        return await this.#scoreInPieces(images, context, run, mostBytes);
      } catch (error) {
        // On a slow way, a body takes longer than the service waits for it. Smaller ones do not.
        const isTooMuch = error instanceof ServiceError && TOO_MUCH.includes(error.status);
        if (!isTooMuch || mostBytes / SHRINK < LEAST_BYTES) throw error;
      }
    }
  }

  /**
   * @param {readonly Entry[]} images
   * @param {Context | null} context
   * @param {Run} run
   * @param {number} mostBytes  of one request's images
   * @returns {Promise<{answer: ScoreAnswer, context: Context | null}>}
   */
  async #scoreInPieces(images, context, run, mostBytes) {
    const pieces = cut(images, this.mostImages, mostBytes);
    if (pieces.length > 1 && !context) context = await this.fit(sample(images, this.mostImages, mostBytes), run);
    const options = { ...this.attributions, nearest: pieces.length > 1 ? 0 : NEAREST };
    /** @type {ScoredItem[]} */
    const items = [];
    /** @type {ScoreAnswer | null} */
    let last = null;
    const warnings = new Set();
    for (const piece of pieces) {
      const done = items.length / images.length;
      /** @type {Run} */
      const part = {
        signal: run.signal,
        progress: (share, text) => run.progress(done + (share * piece.length) / images.length, text),
      };
      last = /** @type {ScoreAnswer} */ (await this.#send("score", piece, context, options, part));
      if (last.items.length !== piece.length)
        throw new ServiceError(0, `Of ${piece.length} files the service read ${last.items.length} images.`, "Is one of them an archive?");
      for (const item of last.items) items.push({ ...item, index: items.length });
      for (const warning of last.context.warnings) warnings.add(warning);
    }
    if (!last) throw new ServiceError(0, "There is no image among these files.");
    if (pieces.length > 1) warnings.add(`The images came in ${pieces.length} pieces, each compared with the same context.`);
    return { answer: { ...last, items, context: { ...last.context, warnings: [...warnings] } }, context };
  }

  /**
   * Return the context that images make.
   * @param {readonly Entry[]} images
   * @param {Run} run
   * @returns {Promise<Context>}
   */
  async fit(images, run) {
    const chosen = sample(images, this.mostImages, this.mostBytes);
    const answer = await this.#send("fit", chosen, null, {}, run);
    return answer.context;
  }

  /**
   * Return what an endpoint answers to one image in a context.
   * @param {string} endpoint
   * @param {Entry} image
   * @param {Context | null} context
   * @param {Record<string, string | number>} options
   * @returns {Promise<any>}
   */
  ask(endpoint, image, context, options) {
    const run = { signal: new AbortController().signal, progress: () => {} };
    return this.#send(endpoint, [image], context, options, run);
  }

  /**
   * @param {string} endpoint
   * @param {readonly Entry[]} images
   * @param {Context | null} context
   * @param {Record<string, string | number>} options
   * @param {Run} run
   * @returns {Promise<any>}
   */
  async #send(endpoint, images, context, options, run) {
    const form = new FormData();
    for (let start = 0; start < images.length; start += READ_AT_A_TIME) {
      const some = images.slice(start, start + READ_AT_A_TIME);
      const contents = await Promise.all(some.map(readEntry));
      some.forEach((image, at) => form.append("images", contents[at], image.name));
      run.signal.throwIfAborted();
      run.progress(0, `reading: ${start + some.length} of ${images.length.toLocaleString("en")} images`);
    }
    if (context) form.append("context", JSON.stringify(context));
    const sent = (/** @type {number} */ share) =>
      run.progress(0.7 * share, share < 1 ? `sending ${images.length.toLocaleString("en")} images` : "computing");
    return this.service.call(endpoint, { body: form, options, signal: run.signal, sent });
  }
}

/**
 * Return a file's content; of one that cannot be read, nothing, so that the service says so of this image alone.
 * @param {Entry} entry
 */
async function readEntry(entry) {
  try {
    return await entry.read();
  } catch {
    return new Blob([]);
  }
}

/**
 * Return images in pieces, in order, that one request holds each.
 * @param {readonly Entry[]} images
 * @param {number} mostImages
 * @param {number} mostBytes
 * @returns {Entry[][]}
 */
export function cut(images, mostImages, mostBytes) {
  /** @type {Entry[][]} */
  const pieces = [];
  let bytes = Infinity;
  for (const image of images) {
    const piece = pieces[pieces.length - 1];
    if (!piece || bytes + image.size > mostBytes || piece.length >= mostImages) {
      pieces.push([image]);
      bytes = image.size;
    } else {
      piece.push(image);
      bytes += image.size;
    }
  }
  return pieces;
}

/**
 * Return as many of the images, drawn at random but the same every time, as one request holds.
 * @param {readonly Entry[]} images
 * @param {number} mostImages
 * @param {number} mostBytes
 * @returns {Entry[]}
 */
export function sample(images, mostImages, mostBytes) {
  if (cut(images, mostImages, mostBytes).length <= 1) return [...images];
  const shuffled = [...images];
  let state = SEED;
  for (let last = shuffled.length - 1; last > 0; last--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0; // a linear congruential generator (Numerical Recipes)
    const other = Math.floor((state / 2 ** 32) * (last + 1));
    [shuffled[last], shuffled[other]] = [shuffled[other], shuffled[last]];
  }
  return cut(shuffled, mostImages, mostBytes)[0];
}
