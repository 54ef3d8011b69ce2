from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.edit import latent_edits, sampling, traversal

RELATIVE = 1e-9
few = settings(deadline=None, max_examples=40)


@dataclass
class Case:
    """A random context, live and dead latents mixed in any order and in any units, with images in and around it."""

    latents: np.ndarray
    location: np.ndarray
    covariance: np.ndarray
    live: np.ndarray
    rng: np.random.Generator

    @property
    def context(self):
        return self.location, self.covariance, self.live

    @property
    def dead(self):
        return np.setdiff1d(np.arange(len(self.location)), self.live)

    def distances(self, latents):
        """The definition, one image at a time, with an explicit inverse."""
        omega = np.linalg.inv(self.covariance[np.ix_(self.live, self.live)])
        deltas = (latents - self.location)[:, self.live]
        return np.array([delta @ omega @ delta for delta in deltas])


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, live_count, dead_count = draw(st.tuples(st.integers(1, 8), st.integers(1, 7), st.integers(0, 3)))
    size = live_count + dead_count
    live = np.sort(rng.permutation(size)[:live_count])
    # Between round and, at 1e-3 of the longest axis, narrow.
    narrow = 10.0 ** rng.uniform(-draw(st.integers(0, 3)), 0, live_count)
    turned = np.linalg.qr(rng.standard_normal((live_count, live_count)))[0] * narrow
    units = 10.0 ** rng.uniform(-2, 2, live_count)
    covariance = np.diag(np.full(size, 1e-3))
    covariance[np.ix_(live, live)] = (turned @ turned.T) * np.outer(units, units)
    location = rng.standard_normal(size)
    location[live] *= units
    latents = location + rng.standard_normal((n, size)) * draw(st.sampled_from([0.01, 1.0, 30.0]))
    latents[:, live] = location[live] + (latents - location)[:, live] * units
    return Case(latents, location, covariance, live, rng)


def subsets(case):
    return case.rng.random(case.latents.shape) < case.rng.random()


@few
@given(case=cases())
def test_distance_squared_is_the_quadratic_form(case):
    np.testing.assert_allclose(
        latent_edits.distance_squared(case.latents, *case.context), case.distances(case.latents), rtol=1e-7
    )


@few
@given(case=cases())
def test_a_counterfactual_lowers_the_distance_by_exactly_what_the_formula_says(case):
    repaired = subsets(case)
    before = latent_edits.distance_squared(case.latents, *case.context)
    after = latent_edits.distance_squared(
        latent_edits.counterfactual(case.latents, repaired, *case.context), *case.context
    )
    omega = np.linalg.inv(case.covariance[np.ix_(case.live, case.live)])
    gradients = (case.latents - case.location)[:, case.live] @ omega
    drops = []
    for gradient, in_set in zip(gradients, repaired[:, case.live], strict=True):
        part = omega[np.ix_(in_set, in_set)]
        drops.append(gradient[in_set] @ np.linalg.solve(part, gradient[in_set]))
    np.testing.assert_allclose(before - after, drops, rtol=1e-7, atol=1e-7 * before.max())
    assert (after <= before * (1 + RELATIVE)).all()


@few
@given(case=cases())
def test_a_counterfactual_cannot_be_bettered_within_its_dims(case):
    repaired = subsets(case)
    edited = latent_edits.counterfactual(case.latents, repaired, *case.context)
    best = case.distances(edited)
    units = np.sqrt(np.diag(case.covariance))
    for _ in range(3):
        nudge = np.where(repaired, case.rng.standard_normal(edited.shape) * units, 0)
        assert (case.distances(edited + nudge) >= best - 1e-6 * (1 + best)).all()


@few
@given(case=cases())
def test_a_counterfactual_in_all_dims_is_the_location_and_in_none_the_image(case):
    everything = np.ones(case.latents.shape, dtype=bool)
    edited = latent_edits.counterfactual(case.latents, everything, *case.context)
    np.testing.assert_array_equal(edited[:, case.live], np.tile(case.location[case.live], (len(edited), 1)))
    np.testing.assert_array_equal(latent_edits.counterfactual(case.latents, ~everything, *case.context), case.latents)


@few
@given(case=cases(), radius_squared=st.floats(1e-3, 100))
def test_what_an_edit_does_not_name_stays_bit_for_bit(case, radius_squared):
    repaired = subsets(case)
    edited = latent_edits.counterfactual(case.latents, repaired, *case.context)
    np.testing.assert_array_equal(edited[~repaired], case.latents[~repaired])
    np.testing.assert_array_equal(edited[:, case.dead], case.latents[:, case.dead])
    projected = latent_edits.project(case.latents, *case.context, radius_squared)
    np.testing.assert_array_equal(projected[:, case.dead], case.latents[:, case.dead])


@few
@given(case=cases())
def test_a_counterfactual_is_its_own_counterfactual(case):
    repaired = subsets(case)
    once = latent_edits.counterfactual(case.latents, repaired, *case.context)
    twice = latent_edits.counterfactual(once, repaired, *case.context)
    unit = np.sqrt(np.diag(case.covariance))
    np.testing.assert_allclose(twice / unit, once / unit, rtol=RELATIVE, atol=1e-8)


