"""Kinds: parts of a batch that are alike, and apart from one another.

Three searches find kinds, since kinds show in three ways: as two parts of one latent while the others are free; as
clumps over all latents, which no single latent need separate; as a rule that most images follow on a latent, and
exceptions to it. Each asks for gaps of several spreads, which continuous variation with heavy tails or a skew does not
leave. A fourth search finds dense parts, which have no gap around them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from service.core.decide.clusters import cluster, describe, part_axes, part_known_axes, running_sums, sums_between
from service.core.distributions import UPPER_MEDIAN, beta_cdf, binomial_cdf, binomial_pmf
from service.core.types import BoolArray, Float64Array, IndexArray

# Two kinds are apart where on one latent their centres lie so many variances, of the wider one, from each other; or, as
# clumps, over all latents together so many and FEWER_APART / n more: few images lie further apart by chance.
APART, FEWER_APART = 30.0, 1000.0
# The rest of a batch is surely of one kind only if none in it lie so far apart: halves of a Gaussian lie 7, those of
# a uniform one 12. Of few images it is more as well, but on one latent no more than APART.
SURELY_APART = 18.0
# Misfits are at most this share of a batch; any share up to it is as likely as any other.
LARGEST_SHARE = 0.4
# A group is no more probably misfits than not, unless one of as many common kinds has so few images, or so many, by
# chance in this share of batches only.
RARE_KIND = 0.1
# The fewest flagged images that make a group, the fewest other ones (three of twenty are alike by chance now and then),
# and the fewest images in which kinds are looked for.
SMALLEST, FEWEST_ALIKE, FEWEST_TO_SPLIT = 3, 4, 10
# The smallest share of each of two parts of a latent, and of each clump. At most so many clusters are made: the smaller
# ones are outliers.
SMALLEST_SHARE, SMALLEST_CLUMP, MOST_CLUSTERS = 0.2, 0.15, 6
# Clumps are looked for among at most so many images.
SEARCHED = 350
# Images are dense where they have at most this share of the batch's variance on every latent, and of its volume for
# each latent. Of fewer images, or on fewer latents, a part of one kind may be as dense. So many parts are tried.
DENSE_VARIANCE, DENSE_VOLUME, FEWEST_TO_BE_DENSE, FEWEST_AXES, MOST_PARTS = 0.14, 0.13, 40, 3, 8
SMALLEST_DENSE = 0.08
# Exceptions to a rule lie beyond gaps of RULE_GAP + WIDER_GAP / n spreads of the images that follow it: few images
# leave wider gaps. They are at least this share of the batch, and FEWEST_ALIKE images.
RULE_GAP, WIDER_GAP, SMALLEST_EXCEPTION = 2.0, 10.0, 0.15
# A rule is one if draws of the population would follow it as often with a smaller chance than this.
RULE_CHANCE = 1e-3
# To name what the flags miss, a single exception and a less certain rule are enough, but the gap has to be wider.
NAMED_GAP, NAMED_CHANCE = 5.0, 1e-2
# A group's latents are those that tell it apart at least this share as well as the best one does.
NAMED_SHARE, MOST_NAMED = 0.25, 3


@dataclass(frozen=True)
class Group:
    """Images that are alike and apart from the rest, or exceptions to what the rest have in common.

    members      (m,)  rows, rising
    axes         (k,)  the axes that tell them from the rest, the best first
    share        of the images that were compared
    are_misfits  the probability that they are misfits, rather than one of `kinds` that are equally common
    kinds        how many there are, if they are one of them
    """

    members: IndexArray
    axes: IndexArray
    share: float
    are_misfits: float
    kinds: int = 2


def find_kinds(
    points: Float64Array, floor: Float64Array, population: Float64Array, *, is_rest: bool = False
) -> Group | None:
    """Return the smallest of the kinds of a batch, or None where it has but one.

    points (n, d) in population units, floor (d,) the encoder's noise, population (p, d) its points
    is_rest  the points are the rest of a batch, and None says that they are surely of one kind
    """
    if len(points) < FEWEST_TO_SPLIT or points.shape[1] == 0:
        return None
    least, fewer = SURELY_APART if is_rest else APART, FEWER_APART / len(points)
    apart, variance = part_known_axes(population.tobytes(), population.shape, _fewest_in_part(len(population)))
    usual = apart / (variance + floor)
    own = usual < APART / 2  # (d,) what splits the population as well makes no kinds
    clumps = _find_clumps(points, floor, own, least + fewer)
    if clumps and clumps.kinds > 2:
        return clumps
    needed = np.maximum(min(least + fewer, APART), 2 * usual)
    halves = _find_halves(points, floor, np.where(own, needed, np.inf))
    return halves or clumps or find_exceptions(points, floor, population)


def probability_of_misfits(members: int, size: int, kinds: int = 2) -> float:
    """Return the probability that `members` alike of `size` images are misfits rather than one of some common kinds.

    It is 1/2 at most where one of the kinds has so few or so many images by chance now and then.
    """
    fewer, more = binomial_cdf(members, size, 1 / kinds), 1 - binomial_cdf(members - 1, size, 1 / kinds)
    is_rare = kinds * min(fewer, more) <= RARE_KIND
    return min(posterior_of_misfits(members, size, kinds), 1.0 if is_rare else 0.5)


def posterior_of_misfits(members: int, size: int, kinds: int) -> float:
    """Return the posterior probability that `members` of `size` images are misfits rather than one of common kinds.

    Misfits: their share is uniform up to LARGEST_SHARE. Kinds: every image is of each with probability 1 / kinds.
    """
    misfits = beta_cdf(LARGEST_SHARE, members + 1, size - members + 1) / ((size + 1) * LARGEST_SHARE)
    common = binomial_pmf(members, size, 1 / kinds)
    return float(misfits / (misfits + common)) if misfits + common > 0 else 0.0


def _find_halves(points: Float64Array, floor: Float64Array, needed: Float64Array) -> Group | None:
    """Return the smaller of two parts of an axis that are alike and as far apart as is `needed` (d,)."""
    apart, parts, centres = _split_axes(points, floor)
    apart = np.where(apart >= needed, apart, 0.0)
    axis = int(apart.argmax())
    if not apart[axis]:
        return None
    members, (low, high) = parts[:, axis], centres[:, axis]
    members, centre = (members, low) if members.sum() <= len(points) / 2 else (~members, high)
    # An outlier beyond a part is none of it.
    return _group(members & (np.abs(points[:, axis] - centre) <= high - low), apart, 2)


def _find_clumps(points: Float64Array, floor: Float64Array, own: BoolArray, least: float) -> Group | None:
    """Return the smallest of several clumps, every two of which are `least` apart over the axes in `own` (d,) together.

    Of two, three, ... clusters the small ones are outliers. The largest number of clumps counts of which all are apart.
    """
    points, floor, axes = points[:, own], floor[own], np.flatnonzero(own)
    if not axes.size:
        return None
    sample = _sample(points)
    fewest = max(FEWEST_ALIKE, SMALLEST_CLUMP * len(sample))
    described: dict[int, tuple[Float64Array, Float64Array]] = {}
    best: tuple[Float64Array, Float64Array] | None = None
    for clusters in cluster(sample, MOST_CLUSTERS):
        clumps = [node for node, members in clusters.items() if len(members) >= fewest]
        if len(clumps) < 2 or (best is not None and len(clumps) <= len(best[0])):
            continue
        described |= {node: describe(clusters[node]) for node in clumps if node not in described}
        centres, variances = map(np.stack, zip(*(described[node] for node in clumps), strict=True))
        variances += floor
        between = _distances_between(centres, variances).sum(axis=2)
        np.fill_diagonal(between, np.inf)
        if between.min() >= least:
            best = centres, variances
    if best is None:
        return None
    centres, variances = best
    # Each image belongs to the clump under whose Gaussian it is likeliest.
    misfit = (np.square(points[:, None] - centres) / variances + np.log(variances)).sum(axis=2)
    nearest = misfit.argmin(axis=1)
    smallest = int(np.bincount(nearest, minlength=len(centres)).argmin())
    apart = np.zeros(len(own))
    apart[axes] = np.delete(_distances_between(centres, variances)[smallest], smallest, axis=0).min(axis=0)
    return _group(nearest == smallest, apart, len(centres))


def find_dense(points: Float64Array, floor: Float64Array) -> Group | None:
    """Return the images that lie much closer together than a part of one kind does, on every latent.

    They may be misfits with one cause, within the reach of what is normal. points (n, d) in population units, floor
    (d,) the encoder's noise.
    """
    n, d = points.shape
    if n < FEWEST_TO_BE_DENSE or d < FEWEST_AXES:
        return None
    sample = _sample(points)
    covariance = np.cov(sample.T) + np.diag(floor)
    usual_variance, usual_volume = covariance.diagonal(), np.linalg.slogdet(covariance)[1]
    best, smallest, seen = None, DENSE_VOLUME, set[int]()
    for parts in cluster(sample, MOST_PARTS):
        for part in (part for node, part in parts.items() if node not in seen):
            if not max(FEWEST_ALIKE, SMALLEST_DENSE * len(sample)) <= len(part) <= LARGEST_SHARE * len(sample):
                continue
            offset = part - part.sum(axis=0) / len(part)
            scatter = offset.T @ offset
            variance = scatter.diagonal() / (len(part) - 1) + floor
            if (variance > DENSE_VARIANCE * usual_variance).any():
                continue
            # As if one more image had come from the batch.
            own = (scatter + covariance) / (len(part) + 1)
            volume = np.exp((np.linalg.slogdet(own)[1] - usual_volume) / d)
            if volume <= smallest:
                best, smallest = part, volume
        seen |= parts.keys()
    if best is None:
        return None
    variance = best.var(axis=0, ddof=1) + floor
    members = (np.square(points - best.mean(axis=0)) <= 9 * variance).all(axis=1)
    apart = usual_variance / variance
    return _group(members, apart, 2, needed=NAMED_SHARE * float(apart.max()))


def _sample(points: Float64Array) -> Float64Array:
    """Return at most SEARCHED of the points (n, d), sorted: the order in which the images came changes nothing."""
    return points[np.lexsort(points.T)][:: -(-len(points) // SEARCHED)]


def find_exceptions(points: Float64Array, floor: Float64Array, population: Float64Array) -> Group | None:
    """Return the exceptions to the rules of a batch, on any axis.

    A rule: most images lie in one interval of an axis, with gaps beside it, and the population does not. Exceptions
    need not be alike: of spheres among cubes and cylinders, all but the spheres are.
    """
    fewest = max(FEWEST_ALIKE, SMALLEST_EXCEPTION * len(points))
    exceptions, share = _break_rules(points, floor, population, fewest, RULE_GAP, RULE_CHANCE)
    if not share.any():
        return None
    group = _group(exceptions, share, 2, needed=NAMED_SHARE * float(share.max()))
    # Exceptions that are not alike are hardly a kind.
    return replace(group, are_misfits=posterior_of_misfits(len(group.members), len(points), 2))


def find_missed_exceptions(
    points: Float64Array, flagged: BoolArray, floor: Float64Array, population: Float64Array
) -> Group | None:
    """Return the exceptions to the rules of a batch that are not `flagged` (n,), be they as few as one."""
    if len(points) < FEWEST_TO_SPLIT:
        return None
    exceptions, share = _break_rules(points, floor, population, 1, NAMED_GAP, NAMED_CHANCE)
    missed = exceptions & ~flagged
    return _group(missed, share, 2, needed=NAMED_SHARE * float(share.max())) if missed.any() else None


def _break_rules(
    points: Float64Array, floor: Float64Array, population: Float64Array, fewest: float, gap: float, chance: float
) -> tuple[BoolArray, Float64Array]:
    """Return the points (n,) that are exceptions to a rule on any axis, and their share on each axis (d,).

    fewest  exceptions to one rule; `gap` in spreads and `chance` are what RULE_GAP and RULE_CHANCE say
    """
    n, d = points.shape
    exceptions, share = np.zeros(n, dtype=bool), np.zeros(d)
    low, high, width = _find_rules(np.sort(points, axis=0), floor, gap)
    outside = (points < low) | (points > high)
    counts = outside.sum(axis=0)
    for axis in np.flatnonzero((counts >= fewest) & (counts <= LARGEST_SHARE * n)):
        count, middle = int(counts[axis]), (low[axis] + high[axis]) / 2
        inside = np.abs(population[:, axis] - middle) <= (high[axis] - low[axis] + width[axis]) / 2
        usual = (inside.sum() + 1) / (len(population) + 1)
        if beta_cdf(usual, n - count, count + 1) <= chance / d:
            exceptions, share[axis] = exceptions | outside[:, axis], count / n
    if exceptions.sum() > LARGEST_SHARE * n:
        return np.zeros(n, dtype=bool), np.zeros(d)
    return exceptions, share


def _find_rules(
    ordered: Float64Array, floor: Float64Array, spreads: float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return from where to where the shortest half of each axis, and all that no gap parts from it, reaches, (d,) each,
    and how wide a gap must be, (d,).

    ordered (n, d)  places on the axes, rising; spreads  that a gap must have among many images
    """
    (n, d), half = ordered.shape, -(-len(ordered) // 2)
    axes, places = np.arange(d), np.arange(n - 1)[:, None]
    gaps, widths, sums = (
        ordered[1:] - ordered[:-1],
        ordered[half - 1 :] - ordered[: n - half + 1],
        running_sums(ordered),
    )
    first = widths.argmin(axis=0)
    deviation = np.sqrt(np.square(widths[first, axes] / (2 * UPPER_MEDIAN)) + floor)
    before, after = places < first, places >= first + half - 1
    while True:
        gap = (spreads + WIDER_GAP / n) * deviation
        breaks = gaps > gap
        low = np.where(breaks & before, places + 1, 0).max(axis=0)
        high = np.where(breaks & after, places, n - 1).min(axis=0)
        # The shortest half of a skewed axis is tighter than what it belongs to.
        scatter = sums_between(sums, low, high + 1)[1]
        wider = np.sqrt(scatter / (high + 1 - low) + floor)
        is_wider = wider > deviation * (1 + 1e-9)
        if not is_wider.any():
            return ordered[low, axes], ordered[high, axes], gap
        deviation = np.where(is_wider, wider, deviation)


def _group(members: BoolArray, apart: Float64Array, kinds: int, needed: float = APART) -> Group:
    """Return the group of `members` (n,), with the axes on which `apart` (d,) is `needed`, the best first."""
    axes = np.flatnonzero(apart >= min(needed, apart.max()))
    axes = axes[np.argsort(-apart[axes], kind="stable")][:MOST_NAMED]
    count, size = int(members.sum()), len(members)
    return Group(np.flatnonzero(members), axes, count / size, probability_of_misfits(count, size, kinds), kinds)


def _distances_between(centres: Float64Array, variances: Float64Array) -> Float64Array:
    """Return the squared distances (c, c, d) between centres (c, d) on each axis, in the larger of two variances."""
    gaps = np.square(centres[:, None] - centres[None])
    return np.asarray(gaps / np.maximum(variances[:, None], variances[None]))


def _split_axes(points: Float64Array, floor: Float64Array) -> tuple[Float64Array, BoolArray, Float64Array]:
    """Return how far apart the two parts of each axis (d,) are that vary least, which points (n, d) are below, and the
    centres (2, d) of both parts.

    The distance is between the means, squared, in the larger of the two variances.
    """
    apart, variance, parts, centres = part_axes(points, _fewest_in_part(len(points)))
    return apart / (variance + floor), parts, centres


def _fewest_in_part(n: int) -> int:
    """Return how many of n images a part of an axis has at least."""
    return max(SMALLEST, int(np.ceil(SMALLEST_SHARE * n)))
