"""Mutual information of two columns by equal-width binning, in nats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import mutual_info_score

BINS = 20


def assign_bins(column: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the index (N,) of the equal-width bin, of 20, of each value (N,)."""
    bins: NDArray[np.intp] = np.digitize(column, np.histogram_bin_edges(column, BINS)[1:-1])
    return bins


def dependence(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the mutual information of two latents, (N,) each, in the bins of `information_gap`."""
    return float(mutual_info_score(assign_bins(one), assign_bins(other)))
