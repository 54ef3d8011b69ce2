"""Contexts: fitted to images by a named estimator, or merged from several contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.core.decide.calibration import FEWEST
from service.core.detect.context import Context
from service.core.detect.estimators.registry import estimator_named, estimator_of
from service.core.detect.gaussian import Fit
from service.core.detect.gaussian_odds import noise_floor, normal_fit
from service.core.detect.moments import Moments
from service.core.detect.posterior import calibrate_context, posterior_log_odds, ranking_scores, with_scores
from service.core.detect.standardize import PopulationUnits, canonical_order
from service.core.distributions import chi2_ppf, quantile
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR, EstimatorName, Float64Array, Source
from service.errors import ContextTooSmall, InvalidInput, ShapeMismatch

# Share of the normal images that lie within a context's radius.
INSIDE = 0.99
# Estimators whose location and covariance are those of all images, outliers included.
COUNTS_ALL: frozenset[str] = frozenset({"leave_one_out", "ledoit_wolf", "oas"})
# Of a variance. Contexts of identical images far apart spread along one line, and less beside it is lost in rounding.
LEAST_NOISE = 1e-11
# From this share of outliers on, nobody knows which images are normal.
HEAVY_CONTAMINATION = 0.4


def fit(
    latents: NDArray[np.floating],
    population: Population,
    *,
    estimator: EstimatorName = DEFAULT_ESTIMATOR,
    source: Source = "reference",
) -> Context:
    """Fit a context to the images with `latents` (n, 2, L). No image, or one image of a batch, falls back on the
    population.

    Raises InvalidOption, ShapeMismatch, InvalidInput (latents that are not finite) and ContextTooSmall (a reference
    without images).
    """
    estimator_named(estimator)
    check_latents(source, latents, population)
    if source == "reference" and len(latents) == 0:
        raise ContextTooSmall(
            "The reference holds 0 images, expected at least 1.", "Send normal images, or no reference."
        )
    if source == "batch" and len(latents) <= 1:
        source = "population"
    units = PopulationUnits.of(population)
    # A canonical order, so that sums round alike however the images are permuted.
    points = units.points(latents)
    order = canonical_order(points)
    latents, points = latents[order], points[order]
    posterior_variance = (
        np.exp(np.clip(latents[:, 1].astype(np.float64), -50, 50)).mean(axis=0)
        if len(latents)
        else population.posterior_variance
    )
    fitted, warnings = fit_context(points, noise_floor(posterior_variance, units), estimator, source, units)
    context = Context(
        location=units.location_in_latents(fitted.location),
        covariance=units.covariance_in_latents(fitted.covariance),
        moments=None if source == "population" else Moments.of(latents[:, 0].astype(np.float64)),
        posterior_variance=posterior_variance,
        radius_squared=float(chi2_ppf(INSIDE, max(units.live.size, 1))),
        source=source,
        estimator=estimator,
        contamination=None,
        reliability="low" if warnings else "high",
        warnings=warnings,
    )
    context = estimator_named(estimator).with_images(context, points, units)
    if len(points) >= FEWEST and units.live.size and source != "population":
        context = calibrate_context(
            context if context.scores is not None else with_scores(context, points, units), units
        )
    if len(points) > 2 * units.live.size and source != "population":
        context = replace(context, radius_squared=_radius_squared(points, context, units))
    if context.scores is not None:
        scores = np.empty(len(order))
        scores[order] = context.scores
        context = replace(context, scores=scores)
    return context


def _radius_squared(points: Float64Array, context: Context, units: PopulationUnits) -> float:
    """Return the squared distance within which INSIDE of what is normal lies, of the points (n, d) of a context.

    It is no larger than it would be in a Gaussian: of few images the last may be no normal one.
    """
    estimator = estimator_of(context)
    scores = context.scores
    if scores is None or not estimator.ranks_by_odds:
        scores = ranking_scores(estimator, points, context, units, np.zeros(len(points), dtype=bool))
    normal = 1 - expit(posterior_log_odds(scores, points, context, units))
    distances = normal_fit(context, units).distances(points)
    radius_squared = quantile(distances, INSIDE, normal) if normal.any() else float(distances.min())
    return min(radius_squared, context.radius_squared)


def merge(contexts: Sequence[Context], population: Population) -> Context:
    """Return one context for the images of all contexts.

    The moments and the mean posterior variance are exactly those of all images. Location and covariance are those of
    all images, or where a context holds outliers those of the images that each estimator found normal: misfits that
    each context left out stay out. A single context is returned as it is.
    Raises ContextTooSmall where one of several was fitted to no images.
    """
    if len(contexts) == 1:
        return contexts[0]
    parts = [context.moments for context in contexts]
    moments = None
    for part in parts:
        if part is None:
            raise ContextTooSmall("A context that was fitted to no images cannot be merged.", "Leave it out.")
        moments = part if moments is None else moments.merge(part)
    assert moments is not None, "there is at least one context"
    sizes = np.array([context.size for context in contexts], dtype=np.float64)
    posterior_variance = sizes @ [context.posterior_variance for context in contexts] / sizes.sum()
    units = PopulationUnits.of(population)
    moments_of = _normal_moments if any(map(_has_outliers, contexts)) else _all_moments
    normal = reduce(Moments.merge, (moments_of(context, units) for context in contexts))
    covariance = normal.scatter / max(normal.size - 1, 1)
    floor = np.maximum(noise_floor(posterior_variance, units), LEAST_NOISE * np.diag(covariance))
    covariance = covariance + np.diag(floor)
    contamination, warnings, is_doubtful = _merge_contamination(contexts)
    if normal.size <= 2 * units.live.size:
        warnings.append(_few(normal.size, units.live.size))
        is_doubtful = True
    return Context(
        location=units.location_in_latents(normal.mean),
        covariance=units.covariance_in_latents(covariance),
        moments=moments,
        posterior_variance=posterior_variance,
        radius_squared=float(chi2_ppf(INSIDE, max(units.live.size, 1))),
        source="reference",
        estimator="moments",
        contamination=contamination,
        reliability="low" if is_doubtful else "high",
        warnings=tuple(warnings),
        ood_limit=max(context.ood_limit for context in contexts),
    )


def _all_moments(context: Context, units: PopulationUnits) -> Moments:
    """Return the moments of all images of a context, in population units over the live latents."""
    moments = context.moments
    assert moments is not None, "a context without images is refused before"
    return units.moments_in_units(moments)


def _normal_moments(context: Context, units: PopulationUnits) -> Moments:
    """Return the moments of a context's normal images, in population units over the live latents.

    They are made of its location and covariance, with as many images as are normal. An estimator that counts every
    image as normal, and few images, whose covariance is regularised, tell no more than the moments of all.
    """
    if context.estimator in COUNTS_ALL or (context.size <= 2 * units.live.size and context.estimator != "moments"):
        return _all_moments(context, units)
    size = max(context.size * (1 - (context.contamination or 0)), 1.0)
    location, covariance = units.in_units(context)
    covariance = covariance - np.diag(noise_floor(context.posterior_variance, units))
    return Moments(size, location, covariance * max(size - 1, 0))


def _has_outliers(context: Context) -> bool:
    """Return whether at least one of a context's images looks like an outlier."""
    return (context.contamination or 0) * context.size >= 1


