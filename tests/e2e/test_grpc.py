"""gRPC against HTTP on one service: the same inputs give the same numbers and refusals, and share their batches."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import bodies
import calls
import grpc
import httpx
import numpy as np
import pytest
from conftest import LATENT_DIM
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.protos.misfit.v1 import misfit_pb2 as pb

WAIT_SECONDS = 120
# Every method that takes images: its path, HTTP's options, and gRPC's.
MATRIX = {
    "Score": ({}, pb.ScoreOptions()),
    "Score by another estimator": (
        {"estimator": "robust", "threshold": 0, "attributions": "top", "top": 2},
        pb.ScoreOptions(estimator=pb.ESTIMATOR_ROBUST, threshold=0, attributions=pb.ATTRIBUTIONS_TOP, top=2),
    ),
    "Score by discovery rate": ({"fdr": 0.1, "foreign": "off"}, pb.ScoreOptions(fdr=0.1, foreign=pb.FOREIGN_OFF)),
    "Explain": (
        {"heat_maps": "all", "interactions": True, "top": 2},
        pb.ExplainOptions(heat_maps=pb.HEAT_MAPS_ALL, interactions=True, top=2),
    ),
    "Score with neighbours": (
        {"nearest": 3, "duplicates": "groups"}, pb.ScoreOptions(nearest=3, duplicates=pb.DUPLICATES_GROUPS)
    ),
    "Explain with neighbours": (
        {"nearest": 10, "duplicates": "groups"}, pb.ExplainOptions(nearest=10, duplicates=pb.DUPLICATES_GROUPS)
    ),
    "Fit": ({"estimator": "ledoit_wolf"}, pb.FitOptions(estimator=pb.ESTIMATOR_LEDOIT_WOLF)),
    "Edit": ({}, pb.EditOptions()),
    "Edit by values": (
        {"edit": "set", "which": ["0", "a picture"], "values": {"scale": 1.5}, "unit": "latent"},
        pb.EditOptions(
            edit=pb.EDIT_KIND_SET, which=["0", "a picture"], values={"scale": 1.5}, unit=pb.UNIT_LATENT
        ),
    ),
    "Edit all": (
        {"which": "all", "latents": ["scale", 5]},
        pb.EditOptions(which=["all"], latents=["scale", "5"]),
    ),
    "Traverse": (
        {
            "latents": ["object hue", "scale"],
            "plane": True,
            "steps": 3,
            "span": 1.5,
            "span_of": "population",
            "start": 2,
        },
        pb.TraverseOptions(
            latents=["object hue", "scale"], plane=True, steps=3, span=1.5, span_of=pb.SPAN_OF_POPULATION, start="2"
        ),
    ),
    "Traverse all": ({"steps": 2}, pb.TraverseOptions(steps=2)),
    "Interpolate": (
        {"start": "a picture", "end": 0, "frames": 4},
        pb.InterpolateOptions(start="a picture", end="0", frames=4),
    ),
    "Sample": (
        {"method": "gaussian", "seed": 7, "count": 3},
        pb.SampleOptions(method=pb.METHOD_GAUSSIAN, seed=7, count=3),
    ),
    "Encode": ({}, pb.EncodeOptions()),
}  # fmt: skip


@pytest.fixture(scope="module")
def stub(served):
    with calls.stub(served.grpc_target) as stub:
        yield stub


@pytest.fixture(scope="module")
def uploads(images):
    """Files by id, a broken one among them."""
    files = {str(number): bodies.encoded(image) for number, image in enumerate(images)}
    return {"a picture": files.pop("1"), **files, "broken": b"no image"}


def request_of(method: str, **fields):
    return getattr(pb, f"{method}Request")(**fields)


def as_json(message) -> object:
    """What HTTP would have answered: protobuf's own JSON of the message, without what JSON has no place for."""
    values = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if "duplicates" in values:
        values["duplicates"] = [each["members"] for each in values["duplicates"]]
    return values


def bare(answer):
    """Without nulls and empty lists, which protobuf does not tell from what is left out."""
    if isinstance(answer, dict):
        return {name: bare(value) for name, value in answer.items() if value is not None and value != []}
    return [bare(value) for value in answer] if isinstance(answer, list) else answer


# /encode compares with nothing, and /fit takes no reference.
COMPARED = [("itself", case) for case in MATRIX]
COMPARED += [("a reference", case) for case in MATRIX if case.split()[0] not in ("Encode", "Fit")]
COMPARED += [("a context", case) for case in MATRIX if case.split()[0] != "Encode"]


