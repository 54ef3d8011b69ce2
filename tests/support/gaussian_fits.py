"""Draw Gaussian fits and points about them, and repair points by the textbook's conditional Gaussian."""

from __future__ import annotations

import numpy as np

from service.core.detect.gaussian import Fit


def fit_of(d, seed):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d + 2))
    return Fit(rng.standard_normal(d), root @ root.T / d + 0.05 * np.eye(d))


def points_about(fit, n, seed, spread=3.0):
    return fit.location + spread * np.random.default_rng(seed).standard_normal((n, len(fit.location)))


def repair(point, dims, fit):
    """`point` (d,) with `dims` at their mean given the others, by the textbook's conditional Gaussian."""
    dims, rest = list(dims), [k for k in range(len(point)) if k not in dims]
    repaired = point.copy()
    to_rest = fit.covariance[np.ix_(dims, rest)] @ np.linalg.inv(fit.covariance[np.ix_(rest, rest)])
    repaired[dims] = fit.location[dims] + to_rest @ (point[rest] - fit.location[rest])
    return repaired


def as_tuples(sets):
    return [tuple(np.flatnonzero(in_set)) for in_set in sets]