def _merge_contamination(contexts: Sequence[Context]) -> tuple[float | None, list[str], bool]:
    """Return the share of outliers of all contexts, one warning of them, and whether they make the merged one doubtful.

    It is doubtful where they are HEAVY_CONTAMINATION of the images or more, and where an estimator that counts every
    image as normal has fitted a context with outliers.
    """
    with_outliers = [context for context in contexts if _has_outliers(context)]
    if not with_outliers:
        return None, [], False
    size = sum(context.size for context in contexts)
    share = sum((context.contamination or 0) * context.size for context in contexts) / size
    count = sum(context.size for context in with_outliers)
    own_share = sum((context.contamination or 0) * context.size for context in with_outliers) / count
    which = "one context" if len(with_outliers) == 1 else f"{len(with_outliers)} of {len(contexts)} contexts"
    counted = sum(context.estimator in COUNTS_ALL for context in with_outliers)
    became = "they were left out of what is normal."
    if counted:
        became = "merged, they count as normal"
        became += "." if counted == len(with_outliers) else f" in {counted} of them."
    warning = f"{own_share:.0%} of the {count} images of {which} look like outliers; {became}"
    return share, [warning], bool(counted) or share >= HEAVY_CONTAMINATION


def fit_context(
    points: Float64Array, floor: Float64Array, estimator: EstimatorName, source: Source, units: PopulationUnits
) -> tuple[Fit, tuple[str, ...]]:
    """Return the moments of the normal images, from points (n, d) in population units, and warnings for the user."""
    n, d = points.shape
    background = Fit(np.zeros(d), units.correlation + np.diag(floor))
    if d == 0:
        return background, ("No latent of this model varies over its population: every image scores alike.",)
    if source == "population":
        return background, ("One usable image has no batch to differ from: scored against the model's population.",)
    if n <= 2:
        # The population counts as one more image: it breaks the tie of two, and gives a single one a spread.
        moments = Moments.of(points)
        covariance = (moments.scatter + background.covariance) / (n + 1) + np.diag(floor)
        blend = Fit(moments.mean * n / (n + 1), covariance)
        return blend, (f"A {source} of {n} is too small for a context: blended with the model's population.",)
    fit = estimator_named(estimator).fit(points, floor, background)
    if n <= 2 * d:
        return fit, (_few(n, d), *fit.warnings)
    return fit, fit.warnings


def _few(size: float, d: int) -> str:
    return f"{size:.0f} images are few for {d} live latents: the scores are regularised, the probabilities rough."


def check_latents(name: str, latents: NDArray[np.floating], population: Population) -> None:
    expected = (2, len(population.location))
    if latents.ndim != 3 or latents.shape[1:] != expected:
        raise ShapeMismatch(f"{name} has shape {latents.shape}, expected (n, {expected[0]}, {expected[1]}).")
    if not np.isfinite(latents).all():
        raise InvalidInput(f"{name} holds values that are not finite.", "Check the encoder and its input.")
