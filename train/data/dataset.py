"""The data set as the training loop sees it, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The split belongs to the data set, not to a run: every seed trains and is judged on the same images.
SPLIT_SEED = 0
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Dataset:
    """Images with their generative factors, where those are known.

    images        uint8 (N, H, W, C)
    factors       int64 (N, K), the class of each factor; K is 0 where no factor is known
    factor_names  K names
    factor_sizes  K numbers of classes
    name          of the data set
    source        origin of the images: "official", "rendered", "own files"
    labels        int64 (N,), what each image shows, where known. Unlike a factor, a label is not independent of the
                  other properties of the image
    label_names   names of the labels' values
    """

    images: NDArray[np.uint8]
    factors: NDArray[np.int64]
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    name: str
    source: str
    labels: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return height, width and channels."""
        _, height, width, channels = self.images.shape
        return height, width, channels


class Split(NamedTuple):
    """Disjoint, shuffled row indices. Recipes are chosen on `validation`; `test` is only reported on."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split(size: int) -> Split:
    """Return 90% training, 5% validation and 5% test rows of `size` images, the same in every run."""
    order = np.random.default_rng(SPLIT_SEED).permutation(size).astype(np.int64)
    held_out = max(1, round(size * HELD_OUT_SHARE))
    return Split(order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out])


def check_factors(factors: ArrayLike, sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return factor classes as an array (N, F), F = len(sizes).

    Raises ValueError for any other shape, and for classes that are not from 0 to below `sizes`.
    """
    classes = np.asarray(factors)
    if classes.ndim != 2 or classes.shape[1] != len(sizes):
        raise ValueError(f"factors have shape {classes.shape}, expected (N, {len(sizes)})")
    if ((classes < 0) | (classes >= sizes)).any():
        raise ValueError(f"factor classes run from 0 to below {tuple(sizes)}, got {classes.min(0)} to {classes.max(0)}")
    return classes
