"""Inference requests of either transport: read to the same thing, and refused with a sentence where they are none."""

import base64
import json
import struct

import numpy as np
import pytest
from bodies import encoded

from service.errors import InvalidInput, InvalidOption, MisfitError, TooLarge, TooManyImages, UnknownModel
from service.protos.inference import open_inference_pb2 as pb
from service.settings import Settings
from service.transports.error_status import STATUS
from service.transports.open_inference import codec, grpc, http
from service.transports.open_inference.models import find_model, list_models

PIXELS = np.arange(2 * 64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 64, 64, 3)
FILES = [encoded(pixels) for pixels in PIXELS]
JSON_INPUT = {"name": "images", "datatype": "UINT8", "shape": [2, 64, 64, 3]}


@pytest.fixture(scope="module")
def models(served_bundle):
    return list_models(served_bundle.manifest)


def over_http(content, binary=b"", header=True):
    """The request that a body makes."""
    text = json.dumps(content).encode() if isinstance(content, dict) else content
    parts = http.split(text + binary, str(len(text)) if header is True else header)
    return http.read_request(*parts, 100_000)


def over_grpc(**fields):
    return grpc.read_request(pb.ModelInferRequest(**fields))


def parse(models, request, name="misfit", **settings):
    model = models[name]
    outputs = codec.select_outputs(model, request)
    return codec.parse(model, request, outputs, Settings(**settings), 1_000_000, 6)


def contents_of(parsed):
    return [upload.read() for upload in parsed.images]


def test_pixels_of_every_form_are_the_same_images(models):
    described = {"name": "images", "datatype": "UINT8", "shape": PIXELS.shape}
    length = {"parameters": {"binary_data_size": PIXELS.size}}
    numbers = pb.InferTensorContents(uint_contents=PIXELS.ravel().tolist())
    for request in (
        over_http({"inputs": [JSON_INPUT | {"data": PIXELS.ravel().tolist()}]}, header=None),
        over_http({"inputs": [JSON_INPUT | {"data": PIXELS.tolist()}]}),
        over_http({"inputs": [JSON_INPUT | length]}, PIXELS.tobytes()),
        over_grpc(inputs=[described], raw_input_contents=[PIXELS.tobytes()]),
        over_grpc(inputs=[described | {"contents": numbers}]),
    ):
        parsed = parse(models, request)
        assert np.array_equal(contents_of(parsed), PIXELS)
        assert parsed.shapes == (PIXELS.shape,)


def test_files_of_every_form_are_the_same_images(models):
    texts = [base64.b64encode(file).decode() for file in FILES]
    raw = b"".join(struct.pack("<I", len(file)) + file for file in FILES)
    raw_texts = b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
    described = {"name": "images", "datatype": "BYTES", "shape": [2]}
    for request in (
        over_http({"inputs": [described | {"data": texts}]}, header=None),
        over_http({"inputs": [described | {"shape": [2, 1], "data": [[texts[0]], [texts[1]]]}]}),
        over_http({"inputs": [described | {"parameters": {"binary_data_size": len(raw)}}]}, raw),
        over_http({"inputs": [described | {"parameters": {"binary_data_size": len(raw_texts)}}]}, raw_texts),
        over_grpc(inputs=[described], raw_input_contents=[raw]),
        over_grpc(inputs=[described | {"contents": pb.InferTensorContents(bytes_contents=FILES)}]),
    ):
        assert contents_of(parse(models, request)) == FILES


def test_options_reference_and_context_are_read(models):
    inputs = [JSON_INPUT | {"data": PIXELS.tolist()}]
    reference = {"name": "reference", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILES[0]).decode()]}
    request = over_http(
        {
            "id": "42",
            "parameters": {"estimator": "robust", "threshold": "0.25", "timeout": 5},
            "inputs": [*inputs, reference],
            "outputs": [{"name": "rank"}, {"name": "attributions", "parameters": {"binary_data": True}}],
        }
    )
    parsed = parse(models, request)
    assert (request.id, request.outputs, request.binary) == ("42", ["rank", "attributions"], {"attributions"})
    assert (parsed.options.estimator, parsed.options.threshold, parsed.options.attributions) == ("robust", 0.25, "all")
    assert [upload.read() for upload in parsed.reference] == [FILES[0]]
    context = {"name": "context", "datatype": "BYTES", "shape": [1], "data": ['{"size": 0}']}
    with pytest.raises(InvalidInput, match="The context cannot be used: "):
        parse(models, over_http({"inputs": [*inputs, context]}))


def test_null_counts_as_absent(models):
    content = {"id": None, "parameters": None, "outputs": None}
    request = over_http({**content, "inputs": [JSON_INPUT | {"data": PIXELS.tolist(), "parameters": None}]})
    assert (request.id, request.outputs) == ("", [])
    assert len(parse(models, request).images) == 2


