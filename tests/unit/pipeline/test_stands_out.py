"""Which images of a batch have something said of them: the flagged, or the first where nothing can be flagged."""

from types import SimpleNamespace

import numpy as np
import pytest

from service.core.decide.calibration import Calibration
from service.pipeline.batch import FIRST_SHARE, Batch

SIZE = 200


def batch(evidence, source="batch", flagged=()):
    calibration = None if evidence is None else Calibration(np.arange(5.0), np.asarray(evidence, dtype=float), 0.1)
    is_outlier = np.isin(np.arange(SIZE), flagged)
    rank = np.roll(np.arange(1, SIZE + 1), 7)
    scores = SimpleNamespace(is_outlier=is_outlier, rank=rank)
    return Batch(images=None, context=SimpleNamespace(calibration=calibration, source=source), scores=scores)


def test_where_nothing_tells_outliers_the_first_stand_out():
    stands_out = batch(np.zeros(5)).stands_out
    np.testing.assert_array_equal(np.flatnonzero(stands_out), 7 + np.arange(round(FIRST_SHARE * SIZE)))


def test_flagged_ones_stand_out_as_well():
    np.testing.assert_array_equal(np.flatnonzero(batch(np.zeros(5), flagged=[0, 8]).stands_out), [0, 7, 8, 9, 10])


@pytest.mark.parametrize(("evidence", "source"), [(np.arange(5), "batch"), (None, "batch"), (np.zeros(5), "reference")])
def test_otherwise_only_the_flagged(evidence, source):
    np.testing.assert_array_equal(np.flatnonzero(batch(evidence, source, flagged=[3]).stands_out), [3])
