"""Contexts on their way to a client and back: complete, exact, and refused where they cannot be what they claim."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from service.api.contexts.codec import from_portable, merge, to_portable
from service.api.schemas import FitResponse
from service.api.validation import read_contexts
from service.bundle import store
from service.core.detect import fit, scoring
from service.errors import ContextTooSmall, InvalidInput


@pytest.fixture(scope="module")
def latents(served_bundle):
    """Images like the population, (400, 2, L)."""
    population = served_bundle.population
    rng = np.random.default_rng(0)
    mean = rng.multivariate_normal(population.location, population.covariance, 400)
    return np.stack([mean, np.log(np.tile(population.posterior_variance, (400, 1)))], axis=1)


def portable_of(latents, bundle):
    return to_portable(fit.fit(latents, bundle.population), bundle.manifest.bundle_id)


def test_a_context_comes_back_from_json_as_it_went(latents, served_bundle):
    context = fit.fit(latents, served_bundle.population)
    (portable,) = read_contexts([to_portable(context, served_bundle.manifest.bundle_id).model_dump(mode="json")])
    back = from_portable(portable, served_bundle)
    for name in ("location", "covariance", "posterior_variance", "radius_squared"):
        np.testing.assert_array_equal(getattr(back, name), getattr(context, name))
    np.testing.assert_array_equal(back.moments.scatter, context.moments.scatter)
    assert back.divergence == context.divergence is not None
    direct, through = (scoring.score(latents[:50], served_bundle.population, context=c) for c in (context, back))
    np.testing.assert_array_equal(direct.outlier_score, through.outlier_score)


def test_the_images_that_a_density_ratio_compares_with_travel_too(latents, served_bundle):
    narrow = latents.copy()
    narrow[20:, 0, served_bundle.population.live_dims[0]] = 0.3
    context = fit.fit(narrow, served_bundle.population)
    assert np.isfinite(context.kernel.bandwidth).any()
    assert not np.isfinite(context.kernel.bandwidth).all()
    text = portable_of(narrow, served_bundle).model_dump_json()
    (portable,) = read_contexts([json.loads(text)])
    back = from_portable(portable, served_bundle)
    for name in ("points", "weights", "bandwidth"):
        np.testing.assert_array_equal(getattr(back.kernel, name), getattr(context.kernel, name))
    direct, through = (scoring.score(latents[:50], served_bundle.population, context=c) for c in (context, back))
    np.testing.assert_array_equal(direct.outlier_score, through.outlier_score)
    assert len(text) < 40_000


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("points", [], "kernel.points are 0"),
        ("points", [[0.0, 1.0]], r"kernel.points has shape \(1, 2\)"),
        ("weights", [0.5], r"kernel.weights has shape \(1,\)"),
        ("weights", [2.0] * 200, r"kernel.weights\[0\] is 2, expected 0 to 1, probabilities"),
        ("bandwidth", [0.1], r"kernel.bandwidth has shape \(1,\)"),
        ("bandwidth", [-1.0] * 6, r"kernel.bandwidth\[0\] is -1, expected 1e-14 to 1e\+14"),
    ],
)
def test_a_kernel_that_cannot_be_one_is_refused(latents, served_bundle, field, value, complaint):
    portable = portable_of(latents, served_bundle)
    changes = {field: value, "weights": [1.0]} if field == "points" and value else {field: value}
    edited = portable.model_copy(update={"kernel": portable.kernel.model_copy(update=changes)})
    with pytest.raises(InvalidInput, match=complaint):
        from_portable(edited, served_bundle)


def test_a_context_scores_as_the_reference_that_it_was_fitted_to(latents, served_bundle):
    context = fit.fit(latents[50:], served_bundle.population)
    apart = scoring.score(latents[:50], served_bundle.population, context=context)
    together = scoring.score(latents[:50], served_bundle.population, reference=latents[50:])
    np.testing.assert_array_equal(apart.outlier_score, together.outlier_score)


def test_merged_contexts_have_the_moments_of_all_their_images(latents, served_bundle):
    population = served_bundle.population
    whole = fit.fit(latents, population)
    order = [latents[300:], latents[:7], latents[7:300]]
    merged = fit.merge([fit.fit(part, population) for part in order], population)
    assert (merged.size, merged.estimator, merged.source) == (400, "moments", "reference")
    np.testing.assert_allclose(merged.moments.mean, whole.moments.mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(merged.moments.scatter, whole.moments.scatter, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(merged.posterior_variance, whole.posterior_variance, rtol=1e-12)
    scores = scoring.score(latents, population, context=merged)
    assert np.isfinite(scores.outlier_score).all()


def test_outliers_in_many_merged_contexts_are_one_warning(latents, served_bundle):
    population = served_bundle.population
    contexts = [
        replace(fit.fit(part, population), contamination=share)
        for part, share in zip(np.array_split(latents, 10), [0.5] * 7 + [0.0] * 3, strict=True)
    ]
    text = "50% of the 280 images of 7 of 10 contexts look like outliers; they were left out of what is normal."
    merged = fit.merge(contexts, population)
    assert merged.warnings == (text,)
    assert merged.contamination == pytest.approx(0.35)
    assert merged.reliability == "high"
    assert "images of one context look like" in fit.merge(contexts[6:], population).warnings[0]
    heavy = [replace(context, contamination=0.5) for context in contexts]
    assert fit.merge(heavy, population).reliability == "low"
    counted = [replace(fit.fit(latents, population, estimator="oas"), contamination=0.1) for _ in range(2)]
    both = fit.merge([*counted, contexts[0]], population)
    assert both.warnings[0].endswith("merged, they count as normal in 2 of them.")
    assert both.reliability == "low"


@pytest.mark.parametrize("estimator", ["robust", "mixture"])
def test_misfits_that_each_context_left_out_stay_out_however_contexts_are_merged(latents, served_bundle, estimator):
    population, random = served_bundle.population, np.random.default_rng(0)
    narrow = latents.copy()
    narrow[:, 0] = population.location + 0.3 * (narrow[:, 0] - population.location)
    contexts = []
    for part in np.array_split(narrow, 4):
        misfits = part[:5].copy()
        misfits[:, 0] = random.multivariate_normal(population.location + 3, population.covariance, 5)
        contexts.append(fit.fit(np.concatenate([part, misfits]), population, estimator=estimator))
    merged, clean = fit.merge(contexts, population), fit.fit(narrow, population, estimator=estimator)
    live = population.live_dims

    def width(covariance):
        return np.linalg.slogdet(covariance[np.ix_(live, live)])[1] / len(live)

    assert abs(width(merged.covariance) - width(clean.covariance)) < 0.1
    assert width(merged.moments.scatter / merged.size) - width(clean.covariance) > 0.5
    assert merged.contamination == pytest.approx(np.mean([context.contamination for context in contexts]))
    in_steps = fit.merge([fit.merge(contexts[:2], population), fit.merge(contexts[2:], population)], population)
    np.testing.assert_allclose(in_steps.location, merged.location, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(in_steps.covariance, merged.covariance, rtol=1e-6, atol=1e-6)
    assert in_steps.contamination == pytest.approx(merged.contamination)


def test_a_whole_answer_of_fit_is_a_context(latents, served_bundle):
    portable = portable_of(latents, served_bundle)
    answer = FitResponse(model="m", context=portable, errors={}).model_dump()
    assert read_contexts(answer) == read_contexts([answer]) == [portable]
    assert read_contexts([answer, portable.model_dump()]) == [portable] * 2
    for wrong in ({"context": 3}, {"context": {}}, {"context": {"context": portable.model_dump()}}):
        with pytest.raises(InvalidInput, match="The context cannot be used"):
            read_contexts(wrong)


def test_one_context_is_merged_with_nothing(latents, served_bundle):
    context = fit.fit(latents, served_bundle.population)
    assert fit.merge([context], served_bundle.population) is context


def test_a_context_of_no_images_is_refused(latents, served_bundle):
    with pytest.raises(ContextTooSmall):
        fit.fit(latents[:0], served_bundle.population)


def test_another_bundles_context_is_refused_by_name(latents, served_bundle):
    portable = portable_of(latents, served_bundle).model_copy(update={"bundle_id": "f" * 64})
    with pytest.raises(InvalidInput, match="belongs to bundle ffffffffffff"):
        from_portable(portable, served_bundle)


def test_a_context_of_the_other_precision_is_refused_with_both_ways_out(latents, served_bundle):
    in_int8 = store.load(served_bundle.directory, "int8")
    for fitted_by, sent_to, own, other in (
        (served_bundle, in_int8, "int8", "fp32"),
        (in_int8, served_bundle, "fp32", "int8"),
    ):
        with pytest.raises(InvalidInput, match=f"in {other}, and this service runs it in {own}") as refused:
            from_portable(portable_of(latents, fitted_by), sent_to)
        assert "POST /fit" in refused.value.hint
        assert f"MISFIT_PRECISION={other}" in refused.value.hint


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 2**31, "size: Input should be less than or equal to 2147483647, 2147483648 came"),
        ("size", 10**400, "size: "),
        ("radius_squared", 1e308, r"radius_squared: .* 1e\+308 came"),
        ("location", [1e154] * 6, r"location\[0\] is .*, expected -1e\+06 to 1e\+06, in standard deviations"),
        ("posterior_variance", [1e-308] * 6, r"posterior_variance\[0\] is 1e-308, expected 1e-22 to 1e\+22"),
        ("covariance", (1e-308 * np.eye(6)).tolist(), r"covariance\[0\] is .*, expected 1e-26 to 1e\+24"),
        ("covariance", (1e154 * np.eye(6)).tolist(), r"covariance\[0\] is 1e\+154, expected 0 to 1e\+100"),
        ("moments.mean", [-1e308] * 6, r"moments.mean\[0\] is -.*, expected -1e\+06 to 1e\+06"),
        ("moments.scatter", (1e50 * np.eye(6)).tolist(), r"moments.scatter\[0\] is .*, expected 0 to 4e\+12"),
        ("moments.scatter", (np.eye(6) * 2 - 1).tolist(), "scatter"),
        ("kernel.bandwidth", [1e-308] * 6, r"kernel.bandwidth\[0\] is 1e-308, expected 1e-14 to 1e\+14"),
        ("robust.location", [1e154] * 6, r"robust.location\[0\] is 1e\+154, expected -1e\+06 to 1e\+06"),
        ("robust.covariance", (1e-308 * np.eye(6)).tolist(), r"robust.covariance\[0\] is .*, expected 1e-26 to 1e\+24"),
        ("robust.covariance", np.ones((6, 6)).tolist(), "robust.covariance is not positive definite"),
        ("robust.covariance", np.ones((5, 5)).tolist(), r"robust.covariance has shape \(5, 5\)"),
        ("calibration.scores", [], r"calibration.scores are 0, expected 1 to 64"),
        ("calibration.scores", [0.0] * 65, r"calibration.scores are 65, expected 1 to 64"),
        ("calibration.scores", [1e50], r"calibration.evidence has shape|calibration.scores\[0\] is 1e\+50"),
        ("calibration.evidence", [1e300], r"calibration.evidence has shape"),
        ("calibration.share", 1.0, r"calibration.share: .* 1 came"),
        ("calibration.share", float("inf"), "calibration.share: Input should be a finite number, inf came"),
        ("calibration.share", 1e-300, r"calibration.share is 1e-300, expected a probability"),
        ("kernel.points", [[1e154] * 6], r"kernel.points, flattened,\[0\] is 1e\+154, expected -1e\+03 to 1e\+03"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_numbers_that_no_fitted_context_has_are_refused_by_name(latents, served_bundle, field, value, message):
    given = portable_of(latents, served_bundle).model_dump(mode="json")
    outer, _, inner = field.rpartition(".")
    (given[outer] if outer else given)[inner] = value
    if field == "kernel.points":
        given["kernel"]["weights"] = [1.0]
    with pytest.raises(InvalidInput, match=message):
        from_portable(read_contexts(given)[0], served_bundle)


def test_contexts_of_too_many_images_together_are_refused(latents, served_bundle):
    given = portable_of(latents, served_bundle)
    size = 2**31 - 1
    most = given.model_copy(update={"size": size, "moments": given.moments.model_copy(update={"size": size})})
    contexts = [from_portable(most, served_bundle), from_portable(given, served_bundle)]
    assert merge(contexts[:1], served_bundle.population) is contexts[0]
    with pytest.raises(InvalidInput, match="of 2147484047 images together"):
        merge(contexts, served_bundle.population)


def test_contexts_of_identical_images_far_apart_make_one_that_comes_back(latents, served_bundle):
    """Two points, so far apart that beside their distance the encoder's noise is nil."""
    given = portable_of(latents, served_bundle)
    size, scatter = 5, np.zeros((6, 6)).tolist()
    points = [
        given.model_copy(
            update={
                "size": size,
                "moments": given.moments.model_copy(update={"size": size, "mean": [place] * 6, "scatter": scatter}),
                "posterior_variance": [1e-12] * 6,
            }
        )
        for place in (0.0, 1e5)
    ]
    contexts = [from_portable(point, served_bundle) for point in points]
    merged = merge(contexts, served_bundle.population)
    back = from_portable(to_portable(merged, served_bundle.manifest.bundle_id), served_bundle)
    assert np.isfinite(scoring.score(latents, served_bundle.population, context=back).outlier_score).all()


