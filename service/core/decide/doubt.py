"""Doubt about flags: could the tail of what is normal have left them?

Heavy tails and misfits look alike where the scores fall off gradually. A gap tells them apart. In a tail that falls
off as a power, the logarithm of the ratio of two neighbours among the highest scores is exponential: at place k from
the top its rate is k times the tail's index (Rényi 1953).
"""

from __future__ import annotations

import numpy as np

from service.core.decide.calibration import TAILS
from service.core.types import BoolArray, Float64Array

# The heaviest tail of the calibration, F(SHAPE, nu), falls off as a power of this index.
TAIL_INDEX = TAILS[0] / 2
# Scores are measured from this quantile of the batch: there the F distributions of the calibration begin, roughly.
ORIGIN = 0.25


def chance_of_gap(scores: Float64Array, flagged: BoolArray, smallest_scale: float) -> float:
    """Return how probable a gap as wide as that below the flagged scores (n,) is, if half of them are a heavy tail's.

    smallest_scale  the spread of scores that the encoder's noise may cause: differences below it mean nothing
    The chance is 0 where no score, or every score, is flagged: there is no gap.
    """
    if not flagged.any() or flagged.all():
        return 0.0
    origin, highest = np.quantile(scores, ORIGIN), scores[~flagged].max()
    usual, unusual = (max(score - origin, smallest_scale) for score in (highest, scores[flagged].min()))
    place = -(-np.count_nonzero(flagged) // 2)
    return float(min(usual / unusual, 1.0) ** (TAIL_INDEX * place))