@few
@given(case=cases())
def test_every_image_is_edited_alone(case):
    repaired, order = subsets(case), case.rng.permutation(len(case.latents))
    together = latent_edits.counterfactual(case.latents, repaired, *case.context)
    unit = np.sqrt(np.diag(case.covariance))
    permuted = latent_edits.counterfactual(case.latents[order], repaired[order], *case.context)
    np.testing.assert_allclose(permuted / unit, together[order] / unit, rtol=RELATIVE)
    alone = latent_edits.counterfactual(case.latents[:1], repaired[:1], *case.context)
    np.testing.assert_allclose(alone / unit, together[:1] / unit, rtol=RELATIVE)


@few
@given(case=cases(), scale=st.floats(1e-3, 1e3))
def test_counterfactuals_do_not_depend_on_the_units(case, scale):
    units = scale ** case.rng.uniform(-1, 1, len(case.location))
    repaired = subsets(case)
    plain = latent_edits.counterfactual(case.latents, repaired, *case.context)
    scaled = latent_edits.counterfactual(
        case.latents * units, repaired, case.location * units, case.covariance * np.outer(units, units), case.live
    )
    unit = np.sqrt(np.diag(case.covariance))
    np.testing.assert_allclose(scaled / units / unit, plain / unit, rtol=1e-6, atol=1e-6)


@few
@given(case=cases(), radius_squared=st.floats(1e-3, 100))
def test_a_projection_lands_on_the_rim_and_moves_no_insider(case, radius_squared):
    before = latent_edits.distance_squared(case.latents, *case.context)
    projected = latent_edits.project(case.latents, *case.context, radius_squared)
    after = latent_edits.distance_squared(projected, *case.context)
    outside = before > radius_squared
    np.testing.assert_array_equal(projected[~outside], case.latents[~outside])
    np.testing.assert_allclose(after[outside], radius_squared, rtol=1e-8)
    assert (after <= radius_squared).all()
    np.testing.assert_array_equal(latent_edits.project(projected, *case.context, radius_squared), projected)
    # Straight towards the location: the same direction from it, only shorter.
    unit = np.sqrt(np.diag(case.covariance)[case.live])
    long, short = ((x[outside][:, case.live] - case.location[case.live]) / unit for x in (case.latents, projected))
    shrunk = np.sqrt(radius_squared / before[outside])[:, None]
    np.testing.assert_allclose(short, long * shrunk, rtol=1e-6, atol=1e-8)


@few
@given(case=cases(), radius_squared=st.floats(1e-3, 100))
def test_a_projection_is_the_nearest_inlier(case, radius_squared):
    projected = latent_edits.project(case.latents, *case.context, radius_squared)
    factor = np.linalg.cholesky(case.covariance[np.ix_(case.live, case.live)])
    for image, nearest in zip(case.latents, projected, strict=True):
        around = np.tile(image, (20, 1))
        direction = case.rng.standard_normal((20, len(case.live)))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        around[:, case.live] = case.location[case.live] + np.sqrt(radius_squared) * direction @ factor.T
        centred = (image, case.covariance, case.live)
        best = latent_edits.distance_squared(nearest[None], *centred)
        assert (latent_edits.distance_squared(around, *centred) >= best * (1 - 1e-6) - 1e-9).all()


@few
@given(case=cases(), frames=st.integers(2, 30))
def test_no_frame_of_a_path_is_further_out_than_the_further_end(case, frames):
    start, end = case.latents[0], case.latents[-1]
    distances = latent_edits.distance_squared(traversal.interpolate(start, end, frames), *case.context)
    assert (distances <= max(distances[0], distances[-1]) * (1 + RELATIVE)).all()


@few
@given(case=cases(), radius_squared=st.floats(1e-3, 100), seed=st.integers(0, 2**63), count=st.integers(1, 30))
def test_gaussian_samples_lie_inside_and_repeat_with_their_seed(case, radius_squared, seed, count):
    first, second = (
        sampling.sample_gaussian(count, *case.context, radius_squared, np.random.default_rng(seed)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert (latent_edits.distance_squared(first, *case.context) <= radius_squared).all()
    np.testing.assert_array_equal(first[:, case.dead], np.tile(case.location[case.dead], (count, 1)))
    other = sampling.sample_gaussian(count, *case.context, radius_squared, np.random.default_rng(seed + 1))
    assert (first[:, case.live] != other[:, case.live]).any()


@few
@given(case=cases(), seed=st.integers(0, 2**63), count=st.integers(1, 30))
def test_empirical_samples_come_from_the_images_given_and_repeat_with_their_seed(case, seed, count):
    logvar = case.rng.uniform(-30, -20, case.latents.shape)
    images = np.stack([case.latents, logvar], axis=1)
    (first, drawn), (second, again) = (
        sampling.sample_empirical(images, count, np.random.default_rng(seed)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(drawn, again)
    deviation = np.exp(logvar[drawn] / 2)
    assert (np.abs(first - case.latents[drawn]) <= 7 * deviation + 1e-9).all()
    other, _ = sampling.sample_empirical(images, count, np.random.default_rng(seed + 1))
    assert (first != other).any()


@few
@given(case=cases(), steps=st.integers(2, 12), span=st.floats(0.1, 5))
def test_traversals_stay_in_their_range_and_keep_the_rest(case, steps, span):
    image, dims = case.latents[0], case.live.tolist()
    rows = traversal.traverse(image, dims, steps, case.location, case.covariance, span)
    for row, dim in zip(rows, dims, strict=True):
        deviation = (row[:, dim] - case.location[dim]) / np.sqrt(case.covariance[dim, dim])
        np.testing.assert_allclose(deviation, np.linspace(-span, span, steps), atol=1e-8)
        others = np.arange(len(image)) != dim
        np.testing.assert_array_equal(row[:, others], np.tile(image[others], (steps, 1)))
