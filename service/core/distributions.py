"""The few distributions and robust statistics that scores need, computed by scipy.special as scipy.stats would.

Importing scipy.stats takes half a second of CPU and 60 MB, in every process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from service.core.types import Float64Array

# Of a normal distribution, its upper half's median.
UPPER_MEDIAN = float(special.ndtri(0.75))


def normal_ppf(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return float(special.ndtri(probability))


def chi2_cdf(x: ArrayLike, freedom: int) -> Float64Array:
    """Return the probability that chi-squared with so many degrees of freedom is at most `x`."""
    return np.asarray(special.chdtr(freedom, x))


def chi2_ppf(probability: ArrayLike, freedom: int) -> Float64Array:
    """Return the quantiles of chi-squared with so many degrees of freedom."""
    return np.asarray(2 * special.gammaincinv(freedom / 2, probability))


def f_cdf(x: ArrayLike, above: ArrayLike, below: ArrayLike) -> Float64Array:
    """Return the probability that F with the degrees of freedom `above` and `below` is at most `x`."""
    return np.asarray(special.fdtr(above, below, np.maximum(x, 0)))


def f_ppf(probability: ArrayLike, above: ArrayLike, below: ArrayLike) -> Float64Array:
    """Return the quantiles of F with the degrees of freedom `above` and `below`."""
    return np.asarray(special.fdtri(above, below, probability))


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the probability that a beta variable with the parameters `a` and `b` is at most `x`."""
    return float(special.betainc(a, b, x))


def binomial_cdf(count: int, n: int, probability: float) -> float:
    """Return the chance of at most `count` < n successes in n trials."""
    return beta_cdf(1 - probability, n - count, count + 1)


def binomial_pmf(successes: int, trials: int, probability: float) -> float:
    """Return the probability of so many successes."""
    ways = special.gammaln(trials + 1) - special.gammaln(successes + 1) - special.gammaln(trials - successes + 1)
    rest = special.xlog1py(trials - successes, -probability)
    return float(np.exp(ways + special.xlogy(successes, probability) + rest))


def normal_deviation(values: Float64Array) -> Float64Array:
    """Return the standard deviation (...) of normal values (n, ...) by their median absolute deviation."""
    return np.asarray(median(np.abs(values - median(values))) / UPPER_MEDIAN)


def median(values: Float64Array) -> Float64Array:
    """Return the median (...) of values (n, ...), n >= 1, none of them NaN: of few, numpy spends its time on checks."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    ordered = np.partition(values, (low, high), axis=0)
    return np.asarray((ordered[low] + ordered[high]) / 2)


def quantile(values: Float64Array, share: float, weights: Float64Array | None = None) -> float:
    """Return what a `share` of values (n,), n >= 1, lies below: between two values in proportion.

    With weights (n,), not all of them 0: the least value below or at which values have this share of all weight.
    """
    if weights is None:
        return float(np.interp(share * (len(values) - 1), np.arange(len(values)), np.sort(values)))
    order = values.argsort(kind="stable")
    cumulative = weights[order].cumsum()
    return float(values[order[np.searchsorted(cumulative, share * cumulative[-1])]])


def ranks(values: Float64Array) -> Float64Array:
    """Return the ranks (n, d) of the values (n, d) in each column, from 1; equal values share their mean rank."""
    result = np.empty(values.shape)
    for column, ordered, own in zip(values.T, np.sort(values, axis=0).T.copy(), result.T, strict=True):
        own[:] = (ordered.searchsorted(column) + ordered.searchsorted(column, "right") + 1) / 2
    return result
