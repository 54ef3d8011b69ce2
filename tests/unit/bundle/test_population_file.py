"""The population's file: what is written is read again, and impossible values are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.bundle.population_file import from_npz, to_npz
from service.core.population import Familiarity, Population
from service.errors import BundleCorrupt

FAMILIARITY = Familiarity(median=4.0, high=10.0)


def population(familiarity: Familiarity | None = None) -> Population:
    latents = np.random.default_rng(0).normal(size=(50, 2, 3))
    return Population.from_latents(latents, familiarity)


@pytest.mark.parametrize(
    "familiarity",
    [
        FAMILIARITY,
        replace(FAMILIARITY, tolerance=2),
        Familiarity(0.5, 1.0, 1.0, "distance"),
        Familiarity(1, 2, 4, "e", 3),
    ],
)
def test_familiarity_travels_with_the_population(familiarity):
    written = to_npz(population(familiarity))
    assert from_npz(written, 3).familiarity == familiarity


@pytest.mark.parametrize("tolerance", [-1, 17])
def test_an_impossible_tolerance_is_refused(tolerance):
    written = to_npz(population(replace(FAMILIARITY, tolerance=tolerance)))
    with pytest.raises(BundleCorrupt, match=f"tolerance is {tolerance}, expected 0 to 16 pixels"):
        from_npz(written, 3)


def test_a_population_without_it_still_loads():
    assert from_npz(to_npz(population()), 3).familiarity is None


@pytest.mark.parametrize("values", [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf), (np.nan, 1.0)])
def test_impossible_familiarity_is_refused(values):
    written = to_npz(population(Familiarity(*values)))
    with pytest.raises(BundleCorrupt, match="familiarity is"):
        from_npz(written, 3)