@pytest.mark.parametrize(("against", "case"), COMPARED)
def test_every_method_answers_as_over_http(client, stub, uploads, images, case, against):
    options, grpc_options = MATRIX[case]
    method = case.split()[0]
    parts = bodies.form_of(uploads)
    fields = {"images": calls.files(list(uploads.values()), list(uploads)), "options": grpc_options}
    if against == "a reference":
        reference = images[10:]
        parts += [("reference", "0.npy", bodies.npy(reference))]
        fields["reference"] = calls.tensor(reference)
    if against == "a context":
        options = {name: value for name, value in options.items() if name != "estimator"}
        grpc_options.ClearField("estimator")
        context = client.post("/fit", content=bodies.npy(images), headers={"Content-Type": "application/x-npy"}).json()
        parts += [("context", None, json.dumps(context["context"]).encode())]
        fields["contexts"] = [json_format.ParseDict(context["context"], Struct())]
    parts += [("options", None, json.dumps(options).encode())]
    content_type, body = bodies.as_form(parts)
    by_http = client.post(f"/{method.lower()}", content=body, headers={"Content-Type": content_type})
    assert by_http.status_code == 200, by_http.text
    by_grpc = getattr(stub, method)(request_of(method, **fields))
    assert bare(as_json(by_grpc)) == bare(by_http.json())


def test_describe_and_decode_answer_as_over_http(client, stub, images):
    assert bare(as_json(stub.Describe(pb.DescribeRequest()))) == bare_with_text(client.post("/describe").json())
    latents = np.random.default_rng(0).normal(size=(3, LATENT_DIM)).tolist()
    by_http = client.post("/decode", json={"latents": latents}).json()
    by_grpc = stub.Decode(pb.DecodeRequest(latents=[pb.Latents(values=row) for row in latents]))
    assert bare(as_json(by_grpc)) == bare(by_http)


def bare_with_text(description):
    """protobuf's JSON has 64-bit numbers as text."""
    limits = {name: value if name == "timeout_seconds" else str(value) for name, value in description["limits"].items()}
    return bare(description | {"limits": limits})


def test_files_and_a_tensor_are_the_same(stub, images):
    files = stub.Score(pb.ScoreRequest(images=calls.files([bodies.encoded(image) for image in images])))
    assert stub.Score(pb.ScoreRequest(images=calls.tensor(images))) == files


def test_a_context_goes_back_and_forth_to_the_last_bit(client, stub, images):
    by_grpc = stub.Fit(pb.FitRequest(images=calls.tensor(images))).context
    by_http = client.post("/fit", content=bodies.npy(images), headers={"Content-Type": "application/x-npy"}).json()
    assert json_format.MessageToDict(by_grpc) == by_http["context"]
    body = {"images": [base64.b64encode(bodies.encoded(images[0])).decode()], "context": by_http["context"]}
    over_http = client.post("/score", json=body).json()["items"]
    over_grpc = stub.Score(pb.ScoreRequest(images=calls.tensor(images[:1]), contexts=[by_grpc]))
    assert over_grpc.items[0].outlier_score == over_http[0]["outlier_score"]
    merged = stub.Fit(pb.FitRequest(contexts=[by_grpc, by_grpc])).context
    assert merged["size"] == 2 * len(images)


def chunks_of(images, size):
    for start in range(0, len(images), size):
        yield pb.ScoreStreamRequest(images=calls.tensor(images[start : start + size]))


def test_a_stream_is_one_batch(stub, images):
    many = np.concatenate([images] * 60)  # 2,400: the answer comes in pieces, and more than one message may hold
    pieces = list(stub.ScoreStream(chunks_of(many, 700)))
    items = [item for piece in pieces for item in piece.items]
    assert [item.index for item in items] == list(range(len(many)))
    assert len(pieces) > 1
    assert all(piece.context == pieces[0].context for piece in pieces)
    assert pieces[0].context.size == len(many)
    few = np.concatenate([images] * 3)
    (piece,) = stub.ScoreStream(chunks_of(few, 50))
    assert as_json(piece)["items"][3] == as_json(stub.Score(pb.ScoreRequest(images=calls.tensor(few))))["items"][3]


