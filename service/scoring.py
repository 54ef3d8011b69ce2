"""From latents to scores: how far an image is from its context, how probably it is a misfit, and its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2, gamma

from service import kernel
from service.context import (
    Context,
    ContextEstimator,
    Estimator,
    Float64Array,
    Moments,
    PopulationUnits,
    Reliability,
    Source,
)
from service.errors import ContextTooSmall, InvalidInput, InvalidOption, ShapeMismatch
from service.estimators import (
    FITS,
    Fit,
    is_degenerate,
    leave_one_out_distances,
    log_density,
    mahalanobis_squared,
    marginal_distances,
)
from service.mixture import fit_mixture
from service.population import Population

DEFAULT_ESTIMATOR: Estimator = "density_ratio"
# Those whose score is the log posterior odds of being an outlier; the others' is the distance.
RANKED_BY_ODDS: tuple[ContextEstimator, ...] = ("density_ratio", "mixture", "moments")
# The noise floor, in units of the encoder's mean posterior variance.
FLOOR_SHARE = 0.25
# The share of outliers before anything is seen, and how many images that guess is worth.
PRIOR_CONTAMINATION, PRIOR_WEIGHT = 0.05, 5.0
HEAVY_CONTAMINATION = 0.4
# Outliers follow the population, but this share of them lies anywhere within this many times its spread.
FAR_SHARE, FAR = 1e-3, 5.0
SHARE_ITERATIONS = 50
# Share of the normal images that lie within a context's radius.
INSIDE = 0.99
# A foreign image scores more than this, and more than any image that the model knows.
FOREIGN_SCORE = 1e6
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Scores:
    """One entry for every image, in input order.

    outlier_score        (n,)  what ranks: log posterior odds of being an outlier (RANKED_BY_ODDS), in every
                               other estimator mahalanobis_squared; a foreign image's is its foreignness times
                               FOREIGN_SCORE, or times the largest of the others' where that is more
    mahalanobis_squared  (n,)  squared distance to the context over the live latents (`leave_one_out` in a
                               batch: to the moments of the other images)
    outlier_probability  (n,)  posterior probability in [0, 1] of having come from the population rather than
                               from the context, given its latents (RANKED_BY_ODDS) or its distance (others);
                               1 for a foreign image
    is_outlier           (n,)
    rank                 (n,)  1 = most outlying; ties go to the earlier image
    """

    context: Context
    outlier_score: Float64Array
    mahalanobis_squared: Float64Array
    outlier_probability: Float64Array
    is_outlier: NDArray[np.bool_]
    rank: NDArray[np.int64]


def score(
    latents: NDArray[np.floating],
    population: Population,
    *,
    estimator: Estimator = DEFAULT_ESTIMATOR,
    threshold: float = 0.5,
    fdr: float | None = None,
    reference: NDArray[np.floating] | None = None,
    context: Context | None = None,
    foreignness: NDArray[np.floating] | None = None,
) -> Scores:
    """Score `latents` (n, 2, L), mean and logvar, against each other, `reference` (m, 2, L), or a fitted `context`.

    An image is flagged where its outlier probability exceeds `threshold`; with `fdr`, instead, the largest
    top-ranked set is flagged whose mean of (1 - outlier probability) is at most `fdr`. An image whose
    `foreignness` (n,) exceeds 1 is unlike anything that the model was trained on: it ranks above the others, is
    always flagged and takes no part in the context.

    Raises InvalidOption, ShapeMismatch, InvalidInput (no images, or latents that are not finite) and
    ContextTooSmall (an empty reference).
    """
    _check_options(estimator, threshold, fdr)
    _check_latents("latents", latents, population)
    if len(latents) == 0:
        raise InvalidInput("Received 0 images, expected at least 1.", "Send the images to be scored.")
    foreign = np.zeros(len(latents), dtype=bool) if foreignness is None else foreignness > 1
    if context is None:
        native = latents[~foreign]
        context = (
            fit(reference, population, estimator=estimator, source="reference")
            if reference is not None
            else fit(native, population, estimator=estimator, source="batch")
        )
    units = PopulationUnits.of(population)
    points = units.points(latents)

    if context.estimator == "leave_one_out" and context.source == "batch" and context.size > 2:
        distances = _distances(points, context, units)
        # A canonical order, so that sums round alike however the images are permuted.
        order = np.flatnonzero(~foreign)[_canonical_order(points[~foreign])]
        # The published formula has no floor: it stays exact wherever the others' covariance can be inverted.
        floor = FLOOR_SHARE * context.posterior_variance[units.live] / units.unit**2
        needed = floor if is_degenerate(points[order]) else np.zeros_like(floor)
        distances[order] = leave_one_out_distances(points[order], needed)
    else:
        distances = _distances(points, context, units)
    odds = log_odds(latents, context, population)
    ranks_by_odds = context.estimator in RANKED_BY_ODDS
    if ranks_by_odds or context.source == "population" or units.live.size == 0:
        probability: Float64Array = expit(odds)
    else:
        fitted, background = _fitted(context, units), background_fit(context, units)
        probability = two_group_posterior(distances, ~foreign, fitted, background, context.source)
    outlier_score = odds if ranks_by_odds else distances
    if foreignness is not None:
        above = max(FOREIGN_SCORE, outlier_score[~foreign].max(initial=0))
        outlier_score = np.where(foreign, above * foreignness, outlier_score)
        probability = np.where(foreign, 1.0, probability)
    rank = np.empty(len(points), dtype=np.int64)
    rank[np.argsort(-outlier_score, kind="stable")] = np.arange(1, len(points) + 1)
    flags = probability > threshold if fdr is None else false_discovery_flags(probability, rank, fdr)

    if context.source == "batch":
        context = _of_batch(context, probability, foreign)
    return Scores(context, outlier_score, distances, probability, flags | foreign, rank)


def fit(
    latents: NDArray[np.floating],
    population: Population,
    *,
    estimator: Estimator = DEFAULT_ESTIMATOR,
    source: Source = "reference",
) -> Context:
    """The context that the images with `latents` (n, 2, L) make. None, or one in a batch, falls back on the population.

    Raises InvalidOption, ShapeMismatch, InvalidInput (latents that are not finite) and ContextTooSmall (no images
    in a reference).
    """
    _check_options(estimator)
    _check_latents(source, latents, population)
    if source == "reference" and len(latents) == 0:
        raise ContextTooSmall(
            "The reference holds 0 images, expected at least 1.", "Send normal images, or no reference."
        )
    if source == "batch" and len(latents) <= 1:
        source = "population"
    units = PopulationUnits.of(population)
    # A canonical order, so that sums round alike however the images are permuted.
    latents = latents[_canonical_order(units.points(latents))]
    points = units.points(latents)
    posterior_variance = (
        np.exp(np.clip(latents[:, 1].astype(np.float64), -50, 50)).mean(axis=0)
        if len(latents)
        else population.posterior_variance
    )
    fitted, warnings = fit_context(points, _floor(posterior_variance, units), estimator, source, units)
    context = Context(
        location=units.location_in_latents(fitted.location),
        covariance=units.covariance_in_latents(fitted.covariance),
        moments=None if source == "population" else Moments.of(latents[:, 0].astype(np.float64)),
        posterior_variance=posterior_variance,
        radius_squared=float(chi2.ppf(INSIDE, max(units.live.size, 1))),
        source=source,
        estimator=estimator,
        contamination=fitted.contamination,
        reliability="low" if warnings else "high",
        warnings=warnings,
    )
    if estimator == "density_ratio" and len(points) > 2 and units.live.size:
        context = _with_kernel(context, points, units)
    if len(points) <= 2 * units.live.size or source == "population":
        return context
    # What is normal here, but no further than it would be in a Gaussian: of few images the last may be no normal one.
    normal = 1 - expit(log_odds(latents, context, population))
    reached = _quantile(_distances(points, context, units), normal, INSIDE)
    return replace(context, radius_squared=min(reached, context.radius_squared))


def merge(contexts: Sequence[Context], population: Population) -> Context:
    """One context for the images of several, as if their moments had been taken together.

    The moments, and the mean posterior variance, are exactly those of all the images; the location and covariance are
    theirs too, with the noise floor: no image is left to tell outliers by. A single context is returned as it is.
    Raises ContextTooSmall where one was fitted to no images.
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
    location = (moments.mean - population.location)[units.live] / units.unit
    scatter = moments.scatter[np.ix_(units.live, units.live)] / np.outer(units.unit, units.unit)
    covariance = scatter / max(moments.size - 1, 1) + np.diag(_floor(posterior_variance, units))
    warnings = [
        f"{context.contamination:.0%} of the {context.size} images of one context look like outliers; "
        "merged, they count as normal."
        for context in contexts
        if (context.contamination or 0) * context.size >= 1
    ]
    if moments.size <= 2 * units.live.size:
        warnings.append(_few(moments.size, units.live.size))
    return Context(
        location=units.location_in_latents(location),
        covariance=units.covariance_in_latents(covariance),
        moments=moments,
        posterior_variance=posterior_variance,
        radius_squared=float(chi2.ppf(INSIDE, max(units.live.size, 1))),
        source="reference",
        estimator="moments",
        contamination=None,
        reliability="low" if warnings else "high",
        warnings=tuple(warnings),
    )


