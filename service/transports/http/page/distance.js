// The Mahalanobis distance of latents to a context, for the sliders.

/** @typedef {import("./answers.js").Context} Context */

/**
 * Return a function of latents that gives their squared distance to `context`, over the latents `live`.
 * @param {Context} context
 * @param {readonly number[]} live  indices of latents
 * @returns {(latents: readonly number[]) => number}
 */
export function makeDistance(context, live) {
  const factor = factorise(live.map((row) => live.map((column) => context.covariance[row][column])));
  return (latents) => {
    /** @type {number[]} */
    const solved = []; // of factor * solved = latents - location
    let sum = 0;
    live.forEach((index, row) => {
      let value = latents[index] - context.location[index];
      for (let column = 0; column < row; column++) value -= factor[row][column] * solved[column];
      solved.push(value / factor[row][row]);
      sum += solved[row] ** 2;
    });
    return sum;
  };
}

/**
 * Return the lower Cholesky factor of a matrix.
 * @param {number[][]} matrix
 * @returns {number[][]}
 */
function factorise(matrix) {
  const factor = matrix.map((row) => row.map(() => 0));
  for (let row = 0; row < matrix.length; row++)
    for (let column = 0; column <= row; column++) {
      let value = matrix[row][column];
      for (let k = 0; k < column; k++) value -= factor[row][k] * factor[column][k];
      factor[row][column] = row === column ? Math.sqrt(Math.max(value, Number.MIN_VALUE)) : value / factor[column][column];
    }
  return factor;
}
