"""What several tests need: the shipped bundle (or the one that MISFIT_BUNDLE names) and random images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service import bundle
from service.settings import Settings


@pytest.fixture(scope="session")
def served_bundle() -> bundle.Bundle:
    return bundle.load(Settings().bundle_directory)


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Forty blurry colour images, uint8 (40, 64, 64, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), dtype=np.uint8))
