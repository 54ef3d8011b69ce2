"""Contexts merge exactly, whatever the split and the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.detect.moments import Moments

POINTS, DIMS = 10_000, 6


def two_pass(points):
    mean = points.mean(axis=0)
    centred = points - mean
    return mean, centred.T @ centred


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, POINTS - 1), unique=True, max_size=12),
    offset=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_any_split_in_any_order_has_the_moments_of_the_whole(seed, cuts, offset):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(POINTS, DIMS)) * rng.uniform(0.01, 3, DIMS) + offset
    shards = np.split(points, sorted(cuts))
    rng.shuffle(order := list(range(len(shards))))
    merged = Moments.of(shards[order[0]])
    for shard in order[1:]:
        merged = merged.merge(Moments.of(shards[shard]))
    mean, scatter = two_pass(points)
    assert merged.size == POINTS
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-12, atol=1e-12 * points.std())
    scale = np.sqrt(np.outer(np.diag(scatter), np.diag(scatter)))
    assert np.abs(merged.scatter - scatter).max() <= 1e-12 * scale.max() * max(1.0, offset)
    assert (np.abs(merged.scatter - scatter) / scale).max() <= (1e-12 if offset <= 1 else 1e-9)


def test_sums_of_squares_would_not_do():
    """Why the scatter is kept about the mean: what a naive accumulation loses at an offset of 1e8."""
    points = np.random.default_rng(0).normal(size=(1000, 1)) + 1e8
    naive = (points**2).sum() - len(points) * points.mean() ** 2
    merged = Moments.of(points[:500]).merge(Moments.of(points[500:]))
    _, scatter = two_pass(points)
    assert merged.scatter.item() == pytest.approx(scatter.item(), rel=1e-6)
    assert abs(naive - scatter.item()) > 1e-3 * scatter.item()