def mahalanobis(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Squared distance (n,) of latents (n, 2, L) or of means (n, L) to `context`, over the live latents."""
    units = PopulationUnits.of(population)
    return _distances(units.points(latents), context, units)


def log_odds(latents: NDArray[np.floating], context: Context, population: Population) -> Float64Array:
    """Log posterior odds (n,) of outlier against inlier of latents (n, 2, L) or means (n, L), given the latents."""
    units = PopulationUnits.of(population)
    known = context.contamination if context.source == "batch" else None
    share = PRIOR_CONTAMINATION if known is None else known
    points, sample = units.points(latents), units.sample()
    gaussian = outlier_log_odds(points, _fitted(context, units), background_fit(context, units), share)
    if context.kernel is None or sample is None:
        return gaussian
    base = np.log(share / (1 - share)) - gaussian
    return kernel.log_odds(kernel.log_ratios(points, context.kernel, sample, base), context.kernel, share)


def marginal_log_ratios(
    points: Float64Array, context: Context, units: PopulationUnits, axes: NDArray[np.bool_]
) -> Float64Array:
    """Log ratios (s, n) of two Gaussians, `context` to population, at points (n, d), on sets of axes (s, d).

    On all axes this is the log odds of `outlier_log_odds` the other way round.
    """
    inlier, inlier_volume = marginal_distances(points, _fitted(context, units), axes)
    outlier, outlier_volume = marginal_distances(points, background_fit(context, units), axes)
    tail = far_tail(outlier, axes.sum(axis=1)[:, None])
    return 0.5 * (outlier - inlier) + (outlier_volume - inlier_volume)[:, None] - tail


def inside(latents: NDArray[np.floating], context: Context, population: Population) -> NDArray[np.bool_]:
    """Whether each of latents (n, 2, L) or means (n, L) lies among the normal images: near enough, and likelier so."""
    near = mahalanobis(latents, context, population) <= context.radius_squared
    return near & (log_odds(latents, context, population) <= 0)


def fit_context(
    points: Float64Array, floor: Float64Array, estimator: Estimator, source: Source, units: PopulationUnits
) -> tuple[Fit, tuple[str, ...]]:
    """The normal images' moments, from points (n, d) in population units, and what to warn the user of."""
    n, d = points.shape
    background = Fit(np.zeros(d), units.correlation() + np.diag(floor))
    if d == 0:
        return background, ("No latent of this model varies over its population: every image scores alike.",)
    if source == "population":
        return background, ("One image has no batch to differ from: scored against the model's population.",)
    if n <= 2:
        # The population counts as one more image: it breaks the tie of two, and gives a single one a spread.
        moments = Moments.of(points)
        covariance = (moments.scatter + background.covariance) / (n + 1) + np.diag(floor)
        blend = Fit(moments.mean * n / (n + 1), covariance)
        return blend, (f"A {source} of {n} is too small for a context: blended with the model's population.",)
    by_mixture = estimator in ("mixture", "density_ratio")
    fit = fit_mixture(points, floor, background) if by_mixture else FITS[estimator](points, floor)
    if n <= 2 * d:
        return fit, (_few(n, d), *fit.warnings)
    return fit, fit.warnings


def outlier_log_odds(points: Float64Array, fit: Fit, background: Fit, share: float) -> Float64Array:
    """Log posterior odds (n,) of outlier against inlier, where `share` of the images are outliers.

    Outliers follow the population's Gaussian, with a far tail.
    """
    distance = mahalanobis_squared(points, background.location, background.covariance)
    outlier = log_density(points, background.location, background.covariance) + far_tail(distance, points.shape[1])
    inlier = log_density(points, fit.location, fit.covariance)
    odds: Float64Array = outlier - inlier + np.log(share / (1 - share))
    return odds


def far_tail(distance: Float64Array, d: int | NDArray[np.int64]) -> Float64Array:
    """What adds to the log density of outliers at a squared `distance` to the population, over d axes.

    A few of them may lie far outside it: there both Gaussians are nil and their ratio means nothing, so that this
    tail takes over; within the population it is nil itself.
    """
    far = np.log(FAR_SHARE) - d * np.log(FAR) + 0.5 * distance * (1 - FAR**-2)
    return np.asarray(np.logaddexp(0, far))


def two_group_posterior(
    distances: Float64Array, native: NDArray[np.bool_], fit: Fit, background: Fit, source: Source
) -> Float64Array:
    """Posterior probability (n,) that a squared distance is an outlier's (two groups, Efron 2008).

    Inliers: chi-square with d degrees of freedom, in a batch scaled to the median distance, since outliers
    inflate moments that are not robust. Outliers: a gamma with the mean and variance that a population
    draw's distance has. The share of outliers is fitted by EM in a batch, over the images that are `native` (n,),
    not foreign, and fixed against a reference.
    Short of where the two densities' ratio is least, that least ratio counts: the posterior never falls as
    the distance grows.
    """
    gap = fit.location - background.location
    ratio = np.linalg.solve(fit.covariance, background.covariance)
    pull = np.linalg.solve(fit.covariance, gap)
    mean = np.trace(ratio) + gap @ pull
    variance = 2 * np.trace(ratio @ ratio) + 4 * pull @ background.covariance @ pull
    d = len(fit.location)
    scale = 1.0
    if source == "batch":
        scale = max(float(np.median(distances[native])) / chi2.median(d), SMALLEST_SCALE)
    share = PRIOR_CONTAMINATION
    tilt = 1 / (2 * scale) - mean / variance
    if tilt <= 0:  # the population is no wider than the context: distance tells nothing
        return np.full(len(distances), share)
    shape = mean**2 / variance
    distances = np.maximum(distances, max((d / 2 - shape) / tilt, SMALLEST_SCALE))
    log_ratio = gamma.logpdf(distances, shape, scale=variance / mean) - gamma.logpdf(distances, d / 2, scale=2 * scale)
    if source == "batch":
        for _ in range(SHARE_ITERATIONS):
            found = expit(log_ratio[native] + np.log(share / (1 - share))).sum()
            share = (found + PRIOR_WEIGHT * PRIOR_CONTAMINATION) / (native.sum() + PRIOR_WEIGHT)
    posterior: Float64Array = expit(log_ratio + np.log(share / (1 - share)))
    return posterior


def background_fit(context: Context, units: PopulationUnits) -> Fit:
    """The population, with the noise floor that the context has."""
    floor = _floor(context.posterior_variance, units)
    return Fit(np.zeros_like(units.unit), units.correlation() + np.diag(floor))


def false_discovery_flags(probability: Float64Array, rank: NDArray[np.int64], fdr: float) -> NDArray[np.bool_]:
    """The largest top-ranked set whose mean local false discovery rate, 1 - probability, is at most `fdr`."""
    order = np.argsort(rank)
    running = np.cumsum(1 - probability[order]) / np.arange(1, len(rank) + 1)
    flagged = np.flatnonzero(running <= fdr)
    return rank <= (flagged[-1] + 1 if flagged.size else 0)


def _of_batch(context: Context, probability: Float64Array, foreign: NDArray[np.bool_]) -> Context:
    """The batch's context once the batch is scored: with the share of outliers found, and what to warn of."""
    found = float(probability[~foreign].mean())
    contamination = found if context.contamination is None else context.contamination
    warnings = context.warnings
    if contamination >= HEAVY_CONTAMINATION:
        warnings = (
            *warnings,
            f"About {contamination:.0%} of the images look like outliers, so what is normal is uncertain: "
            "send a reference set of normal images.",
        )
    reliability: Reliability = "low" if warnings else "high"
    return replace(context, contamination=contamination, reliability=reliability, warnings=warnings)


def _with_kernel(context: Context, points: Float64Array, units: PopulationUnits) -> Context:
    """`context` with what `density_ratio` compares images with, from its images' points (n, d) in canonical order."""
    sample = units.sample()
    if sample is None:
        warning = "This bundle holds no sample of its population, so density_ratio is as mixture: export it again."
        return replace(context, warnings=(*context.warnings, warning))
    resolution = np.sqrt(context.posterior_variance[units.live]) / units.unit
    base = -outlier_log_odds(points, _fitted(context, units), background_fit(context, units), 0.5)
    found = kernel.fit_kernel(points, resolution, sample, base)
    return replace(context, kernel=found, contamination=found.contamination)


def _fitted(context: Context, units: PopulationUnits) -> Fit:
    return Fit(*units.in_units(context))


def _floor(posterior_variance: Float64Array, units: PopulationUnits) -> Float64Array:
    """(d,) the encoder's noise in population units, of posterior variances (L,)."""
    floor: Float64Array = FLOOR_SHARE * posterior_variance[units.live] / units.unit**2
    return floor


def _distances(points: Float64Array, context: Context, units: PopulationUnits) -> Float64Array:
    return mahalanobis_squared(points, *units.in_units(context))


def _canonical_order(points: Float64Array) -> NDArray[np.intp]:
    return np.lexsort(np.vstack([np.zeros(len(points)), points.T]))


def _quantile(values: Float64Array, weights: Float64Array, share: float) -> float:
    """The smallest value up to which at least `share` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])


def _few(size: float, d: int) -> str:
    return f"{size:.0f} images are few for {d} live latents: the scores are regularised, the probabilities rough."


def _check_options(estimator: str, threshold: float = 0.5, fdr: float | None = None) -> None:
    if estimator not in get_args(Estimator):
        raise InvalidOption(f"estimator is {estimator!r}, expected one of {', '.join(get_args(Estimator))}.")
    if not 0 <= threshold <= 1:
        raise InvalidOption(f"threshold is {threshold!r}, expected a probability between 0 and 1.")
    if fdr is not None and not 0 < fdr <= 1:
        raise InvalidOption(f"fdr is {fdr!r}, expected a rate above 0 and at most 1.")


def _check_latents(name: str, latents: NDArray[np.floating], population: Population) -> None:
    expected = (2, len(population.location))
    if latents.ndim != 3 or latents.shape[1:] != expected:
        raise ShapeMismatch(f"{name} has shape {latents.shape}, expected (n, {expected[0]}, {expected[1]}).")
    if not np.isfinite(latents).all():
        raise InvalidInput(f"{name} holds values that are not finite.", "Check the encoder and its input.")