def indefinite(covariance):
    covariance = np.array(covariance)
    first, second = np.argsort(np.diag(covariance))[-2:]
    covariance[first, second] = covariance[second, first] = 2 * np.sqrt(
        covariance[first, first] * covariance[second, second]
    )
    return covariance.tolist()


def lopsided(covariance):
    return (np.array(covariance) + np.triu(np.ones_like(covariance), 1)).tolist()


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("covariance", indefinite, "not positive definite"),
        ("covariance", lambda c: (-np.array(c)).tolist(), r"covariance\[0\] is -.*, expected 0 to 1e\+100"),
        ("covariance", lopsided, "not symmetric"),
        ("covariance", lambda c: c[:-1], "shape"),
        ("covariance", lambda c: [*c[:-1], c[-1][:-1]], "shape"),
        ("location", lambda m: m[:-1], "shape"),
        ("posterior_variance", lambda v: [0.0, *v[1:]], r"posterior_variance\[0\] is 0, expected 1e-22 to 1e\+22"),
        ("size", lambda n: n + 1, "moments are of"),
    ],
    ids=["indefinite", "negative", "lopsided", "short", "ragged", "location", "variance", "size"],
)
def test_an_edited_context_is_refused(latents, served_bundle, field, change, message):
    portable = portable_of(latents, served_bundle)
    edited = portable.model_copy(update={field: change(getattr(portable, field))})
    with pytest.raises(InvalidInput, match=message):
        from_portable(edited, served_bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"location": [float("nan")]},
        {"radius_squared": -1},
        {"size": 0},
        {"surplus": 1},
        {"estimator": "magic"},
        {"covariance": "none"},
    ],
    ids=str,
)
def test_json_that_is_no_context_is_refused(latents, served_bundle, change):
    given = portable_of(latents, served_bundle).model_dump(mode="json") | change
    with pytest.raises(InvalidInput, match="The context cannot be used"):
        read_contexts(given)
