"""Contexts that travel: what /fit answers and other requests bring back, checked as anything from outside is."""

from __future__ import annotations

import numpy as np

from service.bundle import Bundle
from service.context import Context, Float64Array, Moments
from service.errors import InvalidInput
from service.kernel import MOST_IMAGES, Kernel
from service.schemas import PortableContext, PortableKernel, PortableMoments

FIT_AGAIN = "Send what `context` was in the answer of POST /fit, unchanged."
# Covariances that came through JSON are as symmetric as they went; more than rounding is an edit.
SYMMETRY_TOLERANCE = 1e-9


def to_portable(context: Context, bundle_id: str) -> PortableContext:
    """`context`, which was fitted to at least one image, with every number in full."""
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
    )


def from_portable(portable: PortableContext, bundle: Bundle) -> Context:
    """The context. Raises InvalidInput for another bundle's, and for what cannot be a context's moments."""
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
    latent_dim = bundle.manifest.latent_dim
    variance = _array(portable.posterior_variance, (latent_dim,), "posterior_variance")
    if (variance <= 0).any():
        raise InvalidInput("The context's posterior_variance is not positive throughout.", FIT_AGAIN)
    covariance = _symmetric(portable.covariance, latent_dim, "covariance")
    # Over what the model uses, in units that make every variance 1, so that a small scale is no singularity.
    live = bundle.population.live_dims
    block, spread = covariance[np.ix_(live, live)], np.diag(covariance)[live]
    if (spread <= 0).any() or np.linalg.eigvalsh(block / np.sqrt(np.outer(spread, spread))).min(initial=1) <= 1e-12:
        raise InvalidInput("The context's covariance is not positive definite.", FIT_AGAIN)
    scatter = _symmetric(portable.moments.scatter, latent_dim, "moments.scatter")
    if (np.diag(scatter) < 0).any():
        raise InvalidInput("The context's moments.scatter has a negative diagonal.", FIT_AGAIN)
    return Context(
        location=_array(portable.location, (latent_dim,), "location"),
        covariance=covariance,
        moments=Moments(
            float(portable.moments.size), _array(portable.moments.mean, (latent_dim,), "moments.mean"), scatter
        ),
        posterior_variance=variance,
        radius_squared=portable.radius_squared,
        source="reference",
        estimator=portable.estimator,
        contamination=portable.contamination,
        reliability=portable.reliability,
        warnings=tuple(portable.warnings),
        kernel=None if portable.kernel is None else _kernel_from_portable(portable.kernel, len(live)),
    )


def _kernel_to_portable(kernel: Kernel) -> PortableKernel:
    return PortableKernel(
        points=kernel.points.tolist(),
        weights=kernel.weights.tolist(),
        bandwidth=[width if np.isfinite(width) else None for width in kernel.bandwidth.tolist()],
        typical=kernel.typical,
        spread=kernel.spread,
        contamination=kernel.contamination,
    )


def _kernel_from_portable(portable: PortableKernel, live: int) -> Kernel:
    size = len(portable.points)
    if not 1 <= size <= MOST_IMAGES:
        raise InvalidInput(f"The context's kernel.points are {size}, expected 1 to {MOST_IMAGES}.", FIT_AGAIN)
    weights = _array(portable.weights, (size,), "kernel.weights")
    if ((weights < 0) | (weights > 1)).any():
        raise InvalidInput("The context's kernel.weights are not all probabilities.", FIT_AGAIN)
    bandwidth = np.array([np.inf if width is None else width for width in portable.bandwidth])
    if bandwidth.shape != (live,) or (bandwidth <= 0).any():
        raise InvalidInput(
            f"The context's kernel.bandwidth has {len(bandwidth)} entries, or some that are not positive; this bundle "
            f"calls for {live} that are positive, or null.",
            FIT_AGAIN,
        )
    points = _array(portable.points, (size, live), "kernel.points")
    return Kernel(points, weights, bandwidth, portable.typical, portable.spread, portable.contamination)


def _symmetric(values: list[list[float]], latent_dim: int, name: str) -> Float64Array:
    matrix = _array(values, (latent_dim, latent_dim), name)
    if not np.allclose(matrix, matrix.T, rtol=SYMMETRY_TOLERANCE, atol=SYMMETRY_TOLERANCE * np.abs(matrix).max()):
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
