// The two plots of a batch: Mahalanobis distance by rank, and its histogram beside the law of normal images.

import { countOf, create, createSvg, formatNumber } from "./elements.js";

/**
 * @typedef {object} Distances
 * @property {number[]} distance  Mahalanobis distances, not squared
 * @property {boolean[]} flagged  of each
 * @property {number} every  how many images each stands for
 */

const WIDTH = 560;
const HEIGHT = 260;
const MARGIN = { left: 48, right: 12, top: 28, bottom: 40 };
const MOST_LINE_POINTS = 500;
const MOST_MARKS = 400;
const LINEAR_RANKS = 300; // above it, the few flagged images would have no room
const LAW_STEPS = 2000;
const BINS = 40;

/**
 * Return the density at r >= 0 of the distance of a normal image: chi with `degrees` degrees of freedom.
 * @param {number} r
 * @param {number} degrees
 * @returns {number}
 */
export function chiDensity(r, degrees) {
  if (r <= 0) return degrees === 1 && r === 0 ? Math.sqrt(2 / Math.PI) : 0;
  const logGamma = logGammaOfHalf(degrees);
  return Math.exp((1 - degrees / 2) * Math.LN2 + (degrees - 1) * Math.log(r) - (r * r) / 2 - logGamma);
}

/**
 * Return log Gamma(n / 2) of a whole n >= 1.
 * @param {number} n
 * @returns {number}
 */
function logGammaOfHalf(n) {
  let result = n % 2 ? Math.log(Math.PI) / 2 : 0;
  for (let half = n % 2 ? 0.5 : 1; half < n / 2; half++) result += Math.log(half);
  return result;
}

/**
 * Return a scale from values to places: linear, or logarithmic where values differ by orders of magnitude.
 * @param {number} low
 * @param {number} high
 * @param {number} from  the place of `low`
 * @param {number} to  the place of `high`
 * @param {boolean} isLogarithmic  needs low > 0
 */
function makeScale(low, high, from, to, isLogarithmic = false) {
  const change = isLogarithmic ? Math.log : (/** @type {number} */ value) => value;
  const start = change(low);
  const span = change(high) - start || 1;
  /** @param {number} value */
  const place = (value) => from + ((change(Math.min(high, Math.max(low, value))) - start) / span) * (to - from);
  return { place, ticks: isLogarithmic ? logarithmicTicks(low, high) : linearTicks(low, high) };
}

/** @param {number} low @param {number} high */
function linearTicks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
  return ticks;
}

/** @param {number} low @param {number} high */
function logarithmicTicks(low, high) {
  const ticks = [];
  const factors = high / low > 300 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  return ticks;
}

/** @typedef {ReturnType<typeof makeScale>} Scale */

/**
 * @param {Scale} x
 * @param {Scale} y
 * @param {string} xLabel
 * @param {string} yLabel
 * @returns {SVGElement[]}
 */