def test_copies_in_a_stream_are_duplicates(stub, images):
    many = np.concatenate([images] * 60)
    first = pb.ScoreStreamRequest(options=pb.ScoreOptions(nearest=1, duplicates=pb.DUPLICATES_GROUPS))
    pieces = list(stub.ScoreStream(iter([first, *chunks_of(many, 700)])))
    copies: dict[bytes, list[int]] = {}  # the sample batch has two equal images of its own
    for index, image in enumerate(many):
        copies.setdefault(image.tobytes(), []).append(index)
    assert [list(each.members) for each in pieces[0].duplicates] == list(copies.values())
    assert len(pieces) > 1
    assert not any(piece.duplicates for piece in pieces[1:])
    for item in (item for piece in pieces for item in piece.items):
        (neighbour,) = item.nearest
        nearest = next(index for index in copies[many[item.index].tobytes()] if index != item.index)
        # Ids that are left out count anew in each message.
        assert (neighbour.index, neighbour.id, neighbour.distance) == (nearest, str(nearest % 700), 0)


def test_a_stream_may_begin_with_how_and_against_what(stub, images):
    options = pb.ScoreOptions(attributions=pb.ATTRIBUTIONS_TOP)
    reference = calls.tensor(images[5:])
    first = pb.ScoreStreamRequest(reference=reference, options=options)
    (piece,) = stub.ScoreStream(iter([first, *chunks_of(images[:5], 2)]))
    whole = stub.Score(pb.ScoreRequest(images=calls.tensor(images[:5]), reference=reference, options=options))
    assert piece.context == whole.context
    assert [[item.outlier_score, item.attributions] for item in piece.items] == [
        [item.outlier_score, item.attributions] for item in whole.items
    ]


GOOD = calls.files([bodies.encoded(np.zeros((64, 64, 3), dtype=np.uint8))])
PIXELS = np.zeros((2, 64, 64, 3), dtype=np.uint8)
NPY = {"Content-Type": "application/x-npy"}


def form(**parts: bytes):
    image = ("images", "0", bodies.encoded(np.zeros((64, 64, 3), dtype=np.uint8)))
    content_type, body = bodies.as_form([image, *((name, None, content) for name, content in parts.items())])
    return {"content": body, "headers": {"Content-Type": content_type}}


SAME_REFUSALS = {
    "empty": ("Score", pb.ScoreRequest(), {"content": bodies.npy(PIXELS[:0]), "headers": NPY}),
    "no tensor rows": (
        "Score",
        pb.ScoreRequest(images=calls.tensor(PIXELS[:0])),
        {"content": bodies.npy(PIXELS[:0]), "headers": NPY},
    ),
    "empty reference": (
        "Score",
        pb.ScoreRequest(images=GOOD, reference=pb.Images()),
        {"json": {"images": [base64.b64encode(bodies.encoded(PIXELS[0])).decode()], "reference": []}},
    ),
    "only broken": (
        "Score",
        pb.ScoreRequest(images=calls.files([b"hello"])),
        {"json": {"images": [base64.b64encode(b"hello").decode()]}},
    ),
    "wrong rank": (
        "Score",
        pb.ScoreRequest(images=calls.tensor(PIXELS[0, 0])),
        {"content": bodies.npy(PIXELS[0, 0]), "headers": NPY},
    ),
    "too many": (
        "Score",
        pb.ScoreRequest(images=calls.tensor(np.zeros((1601, 8, 8, 3), np.uint8))),
        {"content": bodies.npy(np.zeros((1601, 8, 8, 3), np.uint8)), "headers": NPY},
    ),
    "too large": (
        "Score",
        pb.ScoreRequest(images=calls.tensor(np.zeros((1500, 256, 256, 3), np.uint8))),
        None,
    ),
    "option out of range": (
        "Score",
        pb.ScoreRequest(images=GOOD, options=pb.ScoreOptions(threshold=2)),
        form(options=b'{"threshold": 2}'),
    ),
    "two rules": (
        "Score",
        pb.ScoreRequest(images=GOOD, options=pb.ScoreOptions(threshold=0.6, fdr=0.1)),
        form(options=b'{"threshold": 0.6, "fdr": 0.1}'),
    ),
    "unknown choice": (
        "Score",
        pb.ScoreRequest(images=GOOD, options=pb.ScoreOptions(estimator=99)),
        form(options=b'{"estimator": 99}'),
    ),
    "not for explain": (
        "Explain",
        pb.ExplainRequest(images=GOOD, options=pb.ExplainOptions(attributions=pb.ATTRIBUTIONS_NONE)),
        form(options=b'{"attributions": "none"}'),
    ),
    "unknown latent": (
        "Edit",
        pb.EditRequest(images=GOOD, options=pb.EditOptions(which=["all"], latents=["hat"])),
        form(options=b'{"which": "all", "latents": ["hat"]}'),
    ),
    "a plane of all latents": (
        "Traverse",
        pb.TraverseRequest(images=GOOD, options=pb.TraverseOptions(plane=True)),
        form(options=b'{"plane": true}'),
    ),
    "no such image": (
        "Interpolate",
        pb.InterpolateRequest(images=GOOD),
        form(),
    ),
    "no context": ("Score", pb.ScoreRequest(images=GOOD, contexts=[Struct()]), form(context=b"{}")),
    "uneven latents": (
        "Decode",
        pb.DecodeRequest(latents=[pb.Latents(values=[1, 2]), pb.Latents(values=[1])]),
        {"json": {"latents": [[1, 2], [1]]}},
    ),
    "no latents": ("Decode", pb.DecodeRequest(), {"json": {"latents": []}}),
}


