"""The population's familiarity."""

from __future__ import annotations

import numpy as np

from service.core.population import Familiarity


def test_familiarity_is_the_median_and_a_high_quantile():
    errors = np.random.default_rng(2).permutation(10_001).astype(np.float64)
    assert Familiarity.of(errors) == Familiarity(5_000.0, 9_990.0)
