"""The Open Inference Protocol over HTTP and gRPC: its numbers are those of the service's own endpoints, bit for bit."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path

import grpc
import jsonschema
import numpy as np
import pytest
from bodies import as_json, as_npy, encoded
from PIL import Image

from service.api.wire import ERROR_DETAIL
from service.protos.inference import open_inference_pb2 as pb
from service.protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.transports.open_inference.tensors import CONTENTS, DTYPES

SCHEMAS = json.loads((Path(__file__).parents[1] / "data/open_inference/rest.json").read_text())
LENGTH_HEADER = "Inference-Header-Content-Length"
SCORES = ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank", "is_foreign")


@pytest.fixture(scope="module")
def stub(served):
    with grpc.insecure_channel(served.grpc_target, [("grpc.max_receive_message_length", -1)]) as channel:
        yield GRPCInferenceServiceStub(channel)


def check(name, content):
    """Raises where an answer has not the form that the protocol publishes."""
    jsonschema.Draft202012Validator({**SCHEMAS, "$ref": f"#/$defs/{name}"}).validate(content)


def pixels_input(images):
    return {"name": "images", "datatype": "UINT8", "shape": list(images.shape)}


def infer(client, content, binary=b"", model="misfit"):
    """POST a request whose tensors follow the JSON as bytes, and return the answer's JSON and outputs."""
    text = json.dumps(content).encode()
    headers = {LENGTH_HEADER: str(len(text))} if binary else {}
    response = client.post(f"/v2/models/{model}/infer", content=text + binary, headers=headers)
    assert response.status_code == 200, response.text
    length = int(response.headers.get(LENGTH_HEADER, len(response.content)))
    answer, rest = json.loads(response.content[:length]), response.content[length:]
    outputs = {}
    for output in answer["outputs"]:
        if "data" in output:
            outputs[output["name"]] = from_json(output)
        else:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]], rest = from_bytes(output["datatype"], output["shape"], rest[:size]), rest[size:]
    assert rest == b""
    if not binary:
        check("inference_response", replace_null(answer))
    return answer, outputs


def replace_null(answer):
    """The answer with numbers in place of null, which stands for those that an image without scores has not."""
    outputs = [
        {**each, "data": [0 if value is None else value for value in each["data"]]} for each in answer["outputs"]
    ]
    return {**answer, "outputs": outputs}


def from_json(output):
    if output["datatype"] == "BYTES":
        return [text.encode() for text in output["data"]]
    data = [np.nan if value is None else value for value in output["data"]]
    return np.array(data, dtype=DTYPES[output["datatype"]]).reshape(output["shape"])


def from_bytes(datatype, shape, content):
    if datatype != "BYTES":
        return np.frombuffer(content, dtype=DTYPES[datatype]).reshape(shape)
    elements = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        elements.append(content[4 : 4 + length])
        content = content[4 + length :]
    return elements


def from_message(answer):
    outputs = {}
    for place, output in enumerate(answer.outputs):
        if answer.raw_output_contents:
            outputs[output.name] = from_bytes(output.datatype, output.shape, answer.raw_output_contents[place])
        else:
            data = list(getattr(output.contents, CONTENTS[output.datatype]))
            outputs[output.name] = (
                from_json({"datatype": output.datatype, "shape": output.shape, "data": data})
                if (output.datatype != "BYTES")
                else data
            )
    return outputs


def assert_scores(outputs, items):
    """Every number is the one that /score answered, in every bit."""
    for name in SCORES:
        expected = np.array([item[name] for item in items])
        assert outputs[name].tobytes() == expected.astype(outputs[name].dtype).tobytes(), name
    assert outputs["error"] == [b""] * len(items)


