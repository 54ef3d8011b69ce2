"""Doubts about flags: what they may get wrong, and what they may miss.

Heavy tails and misfits look alike where the scores fall off gradually. A gap tells them apart. In a tail that falls
off as a power, the logarithm of the ratio of two neighbours among the highest scores is exponential: at place k from
the top its rate is k times the tail's index (Rényi 1953).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from service.core.decide.calibration import TAILS, Calibration
from service.core.distributions import quantile
from service.core.types import BoolArray, Float64Array, IndexArray

# The heaviest tail of the calibration, F(SHAPE, nu), falls off as a power of this index.
TAIL_INDEX = TAILS[0] / 2
# Scores are measured from this quantile of the batch: there the F distributions of the calibration begin, roughly.
ORIGIN = 0.25
# Flags are doubtful where errors are expected that come to this share of the outliers, and to at least one image.
DOUBTFUL_SHARE = 0.5
# Flags are doubtful where a heavy tail leaves such a gap below them with a larger chance.
LARGEST_CHANCE = 0.05
# Images above such a gap are normal with the first of these probabilities, and with more by so much of the gap's
# chance, up to 1/2. They are flagged no longer where a tail leaves such gaps often.
NORMAL_IN_DOUBT, NORMAL_BY_CHANCE = 0.2, 0.8
# Of fewer images than this, the scores' origin is rough and so is the chance: less of it is accepted, in proportion.
ENOUGH = 50
# So small a share of doubtful ones among the flagged images is no doubt of the others.
FEW_DOUBTFUL = 0.05
# Flags miss misfits where they recognise a smaller share of the population's images.
FEWEST_RECOGNISED = 0.7


def find_doubts(
    calibration: Calibration,
    scores: Float64Array,
    probability: Float64Array,
    alike: BoolArray,
    *,
    smallest_scale: float | None,
    hidden: float,
    recognised: float,
) -> Iterator[str]:
    """Yield warnings of what the flags of a batch may get wrong.

    scores, probability (n,)  of being an outlier, of the images that are not foreign
    alike           (n,)  the members of groups
    smallest_scale  the spread of scores that the encoder's noise may cause; None where the calibration needs no gap
    hidden          the share of outliers among the images that score as the most normal ones do
    recognised      the share of the population that would be flagged: the flags' power
    """
    # The probabilities say themselves how often a threshold of 1/2 errs.
    expected_errors = float(np.minimum(probability, 1 - probability).sum())
    if not calibration.tells_outliers:
        yield (
            "The images are as varied as those that the model knows, so no kind of them is unusual: the furthest rank "
            "first. Scores say how much further off an image is than the usual one; probabilities tell nothing. "
            "Send one kind at a time, or a reference set of normal images."
        )
        return
    if expected_errors >= max(1.0, DOUBTFUL_SHARE * probability.sum()):
        if hidden * len(probability) > expected_errors / 2:
            yield (
                "Misfits may hide: where a fifth or more of the images are of one other kind, they can pass for normal "
                "ones, and nothing here excludes it. Send a reference set of normal images to make sure."
            )
        else:
            yield (
                f"No gap separates normal from unusual images: about {expected_errors:.0f} of the decisions are "
                "expected to be wrong. Trust the ranks, or send a reference set of normal images."
            )
        return
    flagged = probability > 0.5
    # Flagged images that are alike have a cause in common, which the tail of what is normal has not.
    rest = ~(flagged & alike)
    accepted = _accepted_chance(len(scores))
    many = np.count_nonzero(flagged & rest) > FEW_DOUBTFUL * np.count_nonzero(flagged)
    if smallest_scale is not None and many and chance_of_gap(scores[rest], flagged[rest], smallest_scale) > accepted:
        yield (
            "The scores fall off gradually from the usual images to the flagged ones: some of these may be rare normal "
            "images. Trust the ranks, or send a reference set of normal images."
        )
    if recognised < FEWEST_RECOGNISED:
        yield (
            f"Misfits may be missed: {1 - recognised:.0%} of the images that the model knows would not be flagged "
            "among these. Trust the ranks, lower the threshold, or send one kind of images at a time."
        )


def temper(probability: Float64Array, scores: Float64Array, alike: BoolArray, smallest_scale: float) -> Float64Array:
    """Return the probabilities (n,) of being outliers, lower where a heavy tail may have made the flagged images.

    probability, scores (n,), alike (n,) and smallest_scale are those of `find_doubts`. An image keeps its probability
    where a gap that a heavy tail hardly leaves lies below it, or below a lower flagged image. Images that share a cause
    keep theirs.
    """
    rows = np.flatnonzero((probability <= 0.5) | ~alike)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    flagged = np.flatnonzero(probability[rows] > 0.5)
    if not flagged.size or flagged[-1] == len(rows) - 1:
        return probability
    count = int(flagged[-1]) + 1
    height = np.maximum(scores[rows] - quantile(scores[rows], ORIGIN), smallest_scale)
    places = -(-np.arange(1, count + 1) // 2)
    chances = _chances(height[1 : count + 1], height[:count], places)
    smallest = np.minimum.accumulate(chances[::-1])[::-1]
    doubt = np.minimum(smallest / _accepted_chance(len(scores)), 1.0)
    most = 1 - np.minimum(NORMAL_IN_DOUBT * doubt + NORMAL_BY_CHANCE * smallest, 0.5)
    tempered = probability.copy()
    tempered[rows[:count]] = np.minimum(probability[rows[:count]], most)
    return tempered


def _accepted_chance(count: int) -> float:
    """Return how probable a gap below the flagged of `count` images may be in a heavy tail, without a doubt."""
    return LARGEST_CHANCE * min(count / ENOUGH, 1.0)


def chance_of_gap(scores: Float64Array, flagged: BoolArray, smallest_scale: float) -> float:
    """Return how probable a gap as wide as that below the flagged scores (n,) is, if half of them are a heavy tail's.

    smallest_scale  the spread of scores that the encoder's noise may cause: differences below it mean nothing
    The chance is 0 where no score, or every score, is flagged: there is no gap.
    """
    if not flagged.any() or flagged.all():
        return 0.0
    origin, highest = quantile(scores, ORIGIN), scores[~flagged].max()
    usual, unusual = (max(score - origin, smallest_scale) for score in (highest, scores[flagged].min()))
    place = -(-np.count_nonzero(flagged) // 2)
    return float(_chances(np.array([usual]), np.array([unusual]), np.array([place]))[0])


def _chances(below: Float64Array, above: Float64Array, place: IndexArray) -> Float64Array:
    """Return how probable gaps (k,) between scores are at these places from the top of a heavy tail."""
    return np.asarray(np.minimum(below / above, 1.0) ** (TAIL_INDEX * place))
