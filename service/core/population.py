"""The training population's moments and sample: the background of every context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.core.types import Float64Array, IndexArray

# A latent is dead where the variance of its mean over the population is below this: it carries nothing.
DEAD_VARIANCE = 0.01
# Number of images in the population's sample.
SAMPLE_SIZE = 1_000


@dataclass(frozen=True)
class Familiarity:
    """How well the model knows held-out images of the population: quantiles of their error.

    median     the error of an ordinary image
    high       the 0.999 quantile
    margin     how many times `high` the error of an out-of-distribution image is
    error      what the error is: by default `reconstruction.reconstruction_error`
    tolerance  pixels that an image may be off its place, where its tolerant error counts as well; 0: it does not
    """

    median: float
    high: float
    # It leaves room for images of the same kind that came another way than the population did: through another camera,
    # renderer, size or compression.
    margin: float = 3.0
    error: str = "reconstruction error"
    tolerance: int = 0

    @classmethod
    def of(cls, errors: NDArray[np.floating], tolerance: int = 0) -> Self:
        """Return the quantiles of reconstruction errors (n,), n >= 1, of images that the model was not trained on."""
        median, high = np.quantile(errors, (0.5, 0.999)).tolist()
        return cls(median, high, tolerance=tolerance)

    @property
    def limit(self) -> float:
        """Return the error above which an image is out of distribution."""
        return self.margin * self.high


@dataclass(frozen=True, eq=False)
class Population:
    """The latents of the training population.

    location            (L,)    mean of the encoder's means
    covariance          (L, L)  covariance of the encoder's means, ddof 1
    posterior_variance  (L,)    mean of exp(logvar): how exactly the encoder knows each latent
    size                number of images in the moments
    sample              (p, L)  encoder means of a random sample: the distribution's shape, which moments do not tell
    familiarity         None, as `sample` is, in bundles that were exported before it existed
    graded              images vary gradually, as photographs do, rather than by rules
    """

    location: Float64Array
    covariance: Float64Array
    posterior_variance: Float64Array
    size: int
    sample: Float64Array | None = None
    familiarity: Familiarity | None = None
    graded: bool = False

    @classmethod
    def from_latents(
        cls, latents: NDArray[np.floating], familiarity: Familiarity | None = None, graded: bool = False
    ) -> Self:
        """Return the population of `latents` (N, 2, L), N >= 2, in random order: the first become the sample."""
        mean, logvar = np.asarray(latents, dtype=np.float64).transpose(1, 0, 2)
        return cls(
            location=mean.mean(axis=0),
            covariance=np.atleast_2d(np.cov(mean, rowvar=False)),
            posterior_variance=np.exp(logvar).mean(axis=0),
            size=len(mean),
            sample=mean[:SAMPLE_SIZE].astype(np.float32).astype(np.float64),
            familiarity=familiarity,
            graded=graded,
        )

    @cached_property
    def live_dims(self) -> IndexArray:
        """Return the indices of the latents that vary over the population."""
        return np.flatnonzero(np.diag(self.covariance) >= DEAD_VARIANCE)
