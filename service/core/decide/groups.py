"""Groups of images that are alike and apart from the rest of their batch.

Real batches go wrong in one way: the misfits share their cause, and look alike. Counting then decides which images are
normal, and sometimes it cannot: of ten images of one kind and ten of another, none are outliers.
"""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

import numpy as np

from service.core.decide.kinds import (
    FEWEST_ALIKE,
    LARGEST_SHARE,
    MOST_NAMED,
    NAMED_SHARE,
    SMALLEST,
    SMALLEST_SHARE,
    Group,
    find_kinds,
    probability_of_misfits,
)
from service.core.distributions import median, normal_deviation
from service.core.types import BoolArray, Float64Array, IndexArray

# The odds that a group is alike are even if the rest's centre lies at this squared distance on one latent, in the
# group's own variance.
ALIKE = 8.0
# A group is reported from this probability of being alike.
REPORTED = 0.5
# Of the highest-ranked images, the squared spread that makes them alike, in that of the batch. Rare images of one kind
# scatter: together they have more than the batch's spread. At least this share of the batch is looked at.
# Rare images may rank above them: one in RANKED_ABOVE images, and 3 at most.
ALIKE_SPREAD, FEWEST_RANKED, RANKED_ABOVE, MOST_ABOVE = 0.3, 0.08, 40, 3
# Images of a group whose spread is not known take the population's, as if one of them had come from there.
PRIOR_IMAGES = 1.0


def find_groups(
    points: Float64Array, flagged: BoolArray, floor: Float64Array, population: Float64Array, kinds: Group | None
) -> list[Group]:
    """Return the groups of a batch: the flagged images, if they are alike, and else the smallest of its kinds.

    points (n, d) in population units, flagged (n,), floor (d,) the encoder's noise, population (p, d) its points; kinds
    by `find_kinds` of all points
    """
    alike = _find_alike(points, flagged, floor)
    if alike is not None:
        rest = np.delete(np.arange(len(points)), alike.members)
        others = find_kinds(points[rest], floor, population, is_rest=True)
        if others is None:
            return [alike]
        # The group may be one more kind.
        misfits = probability_of_misfits(len(alike.members), len(points), others.kinds + 1)
        alike = replace(alike, kinds=others.kinds + 1, are_misfits=misfits)
        return [alike, replace(others, members=rest[others.members])]
    if kinds is not None and kinds.share < SMALLEST_SHARE and flagged[kinds.members].mean() > 0.5:
        # A few exceptions that are flagged, and not alike, are what any misfits are.
        kinds = None
    elif kinds is None and flagged.any():
        # Flagged images may hide what the others are.
        rest = np.flatnonzero(~flagged)
        kinds = find_kinds(points[rest], floor, population)
        kinds = kinds and replace(kinds, members=rest[kinds.members])
    if kinds is not None and flagged[kinds.members].mean() <= 0.5:
        # A few that are flagged are so for another reason.
        kinds = replace(kinds, members=kinds.members[~flagged[kinds.members]])
    return [kinds] if kinds else []


def _find_alike(points: Float64Array, flagged: BoolArray, floor: Float64Array) -> Group | None:
    """Return the flagged images as a group, if they are alike and apart from the others."""
    members = np.flatnonzero(flagged)
    if not SMALLEST <= len(members) <= len(points) - SMALLEST:
        return None
    apart = _distances_apart(points[flagged], points[~flagged], floor)
    if likeness(apart) < REPORTED:
        return None
    axes = _name_axes(apart)
    members = members[_belong(points[flagged], points[~flagged], int(axes[0]))]
    count, size = len(members), len(points)
    return Group(members, axes, count / size, probability_of_misfits(count, size)) if count >= SMALLEST else None


def find_common_cause(points: Float64Array, scores: Float64Array, floor: Float64Array) -> Group | None:
    """Return the highest-ranked images, if they are alike over all latents, with others as near to them.

    points (n, d) in population units, scores (n,), floor (d,) the encoder's noise. The rare images of one kind are in
    the tails of its distribution, and hardly near one another: those that share a cause are.
    """
    size = len(points)
    fewest, most = max(FEWEST_ALIKE, int(np.ceil(FEWEST_RANKED * size))), int(LARGEST_SHARE * size)
    if most < fewest or points.shape[1] == 0:
        return None
    # Ties take the order of the points themselves, so that the order in which the images came changes nothing.
    highest = points[np.lexsort((*points.T, -scores))]
    whole, noise = float(highest.var(axis=0).sum()), float(floor.sum())
    above = min(size // RANKED_ABOVE, MOST_ABOVE)
    spread, centre = min((_tightest(highest[start:], fewest, most) for start in range(above + 1)), key=itemgetter(0))
    if spread > ALIKE_SPREAD * max(whole, noise):
        return None
    # The border is where a distance is as large for the group as it is small for the batch.
    border = np.sqrt(max(spread, noise) * whole)
    near = np.square(points - centre).sum(axis=1) <= border
    members = np.flatnonzero(near)
    if not FEWEST_ALIKE <= len(members) <= most:
        return None
    apart = _distances_apart(points[near], points[~near], floor)
    return Group(members, _name_axes(apart), len(members) / size, probability_of_misfits(len(members), size))


def _tightest(ranked: Float64Array, fewest: int, most: int) -> tuple[float, Float64Array]:
    """Return the squared spread and the centre (d,) of the first of points (n, d), as many as have the least spread."""
    counts = np.arange(1, len(ranked) + 1)[:, None]
    means = np.cumsum(ranked, axis=0) / counts
    spreads = (np.cumsum(np.square(ranked), axis=0) / counts - np.square(means)).sum(axis=1)
    best = fewest - 1 + int(spreads[fewest - 1 : most].argmin())
    return float(spreads[best]), means[best]


def likeness(apart: Float64Array) -> float:
    """Return the probability that a group is alike, from the squared distances (d,) of the rest in its own spread."""
    best = float(apart.max(initial=0.0))
    return best**2 / (best**2 + ALIKE**2)


def _distances_apart(group: Float64Array, rest: Float64Array, floor: Float64Array) -> Float64Array:
    """Return the squared distance (d,) of the rest's median from the group's on each axis, in the group's own variance.

    Medians: an image that was flagged for another reason must not hide what the others have in common.
    """
    centre = median(group)
    deviation = normal_deviation(group)
    variance = np.square(deviation) + PRIOR_IMAGES / len(group) + floor
    return np.asarray(np.square(median(rest) - centre) / variance)


def _belong(group: Float64Array, rest: Float64Array, axis: int) -> BoolArray:
    """Return which points of a group (m, d) are nearer on `axis` to its median than half of the way to the rest's."""
    centre = median(group[:, axis])
    way = abs(median(rest[:, axis]) - centre)
    return np.asarray(np.abs(group[:, axis] - centre) <= way / 2)


def _name_axes(apart: Float64Array) -> IndexArray:
    order = np.argsort(-apart, kind="stable")[:MOST_NAMED]
    return np.asarray(order[apart[order] >= NAMED_SHARE * apart[order[0]]])
