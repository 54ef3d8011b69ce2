"""Deviations and shares of a Gaussian."""

import numpy as np
from gaussian_fits import fit_of, points_about

from service.core.detect.gaussian import Fit
from service.core.explain.shapley_gaussian import conditional_z, shapley_odds


def test_conditional_z_is_the_residual_of_a_regression():
    rng = np.random.default_rng(7)
    points = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    fit = Fit(points.mean(axis=0), np.cov(points, rowvar=False, ddof=0))
    for k in range(4):
        design = np.column_stack([np.ones(500), np.delete(points, k, axis=1)])
        coefficients, *_ = np.linalg.lstsq(design, points[:, k], rcond=None)
        residual = points[:, k] - design @ coefficients
        np.testing.assert_allclose(conditional_z(points, fit)[:, k], residual / residual.std(), rtol=1e-8)


def test_odds_against_the_same_moments_are_shared_out_to_nobody():
    fit = fit_of(4, seed=10)
    np.testing.assert_array_equal(shapley_odds(points_about(fit, 5, seed=10), fit, fit), 0)
