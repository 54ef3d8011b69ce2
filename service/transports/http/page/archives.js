// Zip files: read in the browser, so that their images can be shown, and written. Own code: browsers have only inflate.
// The format is that of PKWARE's APPNOTE 6.3: the central directory, stored and deflated files.

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const LONGEST_COMMENT = 65_535;
const [STORED, DEFLATED] = [0, 8];
const UTF8_NAMES = 0x800;
const ENCRYPTED = 1;
const MOST_UNPACKED = 64 * 2 ** 20; // of one file

/** @typedef {{name: string, size: number, read: () => Promise<Blob>}} Entry  A file that is read when it is needed. */

/**
 * Return the files of a zip. Nothing is unpacked yet. Throws an Error that says what is wrong with the zip.
 * @param {Blob} zip
 * @returns {Promise<Entry[]>}
 */
export async function listZip(zip) {
  const tail = await view(zip, Math.max(0, zip.size - END_BYTES - LONGEST_COMMENT), zip.size);
  let end = tail.byteLength - END_BYTES;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("The zip is not complete: its directory is missing.");
  const [count, size, start] = [tail.getUint16(end + 10, true), tail.getUint32(end + 12, true), tail.getUint32(end + 16, true)];
  if (count === 0xffff || start === 0xffffffff) throw new Error("The zip is too large for this page. Unzip it, and choose its folder.");
  const directory = await view(zip, start, start + size);
  const entries = [];
  for (let at = 0; entries.length < count; ) {
    if (at + 46 > directory.byteLength || directory.getUint32(at, true) !== ENTRY) throw new Error("The directory of the zip is damaged.");
    const [flags, method] = [directory.getUint16(at + 8, true), directory.getUint16(at + 10, true)];
    const [packed, unpacked] = [directory.getUint32(at + 20, true), directory.getUint32(at + 24, true)];
    const nameLength = directory.getUint16(at + 28, true);
    const local = directory.getUint32(at + 42, true);
    const nameBytes = new Uint8Array(directory.buffer, directory.byteOffset + at + 46, nameLength);
    const name = decodeName(nameBytes, Boolean(flags & UTF8_NAMES)).replaceAll("\\", "/");
    const isEncrypted = Boolean(flags & ENCRYPTED);
    entries.push({ name, size: unpacked, read: () => unpack(zip, { name, method, packed, unpacked, local, isEncrypted }) });
    at += 46 + nameLength + directory.getUint16(at + 30, true) + directory.getUint16(at + 32, true);
  }
  return entries.filter((entry) => !entry.name.endsWith("/"));
}

/** @param {Uint8Array} bytes @param {boolean} isUtf8 */
function decodeName(bytes, isUtf8) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder(isUtf8 ? "utf-8" : "shift_jis").decode(bytes);
  }
}

/**
 * @param {Blob} zip
 * @param {{name: string, method: number, packed: number, unpacked: number, local: number, isEncrypted: boolean}} entry
 * @returns {Promise<Blob>}
 */
async function unpack(zip, { name, method, packed, unpacked, local, isEncrypted }) {
  if (isEncrypted) throw new Error(`${name} is encrypted: zip it without a password.`);
  if (method !== STORED && method !== DEFLATED) throw new Error(`${name} is packed by method ${method}: zip it stored or deflated.`);
  if (unpacked > MOST_UNPACKED) throw new Error(`${name} unpacks to more than ${MOST_UNPACKED / 2 ** 20} MiB.`);
  const head = await view(zip, local, local + 30);
  if (head.byteLength < 30 || head.getUint32(0, true) !== LOCAL) throw new Error(`${name} is not where the zip says.`);
  const start = local + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const content = zip.slice(start, start + packed);
  if (method === STORED) return content;
  const reader = content.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const parts = [];
  for (let size = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    parts.push(value);
    if ((size += value.length) > unpacked) throw new Error(`${name} unpacks to more than its zip says.`);
  }
}

/** @param {Blob} blob @param {number} start @param {number} end */
async function view(blob, start, end) {
  return new DataView(await blob.slice(start, end).arrayBuffer());
}

/**
 * Return a zip of files, stored as they are.
 * @param {{name: string, content: Blob}[]} files
 * @returns {Promise<Blob>}
 */
export async function writeZip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, content } of files) {
    const [nameBytes, bytes] = [new TextEncoder().encode(name), new Uint8Array(await content.arrayBuffer())];
    const shared = [UTF8_NAMES, STORED, 0, 0x21]; // flags, method, time, date: the first day of 1980
    const sums = [computeCrc(bytes), bytes.length, bytes.length];
    const local = pack([LOCAL], [20, ...shared], sums, [nameBytes.length, 0]);
    directory.push(pack([ENTRY], [20, 20, ...shared], sums, [nameBytes.length, 0, 0, 0, 0], [0, offset]), nameBytes);
    parts.push(local, nameBytes, bytes);
    offset += local.length + nameBytes.length + bytes.length;
  }
  const size = directory.reduce((total, part) => total + part.length, 0);
  return new Blob([...parts, ...directory, pack([END], [0, 0, files.length, files.length], [size, offset], [0])], {
    type: "application/zip",
  });
}

/**
 * Return little-endian numbers: of 32, 16, 32, 16 and 32 bits, in turn.
 * @param {number[][]} turns
 */
function pack(...turns) {
  const widths = turns.map((_, turn) => (turn % 2 ? 2 : 4));
  const bytes = new DataView(new ArrayBuffer(turns.reduce((total, numbers, turn) => total + numbers.length * widths[turn], 0)));
  let at = 0;
  turns.forEach((numbers, turn) =>
    numbers.forEach((number) => {
      if (widths[turn] === 2) bytes.setUint16(at, number, true);
      else bytes.setUint32(at, number, true);
      at += widths[turn];
    }),
  );
  return new Uint8Array(bytes.buffer);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** @param {Uint8Array} bytes */
function computeCrc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ CRC_TABLE[(value ^ byte) & 0xff];
  return (value ^ 0xffffffff) >>> 0;
}
