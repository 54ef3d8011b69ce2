"""Whatever options come, in a query, in JSON or over gRPC: they are taken and carried out, or refused as options.

`make fuzz` tries many more.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import crafted
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.options import Options
from service.api.validation import read_options
from service.bundle.store import load
from service.core.detect import scoring
from service.errors import LONGEST_MESSAGE, ContextTooSmall, InvalidInput, UndecodableImage
from service.pipeline.batch import Batch, EncodedImages
from service.pipeline.edit import edit_plan
from service.pipeline.edit.edit_plan import EditPlan
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.grpc.converters import METHODS, read_images_request
from service.transports.http import body_parsers

BUNDLE = load(Settings().bundle_directory)
LIMITS = Settings()
PLANS: dict[str, Callable[[Batch, Any, Any], EditPlan]] = {
    "Edit": edit_plan.plan_edit,
    "Traverse": edit_plan.plan_traverse,
    "Interpolate": edit_plan.plan_interpolate,
    "Sample": edit_plan.plan_sample,
}
IDS = ["a.png", "a.png", "7", "bad.png"]
trying = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
IMAGE_METHODS = sorted(name for name, method in METHODS.items() if method.endpoint.takes == "images")


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Three images of the population and one that could not be used."""
    sample = BUNDLE.population.sample
    assert sample is not None
    latents = np.stack([sample[:3], np.zeros_like(sample[:3])], axis=1).astype(np.float32)
    pixels = np.zeros((3, *BUNDLE.manifest.image.shape), dtype=np.uint8)
    images = EncodedImages(IDS, latents, pixels, None, {3: UndecodableImage("cut short")})
    scores = scoring.score(latents, BUNDLE.population)
    return Batch(images, scores.context, scores)


def crafted_options(name: str, chance: random.Random) -> dict[str, Any]:
    fields = METHODS[name].endpoint.image_options.model_fields
    options = {chance.choice([*fields]): chance.choice(crafted.OPTION_VALUES) for _ in range(chance.choice((1, 1, 2)))}
    if name == "Edit" and chance.random() < 0.5:
        options |= {"edit": chance.choice(("set", "shift", "counterfactual", "project"))}
    if chance.random() < 0.02:
        options[chance.choice(("", "\0", "x" * 100_000, crafted.TOO_LONG))] = 1
    return options


def by_query(name: str, options: dict[str, Any]) -> Options:
    """Words, as a query string has them, one by one or together."""
    words = {key: value if isinstance(value, str) else as_text(value) for key, value in options.items()}
    body = ("application/x-npy", npy())
    return body_parsers.parse_images(body[0], words, body[1], LIMITS, METHODS[name].endpoint.image_options).options


def by_json(name: str, options: dict[str, Any]) -> Options:
    body = '{"images": [""], "options": ' + as_text(options) + "}"
    return body_parsers.parse_images(
        "application/json", {}, body.encode(), LIMITS, METHODS[name].endpoint.image_options
    ).options


def by_text_in_the_query(name: str, options: dict[str, Any]) -> Options:
    return body_parsers.parse_images(
        "application/x-npy", {"options": as_text(options)}, npy(), LIMITS, METHODS[name].endpoint.image_options
    ).options


def by_grpc(name: str, options: dict[str, Any]) -> Options:
    """As far as a message can hold them."""
    message = METHODS[name].request(images=pb.Images(files=pb.ImageFiles(contents=[b""])))
    for key, value in options.items():
        field = message.options.DESCRIPTOR.fields_by_name.get(key)
        if field is not None:
            with suppress(ValueError, TypeError, OverflowError, AttributeError):
                fill(message.options, field, value)
    return read_images_request(message, METHODS[name].endpoint.image_options, LIMITS, message.ByteSize()).options


def fill(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is not None:
        getattr(message, field.name).update({str(key): float(number) for key, number in value.items()})
    elif field.is_repeated:
        getattr(message, field.name).extend(map(str, value if isinstance(value, list) else [value]))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        setattr(message, field.name, str(value))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        setattr(message, field.name, float(value))
    else:
        setattr(message, field.name, int(value))


def as_text(value: object) -> str:
    return json.dumps(value).replace("Infinity", "1e999").replace("NaN", "null")


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((1, 8, 8, 3), dtype=np.uint8))
    return file.getvalue()


WAYS = (by_query, by_json, by_text_in_the_query, by_grpc)


@trying
@given(st.sampled_from(IMAGE_METHODS), st.sampled_from(WAYS), st.randoms(use_true_random=False))
def test_crafted_options_are_carried_out_or_refused(batch, name, way, chance):
    options, given_ = None, crafted_options(name, chance)
    with suppress(InvalidInput):
        options = way(name, given_)
    if options is not None and name in PLANS:
        with suppress(InvalidInput, ContextTooSmall):
            plan = PLANS[name](batch, options, BUNDLE)
            assert np.isfinite(plan.latents).all()
            json.dumps([*plan.ids, *plan.errors]).encode()


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_each_value_for_each_option_by_itself(batch, name):
    refused = []
    for option in METHODS[name].endpoint.image_options.model_fields:
        for value in crafted.OPTION_VALUES:
            try:
                options = read_options({option: value}, METHODS[name].endpoint.image_options)
                if name in PLANS:
                    PLANS[name](batch, options, BUNDLE)
            except (InvalidInput, ContextTooSmall) as error:
                refused.append((error.message, error.hint))
    assert all(len(message) <= LONGEST_MESSAGE + 3 for message, _ in refused)
    assert all(hint for _, hint in refused)
