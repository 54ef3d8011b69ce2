"""Groups of images that are alike and apart from the rest of their batch.

Real batches go wrong in one way: the misfits share their cause, and look alike. Counting then decides which images are
normal, and sometimes it cannot: of ten images of one kind and ten of another, none are outliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.core.distributions import beta_cdf, binomial_pmf, normal_deviation
from service.core.types import BoolArray, Float64Array, IndexArray

# The odds that a group is alike are even if the rest's centre lies at this squared distance on one latent, in the
# group's own variance.
ALIKE = 8.0
# A group is reported from this probability of being alike.
REPORTED = 0.5
# Two halves of a latent are two kinds where each half's centre lies so many of the other's variances away.
APART = 30.0
# Misfits are at most this share of a batch; any share up to it is as likely as any other.
LARGEST_SHARE = 0.4
# The fewest images that make a group, and the fewest in which two kinds are looked for. Each kind has this share.
SMALLEST, FEWEST_TO_SPLIT, SMALLEST_SHARE = 3, 10, 0.2
# A group's latents are those that tell it apart at least this share as well as the best one does.
NAMED_SHARE, MOST_NAMED = 0.25, 3
# Images of a group whose spread is not known take the population's, as if one of them had come from there.
PRIOR_IMAGES = 1.0


@dataclass(frozen=True)
class Group:
    """Images that are alike and apart from the rest.

    members      (m,)  rows, rising
    axes         (k,)  the axes that tell them from the rest, the best first
    share        of the images that were compared
    are_misfits  the probability that they are misfits, rather than one of `kinds` that are equally common
    kinds        how many there are, if they are one of them: 2, or 3 where the rest is of two kinds
    """

    members: IndexArray
    axes: IndexArray
    share: float
    are_misfits: float
    kinds: int = 2


def find_groups(points: Float64Array, flagged: BoolArray, floor: Float64Array, population: Float64Array) -> list[Group]:
    """Return the groups of a batch: the flagged images, if they are alike, else the smaller one of two kinds.

    points (n, d) in population units, flagged (n,), floor (d,) the encoder's noise, population (p, d) its points.
    """
    members = np.flatnonzero(flagged)
    if SMALLEST <= len(members) <= len(points) - SMALLEST:
        apart = _distances_apart(points[flagged], points[~flagged], floor)
        if likeness(apart) >= REPORTED:
            axes = _name_axes(apart)
            members = members[_belong(points[flagged], points[~flagged], int(axes[0]))]
            if len(members) >= SMALLEST:
                # Where the rest is of two kinds, the group may be a third one.
                kinds = 3 if find_kinds(np.delete(points, members, axis=0), floor, population) else 2
                share = len(members) / len(points)
                misfits = probability_of_misfits(len(members), len(points), kinds)
                return [Group(members, axes, share, misfits, kinds)]
    return find_kinds(points, floor, population)


def find_kinds(points: Float64Array, floor: Float64Array, population: Float64Array) -> list[Group]:
    """Return the smaller of two kinds: parts of one axis that are alike and apart where the population's are not.

    points (n, d) in population units, floor (d,) the encoder's noise, population (p, d) its points.
    """
    if len(points) < FEWEST_TO_SPLIT or points.shape[1] == 0:
        return []
    apart, parts = _split_axes(points, floor)
    usual, _ = _split_axes(population, floor)
    apart = np.where(usual < APART / 2, apart, 0.0)
    axis = int(apart.argmax())
    if apart[axis] < APART:
        return []
    members = parts[:, axis]
    if members.sum() > len(points) / 2:
        members = ~members
    axes = np.flatnonzero(apart >= APART)
    return [
        Group(
            np.flatnonzero(members),
            axes[np.argsort(-apart[axes], kind="stable")][:MOST_NAMED],
            float(members.mean()),
            probability_of_misfits(int(members.sum()), len(points)),
        )
    ]


def likeness(apart: Float64Array) -> float:
    """Return the probability that a group is alike, from the squared distances (d,) of the rest in its own spread."""
    best = float(apart.max(initial=0.0))
    return best**2 / (best**2 + ALIKE**2)


def probability_of_misfits(members: int, size: int, kinds: int = 2) -> float:
    """Return the probability that `members` alike of `size` images are misfits rather than one of some common kinds.

    Misfits: their share is uniform up to LARGEST_SHARE. Kinds: every image is of each with probability 1 / kinds.
    """
    misfits = beta_cdf(LARGEST_SHARE, members + 1, size - members + 1) / ((size + 1) * LARGEST_SHARE)
    common = binomial_pmf(members, size, 1 / kinds)
    return float(misfits / (misfits + common)) if misfits + common > 0 else 0.0


def _distances_apart(group: Float64Array, rest: Float64Array, floor: Float64Array) -> Float64Array:
    """Return the squared distance (d,) of the rest's median from the group's on each axis, in the group's own variance.

    Medians: an image that was flagged for another reason must not hide what the others have in common.
    """
    centre = np.median(group, axis=0)
    deviation = normal_deviation(group)
    variance = np.square(deviation) + PRIOR_IMAGES / len(group) + floor
    return np.asarray(np.square(np.median(rest, axis=0) - centre) / variance)


def _belong(group: Float64Array, rest: Float64Array, axis: int) -> BoolArray:
    """Return which points of a group (m, d) are nearer on `axis` to its median than half of the way to the rest's."""
    centre = np.median(group[:, axis])
    way = abs(np.median(rest[:, axis]) - centre)
    return np.asarray(np.abs(group[:, axis] - centre) <= way / 2)


def _name_axes(apart: Float64Array) -> IndexArray:
    order = np.argsort(-apart, kind="stable")[:MOST_NAMED]
    return np.asarray(order[apart[order] >= NAMED_SHARE * apart[order[0]]])


def _split_axes(points: Float64Array, floor: Float64Array) -> tuple[Float64Array, BoolArray]:
    """Return how far apart the two parts of each axis (d,) are that vary least, and which points (n, d) are below.

    The distance is between the means, squared, in the larger of the two variances.
    """
    n, d = points.shape
    ordered = np.sort(points, axis=0)
    below = np.arange(1, n)[:, None]
    sums, squares = np.cumsum(ordered, axis=0)[:-1], np.cumsum(np.square(ordered), axis=0)[:-1]
    total, total_squares = ordered.sum(axis=0), np.square(ordered).sum(axis=0)
    means = sums / below, (total - sums) / (n - below)
    scatters = squares - below * means[0] ** 2, total_squares - squares - (n - below) * means[1] ** 2
    within = scatters[0] + scatters[1]
    fewest = max(SMALLEST, int(np.ceil(SMALLEST_SHARE * n)))
    within[: fewest - 1] = within[n - fewest :] = np.inf
    cut = within.argmin(axis=0)
    axes = np.arange(d)
    sizes = cut + 1.0, n - cut - 1.0
    variances = [np.maximum(part[cut, axes], 0) / (size - 1) for part, size in zip(scatters, sizes, strict=True)]
    variance = np.maximum(*variances) + floor
    return np.square(means[1][cut, axes] - means[0][cut, axes]) / variance, points <= ordered[cut, axes]