function drawAxes(x, y, xLabel, yLabel) {
  const bottom = HEIGHT - MARGIN.bottom;
  const elements = y.ticks.flatMap((tick) => [
    createSvg("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y.place(tick), y2: y.place(tick) }),
    createSvg("text", { x: MARGIN.left - 6, y: y.place(tick) + 4, "text-anchor": "end" }, formatNumber(tick)),
  ]);
  return [
    ...elements,
    createSvg("line", { class: "axis", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: bottom, y2: bottom }),
    ...x.ticks.map((tick) =>
      createSvg("text", { x: x.place(tick), y: bottom + 16, "text-anchor": "middle" }, formatNumber(tick)),
    ),
    createSvg("text", { class: "label", x: WIDTH - MARGIN.right, y: HEIGHT - 6, "text-anchor": "end" }, xLabel),
    createSvg("text", { class: "label", x: MARGIN.left - 40, y: 14 }, yLabel),
  ];
}

/**
 * @param {string} title
 * @param {string} description
 * @param {[string, string][]} legend  class and text of each entry
 * @param {SVGElement[]} elements
 * @returns {HTMLElement}
 */
function drawFigure(title, description, legend, elements) {
  return create(
    "figure", { class: "plot" },
    create("figcaption", {}, title),
    createSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${description}` }, ...elements),
    create(
      "p", { class: "legend", "aria-hidden": "true" },
      ...legend.map(([kind, text]) => create("span", {}, create("i", { class: kind }), text)),
    ),
  );
}

/**
 * Return the distances by rank, the flagged images marked, and the law of normal images as a dashed line.
 * @param {Distances} distances
 * @param {number | null} degrees  live latents; null where they are not known
 * @returns {HTMLElement}
 */
export function drawDistancesByRank(distances, degrees) {
  const order = distances.distance.map((_, place) => place).sort((a, b) => distances.distance[b] - distances.distance[a]);
  const count = order.length;
  const sorted = order.map((place) => distances.distance[place]);
  const highest = sorted[0] || 1;
  const lowest = Math.max(sorted[count - 1] || highest / 100, highest / 1e4);
  const isLogarithmic = highest > 10 * (sorted[count >> 1] || highest);
  const total = Math.max(2, count * distances.every);
  const x = makeScale(1, total, MARGIN.left, WIDTH - MARGIN.right, total > LINEAR_RANKS);
  const low = isLogarithmic ? lowest : 0;
  const y = makeScale(low, highest, HEIGHT - MARGIN.bottom, MARGIN.top, isLogarithmic);
  /** @param {number} rank @param {number} distance */
  const point = (rank, distance) => `${x.place(rank).toFixed(1)},${y.place(distance).toFixed(1)}`;

  /** @type {string[]} */
  const line = [];
  let next = 0; // every image at first, then as many as an axis of ranks can show
  sorted.forEach((distance, at) => {
    if (at < next && at < count - 1) return;
    line.push(point(1 + at * distances.every, distance));
    next = at < MOST_LINE_POINTS ? at + 1 : Math.ceil(at * (1 + 1 / MOST_LINE_POINTS));
  });
  const elements = drawAxes(x, y, `rank by distance${total > LINEAR_RANKS ? " (logarithmic)" : ""}`, `Mahalanobis distance${isLogarithmic ? " (logarithmic)" : ""}`);
  if (degrees) elements.push(createSvg("polyline", { class: "law", points: drawLaw(count, degrees, highest, low, distances.every, point) }));
  elements.push(createSvg("polyline", { class: "line", points: line.join(" ") }));
  const marked = order.flatMap((place, at) => (distances.flagged[place] ? [at] : []));
  for (const at of marked.slice(0, MOST_MARKS)) {
    const [cx, cy] = [x.place(1 + at * distances.every), y.place(sorted[at])];
    elements.push(createSvg("path", { class: "mark", d: `M${cx - 4},${cy + 3.5}L${cx + 4},${cy + 3.5}L${cx},${cy - 4}Z` }));
  }
  /** @type {[string, string][]} */
  const legend = [["line", "images"], ["mark", "flagged"]];
  if (degrees) legend.push(["law", `normal images would follow (${countOf(degrees, "latent")})`]);
  const description =
    `Of ${countOf(count * distances.every, "image")} the largest distance is ${formatNumber(highest)}, the median ` +
    `${formatNumber(sorted[count >> 1] ?? 0)}; ${(marked.length * distances.every).toLocaleString("en")} are flagged.`;
  return drawFigure("Mahalanobis distance by rank", description, legend, elements);
}

/**
 * Return the points of the law: at each distance r, the rank that an image there has among normal images.
 * @param {number} count
 * @param {number} degrees
 * @param {number} highest
 * @param {number} lowest
 * @param {number} every
 * @param {(rank: number, distance: number) => string} point
 * @returns {string}
 */
function drawLaw(count, degrees, highest, lowest, every, point) {
  const far = Math.sqrt(degrees) + 6; // beyond it lie fewer than one in a thousand million
  const width = far / LAW_STEPS;
  const points = [];
  let beyond = 0;
  for (let r = far; r > 0; r -= width) {
    beyond += width * chiDensity(r, degrees);
    const rank = count * every * beyond;
    if (rank >= 0.5 && r <= highest && r >= lowest) points.push(point(Math.max(1, rank), r));
  }
  return points.filter((_, at) => at % 10 === 0).join(" ");
}

/**
 * Return the histogram of the distances, the flagged images in another colour, and the law of normal images.
 * @param {Distances} distances
 * @param {number | null} degrees  live latents; null where they are not known
 * @returns {HTMLElement}
 */
export function drawHistogram(distances, degrees) {
  const sorted = [...distances.distance].sort((a, b) => a - b);
  const highest = sorted[sorted.length - 1] || 1;
  const usual = Math.max(3 * (sorted[sorted.length >> 1] || 0), degrees ? Math.sqrt(degrees) + 3.5 : 0);
  const isCut = highest > usual && usual > 0;
  const end = isCut ? usual : highest;
  const width = end / BINS;
  const normal = new Array(BINS + 1).fill(0);
  const flagged = new Array(BINS + 1).fill(0);
  distances.distance.forEach((distance, place) => {
    const bin = distance > end ? BINS : Math.min(BINS - 1, Math.floor(distance / width));
    (distances.flagged[place] ? flagged : normal)[bin] += distances.every;
  });
  const total = sorted.length * distances.every;
  /** @param {number} r */
  const expected = (r) => (degrees ? total * width * chiDensity(r, degrees) : 0);
  const peaks = normal.map((count, bin) => Math.max(count + flagged[bin], bin < BINS ? expected((bin + 0.5) * width) : 0));
  const y = makeScale(0, Math.max(1, ...peaks), HEIGHT - MARGIN.bottom, MARGIN.top);
  const bins = isCut ? BINS + 2 : BINS; // a gap before the last one
  const x = makeScale(0, width * bins, MARGIN.left, WIDTH - MARGIN.right);
  x.ticks = x.ticks.filter((tick) => tick <= end * 0.97);
  const elements = drawAxes(x, y, "Mahalanobis distance", "images");
  normal.forEach((count, bin) => {
    const start = bin === BINS ? width * (BINS + 1) : bin * width;
    const [left, right] = [x.place(start) + 0.5, x.place(start + width) - 0.5];
    const boxes = /** @type {const} */ ([["bar", 0, count], ["bar flagged", count, count + flagged[bin]]]);
    for (const [kind, from, to] of boxes)
      if (to > from)
        elements.push(createSvg("rect", { class: kind, x: left, width: right - left, y: y.place(to), height: y.place(from) - y.place(to) }));
  });
  const beyond = normal[BINS] + flagged[BINS];
  if (isCut)
    elements.push(createSvg("text", { x: WIDTH - MARGIN.right, y: HEIGHT - MARGIN.bottom + 16, "text-anchor": "end" }, `> ${formatNumber(end)}`));
  /** @type {[string, string][]} */
  const legend = [["bar", "images"], ["bar flagged", "flagged"]];
  if (degrees) {
    const points = [];
    for (let r = 0; r <= end; r += end / 120) points.push(`${x.place(r).toFixed(1)},${y.place(expected(r)).toFixed(1)}`);
    elements.push(createSvg("polyline", { class: "law", points: points.join(" ") }));
    legend.push(["law", `normal images would follow (${countOf(degrees, "latent")})`]);
  }
  const description =
    `${countOf(total, "image")}; most lie between ${formatNumber(sorted[Math.floor(sorted.length / 10)] ?? 0)} and ` +
    `${formatNumber(sorted[Math.floor(sorted.length * 0.9)] ?? 0)}` + (isCut ? `; ${beyond} beyond ${formatNumber(end)}.` : ".");
  return drawFigure("Histogram of the distances", description, legend, elements);
}
