"""From latents to scores: how far an image is from its context, how probably it is a misfit, and its rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2, gamma

from service.bundle import Population
from service.context import Context, Estimator, Float64Array, Moments, PopulationUnits, Source
from service.errors import ContextTooSmall, InvalidInput, InvalidOption, ShapeMismatch
from service.estimators import FITS, Fit, is_degenerate, leave_one_out_distances, log_density, mahalanobis_squared
from service.mixture import fit_mixture

DEFAULT_ESTIMATOR: Estimator = "mixture"
# The noise floor, in units of the encoder's mean posterior variance.
FLOOR_SHARE = 0.25
# The share of outliers before anything is seen, and how many images that guess is worth.
PRIOR_CONTAMINATION, PRIOR_WEIGHT = 0.05, 5.0
HEAVY_CONTAMINATION = 0.4
# Outliers follow the population, but this share of them lies anywhere within this many times its spread.
FAR_SHARE, FAR = 1e-3, 5.0
SHARE_ITERATIONS = 50
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Scores:
    """One entry for every image, in input order.

    outlier_score        (n,)  what ranks: log posterior odds of being an outlier (`mixture`), in every other
                               estimator mahalanobis_squared
    mahalanobis_squared  (n,)  squared distance to the context over the live latents (`leave_one_out` in a
                               batch: to the moments of the other images)
    outlier_probability  (n,)  posterior probability in [0, 1] of having come from the population rather than
                               from the context, given its latents (`mixture`) or its distance (others)
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
) -> Scores:
    """Score `latents` (n, 2, L), mean and logvar, against each other or against `reference` (m, 2, L).

    An image is flagged where its outlier probability exceeds `threshold`; with `fdr`, instead, the largest
    top-ranked set is flagged whose mean of (1 - outlier probability) is at most `fdr`.

    Raises InvalidOption, ShapeMismatch, InvalidInput (no images, or latents that are not finite) and
    ContextTooSmall (an empty reference).
    """
    _check_options(estimator, threshold, fdr)
    _check_latents("latents", latents, population)
    if len(latents) == 0:
        raise InvalidInput("Received 0 images, expected at least 1.", "Send the images to be scored.")
    if reference is not None:
        _check_latents("reference", reference, population)
        if len(reference) == 0:
            raise ContextTooSmall(
                "The reference holds 0 images, expected at least 1.", "Send normal images, or no reference."
            )

    units = PopulationUnits.of(population)
    source: Source = "reference" if reference is not None else "population" if len(latents) == 1 else "batch"
    learned = latents if reference is None else reference
    # A canonical order, so that sums round alike however the images are permuted.
    order = np.lexsort(np.vstack([np.zeros(len(learned)), units.points(learned).T]))
    learned = learned[order]
    context_points, points = units.points(learned), units.points(latents)
    floor = FLOOR_SHARE * units.posterior_variance(learned)
    background = Fit(np.zeros_like(units.unit), units.correlation() + np.diag(floor))
    fit, warnings = fit_context(context_points, floor, background, estimator, source)

    if estimator == "leave_one_out" and source == "batch" and len(points) > 2:
        distances = np.empty(len(points))
        # The published formula has no floor: it stays exact wherever the others' covariance can be inverted.
        needed = floor if is_degenerate(context_points) else np.zeros_like(floor)
        distances[order] = leave_one_out_distances(context_points, needed)
    else:
        distances = mahalanobis_squared(points, fit.location, fit.covariance)
    if estimator == "mixture" or source == "population" or units.live.size == 0:
        known = fit.contamination if source == "batch" else None
        odds = outlier_log_odds(points, fit, background, PRIOR_CONTAMINATION if known is None else known)
        probability: Float64Array = expit(odds)
    else:
        probability = two_group_posterior(distances, fit, background, source)
    outlier_score = odds if estimator == "mixture" else distances
    rank = np.empty(len(points), dtype=np.int64)
    rank[np.argsort(-outlier_score, kind="stable")] = np.arange(1, len(points) + 1)
    flags = probability > threshold if fdr is None else false_discovery_flags(probability, rank, fdr)

    contamination = float(probability.mean()) if source == "batch" else None
    if contamination is not None and contamination >= HEAVY_CONTAMINATION:
        warnings = (
            *warnings,
            f"About {contamination:.0%} of the images look like outliers, so what is normal is uncertain: "
            "send a reference set of normal images.",
        )
    context = Context(
        location=units.location_in_latents(fit.location),
        covariance=units.covariance_in_latents(fit.covariance),
        size=0 if source == "population" else len(learned),
        source=source,
        estimator=estimator,
        contamination=contamination,
        reliability="low" if warnings else "high",
        warnings=warnings,
    )
    return Scores(context, outlier_score, distances, probability, flags, rank)