@pytest.mark.parametrize("case", SAME_REFUSALS)
def test_refusals_have_the_text_of_https(client, stub, case):
    method, request, by_http = SAME_REFUSALS[case]
    if case == "too large":
        by_http = {"content": bytes(request.ByteSize()), "headers": NPY}
    with pytest.raises(grpc.RpcError) as failed:
        getattr(stub, method)(request)
    status, detail = calls.error_of(failed.value)
    answer = client.post(f"/{method.lower()}", **by_http)
    assert {"code": detail.code, "message": detail.message, "hint": detail.hint} == answer.json()["error"]
    expected = grpc.StatusCode.RESOURCE_EXHAUSTED if case == "too large" else grpc.StatusCode.INVALID_ARGUMENT
    assert status == expected
    assert failed.value.details() == f"{detail.message} {detail.hint}".strip()


def test_a_malformed_message_is_an_invalid_argument(served):
    with grpc.insecure_channel(served.grpc_target) as channel:
        for method in ("Score", "Decode", "Describe"):
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(f"/misfit.v1.MisfitService/{method}")(b"\xff\xff\xff")
            status, detail = calls.error_of(failed.value)
            assert (status, detail.code) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
            assert f"3 bytes is no misfit.v1.{method}Request" in detail.message


def test_a_message_far_beyond_the_limit_is_refused_by_grpc_itself(stub):
    with pytest.raises(grpc.RpcError) as failed:
        stub.Score(pb.ScoreRequest(images=pb.Images(tensor=pb.ImageTensor(shape=[1], data=bytes(520 * 2**20)))))
    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("messages", "code", "text"),
    [
        ([], "invalid_input", "0 images"),
        ([pb.ScoreStreamRequest()], "invalid_input", "0 images"),
        ([pb.ScoreStreamRequest(images=calls.files([b"hello"]))], "undecodable_image", "None of the 1 images"),
        (
            [pb.ScoreStreamRequest(images=GOOD), pb.ScoreStreamRequest(images=GOOD, options=pb.ScoreOptions(fdr=0.1))],
            "invalid_input",
            "A later message of the stream brings options",
        ),
        (list(chunks_of(np.zeros((2600, 8, 8), np.uint8), 1300)), "too_many_images", "more than 2500 images"),
    ],
)
def test_a_stream_is_refused_for_what_is_wrong_with_it(stub, messages, code, text):
    with pytest.raises(grpc.RpcError) as failed:
        list(stub.ScoreStream(iter(messages)))
    status, detail = calls.error_of(failed.value)
    assert (status, detail.code) == (grpc.StatusCode.INVALID_ARGUMENT, code)
    assert text in detail.message


