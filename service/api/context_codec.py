"""Contexts as JSON: what /fit answers, and what other requests send back. Whatever comes back is checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.api.schemas import (
    MOST_CONTEXT_IMAGES,
    PortableCalibration,
    PortableContext,
    PortableFit,
    PortableKernel,
    PortableMoments,
)
from service.bundle.store import Bundle
from service.core.decide.calibration import MOST_KNOTS, Calibration
from service.core.detect import fit
from service.core.detect.context import Context
from service.core.detect.density_ratio import MOST_IMAGES, Kernel
from service.core.detect.gaussian import Fit
from service.core.detect.moments import Moments
from service.core.detect.standardize import FURTHEST as CLIPPED
from service.core.population import DEAD_VARIANCE, Population
from service.core.types import Float64Array
from service.errors import InvalidInput

FIT_AGAIN = "Send what `context` was in the answer of POST /fit, unchanged."
# Covariances that came through JSON are as symmetric as they went; more than rounding, as correlations, is an edit.
ROUNDING = 1e-6
# Where a fitted context can be, with room to spare; within these ranges nothing overflows, since all that scoring
# computes is at most of the fourth degree in them. Estimators see latents clipped to 1e3 standard deviations of the
# population, but the moments keep them as they are: encoders reach a few dozen.
FURTHEST = 1e6
# `fitting.fit` cuts logvar at -50 and 50.
POSTERIOR_VARIANCES = 1e-22, 1e22
# In the population's variances. A fit adds a quarter of the posterior variance, and the population's is 0.01 or more.
SMALLEST_VARIANCE, LARGEST_VARIANCE = 1e-26, 1e24
# No sum of squares is larger, in the latents' own units: its square is finite as well.
LARGEST_SUM = 1e100
# Of the covariance, as correlations: with less, rounding decides whether it has a Cholesky factor.
LEAST_EIGENVALUE = 1e-12
# In standard deviations of the population: `service.core.detect.density_ratio` tries 1 to 16 of the encoder's
# posterior.
SMALLEST_BANDWIDTH, LARGEST_BANDWIDTH = 1e-14, 1e14
# No score and no evidence of a fit is larger.
LARGEST_SCORE, LARGEST_EVIDENCE, SMALLEST_SHARE = 1e45, 1e4, 1e-9
LOCATION_UNITS = "in standard deviations of the population from its mean"
VARIANCE_UNITS = "in the population's variances"


def to_portable(context: Context, bundle_id: str) -> PortableContext:
    """Return `context` as JSON's types, every number in full. It was fitted to at least one image."""
    assert context.moments is not None, "the population is no context of the client's"
    return PortableContext(
        bundle_id=bundle_id,
        estimator=context.estimator,
        size=context.size,
        location=context.location.tolist(),
        covariance=context.covariance.tolist(),
        moments=PortableMoments(
            size=context.size, mean=context.moments.mean.tolist(), scatter=context.moments.scatter.tolist()
        ),
        posterior_variance=context.posterior_variance.tolist(),
        radius_squared=context.radius_squared,
        contamination=context.contamination,
        reliability=context.reliability,
        warnings=list(context.warnings),
        kernel=None if context.kernel is None else _kernel_to_portable(context.kernel),
        robust=None if context.robust is None else _fit_to_portable(context.robust),
        calibration=None if context.calibration is None else _calibration_to_portable(context.calibration),
        foreign_limit=context.ood_limit,
    )


