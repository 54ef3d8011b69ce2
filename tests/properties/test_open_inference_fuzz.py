"""Spoiled inference requests: every one is read or refused by an error of this service, over HTTP and gRPC."""

from __future__ import annotations

import json
from contextlib import suppress

import hypothesis
import numpy as np
import pytest
from bodies import encoded
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.protos.inference import open_inference_pb2 as pb
from service.settings import Settings
from service.transports.open_inference import codec, grpc, http
from service.transports.open_inference.models import ENDPOINT_OF, list_models
from service.transports.open_inference.tensors import DATATYPES

PIXELS = np.arange(2 * 64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 64, 64, 3)
FILE = encoded(PIXELS[0])
NUMBERS = st.integers() | st.integers(0, 5) | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
VALUES = st.recursive(
    NUMBERS, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=3), each, max_size=3)
)
SHAPES = st.sampled_from([[2, 64, 64, 3], [1], [2, 1], [24576], [0], [-1], [2**62] * 4, [2**63]]) | VALUES
NAMES = st.sampled_from(["images", "reference", "context", "latents"]) | VALUES
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "content_type", "estimator", "threshold", "attributions"]),
    st.integers(-1, 30_000) | VALUES,
    max_size=3,
)
INPUTS = st.fixed_dictionaries(
    {"name": NAMES, "datatype": st.sampled_from(DATATYPES) | VALUES, "shape": SHAPES},
    optional={"parameters": PARAMETERS | VALUES, "data": st.lists(NUMBERS, max_size=4) | VALUES},
)
OUTPUTS = st.fixed_dictionaries({"name": st.sampled_from(["rank", "answer"]) | VALUES}, optional={"parameters": VALUES})
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=3) | VALUES},
    optional={"id": VALUES, "parameters": PARAMETERS | VALUES, "outputs": st.lists(OUTPUTS, max_size=2) | VALUES},
)
CONTENTS = st.sampled_from([b"", b"1234", FILE, PIXELS.tobytes(), b"\x04\0\0\0abcd"]) | st.binary(max_size=40)


@pytest.fixture(scope="module")
def models(served_bundle):
    return list_models(served_bundle.manifest)


def work(models, name, request):
    """The common way of a request that a transport has read."""
    model = models[name]
    codec.parse(model, request, codec.select_outputs(model, request), Settings(), 1_000_000, 6)


@hypothesis.given(REQUESTS, CONTENTS, st.sampled_from(sorted(ENDPOINT_OF)), st.none() | st.integers(-3, 40))
@hypothesis.settings(deadline=None)
def test_a_body_is_read_or_refused(models, content, binary, name, shift):
    text = json.dumps(content, allow_nan=True).encode()
    with suppress(InvalidInput):
        parts = http.split(text + binary, None if shift is None else str(len(text) + shift))
        work(models, name, http.read_request(*parts, 500_000))


@hypothesis.given(st.data(), st.sampled_from(sorted(ENDPOINT_OF)))
@hypothesis.settings(deadline=None)
def test_a_message_is_read_or_refused(models, data, name):
    message = pb.ModelInferRequest(model_name=name)
    for _ in range(data.draw(st.integers(0, 2))):
        tensor = message.inputs.add()
        tensor.name = data.draw(st.sampled_from(["images", "reference", "context", "latents", ""]))
        tensor.datatype = data.draw(st.sampled_from([*DATATYPES, "BF16", ""]))
        tensor.shape.extend(data.draw(st.sampled_from([[2, 64, 64, 3], [1], [2, 6], [-1], [2**62] * 3, []])))
        field = data.draw(st.sampled_from([None, *(each.name for each in pb.InferTensorContents.DESCRIPTOR.fields)]))
        if field is not None:
            element = b"a" if field == "bytes_contents" else 1
            getattr(tensor.contents, field).extend([element] * data.draw(st.integers(0, 13)))
    message.raw_input_contents.extend(data.draw(st.lists(CONTENTS, max_size=2)))
    spoiled = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(0, 2)) if spoiled else 0):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput):
        parsed = grpc.parse_message(pb.ModelInferRequest, bytes(spoiled), Settings())
        work(models, name, grpc.read_request(parsed))
