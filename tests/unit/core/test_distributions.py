"""The distributions are those of scipy.stats, and importing the service does without it."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from service.core import distributions

rng = np.random.default_rng(0)


@pytest.mark.parametrize("freedom", [1, 2, 6, 40])
def test_chi_squared(freedom):
    x, probability = rng.uniform(0, 3 * freedom, 100), rng.uniform(0, 1, 100)
    assert np.array_equal(distributions.chi2_cdf(x, freedom), stats.chi2.cdf(x, freedom))
    assert np.array_equal(distributions.chi2_ppf(probability, freedom), stats.chi2.ppf(probability, freedom))


def test_f():
    x, probability, below = rng.uniform(-1, 9, 100), rng.uniform(0, 1, 100), rng.uniform(1, 30, (5, 1))
    assert np.array_equal(distributions.f_cdf(x, 3, below), stats.f.cdf(x, 3, below))
    assert np.array_equal(distributions.f_ppf(probability, 3, below), stats.f.ppf(probability, 3, below))


def test_normal_and_beta():
    for probability in rng.uniform(0, 1, 20):
        assert distributions.normal_ppf(probability) == stats.norm.ppf(probability)
        assert distributions.beta_cdf(probability, 3, 9) == stats.beta.cdf(probability, 3, 9)


@pytest.mark.parametrize("probability", [0.5, 1 / 3])
@pytest.mark.parametrize("trials", [2, 50, 10_000])
def test_binomial(trials, probability):
    for successes in (0, 1, trials // 2, trials):
        expected = stats.binom.pmf(successes, trials, probability)
        assert distributions.binomial_pmf(successes, trials, probability) == pytest.approx(expected, rel=1e-9)


def test_deviations_and_ranks():
    values = rng.integers(0, 9, (50, 4)).astype(np.float64)  # with ties
    assert np.array_equal(distributions.ranks(values), stats.rankdata(values, axis=0))
    for rows in (values, values[1:], values[:1], values[:, 0]):
        assert np.array_equal(distributions.median(rows), np.median(rows, axis=0))
    expected = stats.median_abs_deviation(values, axis=0, scale="normal")
    assert np.array_equal(distributions.normal_deviation(values), expected)
    assert np.array_equal(distributions.normal_deviation(values[:, 0]), expected[0])


def test_the_service_starts_without_what_it_seldom_needs():
    """Each of these costs a tenth of a second of CPU and tens of MiB, in every process."""
    seldom = ("scipy.stats", "scipy.interpolate", "scipy.spatial", "scipy.sparse", "sklearn", "pandas")
    program = f"import sys, service.app; print([name for name in {seldom} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_quantiles_are_those_of_numpy(n):
    random = np.random.default_rng(n)
    values, weights = random.integers(0, 5, n) + random.choice([0.0, 0.5], n), random.random(n)
    weights[random.random(n) < 0.3] = 0
    weights[-1] += 0.1
    for share in (0.0, 0.25, 0.6, 0.99, 1.0):
        assert distributions.quantile(values, share) == pytest.approx(np.quantile(values, share))
        if share:
            assert distributions.quantile(values, share, weights) == np.quantile(
                values, share, weights=weights, method="inverted_cdf"
            )
