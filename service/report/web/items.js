// Scored images: their order, which of them a filter shows, and their list as CSV.

/**
 * @typedef {object} Item One image.
 * @property {string} id
 * @property {string} group  "" where there are no groups
 * @property {string} path
 * @property {number | null} rank  1 is the most outlying of its group; null where the image could not be read
 * @property {number | null} outlier_score
 * @property {number | null} outlier_probability
 * @property {boolean} is_outlier
 * @property {boolean} is_foreign
 * @property {number | null} mahalanobis_squared
 * @property {string} reason
 * @property {string} error  "" where it was scored
 * @property {{id: string, distance: number, index?: number}[]} nearest
 * @property {string} [note]  what else a card says of it in a word
 * @property {Record<string, number>} attributions  by latent, its share of the score
 * @property {number} [attributions_left_out]  how many more latents have smaller shares
 */

/** @typedef {"all" | "flagged" | "foreign" | "unreadable" | "unflagged"} Show */
/** @typedef {{show: Show, group: string | null, words: string}} Filter */

const COLUMNS = /** @type {const} */ ([
  "group", "id", "path", "rank", "outlier_score", "outlier_probability", "is_outlier", "is_foreign",
  "mahalanobis_squared", "reason", "error",
]);

/**
 * Return what is to be said of an image in one word: "" where it fits.
 * @param {Item} item
 * @returns {"" | "unreadable" | "foreign" | "flagged"}
 */
export function statusOf(item) {
  if (item.error) return "unreadable";
  if (item.is_foreign) return "foreign";
  return item.is_outlier ? "flagged" : "";
}

/**
 * Return the items in the order in which a person looks at them: the most outlying first, unreadable ones last. Ranks
 * are those of a group: of several groups, probabilities and scores decide.
 * @param {readonly Item[]} items
 * @returns {Item[]}
 */
export function sortItems(items) {
  const severalGroups = new Set(items.map((item) => item.group)).size > 1;
  const last = Number.MAX_VALUE;
  return [...items].sort((a, b) => {
    if (!severalGroups || a.rank === null || b.rank === null) return (a.rank ?? last) - (b.rank ?? last);
    return (
      Number(b.is_foreign) - Number(a.is_foreign) ||
      (b.outlier_probability ?? -1) - (a.outlier_probability ?? -1) ||
      (b.outlier_score ?? -last) - (a.outlier_score ?? -last)
    );
  });
}

/**
 * Return the items that a filter shows, in their order. The words are looked for in id, path, group and reason.
 * @param {readonly Item[]} items
 * @param {Filter} filter
 * @returns {Item[]}
 */
export function filterItems(items, filter) {
  const words = filter.words.trim().toLowerCase();
  return items.filter((item) => {
    if (filter.group !== null && item.group !== filter.group) return false;
    if (filter.show === "flagged" && (item.error || !item.is_outlier)) return false;
    if (filter.show === "unflagged" && (item.error || item.is_outlier)) return false;
    if (filter.show === "foreign" && !item.is_foreign) return false;
    if (filter.show === "unreadable" && !item.error) return false;
    return !words || [item.id, item.path, item.group, item.reason, item.error].some((text) => text.toLowerCase().includes(words));
  });
}

/**
 * Return the items as CSV (RFC 4180): a line for each, the names of the columns first.
 * @param {readonly Item[]} items
 * @returns {string}
 */
export function toCsv(items) {
  const lines = items.map((item) => COLUMNS.map((name) => quote(item[name])).join(","));
  return [COLUMNS.join(","), ...lines, ""].join("\r\n");
}

/** @param {string | number | boolean | null} value */
function quote(value) {
  const text = value === null ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
