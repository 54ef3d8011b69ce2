"""population.npz: the training population's moments and sample. Every value is checked when the file is read."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np

from service.core.population import Familiarity, Population
from service.core.types import Float64Array
from service.errors import BundleCorrupt

POPULATION = "population.npz"
LARGEST_TOLERANCE = 16  # pixels: of images so small that nothing would be left to compare, less is tolerated
EXPORT_AGAIN = "Export the bundle again."


def to_npz(population: Population) -> bytes:
    """Return the file's content. The sample is stored in float32."""
    buffer = BytesIO()
    arrays: dict[str, Any] = {
        "location": population.location,
        "covariance": population.covariance,
        "posterior_variance": population.posterior_variance,
        "size": np.int64(population.size),
    }
    if population.sample is not None:
        arrays["sample"] = population.sample.astype(np.float32)
    if population.familiarity is not None:
        familiarity = population.familiarity
        arrays["familiarity"] = np.array([familiarity.median, familiarity.high])
        if familiarity != Familiarity(familiarity.median, familiarity.high, tolerance=familiarity.tolerance):
            arrays["familiarity_margin"], arrays["familiarity_error"] = familiarity.margin, familiarity.error
        if familiarity.tolerance:
            arrays["familiarity_tolerance"] = np.int64(familiarity.tolerance)
    if population.graded:
        arrays["graded"] = np.bool_(True)
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def from_npz(content: bytes, latent_dim: int) -> Population:
    """Return the population of `latent_dim` latents that the file holds.

    Raises BundleCorrupt unless moments and sample are finite and of the right shape, the covariance is symmetric,
    posterior variances are positive, and the quantiles of the reconstruction error are positive and in order.
    """
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            location = arrays["location"].astype(np.float64)
            covariance = arrays["covariance"].astype(np.float64)
            posterior_variance = arrays["posterior_variance"].astype(np.float64)
            size = int(arrays["size"])
            sample = arrays["sample"].astype(np.float64) if "sample" in arrays else None
            familiarity = arrays["familiarity"].astype(np.float64) if "familiarity" in arrays else None
            graded = "graded" in arrays and bool(arrays["graded"])
            margin_and_error: tuple[()] | tuple[float, str] = ()
            if "familiarity_margin" in arrays:
                margin_and_error = float(arrays["familiarity_margin"]), str(arrays["familiarity_error"])
            tolerance = int(arrays["familiarity_tolerance"]) if "familiarity_tolerance" in arrays else 0
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleCorrupt(f"{POPULATION} cannot be read: {error}.", EXPORT_AGAIN) from error
    shapes: dict[str, tuple[Float64Array, tuple[int, ...]]] = {
        "location": (location, (latent_dim,)),
        "covariance": (covariance, (latent_dim, latent_dim)),
        "posterior_variance": (posterior_variance, (latent_dim,)),
    }
    if sample is not None:
        shapes["sample"] = (sample, (max(len(np.atleast_1d(sample)), 1), latent_dim))
    for name, (array, expected) in shapes.items():
        if array.shape != expected or not np.isfinite(array).all():
            raise BundleCorrupt(
                f"{POPULATION}: {name} has shape {array.shape}, or values that are not finite; "
                f"the manifest calls for finite values of shape {expected}.",
                EXPORT_AGAIN,
            )
    if size < 2 or not np.allclose(covariance, covariance.T) or (posterior_variance <= 0).any():
        raise BundleCorrupt(
            f"{POPULATION} does not hold moments: it needs a size of at least 2 (it has {size}), a "
            "symmetric covariance and positive posterior variances.",
            EXPORT_AGAIN,
        )
    quantiles = None
    if familiarity is not None:
        if familiarity.shape != (2,) or not 0 < familiarity[0] <= familiarity[1] < np.inf:
            raise BundleCorrupt(
                f"{POPULATION}: familiarity is {familiarity.tolist()}; it holds the median and a higher quantile "
                "of the reconstruction errors, both positive.",
                EXPORT_AGAIN,
            )
        quantiles = replace(Familiarity(*familiarity.tolist(), *margin_and_error), tolerance=tolerance)
        if not 0 < quantiles.margin < np.inf:
            raise BundleCorrupt(f"{POPULATION}: the familiarity's margin is {quantiles.margin}.", EXPORT_AGAIN)
        if not 0 <= tolerance <= LARGEST_TOLERANCE:
            raise BundleCorrupt(
                f"{POPULATION}: the familiarity's tolerance is {tolerance}, expected 0 to {LARGEST_TOLERANCE} pixels.",
                EXPORT_AGAIN,
            )
    return Population(location, covariance, posterior_variance, size, sample, quantiles, graded)
