"""A context: the location and covariance of normal latents, and how far to trust them.

A context that was fitted to images can be sent elsewhere: it holds all that scoring, explaining and editing need. It
also holds the plain moments of its images, which merge exactly with those of other images.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.core.decide.calibration import Calibration
from service.core.detect.density_ratio import Kernel
from service.core.detect.divergence import Divergence
from service.core.detect.gaussian import Fit
from service.core.detect.moments import Moments
from service.core.types import ContextEstimatorName, Float64Array, Reliability, Source


@dataclass(frozen=True)
class Context:
    """The normal images' moments, and where they came from.

    location            (L,)    centre of the normal images' encoder means
    covariance          (L, L)  their covariance with the noise floor, positive definite over the live latents. A dead
                                latent has the population's moments and is uncorrelated with the others
    moments             of the encoder means of all images that the context was fitted to, outliers included; None where
                        it was fitted to none
    posterior_variance  (L,)    mean posterior variance of those images: how exactly the encoder knows each latent
    radius_squared      squared Mahalanobis distance within which 99% of the normal images lie
    source              "batch": the scored images themselves; "reference": other images, sent now or when the context
                        was fitted; "population": there are too few images for a context of their own
    contamination       estimated share of outliers among those images; None where nothing estimates it
    reliability         "low" where a warning doubts the moments or the flags
    warnings            what the user should know, as sentences
    kernel              the images themselves, as far as `density_ratio` and `ensemble` compare others with them
    robust              moments in population units over the live latents: of `ensemble` those of the nearest 75%, of
                        `density_ratio` on a graded population those of the nearest half
    divergence          of `ensemble`: how far its images lie from the population
    calibration         what scores in this context say; None where too few images tell
    scores              (n,)    what the images score that `calibration` is made with, in their order
    population_scores   (p,)    what a sample of the population scores in this context; neither scores travel with it
    ood_limit           the limit of the foreign check in this context: see `ood.contextual_limit`
    """

    location: Float64Array
    covariance: Float64Array
    moments: Moments | None
    posterior_variance: Float64Array
    radius_squared: float
    source: Source
    estimator: ContextEstimatorName
    contamination: float | None
    reliability: Reliability
    warnings: tuple[str, ...]
    kernel: Kernel | None = None
    robust: Fit | None = None
    divergence: Divergence | None = None
    calibration: Calibration | None = None
    scores: Float64Array | None = None
    population_scores: Float64Array | None = None
    ood_limit: float = 1.0

    @property
    def size(self) -> int:
        """Return the number of images that the context was fitted to."""
        return 0 if self.moments is None else round(self.moments.size)