def from_portable(portable: PortableContext, bundle: Bundle) -> Context:
    """Return the context that a client sent.

    Raises InvalidInput for the context of another bundle, and for numbers that no context of this bundle can have. All
    that is computed from an accepted context stays finite.
    """
    if portable.bundle_id != bundle.manifest.bundle_id:
        raise InvalidInput(
            f"The context belongs to bundle {portable.bundle_id[:12]}..., this service has "
            f"{bundle.manifest.bundle_id[:12]}... ({bundle.manifest.model}): their latents mean different things.",
            "Fit it again with POST /fit of this service, or send it to the service that made it.",
        )
    if portable.size != portable.moments.size:
        raise InvalidInput(
            f"The context's size is {portable.size}, but its moments are of {portable.moments.size} images.", FIT_AGAIN
        )
    latent_dim, population = bundle.manifest.latent_dim, bundle.population
    moments = Moments(
        float(portable.moments.size),
        _array(portable.moments.mean, (latent_dim,), "moments.mean"),
        _matrix(portable.moments.scatter, latent_dim, "moments.scatter"),
    )
    context = Context(
        location=_array(portable.location, (latent_dim,), "location"),
        covariance=_matrix(portable.covariance, latent_dim, "covariance"),
        moments=moments,
        posterior_variance=_array(portable.posterior_variance, (latent_dim,), "posterior_variance"),
        radius_squared=portable.radius_squared,
        source="reference",
        estimator=portable.estimator,
        contamination=portable.contamination,
        reliability=portable.reliability,
        warnings=tuple(portable.warnings),
        kernel=None if portable.kernel is None else _kernel_from_portable(portable.kernel, len(population.live_dims)),
        robust=None if portable.robust is None else _fit_from_portable(portable.robust, len(population.live_dims)),
        calibration=None if portable.calibration is None else _calibration_from_portable(portable.calibration),
        ood_limit=portable.foreign_limit,
    )
    _check_fit(context, population, "The context's")
    _check_moments(moments, population)
    return context


def merge(contexts: Sequence[Context], population: Population) -> Context:
    """Return one context for the images of all contexts, as `service.core.detect.fit.merge` does.

    Raises InvalidInput where the result is no context that a client could send again, as where it has too many images.
    """
    size = sum(context.size for context in contexts)
    if size > MOST_CONTEXT_IMAGES:
        raise InvalidInput(
            f"The contexts are of {size} images together, expected at most {MOST_CONTEXT_IMAGES}.", "Merge fewer."
        )
    merged = fit.merge(contexts, population)
    if len(contexts) > 1:
        _check_fit(merged, population, "The merged contexts'")
    return merged


def _check_fit(context: Context, population: Population, whose: str) -> None:
    """Raise InvalidInput unless location, covariance and noise are in range and the covariance is positive definite."""
    unit = _units(population)
    live = population.live_dims
    variance = np.diag(context.covariance) / unit**2
    deviation = _deviations(context.location, population)
    _check_range(deviation, -FURTHEST, FURTHEST, f"{whose} location", LOCATION_UNITS)
    _check_range(context.posterior_variance, *POSTERIOR_VARIANCES, f"{whose} posterior_variance", "")
    # A dead latent has the population's variance, however small.
    least = np.full(len(variance), np.finfo(np.float64).smallest_subnormal)
    least[live] = SMALLEST_VARIANCE
    on_diagonal = f"on the diagonal, {VARIANCE_UNITS}"
    _check_range(variance, least, LARGEST_VARIANCE, f"{whose} covariance", on_diagonal)
    # Over what the model uses, in units that make every variance 1, so that a small scale is no singularity.
    smallest = _smallest_eigenvalue(context.covariance[np.ix_(live, live)])
    if smallest <= LEAST_EIGENVALUE:
        raise InvalidInput(
            f"{whose} covariance is not positive definite: as correlations its smallest eigenvalue is {smallest:.3g}, "
            f"expected more than {LEAST_EIGENVALUE:g}.",
            FIT_AGAIN,
        )


