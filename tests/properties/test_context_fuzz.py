"""Whatever context comes back: it is refused in an error of ours, or everything made of it is finite.

`make fuzz` tries many more.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from dataclasses import replace
from typing import get_args

import crafted
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json
from threadpoolctl import threadpool_limits

from service.api.contexts import codec as context_codec
from service.api.options import (
    EditOptions,
    ExplainOptions,
    InterpolateOptions,
    SampleOptions,
    ScoreOptions,
    TraverseOptions,
)
from service.api.schemas import FitResponse
from service.api.validation import read_contexts
from service.bundle.store import Bundle, load
from service.core.detect import fit, scoring
from service.core.detect.context import Context
from service.core.edit import limits
from service.core.types import EstimatorName
from service.errors import InvalidInput
from service.pipeline import responses
from service.pipeline.batch import Batch, EncodedImages
from service.pipeline.edit import edit_plan
from service.pipeline.explain import item_details
from service.pipeline.explain.explanation import Explanation
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.grpc.converters import make_serialiser

threadpool_limits(limits=1, user_api="blas")  # as in the service: the matrices are tiny
BUNDLE = load(Settings().bundle_directory)
SIZES = (1, 2, 7, 60)
trying = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def population_latents(bundle: Bundle) -> np.ndarray:
    """The bundle's sample of its population, as the encoder would answer it: float32 (p, 2, L)."""
    mean = bundle.population.sample
    assert mean is not None
    logvar = np.broadcast_to(np.log(bundle.population.posterior_variance), mean.shape)
    return np.stack([mean, logvar], axis=1).astype(np.float32)


LATENTS = population_latents(BUNDLE)


def of_a_rule(count: int) -> np.ndarray:
    """Images that have a latent in common, which is what makes a kernel's bandwidth finite."""
    latents = LATENTS[:count].copy()
    latents[:, 0, BUNDLE.population.live_dims[0]] = 0.3
    return latents


def as_json(context: Context) -> dict[str, object]:
    return context_codec.to_portable(context, BUNDLE.manifest.bundle_id).model_dump(mode="json")


FITTED = [
    as_json(fit.fit(latents, BUNDLE.population, estimator=estimator))
    for estimator in get_args(EstimatorName)
    for latents in [*(LATENTS[:size] for size in SIZES), of_a_rule(60)]
]


def read(contexts: list[dict[str, object]]) -> Context:
    """One context of all, through text, as a request brings them."""
    text = json.dumps(contexts).replace("Infinity", "1e999").replace("NaN", "null")
    contexts = read_contexts(from_json(text, allow_inf_nan=False))
    return context_codec.merge([context_codec.from_portable(each, BUNDLE) for each in contexts], BUNDLE.population)


