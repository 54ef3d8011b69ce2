"""Contexts as JSON: what /fit answers, and what other requests send back. Whatever comes back is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from service.api.contexts import checks
from service.api.contexts.portable import (
    MOST_CONTEXT_IMAGES,
    PortableCalibration,
    PortableContext,
    PortableDivergence,
    PortableFit,
    PortableKernel,
    PortableMoments,
)
from service.bundle.manifest import ENCODER_INT8
from service.bundle.store import Bundle
from service.core.decide.calibration import MOST_KNOTS, Calibration
from service.core.detect import fit
from service.core.detect.context import Context
from service.core.detect.density_ratio import MOST_IMAGES, Kernel
from service.core.detect.divergence import Divergence
from service.core.detect.gaussian import Fit
from service.core.detect.moments import Moments
from service.core.detect.standardize import FURTHEST as CLIPPED
from service.core.population import Population
from service.errors import InvalidInput


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
        divergence=None if context.divergence is None else PortableDivergence(**asdict(context.divergence)),
        calibration=None if context.calibration is None else _calibration_to_portable(context.calibration),
        foreign_limit=context.ood_limit,
    )


def from_portable(portable: PortableContext, bundle: Bundle) -> Context:
    """Return the context that a client sent.

    Raises InvalidInput for the context of another bundle, and for numbers that no context of this bundle can have. All
    that is computed from an accepted context stays finite.
    """
    if portable.bundle_id == bundle.other_id:
        own, other = ("int8", "fp32") if bundle.encoder == ENCODER_INT8 else ("fp32", "int8")
        raise InvalidInput(
            f"The context was fitted with the encoder of this bundle in {other}, and this service runs it in {own}: "
            "their latents differ.",
            f"Fit it again with POST /fit of this service, or serve the bundle with MISFIT_PRECISION={other}.",
        )
    if portable.bundle_id != bundle.manifest.bundle_id:
        raise InvalidInput(
            f"The context belongs to bundle {portable.bundle_id[:12]}..., this service has "
            f"{bundle.manifest.bundle_id[:12]}... ({bundle.manifest.model}): their latents mean different things.",
            "Fit it again with POST /fit of this service, or send it to the service that made it.",
        )
    if portable.size != portable.moments.size:
        raise InvalidInput(
            f"The context's size is {portable.size}, but its moments are of {portable.moments.size} images.",
            checks.FIT_AGAIN,
        )
    latent_dim, population = bundle.manifest.latent_dim, bundle.population
    moments = Moments(
        float(portable.moments.size),
        checks.read_array(portable.moments.mean, (latent_dim,), "moments.mean"),
        checks.read_matrix(portable.moments.scatter, latent_dim, "moments.scatter"),
    )
    context = Context(
        location=checks.read_array(portable.location, (latent_dim,), "location"),
        covariance=checks.read_matrix(portable.covariance, latent_dim, "covariance"),
        moments=moments,
        posterior_variance=checks.read_array(portable.posterior_variance, (latent_dim,), "posterior_variance"),
        radius_squared=portable.radius_squared,
        source="reference",
        estimator=portable.estimator,
        contamination=portable.contamination,
        reliability=portable.reliability,
        warnings=tuple(portable.warnings),
        kernel=None if portable.kernel is None else _kernel_from_portable(portable.kernel, len(population.live_dims)),
        robust=None if portable.robust is None else _fit_from_portable(portable.robust, len(population.live_dims)),
        divergence=None if portable.divergence is None else Divergence(**portable.divergence.model_dump()),
        calibration=None if portable.calibration is None else _calibration_from_portable(portable.calibration),
        ood_limit=portable.foreign_limit,
    )
    checks.check_fit(context, population, "The context's")
    checks.check_moments(moments, population)
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
        checks.check_fit(merged, population, "The merged contexts'")
    return merged


def _kernel_to_portable(kernel: Kernel) -> PortableKernel:
    return PortableKernel(
        points=kernel.points.tolist(),
        weights=kernel.weights.tolist(),
        bandwidth=[width if np.isfinite(width) else None for width in kernel.bandwidth.tolist()],
    )


def _kernel_from_portable(portable: PortableKernel, live: int) -> Kernel:
    size = len(portable.points)
    if not 1 <= size <= MOST_IMAGES:
        raise InvalidInput(f"The context's kernel.points are {size}, expected 1 to {MOST_IMAGES}.", checks.FIT_AGAIN)
    weights = checks.read_array(portable.weights, (size,), "kernel.weights")
    checks.check_range(weights, 0.0, 1.0, "The context's kernel.weights", "probabilities")
    # Null is infinite: the latent is free.
    widths = [checks.LARGEST_BANDWIDTH if width is None else width for width in portable.bandwidth]
    bandwidth = checks.read_array(widths, (live,), "kernel.bandwidth")
    subject, units = "The context's kernel", "standard deviations of the population"
    checks.check_range(
        bandwidth, checks.SMALLEST_BANDWIDTH, checks.LARGEST_BANDWIDTH, f"{subject}.bandwidth", f"{units}, or null"
    )
    bandwidth = np.array([np.inf if width is None else width for width in portable.bandwidth])
    points = checks.read_array(portable.points, (size, live), "kernel.points")
    checks.check_range(points.reshape(-1), -CLIPPED, CLIPPED, f"{subject}.points, flattened,", units)
    return Kernel(points, weights, bandwidth)


def _fit_to_portable(fit: Fit) -> PortableFit:
    return PortableFit(location=fit.location.tolist(), covariance=fit.covariance.tolist())


def _fit_from_portable(portable: PortableFit, live: int) -> Fit:
    location = checks.read_array(portable.location, (live,), "robust.location")
    checks.check_range(
        location, -checks.FURTHEST, checks.FURTHEST, "The context's robust.location", checks.LOCATION_UNITS
    )
    covariance = checks.read_matrix(portable.covariance, live, "robust.covariance")
    on_diagonal = f"on the diagonal, {checks.VARIANCE_UNITS}"
    variance = np.diag(covariance)
    checks.check_range(
        variance, checks.SMALLEST_VARIANCE, checks.LARGEST_VARIANCE, "The context's robust.covariance", on_diagonal
    )
    checks.check_definite(covariance, "The context's robust.covariance")
    return Fit(location, covariance)


def _calibration_to_portable(calibration: Calibration) -> PortableCalibration:
    return PortableCalibration(
        scores=calibration.scores.tolist(), evidence=calibration.evidence.tolist(), share=calibration.share
    )


def _calibration_from_portable(portable: PortableCalibration) -> Calibration:
    size, name = len(portable.scores), "The context's calibration"
    if not 1 <= size <= MOST_KNOTS:
        raise InvalidInput(f"{name}.scores are {size}, expected 1 to {MOST_KNOTS}.", checks.FIT_AGAIN)
    scores = checks.read_array(portable.scores, (size,), "calibration.scores")
    evidence = checks.read_array(portable.evidence, (size,), "calibration.evidence")
    checks.check_range(scores, -checks.LARGEST_SCORE, checks.LARGEST_SCORE, f"{name}.scores", "")
    checks.check_range(evidence, -checks.LARGEST_EVIDENCE, checks.LARGEST_EVIDENCE, f"{name}.evidence", "nats")
    if (np.diff(scores) <= 0).any() or (np.diff(evidence) < 0).any():
        raise InvalidInput(f"{name} falls: its scores and evidence must rise.", checks.FIT_AGAIN)
    if not checks.SMALLEST_SHARE <= portable.share <= 1 - checks.SMALLEST_SHARE:
        raise InvalidInput(
            f"{name}.share is {portable.share:g}, expected a probability inside 0 and 1.", checks.FIT_AGAIN
        )
    return Calibration(scores, evidence, portable.share)