def _check_moments(moments: Moments, population: Population) -> None:
    """Raise InvalidInput unless images can have such moments."""
    unit = _units(population)
    variance = np.diag(moments.scatter) / moments.size / unit**2
    deviation = _deviations(moments.mean, population)
    _check_range(deviation, -FURTHEST, FURTHEST, "The context's moments.mean", LOCATION_UNITS)
    # No image lies further than twice FURTHEST from the mean of the others.
    of_each = f"for each image, on the diagonal, {VARIANCE_UNITS}"
    _check_range(variance, 0, 4 * FURTHEST**2, "The context's moments.scatter", of_each)
    smallest = _smallest_eigenvalue(moments.scatter)
    if smallest < -ROUNDING:
        raise InvalidInput(
            "The context's moments.scatter is no sum of outer products: as correlations its smallest eigenvalue is "
            f"{smallest:.3g}, expected 0 or more.",
            FIT_AGAIN,
        )


def _units(population: Population) -> Float64Array:
    """Return the population's standard deviations (L,). A dead latent counts with the one at which latents come
    alive."""
    return np.sqrt(np.maximum(np.diag(population.covariance), DEAD_VARIANCE))


def _deviations(latents: Float64Array, population: Population) -> Float64Array:
    """Return latents (L,) as distances from the population's mean in its standard deviations, infinite on overflow."""
    with np.errstate(over="ignore"):
        return np.asarray((latents - population.location) / _units(population))


def _smallest_eigenvalue(matrix: Float64Array) -> float:
    """Return a lower bound of the smallest eigenvalue of a matrix (d, d) scaled to a diagonal of 1; 1 where d is 0.

    Rounding can make the matrix unsymmetric, and a computation may read either triangle: that difference is taken off.
    """
    spread = np.sqrt(np.diag(matrix))
    # An axis without any spread stays as it is: it has nothing beside its diagonal either.
    scale = np.where(spread > 0, spread, 1)
    scaled = matrix / scale[:, None] / scale
    return float(np.linalg.eigvalsh(scaled).min(initial=1) - np.linalg.norm(scaled - scaled.T))


def _check_range(values: Float64Array, low: float | Float64Array, high: float, name: str, units: str) -> None:
    """Raise InvalidInput that names the first of the values (n,) that is outside its range, or not a number."""
    outside = np.flatnonzero(~((values >= low) & (values <= high)))
    if outside.size:
        index = outside[0]
        expected = f"{np.broadcast_to(low, values.shape)[index]:.3g} to {high:.3g}{units and ', '}{units}"
        raise InvalidInput(f"{name}[{index}] is {values[index]:.3g}, expected {expected}.", FIT_AGAIN)


def _kernel_to_portable(kernel: Kernel) -> PortableKernel:
    return PortableKernel(
        points=kernel.points.tolist(),
        weights=kernel.weights.tolist(),
        bandwidth=[width if np.isfinite(width) else None for width in kernel.bandwidth.tolist()],
    )


def _kernel_from_portable(portable: PortableKernel, live: int) -> Kernel:
    size = len(portable.points)
    if not 1 <= size <= MOST_IMAGES:
        raise InvalidInput(f"The context's kernel.points are {size}, expected 1 to {MOST_IMAGES}.", FIT_AGAIN)
    weights = _array(portable.weights, (size,), "kernel.weights")
    _check_range(weights, 0.0, 1.0, "The context's kernel.weights", "probabilities")
    # Null is infinite: the latent is free.
    widths = [LARGEST_BANDWIDTH if width is None else width for width in portable.bandwidth]
    bandwidth = _array(widths, (live,), "kernel.bandwidth")
    subject, units = "The context's kernel", "standard deviations of the population"
    _check_range(bandwidth, SMALLEST_BANDWIDTH, LARGEST_BANDWIDTH, f"{subject}.bandwidth", f"{units}, or null")
    bandwidth = np.array([np.inf if width is None else width for width in portable.bandwidth])
    points = _array(portable.points, (size, live), "kernel.points")
    _check_range(points.reshape(-1), -CLIPPED, CLIPPED, f"{subject}.points, flattened,", units)
    return Kernel(points, weights, bandwidth)


