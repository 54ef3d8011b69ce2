"""The population: what the model was trained on, as far as scoring needs it. The background of every context."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.errors import BundleCorrupt

Float64Array = NDArray[np.float64]

POPULATION = "population.npz"
# A latent whose mean hardly moves over the population carries nothing: below this variance it is dead.
DEAD_VARIANCE = 0.01
# Images of the population whose means are kept as they are.
SAMPLE_SIZE = 1_000
EXPORT_AGAIN = "Export the bundle again."


@dataclass(frozen=True)
class Familiarity:
    """How well images of the population are redrawn: quantiles of `foreign.reconstruction_error` over held-out ones.

    median  the error of an ordinary image
    high    the 0.999 quantile
    """

    median: float
    high: float

    @classmethod
    def of(cls, errors: NDArray[np.floating]) -> Self:
        """Quantiles of the reconstruction errors (n,), n >= 1, of images that the model was not trained on."""
        median, high = np.quantile(errors, (0.5, 0.999)).tolist()
        return cls(median, high)


@dataclass(frozen=True)
class Population:
    """The latents over the training population.

    location            (L,)    mean of the encoder's means
    covariance          (L, L)  covariance of the encoder's means, ddof 1
    posterior_variance  (L,)    mean of exp(logvar): how exactly the encoder knows each latent
    size                        number of images that the moments were taken over
    sample              (p, L)  encoder means of a random few of them: the shape that moments do not tell
    familiarity                 None in bundles that were exported before it was measured, as `sample` is
    """

    location: Float64Array
    covariance: Float64Array
    posterior_variance: Float64Array
    size: int
    sample: Float64Array | None = None
    familiarity: Familiarity | None = None

    @classmethod
    def from_latents(cls, latents: NDArray[np.floating], familiarity: Familiarity | None = None) -> Self:
        """The population of `latents` (N, 2, L), N >= 2, in random order: the first are its sample."""
        mean, logvar = np.asarray(latents, dtype=np.float64).transpose(1, 0, 2)
        return cls(
            location=mean.mean(axis=0),
            covariance=np.atleast_2d(np.cov(mean, rowvar=False)),
            posterior_variance=np.exp(logvar).mean(axis=0),
            size=len(mean),
            sample=mean[:SAMPLE_SIZE].astype(np.float32).astype(np.float64),
            familiarity=familiarity,
        )

    @property
    def live_dims(self) -> NDArray[np.intp]:
        """Indices of the latents that vary over the population."""
        return np.flatnonzero(np.diag(self.covariance) >= DEAD_VARIANCE)

    def to_npz(self) -> bytes:
        buffer = BytesIO()
        arrays: dict[str, Any] = {
            "location": self.location,
            "covariance": self.covariance,
            "posterior_variance": self.posterior_variance,
            "size": np.int64(self.size),
        }
        if self.sample is not None:
            arrays["sample"] = self.sample.astype(np.float32)
        if self.familiarity is not None:
            arrays["familiarity"] = np.array([self.familiarity.median, self.familiarity.high])
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, content: bytes, latent_dim: int) -> Self:
        """The population of `latent_dim` latents that the file holds.

        Raises BundleCorrupt for anything but finite moments, a finite sample, and errors in their order.
        """
        try:
            with np.load(BytesIO(content), allow_pickle=False) as arrays:
                location = arrays["location"].astype(np.float64)
                covariance = arrays["covariance"].astype(np.float64)
                posterior_variance = arrays["posterior_variance"].astype(np.float64)
                size = int(arrays["size"])
                sample = arrays["sample"].astype(np.float64) if "sample" in arrays else None
                familiarity = arrays["familiarity"].astype(np.float64) if "familiarity" in arrays else None
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BundleCorrupt(f"{POPULATION} cannot be read: {error}.", EXPORT_AGAIN) from error
        shapes: dict[str, tuple[Float64Array, tuple[int, ...]]] = {
            "location": (location, (latent_dim,)),
            "covariance": (covariance, (latent_dim, latent_dim)),
            "posterior_variance": (posterior_variance, (latent_dim,)),
        }
        if sample is not None:
            shapes["sample"] = (sample, (max(len(np.atleast_1d(sample)), 1), latent_dim))
        for part, (array, expected) in shapes.items():
            if array.shape != expected or not np.isfinite(array).all():
                raise BundleCorrupt(
                    f"{POPULATION}: {part} has shape {array.shape}, or values that are not finite; "
                    f"the manifest calls for finite values of shape {expected}.",
                    EXPORT_AGAIN,
                )
        if size < 2 or not np.allclose(covariance, covariance.T) or (posterior_variance <= 0).any():
            raise BundleCorrupt(
                f"{POPULATION} does not hold moments: it needs a size of at least 2 (it has {size}), a "
                "symmetric covariance and positive posterior variances.",
                EXPORT_AGAIN,
            )
        known = None
        if familiarity is not None:
            if familiarity.shape != (2,) or not 0 < familiarity[0] <= familiarity[1] < np.inf:
                raise BundleCorrupt(
                    f"{POPULATION}: familiarity is {familiarity.tolist()}; it holds the median and a higher quantile "
                    "of the reconstruction errors, both positive.",
                    EXPORT_AGAIN,
                )
            known = Familiarity(*familiarity.tolist())
        return cls(location, covariance, posterior_variance, size, sample, known)