def use(context: Context, latents: np.ndarray) -> None:
    """Everything that the endpoints make of a context, but for what needs networks. Raises what they would."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        scores = scoring.score(latents, BUNDLE.population, context=context)
        for values in (scores.outlier_score, scores.mahalanobis_squared, scores.outlier_probability):
            assert np.isfinite(values).all()
        pixels = np.zeros((len(latents), *BUNDLE.manifest.image.shape), dtype=np.uint8)
        images = EncodedImages([str(row) for row in range(len(latents))], latents, pixels, None, {})
        batch = Batch(images, scores.context, replace(scores, is_outlier=np.arange(len(latents)) % 2 == 0))
        alone = Batch(replace(images, ids=[], latents=latents[:0], pixels=pixels[:0]), context, None)
        explain = ExplainOptions(interactions=True)
        explained = item_details.explain_without_maps(
            batch, item_details.select_mapped_rows(batch, explain, len(latents)), explain, BUNDLE
        )
        explanation = Explanation(batch, explained, BUNDLE, pixels[:0], np.empty(0))
        scored = responses.build_score_response(batch, ScoreOptions(attributions="all"), BUNDLE)
        for response in (scored.whole(), explanation.without_maps().whole()):
            content = from_json(response.model_dump_json(exclude_unset=True), allow_inf_nan=False)
            assert_finite(content)
            assert make_serialiser(pb.ScoreResponse)(response)
        for plan in (
            *(edit_plan.plan_edit(batch, options, BUNDLE) for options in EDITS),
            *(edit_plan.plan_traverse(each, TraverseOptions(span=1000), BUNDLE) for each in (batch, alone)),
            edit_plan.plan_interpolate(batch, InterpolateOptions(), BUNDLE),
            edit_plan.plan_sample(alone, SampleOptions(method="gaussian"), BUNDLE),
        ):
            assert np.isfinite(plan.latents).all()
            assert np.isfinite(plan.latents.astype(np.float32)).all()
        fit = FitResponse(model="", context=context_codec.to_portable(context, BUNDLE.manifest.bundle_id), errors={})
        make_serialiser(pb.FitResponse)(fit)
        assert_same(read([as_json(context)]), context)


EDITS = [
    EditOptions(which="all"),
    EditOptions(which="all", edit="project"),
    EditOptions(which="all", edit="set", values={"0": limits.FURTHEST}),
    EditOptions(which="all", edit="shift", values={"0": 0.5}, unit="quantile"),
]


def assert_finite(tree: object) -> None:
    """JSON has null for what is not finite, where a number is due."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            assert value is not None or name in ("contamination", "factor"), name
            assert_finite(value)
    elif isinstance(tree, list):
        for value in tree:
            assert_finite(value)


def assert_same(actual: Context, expected: Context) -> None:
    """Bit for bit."""
    assert context_codec.to_portable(actual, "") == context_codec.to_portable(expected, "")
    for name in ("location", "covariance", "posterior_variance"):
        assert getattr(actual, name).tobytes() == getattr(expected, name).tobytes()


@pytest.mark.parametrize("place", range(len(FITTED)))
def test_what_fit_answers_is_taken_alone_and_merged(place):
    use(read([FITTED[place]]), LATENTS[-6:])
    use(read([FITTED[place], FITTED[place - 1], FITTED[0]]), LATENTS[-6:])


def crafted_latents(chance: random.Random) -> np.ndarray:
    """Images of every kind, down to identical ones, and as far out as the encoders of the bundles were ever seen."""
    count = chance.choice((1, 2, 3, 4, 5, 7, 10, 20, 80))
    rng = np.random.default_rng(chance.randrange(2**32))
    latents = LATENTS[rng.integers(len(LATENTS), size=count)].copy()
    out = rng.random(count) < chance.choice((0, 0.1, 1))
    latents[out, 0] *= np.float32(chance.choice((1, 5, 20)))
    latents[out, 1] = rng.uniform(chance.choice((-26, -10, -1)), 0.5, latents[out, 1].shape)
    return np.repeat(latents[:1], count, axis=0) if chance.random() < 0.3 else latents


@trying
@given(st.randoms(use_true_random=False), st.sampled_from(get_args(EstimatorName)))
def test_every_fitted_context_comes_back_bit_for_bit(chance, estimator):
    context = fit.fit(crafted_latents(chance), BUNDLE.population, estimator=estimator)
    assert_same(read([as_json(context)]), context)
    other = fit.fit(crafted_latents(chance), BUNDLE.population, estimator=estimator)
    merged = fit.merge([context, other], BUNDLE.population)
    assert_same(read([as_json(context), as_json(other)]), merged)
    assert_same(read([as_json(merged)]), merged)


@trying
@given(st.sampled_from(FITTED), st.randoms(use_true_random=False))
def test_a_crafted_context_is_refused_or_gives_finite_answers(fitted, chance):
    spoiled = crafted.spoil(fitted, FITTED, chance)
    together = [[spoiled], [spoiled], [spoiled, chance.choice(FITTED)], [spoiled] * 3]
    context = None
    with suppress(InvalidInput):
        context = read(chance.choice(together))
    if context is not None:  # what is let in is refused by nobody later
        use(context, LATENTS[-4:])
