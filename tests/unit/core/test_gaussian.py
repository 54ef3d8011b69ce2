"""Gaussians are those of the textbook."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from service.core.detect.gaussian_odds import FADE, population_power
from tests.support.gaussian_fits import fit_of, points_about


@pytest.mark.parametrize("d", [1, 4])
def test_distances_and_densities(d):
    fit = fit_of(d, seed=d)
    points = points_about(fit, 9, seed=1)
    gaps = points - fit.location
    np.testing.assert_allclose(fit.distances(points), (gaps @ np.linalg.inv(fit.covariance) * gaps).sum(axis=1))
    expected = multivariate_normal(fit.location, fit.covariance).logpdf(points) + d / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(fit.log_density(points), expected)


@pytest.mark.parametrize("d", [1, 4])
def test_the_power_of_the_population_follows_from_the_divergence(d):
    fit, other = fit_of(d, seed=2), fit_of(d, seed=3)
    gap, ratio = fit.location - other.location, np.linalg.solve(other.covariance, fit.covariance)
    distance = gap @ np.linalg.solve(other.covariance, gap)
    divergence = 0.5 * (np.trace(ratio) - d + distance - np.linalg.slogdet(ratio)[1])
    assert population_power(fit, other) == pytest.approx(1 - np.exp(-divergence / (d * FADE)))
    assert population_power(fit, fit) == pytest.approx(0, abs=1e-12)