def _fit_to_portable(fit: Fit) -> PortableFit:
    return PortableFit(location=fit.location.tolist(), covariance=fit.covariance.tolist())


def _fit_from_portable(portable: PortableFit, live: int) -> Fit:
    location = _array(portable.location, (live,), "robust.location")
    _check_range(location, -FURTHEST, FURTHEST, "The context's robust.location", LOCATION_UNITS)
    covariance = _matrix(portable.covariance, live, "robust.covariance")
    on_diagonal = f"on the diagonal, {VARIANCE_UNITS}"
    variance = np.diag(covariance)
    _check_range(variance, SMALLEST_VARIANCE, LARGEST_VARIANCE, "The context's robust.covariance", on_diagonal)
    smallest = _smallest_eigenvalue(covariance)
    if smallest <= LEAST_EIGENVALUE:
        raise InvalidInput(
            "The context's robust.covariance is not positive definite: as correlations its smallest eigenvalue is "
            f"{smallest:.3g}, expected more than {LEAST_EIGENVALUE:g}.",
            FIT_AGAIN,
        )
    return Fit(location, covariance)


def _calibration_to_portable(calibration: Calibration) -> PortableCalibration:
    return PortableCalibration(
        scores=calibration.scores.tolist(), evidence=calibration.evidence.tolist(), share=calibration.share
    )


def _calibration_from_portable(portable: PortableCalibration) -> Calibration:
    size, name = len(portable.scores), "The context's calibration"
    if not 1 <= size <= MOST_KNOTS:
        raise InvalidInput(f"{name}.scores are {size}, expected 1 to {MOST_KNOTS}.", FIT_AGAIN)
    scores = _array(portable.scores, (size,), "calibration.scores")
    evidence = _array(portable.evidence, (size,), "calibration.evidence")
    _check_range(scores, -LARGEST_SCORE, LARGEST_SCORE, f"{name}.scores", "")
    _check_range(evidence, -LARGEST_EVIDENCE, LARGEST_EVIDENCE, f"{name}.evidence", "nats")
    if (np.diff(scores) <= 0).any() or (np.diff(evidence) < 0).any():
        raise InvalidInput(f"{name} falls: its scores and evidence must rise.", FIT_AGAIN)
    if not SMALLEST_SHARE <= portable.share <= 1 - SMALLEST_SHARE:
        raise InvalidInput(f"{name}.share is {portable.share:g}, expected a probability inside 0 and 1.", FIT_AGAIN)
    return Calibration(scores, evidence, portable.share)


def _matrix(values: list[list[float]], latent_dim: int, name: str) -> Float64Array:
    """Return the values as a matrix (L, L), which must be symmetric, with no entry larger than a covariance's can
    be."""
    matrix = _array(values, (latent_dim, latent_dim), name)
    variance = np.diag(matrix)
    _check_range(variance, 0.0, LARGEST_SUM, f"The context's {name}", "on the diagonal")
    # Relative to both latents' deviations (Cauchy-Schwarz), so that one of a large scale excuses no other.
    largest = np.outer(np.sqrt(variance), np.sqrt(variance))
    if (np.abs(matrix) > largest * (1 + ROUNDING)).any():
        raise InvalidInput(
            f"The context's {name} is not positive definite: a covariance exceeds what its variances allow.", FIT_AGAIN
        )
    if (np.abs(matrix - matrix.T) > largest * ROUNDING).any():
        raise InvalidInput(f"The context's {name} is not symmetric.", FIT_AGAIN)
    return matrix


def _array(values: list[float] | list[list[float]], shape: tuple[int, ...], name: str) -> Float64Array:
    try:
        array = np.array(values, dtype=np.float64)
    except ValueError:  # rows of unequal length
        array = np.zeros(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise InvalidInput(
            f"The context's {name} has shape {array.shape}, or values that are not finite; this bundle calls "
            f"for finite values of shape {shape}.",
            FIT_AGAIN,
        )
    return array
