// Which images are flagged, decided here as the service decides it (`service.core.detect.scoring`): no image is sent.

/** @typedef {{rank: number | null, outlier_probability: number | null, is_foreign: boolean}} Scored */

/**
 * Return which images are flagged where a probability above `threshold` flags. Foreign images always are.
 * @param {readonly Scored[]} items
 * @param {number} threshold
 * @returns {boolean[]}
 */
export function flagByThreshold(items, threshold) {
  return items.map((item) => item.is_foreign || (item.outlier_probability !== null && item.outlier_probability > threshold));
}

/**
 * Return which images are flagged at a false discovery rate: the largest top-ranked set whose mean of
 * (1 - probability) is at most `rate`, of those with a probability of one half or more. Foreign images do not count.
 * @param {readonly Scored[]} items
 * @param {number} rate
 * @returns {boolean[]}
 */
export function flagByRate(items, rate) {
  const flags = items.map((item) => item.is_foreign);
  const order = items
    .map((item, place) => ({ place, rank: item.rank, probability: item.outlier_probability }))
    .filter(({ place, rank, probability }) => !flags[place] && rank !== null && probability !== null)
    .sort((a, b) => Number(a.rank) - Number(b.rank));
  let [sum, size] = [0, 0];
  order.forEach(({ probability }, at) => {
    sum += 1 - Number(probability);
    if (sum / (at + 1) <= rate && Number(probability) >= 0.5) size = at + 1;
  });
  for (const { place, probability } of order.slice(0, size)) flags[place] = Number(probability) >= 0.5;
  return flags;
}