def metric(served, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have those labels."""
    lines = httpx.get(f"{served.url}/metrics", timeout=60).text.splitlines()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    samples = (line for line in lines if line.split("{")[0].split()[0] == name and all(text in line for text in wanted))
    return sum(float(line.split()[-1]) for line in samples)


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rows_of_cancelled_calls_are_free_again(served, stub):
    request = pb.ScoreRequest(images=calls.tensor(np.zeros((75, 512, 512, 3), dtype=np.uint8)))
    under_way = []

    def rows_are_in_flight():
        if all(call.done() for call in under_way):  # on a busy machine all may end between two looks
            under_way.extend(stub.Score.future(request) for _ in range(20))
        return metric(served, "misfit_rows_in_flight") > 0

    wait_until(rows_are_in_flight)
    for call in under_way:
        call.cancel()
    wait_until(lambda: metric(served, "misfit_rows_in_flight") == 0)
    assert metric(served, "misfit_bytes_in_flight") == 0


def test_a_call_ends_at_its_deadline(served, stub):
    request = pb.ScoreRequest(images=calls.tensor(np.zeros((75, 512, 512, 3), dtype=np.uint8)))
    with pytest.raises(grpc.RpcError) as failed:
        stub.Score(request, timeout=0.2)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: metric(served, "misfit_rows_in_flight") == 0)


def test_a_stream_that_is_cancelled_frees_its_rows(served, stub, images):
    def endless():
        while True:
            yield from chunks_of(images, 40)

    call = stub.ScoreStream(endless())
    wait_until(lambda: metric(served, "misfit_rows_in_flight") > 0)
    call.cancel()
    wait_until(lambda: metric(served, "misfit_rows_in_flight") == 0)


def test_more_rows_than_may_be_in_flight_are_refused_until_there_is_room(stub):
    request = pb.ScoreRequest(images=calls.tensor(np.zeros((1500, 64, 64, 3), dtype=np.uint8)))
    under_way = [stub.Score.future(request) for _ in range(4)]
    errors = [error for call in under_way if (error := call.exception())]
    assert 0 < len(errors) < 4
    status, detail = calls.error_of(errors[0])
    assert (status, detail.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
    assert dict(errors[0].trailing_metadata())["retry-after"] == "1"
    assert len(stub.Score(request).items) == 1500


def adaptive_batches(served) -> float:
    return metric(served, "misfit_adaptive_batch_rows_count", network="encode_screened")


def test_mixed_traffic_shares_batches_and_changes_no_score(served, client, stub):
    """16 clients of each transport at a time, 1 to 64 images a request."""
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, 256, (size, 64, 64, 3), dtype=np.uint8) for size in rng.integers(1, 65, 32)]

    def by_http(images):
        answer = client.post("/score", content=bodies.npy(images), headers=NPY)
        return [(item["outlier_score"], item["rank"]) for item in answer.json()["items"]]

    def by_grpc(images):
        answer = stub.Score(pb.ScoreRequest(images=calls.tensor(images)))
        return [(item.outlier_score, item.rank) for item in answer.items]

    alone = [by_http(images) for images in batches]
    before = adaptive_batches(served)
    ways = [by_http, by_grpc] * 16
    with ThreadPoolExecutor(32) as pool:
        for _ in range(3):
            together = list(pool.map(lambda way, images: way(images), ways, batches))
            assert together == alone
    # Of 32 rows at most: rows of several requests are in one where there are fewer than each request has by itself.
    assert adaptive_batches(served) - before < 3 * sum(-(-len(images) // 32) for images in batches)


def test_calls_are_counted_by_method_and_status(served, stub, images):
    def counted(code):
        return metric(served, "misfit_grpc_calls_total", method="Encode", code=code)

    before = counted("OK"), counted("INVALID_ARGUMENT")
    stub.Encode(pb.EncodeRequest(images=calls.tensor(images[:1])))
    with pytest.raises(grpc.RpcError):
        stub.Encode(pb.EncodeRequest())
    wait_until(lambda: (counted("OK"), counted("INVALID_ARGUMENT")) == (before[0] + 1, before[1] + 1))
    assert metric(served, "misfit_grpc_call_seconds_count", method="Encode") >= 2


def test_requests_can_be_told_apart(stub):
    _, call = stub.Describe.with_call(pb.DescribeRequest(), metadata=(("x-request-id", "order-66"),))
    assert dict(call.trailing_metadata())["x-request-id"] == "order-66"
    with pytest.raises(grpc.RpcError) as failed:
        stub.Score(pb.ScoreRequest(), metadata=(("x-request-id", "order-67"),))
    assert dict(failed.value.trailing_metadata())["x-request-id"] == "order-67"


def test_the_probe_that_kubernetes_sends(served):
    with grpc.insecure_channel(served.grpc_target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "misfit.v1.MisfitService"):
            request = health_pb2.HealthCheckRequest(service=service)
            wait_until(lambda request=request: health.Check(request).status == health_pb2.HealthCheckResponse.SERVING)
        with pytest.raises(grpc.RpcError) as failed:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert failed.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_what_there_is(served):
    """As grpcurl asks: the services, then the file that describes one."""
    with grpc.insecure_channel(served.grpc_target) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="misfit.v1.MisfitService"),
        ]
        services, file = ask(iter(requests))
    names = {service.name for service in services.list_services_response.service}
    assert {"misfit.v1.MisfitService", "grpc.health.v1.Health"} <= names
    assert any(b"ScoreStream" in content for content in file.file_descriptor_response.file_descriptor_proto)