def test_the_decoder_takes_latents(models):
    latents = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    tensor = {"name": "latents", "datatype": "FP32", "shape": [3, 6]}
    request = over_grpc(inputs=[tensor], raw_input_contents=[latents.tobytes()])
    assert np.array_equal(parse(models, request, "decoder"), latents)
    turned = over_grpc(inputs=[{**tensor, "shape": [6, 3]}], raw_input_contents=[latents.tobytes()])
    with pytest.raises(MisfitError, match=r"expected \(n, 6\)"):
        parse(models, turned, "decoder")


IMAGES = [JSON_INPUT | {"data": PIXELS.tolist()}]
OTHER = {"name": "images", "datatype": "BYTES", "shape": [2], "data": ["QQ==", "QQ=="]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "has list; expected"),
        ({"inputs": IMAGES, "parameter": {}}, "has fields inputs, parameter; expected"),
        ({}, "has no input images, which the model misfit needs"),
        ({"inputs": {}}, "inputs is {}, expected a list"),
        ({"inputs": [5]}, "expected a list of objects"),
        ({"inputs": [{}]}, "has the name None"),
        ({"inputs": [JSON_INPUT]}, "neither data nor binary_data_size"),
        ({"inputs": [JSON_INPUT | {"data": "AAAA"}]}, "data that is no list"),
        ({"inputs": [JSON_INPUT | {"data": [], "parameters": {"binary_data_size": 0}}]}, "both data and"),
        ({"inputs": [JSON_INPUT | {"data": [1, 2]}]}, "takes 24576 elements, but data holds 2"),
        ({"inputs": [JSON_INPUT | {"parameters": {"binary_data_size": 24576}}]}, "but 0 bytes are left"),
        ({"inputs": [JSON_INPUT | {"parameters": {"binary_data_size": -1}}]}, "binary_data_size -1"),
        ({"inputs": [JSON_INPUT | {"parameters": {"shared_memory_region": "a"}}]}, "'shared_memory_region'"),
        ({"inputs": [JSON_INPUT | {"data": [1], "parameters": []}]}, r"parameters is \[\], expected an object"),
        ({"inputs": [*IMAGES, *IMAGES]}, "two of them with one name"),
        ({"inputs": [*IMAGES, OTHER | {"name": "image"}]}, "has no input 'image'"),
        ({"inputs": [OTHER | {"shape": [1, 2]}]}, r"expected BYTES of shape \(n,\)"),
        ({"inputs": [{**JSON_INPUT, "shape": [2, 64 * 64 * 3], "data": PIXELS.tolist()}]}, "nested as"),
        ({"inputs": [{**JSON_INPUT, "shape": [24576], "data": PIXELS.ravel().tolist()}]}, r"expected \(N, H, W\)"),
        ({"inputs": [{**JSON_INPUT, "shape": [2, 3, 64, 64], "data": PIXELS.ravel().tolist()}]}, "channels last"),
        ({"inputs": IMAGES, "outputs": [{"name": "ranks"}]}, "has no output 'ranks'"),
        ({"inputs": IMAGES, "outputs": [{"name": "rank"}, {"name": "rank"}]}, "name one twice"),
        ({"inputs": IMAGES, "outputs": [{"name": 5}]}, "An output has the name 5"),
        ({"inputs": IMAGES, "outputs": [{"name": "rank", "parameters": {"classification": 1}}]}, "'classification'"),
        ({"inputs": IMAGES, "outputs": [{"name": "rank", "parameters": {"binary_data": 1}}]}, "binary_data is 1"),
        ({"inputs": IMAGES, "parameters": {"binary_data_output": "yes"}}, "binary_data_output is 'yes'"),
        ({"inputs": IMAGES, "id": 42}, "id is 42"),
        ({"inputs": IMAGES, "parameters": {"estimater": "robust"}}, "Unknown option: estimater"),
        ({"inputs": IMAGES, "parameters": {"threshold": 2}}, "threshold: Input should be less than"),
        ({"inputs": IMAGES, "parameters": {"sequence_id": 1}}, "Unknown option: sequence_id"),
        ({"inputs": IMAGES, "outputs": [{"name": "nearest"}]}, "the parameter nearest is 0"),
        (
            {"inputs": IMAGES, "outputs": [{"name": "attributions"}], "parameters": {"attributions": "none"}},
            "the parameter attributions is none",
        ),
        (
            {"inputs": IMAGES, "outputs": [{"name": "is_foreign"}], "parameters": {"foreign": "off"}},
            "the parameter foreign is off",
        ),
    ],
)
def test_a_body_that_is_no_request_is_refused(models, content, text):
    with pytest.raises(InvalidInput, match=text) as refused:
        parse(models, over_http(content, header=None))
    assert 400 <= STATUS[type(refused.value)].http < 500