def fit_context(
    points: Float64Array, floor: Float64Array, background: Fit, estimator: Estimator, source: Source
) -> tuple[Fit, tuple[str, ...]]:
    """The normal images' moments, from points (n, d) in population units, and what to warn the user of."""
    n, d = points.shape
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
    fit = fit_mixture(points, floor, background) if estimator == "mixture" else FITS[estimator](points, floor)
    if n <= 2 * d:
        few = f"{n} images are few for {d} live latents: the scores are regularised, the probabilities rough."
        return fit, (few, *fit.warnings)
    return fit, fit.warnings


def outlier_log_odds(points: Float64Array, fit: Fit, background: Fit, share: float) -> Float64Array:
    """Log posterior odds (n,) of outlier against inlier, where `share` of the images are outliers.

    Outliers follow the population's Gaussian. A few of them may lie far outside it: there both Gaussians
    are nil and their ratio means nothing, so that tail takes over; within the population it is nil itself.
    """
    d = points.shape[1]
    distance = mahalanobis_squared(points, background.location, background.covariance)
    far = np.log(FAR_SHARE) - d * np.log(FAR) + 0.5 * distance * (1 - FAR**-2)
    outlier = log_density(points, background.location, background.covariance) + np.logaddexp(0, far)
    inlier = log_density(points, fit.location, fit.covariance)
    odds: Float64Array = outlier - inlier + np.log(share / (1 - share))
    return odds


def two_group_posterior(distances: Float64Array, fit: Fit, background: Fit, source: Source) -> Float64Array:
    """Posterior probability (n,) that a squared distance is an outlier's (two groups, Efron 2008).

    Inliers: chi-square with d degrees of freedom, in a batch scaled to the median distance, since outliers
    inflate moments that are not robust. Outliers: a gamma with the mean and variance that a population
    draw's distance has. The share of outliers is fitted by EM in a batch and fixed against a reference.
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
        scale = max(float(np.median(distances)) / chi2.median(d), SMALLEST_SCALE)
    share = PRIOR_CONTAMINATION
    tilt = 1 / (2 * scale) - mean / variance
    if tilt <= 0:  # the population is no wider than the context: distance tells nothing
        return np.full(len(distances), share)
    shape = mean**2 / variance
    distances = np.maximum(distances, max((d / 2 - shape) / tilt, SMALLEST_SCALE))
    log_ratio = gamma.logpdf(distances, shape, scale=variance / mean) - gamma.logpdf(distances, d / 2, scale=2 * scale)
    if source == "batch":
        for _ in range(SHARE_ITERATIONS):
            found = expit(log_ratio + np.log(share / (1 - share))).sum()
            share = (found + PRIOR_WEIGHT * PRIOR_CONTAMINATION) / (len(distances) + PRIOR_WEIGHT)
    posterior: Float64Array = expit(log_ratio + np.log(share / (1 - share)))
    return posterior


def false_discovery_flags(probability: Float64Array, rank: NDArray[np.int64], fdr: float) -> NDArray[np.bool_]:
    """The largest top-ranked set whose mean local false discovery rate, 1 - probability, is at most `fdr`."""
    order = np.argsort(rank)
    running = np.cumsum(1 - probability[order]) / np.arange(1, len(rank) + 1)
    flagged = np.flatnonzero(running <= fdr)
    return rank <= (flagged[-1] + 1 if flagged.size else 0)


def _check_options(estimator: str, threshold: float, fdr: float | None) -> None:
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