def test_scores_of_every_form_are_those_of_score_bit_for_bit(client, stub, images):
    images = np.concatenate([images, images[7:8]])
    parameters = {"estimator": "robust", "attributions": "all", "nearest": 3, "duplicates": "groups"}
    content_type, body = as_npy(images)
    answer = client.post("/score", content=body, headers={"Content-Type": content_type}, params=parameters).json()
    items = answer["items"]
    head = {"id": "42", "parameters": parameters}
    sized = {**pixels_input(images), "parameters": {"binary_data_size": images.size}}
    told, over_binary = infer(client, {**head, "inputs": [sized]}, images.tobytes())
    wanted = {**head, "parameters": {**parameters, "binary_data_output": True}, "inputs": [sized]}
    _, over_bytes = infer(client, wanted, images.tobytes())
    over_json = infer(client, {**head, "inputs": [{**pixels_input(images), "data": images.ravel().tolist()}]})[1]
    message = pb.ModelInferRequest(model_name="misfit", id="42", inputs=[pixels_input(images)])
    for name, value in parameters.items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(message.parameters[name], kind, value)
    message.raw_input_contents.append(images.tobytes())
    raw = stub.ModelInfer(message)
    del message.raw_input_contents[:]
    message.inputs[0].contents.uint_contents.extend(images.ravel().tolist())
    plain = stub.ModelInfer(message)
    assert len(raw.raw_output_contents) == len(raw.outputs)
    assert not plain.raw_output_contents
    for outputs in (over_binary, over_bytes, over_json, from_message(raw), from_message(plain)):
        assert_scores(outputs, items)
        shares = np.array([[0.0] * 6] * len(items))
        for row, item in enumerate(items):
            for each in item["attributions"]:
                shares[row, each["index"]] = each["shapley"]
        assert outputs["attributions"].tobytes() == shares.tobytes()
        assert outputs["reason"] == [item["reason"].encode() for item in items]
        assert outputs["nearest"].tolist() == [[each["index"] for each in item["nearest"]] for item in items]
        firsts = [next((min(each) for each in answer["duplicates"] if row in each), row) for row in range(41)]
        assert outputs["duplicates"].tolist() == firsts
        assert firsts[40] == 7
    context = answer["context"]
    assert (told["id"], raw.id, told["model_version"]) == ("42", "42", answer["bundle_id"])
    assert told["parameters"]["context_size"] == raw.parameters["context_size"].int64_param == context["size"]
    assert told["parameters"]["contamination"] == context["contamination"]


def test_files_context_and_the_whole_answer(client, post, images):
    """A context and one file: what a client sends that asks for one image at a time."""
    files = [encoded(image) for image in images[:20]]
    fitted = client.post("/fit", content=as_json(files)[1], headers={"Content-Type": "application/json"}).json()
    body = as_json([encoded(images[25])], context=fitted["context"])
    answer = post(body).json()
    tensors = [
        {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(encoded(images[25])).decode()]},
        {"name": "context", "datatype": "BYTES", "shape": [1], "data": [json.dumps(fitted["context"])]},
    ]
    told, outputs = infer(client, {"inputs": tensors})
    assert_scores(outputs, answer["items"])
    assert told["parameters"]["context_source"] == "reference"
    whole = infer(client, {"inputs": tensors, "outputs": [{"name": "answer"}, {"name": "rank"}]})[1]
    assert list(whole) == ["answer", "rank"]
    assert json.loads(whole["answer"][0]) == answer


def test_an_image_that_cannot_be_used_has_its_error_in_its_place(client, stub, images):
    files = [encoded(image) for image in images[:10]]
    files[3] = b"no image"
    described = {"name": "images", "datatype": "BYTES", "shape": [10]}
    tensor = {**described, "data": [base64.b64encode(file).decode() for file in files]}
    told, over_json = infer(client, {"inputs": [tensor]})
    message = pb.ModelInferRequest(model_name="misfit", inputs=[described])
    message.inputs[0].contents.bytes_contents.extend(files)
    answer = stub.ModelInfer(message)
    for outputs in (over_json, from_message(answer)):
        assert outputs["error"][3].startswith(b"undecodable_image: ")
        assert outputs["error"][:3] == [b""] * 3
        assert np.isnan(outputs["outlier_score"]).nonzero()[0].tolist() == [3]
        assert sorted(outputs["rank"].tolist()) == list(range(1, 11))
        assert outputs["rank"][3] == 10
        assert not outputs["is_outlier"][3]
    assert told["parameters"]["errors"] == answer.parameters["errors"].int64_param == 1
    encoder = infer(client, {"inputs": [tensor]}, model="encoder")[1]
    assert np.isnan(encoder["mean"][3]).all()
    assert encoder["error"][3] == over_json["error"][3]


def test_encoder_and_decoder_are_encode_and_decode(client, stub, images):
    encoded_items = client.post(
        "/encode", content=as_npy(images[:5])[1], headers={"Content-Type": "application/x-npy"}
    ).json()["items"]
    sized = {**pixels_input(images[:5]), "parameters": {"binary_data_size": images[:5].size}}
    outputs = infer(client, {"inputs": [sized]}, images[:5].tobytes(), "encoder")[1]
    for name in ("mean", "logvar"):
        assert outputs[name].dtype == np.float32
        assert outputs[name].astype(np.float64).tolist() == [item[name] for item in encoded_items]
    latents = outputs["mean"]
    message = pb.ModelInferRequest(model_name="decoder", raw_input_contents=[latents.tobytes()])
    message.inputs.add(name="latents", datatype="FP32", shape=latents.shape)
    drawn = from_message(stub.ModelInfer(message))["images"]
    pictures = client.post("/decode", json={"latents": latents.tolist()}).json()["pictures"]
    expected = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each["image"])))) for each in pictures]
    assert np.array_equal(drawn, np.stack(expected))
    listed = {"name": "latents", "datatype": "FP32", "shape": list(latents.shape), "data": latents.tolist()}
    assert np.array_equal(infer(client, {"inputs": [listed]}, model="decoder")[1]["images"], drawn)


