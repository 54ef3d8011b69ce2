// The files that a person chose or dropped: those of folders and zips one by one, without what is no image.

import { listZip } from "./archives.js";

/** @typedef {import("./archives.js").Entry} Entry */
/** @typedef {{images: Entry[], reference: Entry[], context: object | null, notes: string[]}} Choice */

// As the service leaves out in archives.
const NO_IMAGE = /(^|\/)(\.|__MACOSX\/|thumbs\.db$|desktop\.ini$|readme$|license$)|\.(txt|md|csv|tsv|xml|ya?ml|html?|pdf|py|log|ini|db|docx?|xlsx?)$/i;
const REFERENCE = /(^|\/)references?\//i;
const CONTEXT = /\.json$/i;
const UNREAD = /\.(npy|npz|tar|gz|tgz|bz2|xz|7z|rar|h5|hdf5|parquet)$/i;
const NAMED = 3; // file names in one note

/**
 * Return the files of a drop, those of its folders included.
 * @param {DataTransfer} transfer
 * @returns {Promise<Entry[]>}
 */
export async function readDrop(transfer) {
  // The items are gone once this function has waited for anything.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => !!entry);
  if (!entries.length) return [...transfer.files].map(ofFile);
  return (await Promise.all(entries.map((entry) => walk(/** @type {FileSystemEntry} */ (entry))))).flat();
}

/**
 * @param {FileSystemEntry} entry
 * @returns {Promise<Entry[]>}
 */
async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    return [ofFile(file, entry.fullPath.slice(1))];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) return found;
    for (const each of some) found.push(...(await walk(each)));
  }
}

/**
 * @param {File} file
 * @param {string | number} [path]
 * @returns {Entry}
 */
export function ofFile(file, path) {
  const name = typeof path === "string" ? path : file.webkitRelativePath || file.name;
  return { name, size: file.size, read: () => Promise.resolve(file) };
}

/**
 * Return the images among files, in the order of their names; the files of a folder `reference`, as the service has it,
 * are known to be normal, and a .json file is a context. Throws an Error where a zip or a context cannot be read.
 * @param {readonly Entry[]} files
 * @returns {Promise<Choice>}
 */
export async function sortFiles(files) {
  const [entries, leftOut, unread] = [/** @type {Entry[]} */ ([]), /** @type {string[]} */ ([]), /** @type {string[]} */ ([])];
  let context = null;
  for (const file of files)
    if (/\.zip$/i.test(file.name)) entries.push(...(await listZip(await file.read())));
    else entries.push(file);
  const images = [];
  for (const entry of entries) {
    if (CONTEXT.test(entry.name)) context = (await readContext(entry)) ?? context;
    else if (UNREAD.test(entry.name)) unread.push(entry.name);
    else if (NO_IMAGE.test(entry.name)) leftOut.push(entry.name);
    else images.push(entry);
  }
  const order = new Intl.Collator("en", { numeric: true }).compare;
  images.sort((a, b) => order(a.name, b.name));
  const common = commonFolder(images);
  const named = images.map((image) => ({ ...image, name: image.name.slice(common.length) }));
  const reference = named.filter((image) => REFERENCE.test(image.name));
  const others = named.filter((image) => !REFERENCE.test(image.name));
  const notes = [];
  if (leftOut.length) notes.push(`Left out what is no image by its name: ${list(leftOut)}.`);
  if (unread.length) notes.push(`This page reads images and zips, not ${list(unread)}. The command line and the API do.`);
  return others.length ? { images: others, reference, context, notes } : { images: named, reference: [], context, notes };
}

/**
 * Return what /fit answered; null for a .json file that is something else.
 * @param {Entry} entry
 */
async function readContext(entry) {
  let content;
  try {
    content = JSON.parse(await (await entry.read()).text());
  } catch {
    return null;
  }
  const context = content?.context ?? content;
  return context?.bundle_id && context?.location ? context : null;
}

/** @param {readonly Entry[]} images */
function commonFolder(images) {
  const folders = images.map((image) => image.name.split("/").slice(0, -1));
  let depth = 0;
  while (folders.length && folders.every((folder) => depth < folder.length && folder[depth] === folders[0][depth])) depth++;
  return depth ? folders[0].slice(0, depth).join("/") + "/" : "";
}

/** @param {readonly string[]} names */
function list(names) {
  const more = names.length - NAMED;
  return names.slice(0, NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
