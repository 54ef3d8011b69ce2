"""What several tests need: the shipped bundle (or the one that MISFIT_BUNDLE names) and images that it knows."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from service.bundle import store
from service.settings import Settings

# The same examples in every run, so that a change is judged by what it changed. `make fuzz` tries new and more ones.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis.settings.register_profile("fuzz", max_examples=20_000)
hypothesis.settings.load_profile("same")

SAMPLE_BATCH = Path(__file__).parent / "data" / "shapes3d_batch.zip"
LATENT_DIM = store.load(Settings().bundle_directory).manifest.latent_dim


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """As in a pipeline: the matrices are tiny, and BLAS threads would wait for each other longer than they compute."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def served_bundle() -> store.Bundle:
    return store.load(Settings().bundle_directory)


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Forty rendered images of the sample batch, two of them misfits, uint8 (40, 64, 64, 3)."""
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        names = sorted(name for name in batch.namelist() if name.endswith(".png"))[:40]
        return np.stack([np.asarray(Image.open(batch.open(name))) for name in names])