def test_the_server_and_its_models_describe_themselves(client, stub):
    bundle_id = client.post("/describe").json()["bundle_id"]
    server = client.get("/v2").json()
    assert server == client.get("/v2/").json()
    check("server_metadata", server)
    told = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (told.name, told.version, list(told.extensions)) == tuple(server.values())
    for path, word in (("live", "live"), ("ready", "ready")):
        assert client.get(f"/v2/health/{path}").json() == {word: True}
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    for name in ("misfit", "encoder", "decoder"):
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{bundle_id}"):
            described = client.get(path).json()
            check("model_metadata", described)
            assert client.get(f"{path}/ready").json() == {"name": name, "ready": True}
        message = stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=bundle_id))
        assert [(each.name, each.datatype, list(each.shape)) for each in message.outputs] == [
            tuple(each.values()) for each in described["outputs"]
        ]
        assert stub.ModelReady(pb.ModelReadyRequest(name=name)).ready
    assert "request_id" not in client.get("/v2/models/nothing").json()


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "text"),
    [
        ("/v2/models/misfit/infer", b"{", {}, 400, "The inference request is not JSON"),
        ("/v2/models/misfit/infer", b'{"inputs": []}', {}, 400, "has no input images"),
        ("/v2/models/misfit/infer", b"{}", {LENGTH_HEADER: "500"}, 400, "Inference-Header-Content-Length is '500'"),
        (
            "/v2/models/misfit/infer",
            b"{}",
            [(LENGTH_HEADER, "2"), (LENGTH_HEADER, "1")],
            400,
            "is '2, 1', but the body",
        ),
        ("/v2/models/misfit/infer", b"{}", {"Content-Encoding": "gzip"}, 415, "Content-Encoding is gzip"),
        ("/v2/models/misfit/infer", b'{"inputs": [' + b"0," * 3_000_000 + b"0]}", {}, 413, "more than 2000000 values"),
        ("/v2/models/nothing/infer", b"{}", {}, 404, "There is no POST /v2/models/nothing/infer. The models are"),
        ("/v2/models/misfit/versions/1/infer", b"{}", {}, 404, "their only version is"),
        ("/v2/models/misfit", b"{}", {}, 405, "There is no POST /v2/models/misfit."),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_sentence(client, path, content, headers, status, text):
    response = client.post(path, content=content, headers=headers)
    check("error", response.json())
    assert response.status_code == status
    assert text in response.json()["error"]
    assert response.headers["x-request-id"]


def test_images_that_no_model_takes_are_400(client, images):
    """The protocol has no 422, which /score answers."""
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(b"no image").decode()]}
    for inputs in ([tensor], [{**pixels_input(images[:1]), "shape": [1, 64, 32, 6], "data": images[:1].tolist()}]):
        response = client.post("/v2/models/misfit/infer", json={"inputs": inputs})
        check("error", response.json())
        assert response.status_code == 400


@pytest.mark.parametrize(
    ("method", "message", "code", "text"),
    [
        ("ModelInfer", pb.ModelInferRequest(model_name="no"), "NOT_FOUND", "There is no model 'no'."),
        ("ModelMetadata", pb.ModelMetadataRequest(name="misfit", version="1"), "NOT_FOUND", "no version '1'"),
        ("ModelReady", pb.ModelReadyRequest(name="no"), "NOT_FOUND", "There are misfit, encoder, decoder."),
        ("ModelInfer", pb.ModelInferRequest(model_name="misfit"), "INVALID_ARGUMENT", "has no input images"),
        (
            "ModelInfer",
            pb.ModelInferRequest(
                model_name="misfit",
                inputs=[{"name": "images", "datatype": "UINT8", "shape": [2**62, 2**62, 2**62, 3]}],
                raw_input_contents=[b"1234"],
            ),
            "INVALID_ARGUMENT",
            "but 4 came",
        ),
    ],
)
def test_calls_that_cannot_be_answered_have_a_status_and_a_sentence(stub, method, message, code, text):
    with pytest.raises(grpc.RpcError, match=r".") as refused:
        getattr(stub, method)(message)
    assert (refused.value.code().name, text in refused.value.details()) == (code, True)
    assert ERROR_DETAIL in dict(refused.value.trailing_metadata())


def test_a_message_that_is_none_is_refused(served):
    with grpc.insecure_channel(served.grpc_target) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match=r"is no inference\.ModelInferRequest"):
            call(b"\xff\xff\xff")


def test_requests_are_counted_as_all_others_are(client):
    metrics = client.get("/metrics").text
    assert 'misfit_grpc_calls_total{code="OK",method="ModelInfer"}' in metrics
    assert 'misfit_grpc_calls_total{code="NOT_FOUND",method="ModelInfer"}' in metrics
    assert 'endpoint="/v2/models/misfit/infer"' in metrics
    assert "/v2/models/nothing" not in metrics
