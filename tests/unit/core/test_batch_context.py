"""Which images of a graded batch take part in its context: a small part of what is normal does, misfits do not."""

import numpy as np
import pytest

from service.core.detect import batch_context
from service.core.detect.batch_context import PROBABLE, _probability_of_last, fit_batch
from service.core.detect.estimators.registry import estimator_named
from service.core.detect.posterior import ranking_scores
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population

SIZE, APART, MISFITS = 206, 22, 10


def with_variances(means):
    return np.stack([means, np.full_like(means, np.log(0.3))], axis=1)


def class_with_a_part(seed, shift):
    """Return latents and the population of ten classes: of a class with a part of its own that lies `shift` away, which
    comes first, and MISFITS of another class, which come next.
    """
    random = np.random.default_rng(seed)
    centres = 1.2 * random.standard_normal((10, 8))

    def images(classes):
        scales = random.gamma(4, 0.25, (len(classes), 1))
        return centres[classes] + 0.35 * scales * random.standard_normal((len(classes), 8))

    way = random.standard_normal(8)
    way *= shift / np.linalg.norm(way)
    collection = images(np.arange(2000) % 10)
    collection[np.flatnonzero(np.arange(2000) % 10 == 0)[:APART]] += way
    batch = images(np.repeat([0, 1, 0], [APART, MISFITS, SIZE - APART - MISFITS]))
    batch[:APART] = centres[0] + way + 0.3 * random.standard_normal((APART, 8))
    population = Population.from_latents(with_variances(random.permutation(collection)), graded=True)
    return with_variances(batch), population


@pytest.mark.parametrize("shift", [1.2, 2.0])
def test_a_small_part_of_a_class_stays_in_its_context_and_misfits_rank_first(shift):
    first = []
    for seed in range(5):
        latents, population = class_with_a_part(seed, shift)
        _, members, _ = fit_batch(
            latents, np.ones(SIZE, dtype=bool), PopulationUnits.of(population), "density_ratio", None
        )  # fmt: skip
        assert members[:APART].all()
        assert members[APART + MISFITS :].mean() > 0.97
        ranks = score(latents, population, estimator="density_ratio").rank
        first.append((ranks[APART : APART + MISFITS] <= MISFITS).mean())
    assert np.mean(first) > 0.9


def test_no_more_images_are_left_out_than_outliers_are_expected(monkeypatch):
    """Each image of the part is a little likely, and together they would be more than all outliers."""
    random = np.random.default_rng(0)
    probability = np.full(SIZE, 0.01)
    probability[:APART] = random.uniform(0.2, 0.3, APART)
    probability[APART : APART + MISFITS] = 0.75
    assert (probability > PROBABLE).sum() == APART + MISFITS
    latents, population = class_with_a_part(0, 1.2)
    monkeypatch.setattr(batch_context, "_outlier_probability", lambda *_: probability)
    _, members, _ = fit_batch(latents, np.ones(SIZE, dtype=bool), PopulationUnits.of(population), "density_ratio", None)
    assert not members[APART : APART + MISFITS].any()
    assert (~members).sum() <= np.ceil(probability.sum()) < APART


@pytest.mark.parametrize("rest", [0.2, 0.6])
def test_images_that_are_as_likely_as_the_median_one_are_never_left_out(monkeypatch, rest):
    """A calibration that says nothing gives all images one probability."""
    latents, population = class_with_a_part(0, 1.2)
    monkeypatch.setattr(batch_context, "_outlier_probability", lambda *_: np.full(SIZE, rest))
    _, members, _ = fit_batch(latents, np.ones(SIZE, dtype=bool), PopulationUnits.of(population), "density_ratio", None)
    assert members.all()


@pytest.mark.parametrize(
    ("probability", "last"),
    [
        ([0.01] * 8 + [0.9, 0.95], 0.9),  # 1.93 are expected
        ([0.01] * 9 + [0.4], 0.4),  # less than one
        ([0.9, 0.8, 0.7, 0.6, 0.1], 0.6),  # 3.1 are expected
        ([0.3], 0.3),
        ([], 1.0),
    ],
)
def test_the_last_of_the_likely_outliers(probability, last):
    assert _probability_of_last(np.array(probability)) == last


@pytest.mark.parametrize("estimator", ["ensemble", "leave_one_out"])
def test_scores_that_the_calibration_has_are_those_of_the_images_in_their_order(estimator):
    random = np.random.default_rng(4)
    units = PopulationUnits.of(Population.from_latents(with_variances(random.standard_normal((500, 5)))))
    latents, everybody = with_variances(0.3 * random.standard_normal((12, 5))), np.ones(12, dtype=bool)
    context, members, scores = fit_batch(latents, everybody, units, estimator, None)
    expected = ranking_scores(estimator_named(estimator), units.points(latents), context, units, members)
    assert members.all()
    assert context.scores is scores
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
