"""From latents to scores: how far each image is from its context, how probably it is a misfit, and its rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2, gamma

from service.bundle import Population
from service.context import Context, Estimator, Float64Array, Moments, Source
from service.errors import ContextTooSmall, InvalidInput, InvalidOption, ShapeMismatch
from service.estimators import (
    FITS,
    PRIOR_CONTAMINATION,
    PRIOR_STRENGTH,
    Fit,
    leave_one_out_distances,
    log_density,
    mahalanobis_squared,
    mixture,
)

DEFAULT_ESTIMATOR: Estimator = "mixture"
# The noise floor in units of the encoder's mean posterior variance.
FLOOR_SHARE = 0.25
HEAVY_CONTAMINATION = 0.4
# Population standard deviations beyond which a latent is no further out: it keeps every square finite.
FURTHEST = 1e3
SMALLEST_SCALE = 1e-6
SHARE_ITERATIONS = 50


@dataclass(frozen=True)
class Scores:
    """One entry for every image, in input order.

    outlier_score        (n,)  what ranks: log odds of being an outlier (`mixture`), else mahalanobis_squared
    mahalanobis_squared  (n,)  squared distance to the context over the live latents (`leave_one_out` without a
                               reference: to the moments of the other images)
    outlier_probability  (n,)  posterior probability in [0, 1] of having come from the population rather than
                               from the context; `mixture`: of the full densities; the others: of their distances
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

    live = population.live_dims
    unit = np.sqrt(np.diag(population.covariance)[live])
    points = _standardise(latents, population)
    source: Source = "batch"
    learned, learned_latents = points, latents
    if reference is not None:
        source, learned, learned_latents = "reference", _standardise(reference, population), reference
    elif len(latents) == 1:
        source = "population"
    # The estimators see the points in a canonical order: sums then round alike however the batch is permuted.
    order = np.lexsort(learned.T) if live.size else np.arange(len(learned))
    learned = learned[order]
    posterior_variance = np.exp(
        np.clip(np.asarray(learned_latents, np.float64)[order][:, 1][:, live], -50, 50)
    )
    floor = FLOOR_SHARE * posterior_variance.mean(axis=0) / unit**2
    background = Fit(
        np.zeros(live.size),
        population.covariance[np.ix_(live, live)] / np.outer(unit, unit) + np.diag(floor),
    )
    fit, notes = _fit(learned, floor, background, estimator, source)

    if estimator == "leave_one_out" and source == "batch" and len(points) > 2 and live.size:
        distances = np.empty(len(points))
        distances[order] = leave_one_out_distances(learned, floor)
    else:
        distances = mahalanobis_squared(points, fit.location, fit.covariance)
    if estimator == "mixture" and source != "population":
        share = (
            PRIOR_CONTAMINATION if source == "reference" or fit.contamination is None else fit.contamination
        )
        outlier_score = (
            log_density(points, background.location, background.covariance)
            - log_density(points, fit.location, fit.covariance)
            + np.log(share / (1 - share))
        )
        probability = expit(outlier_score)
    else:
        outlier_score = distances
        probability = (
            np.full(len(points), PRIOR_CONTAMINATION)
            if live.size == 0
            else two_group_posterior(distances, fit, background, source)
        )
    rank = np.empty(len(points), dtype=np.int64)
    rank[np.argsort(-outlier_score, kind="stable")] = np.arange(1, len(points) + 1)
    contamination = fit.contamination if source == "batch" else None
    if source == "batch" and contamination is None:
        contamination = float(probability.mean())
    if contamination is not None and contamination >= HEAVY_CONTAMINATION:
        notes.append(
            f"About {contamination:.0%} of the images look like outliers, so what is normal here is uncertain: "
            "send a reference set of normal images."
        )
    context = Context(
        location=_embed_location(fit, population, live, unit),
        covariance=_embed_covariance(fit, population, live, unit),
        size=0 if source == "population" else len(learned),
        source=source,
        estimator=estimator,
        contamination=contamination,
        reliability="low" if notes else "high",
        warnings=tuple(notes),
    )
    flags = probability > threshold if fdr is None else false_discovery_flags(probability, rank, fdr)
    return Scores(context, outlier_score, distances, probability, flags, rank)


def _fit(
    points: Float64Array, floor: Float64Array, background: Fit, estimator: Estimator, source: Source
) -> tuple[Fit, list[str]]:
    """Moments of the normal images, and what to warn the user of."""
    n, d = points.shape
    if d == 0:
        return background, ["No latent of this model varies over its population: every image scores alike."]
    if source == "population":
        return background, [
            "A single image has no batch to differ from: scored against the model's population."
        ]
    if n <= 2:
        blend = Moments.of(points)
        location = blend.mean * n / (n + 1)
        covariance = (blend.scatter + background.covariance) / n
        noun = "image" if n == 1 else "images"
        return Fit(location, covariance + np.diag(floor)), [
            f"The {source} holds {n} {noun}: too few for a context, so it is blended with the model's population."
        ]
    notes = []
    if n <= 2 * d:
        notes.append(
            f"{n} images are few for {d} live latents: scores are regularised and probabilities rough."
        )
    fit = mixture(points, floor, background) if estimator == "mixture" else FITS[estimator](points, floor)
    return fit, [*notes, *fit.warnings]


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
    log_ratio = gamma.logpdf(distances, shape, scale=variance / mean) - gamma.logpdf(
        distances, d / 2, scale=2 * scale
    )
    if source == "batch":
        for _ in range(SHARE_ITERATIONS):
            found = expit(log_ratio + np.log(share / (1 - share))).sum()
            share = (found + PRIOR_STRENGTH * PRIOR_CONTAMINATION) / (len(distances) + PRIOR_STRENGTH)
    posterior: Float64Array = expit(log_ratio + np.log(share / (1 - share)))
    return posterior


def false_discovery_flags(
    probability: Float64Array, rank: NDArray[np.int64], fdr: float
) -> NDArray[np.bool_]:
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


def _standardise(latents: NDArray[np.floating], population: Population) -> Float64Array:
    live = population.live_dims
    mean = np.asarray(latents, dtype=np.float64)[:, 0][:, live]
    unit = np.sqrt(np.diag(population.covariance)[live])
    return np.clip((mean - population.location[live]) / unit, -FURTHEST, FURTHEST)


def _embed_location(
    fit: Fit, population: Population, live: NDArray[np.intp], unit: Float64Array
) -> Float64Array:
    location = population.location.copy()
    location[live] += unit * fit.location
    return location


def _embed_covariance(
    fit: Fit, population: Population, live: NDArray[np.intp], unit: Float64Array
) -> Float64Array:
    covariance = np.diag(np.diag(population.covariance))
    covariance[np.ix_(live, live)] = fit.covariance * np.outer(unit, unit)
    return covariance