@pytest.mark.parametrize("header", ["", "-1", "1e3", "99999", "٣", "9" * 5000, "24.0"])
def test_a_wrong_length_of_the_json_is_refused(header):
    with pytest.raises(InvalidInput, match=r"Inference-Header-Content-Length is .*the body has 13 bytes"):
        over_http(b'{"inputs":[]}', header=header)


def test_a_length_that_cuts_the_json_is_refused():
    with pytest.raises(InvalidInput, match=r"The head of the body .* is not JSON") as refused:
        over_http(b'{"inputs":[]}', header="5")
    assert "give each request a copy" in refused.value.hint
    with pytest.raises(InvalidInput, match="2 bytes follow the tensors"):
        over_http({"inputs": []}, b"12")


RAW = {"name": "images", "datatype": "UINT8", "shape": [2, 64, 64, 3]}
BOTH = {**RAW, "contents": pb.InferTensorContents(uint_contents=[1])}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "has no input images"),
        ({"inputs": [RAW], "raw_input_contents": [b"1", b"2"]}, "2 raw_input_contents came for 1 inputs"),
        ({"inputs": [], "raw_input_contents": [b"1"]}, "1 raw_input_contents came for 0 inputs"),
        ({"inputs": [RAW], "raw_input_contents": [b"1"]}, "takes 24576 bytes, but 1 came"),
        ({"inputs": [BOTH], "raw_input_contents": [b"1"]}, "both raw_input_contents and contents.uint_contents"),
        ({"inputs": [RAW]}, "takes 24576 elements, but contents.uint_contents holds 0"),
        ({"inputs": [BOTH]}, "takes 24576 elements, but contents.uint_contents holds 1"),
        ({"inputs": [BOTH | {"datatype": "INT8"}]}, "stands in contents.int_contents, but contents.uint_contents came"),
        ({"inputs": [RAW | {"datatype": "FP16"}]}, "stands in raw_input_contents, but nothing came"),
        ({"inputs": [RAW | {"shape": [-2, 64, 64, 3]}]}, "none of them negative"),
        ({"inputs": [RAW | {"shape": [2**62] * 4}], "raw_input_contents": [b""]}, "but 0 came"),
        ({"inputs": [BOTH | {"shape": [1], "contents": pb.InferTensorContents(uint_contents=[256])}]}, "holds 256"),
        ({"parameters": {"threshold": pb.InferParameter()}}, "'threshold' has no value"),
        ({"outputs": [{"name": "rank", "parameters": {"a": pb.InferParameter(bool_param=True)}}]}, "parameter 'a'"),
    ],
)
def test_a_message_that_is_no_request_is_refused(models, fields, text):
    with pytest.raises(InvalidInput, match=text) as refused:
        parse(models, over_grpc(**fields))
    assert STATUS[type(refused.value)].grpc == "INVALID_ARGUMENT"


def test_limits_hold(models):
    request = over_http({"inputs": IMAGES})
    with pytest.raises(TooManyImages):
        parse(models, request, max_images=1)
    with pytest.raises(TooLarge):
        http.read_request(memoryview(json.dumps({"inputs": IMAGES}).encode()), memoryview(b""), 1000)


def test_options_of_no_use_are_refused(models):
    latents = {"name": "latents", "datatype": "FP64", "shape": [1, 6], "data": [0.0] * 6}
    with pytest.raises(InvalidOption, match="The model decoder has no option 'seed'"):
        parse(models, over_http({"inputs": [latents], "parameters": {"seed": 1}}), "decoder")
    with pytest.raises(InvalidInput, match="expected FP32 or FP64"):
        parse(models, over_http({"inputs": [latents | {"datatype": "INT8", "data": [0] * 6}]}), "decoder")
    with pytest.raises(InvalidOption, match="Unknown option: threshold"):
        parse(models, over_http({"inputs": IMAGES, "parameters": {"threshold": 0.5}}), "encoder")


def test_a_bundle_that_cannot_draw_has_no_decoder(served_bundle):
    files = {name: digest for name, digest in served_bundle.manifest.files.items() if name != "decoder.onnx"}
    models = list_models(served_bundle.manifest.model_copy(update={"files": files}))
    assert list(models) == ["misfit", "encoder"]
    with pytest.raises(UnknownModel, match=r"no model 'decoder': the bundle has no decoder.onnx"):
        find_model(models, "decoder", "")


def test_a_version_that_is_not_served_is_refused(models):
    assert find_model(models, "misfit", models["misfit"].version) is models["misfit"]
    with pytest.raises(UnknownModel, match="no version '1'"):
        find_model(models, "misfit", "1")
