"""The Python client without a service: what it sends, what it makes of errors, and when it tries again."""

import asyncio
import base64
import io
import os
import pickle
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel
from serving import ROOT, free_ports

from service.api import schemas
from service.api.contexts.portable import PortableContext
from service.api.validation import read_options
from service.api.wire import ERROR_DETAIL
from service.client.calls import Call, Files, PathNames, read_images
from service.client.client import AsyncClient, CallError, Client, Retries, png
from service.client.grpc_messages import NULL_IF_EMPTY, build_message
from service.client.grpc_transport import read_error as grpc_error
from service.client.http_transport import read_error as http_error
from service.client.retries import parse_retry_after
from service.images.decode import to_row
from service.images.limits import Limits
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.grpc.converters import METHODS, read_images_request
from service.transports.http.body_parsers import parse_images

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
DESCRIPTION = {"bundle_id": "b", "model": "m", "latents": [], "items": []}
SOON = Retries(attempts=4, first_wait=0.001)


class FakeTransport:
    """Answers with what it is given, one after the other; an error is raised."""

    def __init__(self, *outcomes):
        self.outcomes, self.sent, self.closed = list(outcomes), [], False

    def prepare(self, call, request_id):
        return call, request_id

    async def send(self, prepared):
        self.sent.append(prepared)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return await outcome if asyncio.iscoroutine(outcome) else outcome

    async def close(self):
        self.closed = True


def client_of(transport, **settings):
    client = AsyncClient("http://nowhere", **{"retries": SOON, **settings})
    client._transport = transport
    return client


def busy(retry_after=0.0):
    return CallError(code="overloaded", message="Too much.", is_temporary=True, retry_after=retry_after)


# ---- Trying again -------------------------------------------------------------------------------


async def test_what_is_temporary_is_tried_again_with_the_same_request_id():
    transport = FakeTransport(busy(), busy(), DESCRIPTION)
    answer = await client_of(transport).encode(PIXELS)
    assert answer == schemas.EncodeResponse(**DESCRIPTION)
    assert len({request_id for _, request_id in transport.sent}) == 1
    assert len(transport.sent) == 3


async def test_what_stays_wrong_is_not_tried_again():
    transport = FakeTransport(CallError(code="invalid_option", message="No."), DESCRIPTION)
    with pytest.raises(CallError, match="No") as failed:
        await client_of(transport).encode(PIXELS)
    assert failed.value.request_id == transport.sent[0][1]
    assert len(transport.sent) == 1


async def test_the_last_attempt_s_error_is_raised():
    transport = FakeTransport(*(busy() for _ in range(3)), CallError(code="last", is_temporary=True), DESCRIPTION)
    with pytest.raises(CallError) as failed:
        await client_of(transport).encode(PIXELS)
    assert failed.value.code == "last"
    assert len(transport.sent) == SOON.attempts


async def run(retries, errors, deadline=1e9):
    """The waits before an attempt succeeds."""
    waits, errors = [], list(errors)

    async def attempt():
        if errors:
            raise errors.pop(0)

    async def sleep(seconds):
        waits.append(seconds)

    await retries.run(attempt, asyncio.get_running_loop().time() + deadline, sleep)
    return waits


async def test_waits_grow_within_their_windows_and_are_not_shorter_than_asked_for():
    waits = await run(Retries(attempts=9, first_wait=1, longest_wait=10), [busy()] * 4 + [busy(7)] * 4)
    windows = [(0, 1), (0, 2), (0, 4), (0, 8), (7, 17), (7, 17), (7, 17), (7, 17)]
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, windows, strict=True))
    assert len(set(waits)) == len(waits)  # by chance


def test_the_window_doubles_up_to_the_longest():
    retries = Retries(first_wait=0.5, longest_wait=3)
    assert [retries.wait(failed, 0, 1) for failed in range(1, 6)] == [0.5, 1, 2, 3, 3]
    assert retries.wait(4, 2.5, 0) == 2.5


async def test_no_wait_outlasts_the_call():
    with pytest.raises(CallError, match="Too much"):
        await run(Retries(first_wait=0), [busy(60)], deadline=59)
    assert await run(Retries(first_wait=0), [busy(60)], deadline=61) == [60]


async def test_a_call_that_takes_too_long_is_ended():
    with pytest.raises(CallError, match=r"Encode took longer than 0\.01 s") as failed:
        await client_of(FakeTransport(asyncio.sleep(100)), timeout=0.01).encode(PIXELS)
    assert (failed.value.code, failed.value.is_temporary) == ("deadline_exceeded", True)


async def test_another_s_timeout_is_not_taken_for_the_call_s():
    with pytest.raises(TimeoutError, match="disk"):
        await client_of(FakeTransport(TimeoutError("disk"))).encode(PIXELS)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3), ("0", 0), (None, 0), ("", 0), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_in_seconds(header, seconds):
    assert parse_retry_after(header) == seconds


def test_retry_after_as_a_date():
    assert 3000 < parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)) <= 3600


# ---- Errors -------------------------------------------------------------------------------------

OVERLOADED = b'{"error": {"code": "overloaded", "message": "Full.", "hint": "Wait."}, "request_id": "r"}'


def test_an_error_of_http_is_read():
    error = http_error(httpx.Response(429, content=OVERLOADED, headers={"retry-after": "2"}))
    assert (error.code, error.message, error.hint) == ("overloaded", "Full.", "Wait.")
    assert (error.http_status, error.grpc_status, error.is_temporary, error.retry_after) == (429, None, True, 2)


@pytest.mark.parametrize(
    ("status", "is_temporary"), [(503, True), (502, False), (413, False), (302, False), (599, False)]
)
def test_an_answer_in_no_shape_of_ours_is_an_error_as_well(status, is_temporary):
    error = http_error(httpx.Response(status, text="<html>proxy</html>"))
    assert (error.code, error.message, error.is_temporary) == (f"http_{status}", "<html>proxy</html>", is_temporary)


def rpc_error(status, *metadata, details="words"):
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details)


def test_an_error_of_grpc_is_read():
    detail = pb.ErrorDetail(code="overloaded", message="Full.", hint="Wait.").SerializeToString()
    error = grpc_error(
        rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, (ERROR_DETAIL, detail), ("retry-after", "2"))
    )  # fmt: skip
    assert (error.code, error.message, error.hint) == ("overloaded", "Full.", "Wait.")
    assert (error.http_status, error.grpc_status) == (None, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert (error.is_temporary, error.retry_after) == (True, 2)


@pytest.mark.parametrize(
    ("status", "is_temporary"), [("UNAVAILABLE", True), ("RESOURCE_EXHAUSTED", False), ("INTERNAL", False)]
)
def test_grpc_s_own_errors_are_read(status, is_temporary):
    error = grpc_error(rpc_error(grpc.StatusCode[status]))
    assert (error.code, error.message, error.is_temporary) == (status.lower(), "words", is_temporary)


def test_an_error_says_everything_and_can_be_pickled():
    error = CallError(code="a", message="B.", hint="C.", grpc_status=grpc.StatusCode.INTERNAL, request_id="d")
    assert str(error) == "B. C. [a, INTERNAL, d]"
    assert str(CallError(code="a", message="B.", http_status=400)) == "B. [a, HTTP 400]"
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)  # noqa: S301 - its own


@pytest.mark.parametrize("answer", [{}, {"bundle_id": 3}, []])
async def test_an_answer_of_another_version_is_an_error(answer):
    with pytest.raises(CallError, match="not one of this version"):
        await client_of(FakeTransport(answer)).encode(PIXELS)


@pytest.mark.parametrize("url", ["127.0.0.1:3000", "ftp://host", "http://", "grpc:///path", ""])
def test_addresses_are_checked(url):
    with pytest.raises(ValueError, match="expected http://"):
        Client(url)


# ---- Over HTTP, to a server that does as it is told ----------------------------------------------


@contextmanager
def http_server(*answers):
    """Each answer: status, body, headers. Yields its URL and the list of the requests' headers."""
    answers, seen = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, dict(self.headers), body))
            status, content, headers = answers.pop(0)
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


GOOD = (200, b'{"bundle_id": "b", "model": "m", "latents": [], "items": []}', {})


def test_http_is_tried_again_until_it_answers():
    full, starting = (429, OVERLOADED, {"retry-after": "0"}), (503, b"", {})
    with (
        http_server(full, starting, GOOD) as (url, seen),
        Client(f"{url}/behind/", token="sesame", retries=SOON) as client,
    ):
        assert client.encode(PIXELS).model == "m"
    paths, headers, bodies = zip(*seen, strict=True)
    assert paths == ("/behind/encode",) * 3
    assert bodies[0] == bodies[1] == bodies[2]
    assert {each["authorization"] for each in headers} == {"Bearer sesame"}
    assert len({each["x-request-id"] for each in headers}) == 1


def test_what_is_no_json_is_an_error():
    with http_server((200, b"<html>", {})) as (url, _), Client(url) as client:
        with pytest.raises(CallError, match="no JSON") as failed:
            client.describe()
        assert failed.value.http_status == 200


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_where_nobody_listens_the_service_is_unavailable(scheme):
    (port,) = free_ports(1)
    with Client(f"{scheme}://127.0.0.1:{port}", retries=SOON) as client:
        with pytest.raises(CallError) as failed:
            client.describe()
        assert (failed.value.code, failed.value.is_temporary) == ("unavailable", True)
        assert failed.value.request_id


def test_a_server_of_another_protocol_is_named_and_not_tried_again():
    with http_server(GOOD) as (url, _), Client(url.replace("http:", "grpc:"), retries=SOON) as client:
        with pytest.raises(CallError, match=r"This is a port of HTTP: use http://") as failed:
            client.describe()
        assert not failed.value.is_temporary
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"http://127.0.0.1:{port}", retries=SOON, timeout=30) as client:
            with pytest.raises(CallError, match=r"If it is the port of gRPC, use grpc://") as failed:
                client.describe()
            assert not failed.value.is_temporary
    finally:
        server.stop(None)


def test_http_has_no_streams():
    with Client("http://127.0.0.1:1") as client, pytest.raises(CallError, match="grpc://"):
        client.score_stream([PIXELS])


# ---- What is sent -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name, pixels in zip(("a.png", "b.png"), PIXELS, strict=False):
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def test_images_are_called_by_their_files_or_places_or_as_given(folder):
    content = (folder / "b.png").read_bytes()
    found = read_images([folder / "a.png", content, Image.fromarray(PIXELS[2]), str(folder / "b.png")], first=10)
    assert found.ids == ["a.png", "11", "12", "b.png"]
    assert found.contents[1] == found.contents[3] == content
    assert read_images({"x": content, 15: content}) == Files(["x", "15"], [content] * 2)
    assert read_images(iter([content])) == Files(["0"], [content])


def test_paths_in_several_folders_have_ids_that_differ(folder, monkeypatch):
    inner = folder / "a" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes((folder / "a.png").read_bytes())
    monkeypatch.chdir(folder / "a")
    found = read_images([Path("inner/a.png"), folder / "a.png", "../b.png", inner / ".." / "inner" / "a.png"])
    assert found.ids == ["a/inner/a.png", "a.png", "b.png", "a/inner/a.png"]
    names = PathNames()
    assert [read_images([each], 0, names).ids for each in (inner / "a.png", folder / "a.png")] == [
        ["a.png"],
        ["../../a.png"],
    ]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pillow_s_images_are_sent_whatever_their_mode(served_bundle, mode):
    image = Image.fromarray(PIXELS[0]).convert("RGB").convert(mode)
    spec = served_bundle.manifest.image
    row = to_row(read_images([image]).contents[0], spec, "reject", Limits(10**6))
    assert np.array_equal(row, np.asarray(image.convert("RGB")))


def test_pillow_s_images_are_turned_as_their_file_would_be(tmp_path, served_bundle):
    image, exif = Image.fromarray(PIXELS[0]), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    spec = served_bundle.manifest.image
    with Image.open(tmp_path / "turned.jpg") as opened:
        by_pillow, by_path = (read_images([each]).contents[0] for each in (opened, tmp_path / "turned.jpg"))
    assert np.array_equal(*(to_row(each, spec, "reject", Limits(10**6)) for each in (by_pillow, by_path)))


def test_arrays_in_a_list_are_images(served_bundle):
    spec = served_bundle.manifest.image
    for pixels in (PIXELS[0], PIXELS[0][..., 0], PIXELS[0][..., :1], PIXELS[0][..., 0].astype(np.uint16) * 257):
        (content,) = read_images([pixels]).contents
        expected = to_row(pixels, spec, "fit", Limits(10**6))
        assert np.array_equal(to_row(content, spec, "fit", Limits(10**6)), expected)
    for wrong, told in (
        (np.zeros((3, 8, 8), np.uint8), r"numpy\.stack"),
        (np.zeros((8, 8, 3)), r"numpy\.stack"),
        (BytesIO(b"x"), "BytesIO"),
        (3, "int"),
    ):
        with pytest.raises(TypeError, match=told):
            read_images([wrong])


@pytest.mark.parametrize("one", ["a.png", b"bytes", Image.new("L", (2, 2))])
def test_a_single_image_is_no_batch(one):
    with pytest.raises(TypeError, match=r"\[image\]"):
        read_images(one)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pillow_s_deep_images_lose_nothing(served_bundle, mode):
    """PNG would cut what is negative, beyond 16 bits or between whole numbers."""
    levels = np.arange(64 * 64).reshape(64, 64) * 1000 - 2_000_000
    image = Image.fromarray(levels.astype(np.int32 if mode == "I" else np.float32))
    assert image.mode == mode
    row = to_row(read_images([image]).contents[0], served_bundle.manifest.image, "reject", Limits(10**6))
    expected = np.rint((levels - levels.min()) * 255 / np.ptp(levels))
    assert np.array_equal(row[..., 0], expected)


def test_cmyk_keeps_its_colour_profile():
    image = Image.fromarray(PIXELS[0]).convert("CMYK")
    image.info["icc_profile"] = b"a profile"
    assert Image.open(io.BytesIO(read_images([image]).contents[0])).info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("array", [PIXELS * 1j, PIXELS[0], PIXELS.transpose(0, 3, 1, 2)])
async def test_arrays_are_refused_in_the_server_s_words(array):
    client = AsyncClient("http://127.0.0.1:1")
    with pytest.raises(CallError) as failed:
        await client.score(array)
    assert failed.value.code == "shape_mismatch"
    assert failed.value.hint
    await client.close()


def test_a_missing_file_is_told_as_usual(tmp_path):
    with Client("http://127.0.0.1:1") as client, pytest.raises(FileNotFoundError):
        client.score([tmp_path / "nothing.png"])


OPTIONS = [
    ("Score", {}),
    ("Score", {"estimator": "robust", "threshold": 0, "attributions": "all", "top": 2, "fdr": None}),
    ("Explain", {"interactions": True, "heat_maps": "none", "foreign": "off", "resize": "reject"}),
    ("Fit", {"estimator": "density_ratio"}),
    ("Edit", {"which": "all", "edit": "shift", "values": {"scale": 1.5, 3: 2}, "unit": "quantile"}),
    ("Edit", {"which": ["a.png", "b.png"], "latents": "scale, floor hue"}),
    ("Traverse", {"latents": ("scale", "floor hue"), "plane": True, "steps": 3, "start": "7", "span_of": "population"}),
    ("Interpolate", {"start": "a.png", "end": "b.png", "frames": 3}),
    ("Sample", {"count": 3, "method": "gaussian", "seed": 9}),
    ("Encode", {"resize": None, "range": "batch", "pages": "all"}),
]


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"which": 3}, {"which": ["3"]}),
        ({"which": np.int64(3), "threshold": np.float32(0.5)}, {"which": ["3"], "threshold": 0.5}),
        ({"which": np.array([1, 2])}, {"which": ["1", "2"]}),
        (
            {"which": range(2), "edit": "set", "values": {"scale": np.float64(2)}},
            {"which": ["0", "1"], "edit": "set", "values": {"scale": 2.0}},
        ),
        ({"which": ("a.png", np.str_("b.png"))}, {"which": ["a.png", "b.png"]}),
    ],
)
async def test_options_may_be_numbers_of_numpy(options, plain):
    call = Call("Edit", BaseModel, PIXELS, options=options)
    settings, options_type = Settings(), METHODS["Edit"].endpoint.image_options
    client = AsyncClient("http://host")
    request = client._transport.prepare(call, "id")
    by_http = parse_images(request.headers["content-type"], {}, request.read(), settings, options_type).options
    assert by_http.model_copy(update={"which": [str(name) for name in by_http.which]}) == read_options(
        plain, options_type
    )
    assert read_images_request(build_message(call), options_type, settings, 0).options == read_options(
        plain, options_type
    )
    await client.close()


@pytest.mark.parametrize(("method", "options"), OPTIONS)
async def test_options_come_out_alike_over_both(method, options):
    call = Call(method, BaseModel, PIXELS, options=options)
    settings, options_type = Settings(), METHODS[method].endpoint.image_options
    by_grpc = read_images_request(build_message(call), options_type, settings, 0)
    client = AsyncClient("http://host")
    request = client._transport.prepare(call, "id")
    by_http = parse_images(request.headers["content-type"], {}, request.read(), settings, options_type)
    plain = {name: value for name, value in options.items() if value is not None}
    if "values" in plain:
        plain["values"] = {str(name): value for name, value in plain["values"].items()}
    assert by_grpc.options == by_http.options == read_options(plain, options_type)
    assert [upload.id for upload in by_grpc.images] == [upload.id for upload in by_http.images] == ["0", "1", "2"]
    await client.close()


@pytest.mark.parametrize("word", ["best", "unspecified", "", 3])
def test_a_word_that_no_option_has_is_left_to_the_server_to_refuse(word):
    assert build_message(Call("Score", BaseModel, PIXELS, options={"estimator": word})).options.estimator == -1


@pytest.mark.parametrize("options", [{"thresold": 1}, {"threshold": "high"}, {"top": 1.5}, {"top": 2**40}])
def test_what_has_no_place_in_the_message_is_refused_at_once(options):
    with pytest.raises(CallError, match=next(iter(options))) as failed:
        build_message(Call("Score", BaseModel, PIXELS, options=options))
    assert failed.value.code == "invalid_option"


def nullable_lists(model, seen):
    """Names of fields that may be a list or null, in a model and those that it holds."""
    if model in seen:
        return set()
    seen.add(model)
    found = set()
    for name, field in model.model_fields.items():
        parts = (
            get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
        )
        if type(None) in parts and any(get_origin(part) is list for part in parts):
            found.add(name)
        for part in parts:
            for inner in (part, *get_args(part)):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    found |= nullable_lists(inner, seen)
    return found


def test_the_lists_that_may_be_null_are_known():
    seen = {PortableContext}  # travels as JSON does
    answers = [schemas.ScoreResponse, schemas.PicturesResponse, schemas.EncodeResponse, schemas.Description]
    assert set().union(*(nullable_lists(model, seen) for model in answers)) == NULL_IF_EMPTY


def test_pictures_are_had_as_bytes():
    file = BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "PNG")
    heat_map = schemas.HeatMap(latent="scale", image=base64.b64encode(file.getvalue()).decode())
    assert png(heat_map) == file.getvalue()
    picture = schemas.Picture(id="a", index=0, changed=[], latents=[], mahalanobis_squared=None, inside=None)
    with pytest.raises(ValueError, match="no image"):
        png(picture)


# ---- The client itself --------------------------------------------------------------------------


SERVER_ONLY = ("bentoml", "onnxruntime", "torch", "scipy", "sklearn", "opentelemetry", "starlette", "prometheus_client")
# What a client would load that reached the mathematics and the traces of the server. The one of commit 4e55355 did, in
# part: it took 2.1 times the time of this one.
LOADED_WITH_SERVER = ("grpc.aio", "httpx", "numpy", "PIL.Image", "pydantic", "opentelemetry.sdk.trace", "scipy.stats")


def run_python(script: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9", "grpc://127.0.0.1:9"])
def test_the_client_loads_nothing_of_the_server(url):
    """Neither when it is imported, nor with the transport of a call that fails."""
    call = f"""
try:
    with Client({url!r}, retries=Retries(attempts=1)) as client:
        client.describe()
except CallError:
    pass
"""
    start = "import sys; from service.client import CallError, Client, Retries"
    packages = ("service.pipeline", "service.core.detect", "service.telemetry", "service.transports")
    end = f"print([name for name in {SERVER_ONLY + packages} if name in sys.modules])"
    assert run_python("\n".join([start, call if url else "", end])) == "[]"


def test_the_client_loads_the_library_of_its_own_transport_only():
    assert run_python("import sys, service.client; print([name in sys.modules for name in ('grpc', 'httpx')])") == (
        "[False, False]"
    )


def test_the_client_is_imported_in_half_the_time_of_one_that_reaches_the_server():
    """CPU time, in processes of their own, one after the other: what else runs on the machine slows both."""

    def seconds(modules: str) -> float:
        script = f"import time; start = time.process_time(); import {modules}; print(time.process_time() - start)"
        return float(run_python(script))

    ratios = [seconds("service.client") / seconds(", ".join(LOADED_WITH_SERVER)) for _ in range(5)]
    assert statistics.median(ratios) < 0.5


def test_both_clients_have_every_method_of_the_proto_by_name():
    methods = pb.DESCRIPTOR.services_by_name["MisfitService"].methods_by_name
    for name in methods:
        python = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
        call = getattr(Client, python)
        assert call is getattr(AsyncClient, python)
        assert call.__doc__


async def test_a_client_is_closed_with_its_connections_and_works_within_a_running_loop():
    with http_server(GOOD) as (url, _):
        with Client(url) as client:
            assert client.encode(PIXELS).model == "m"  # here a loop runs
        with pytest.raises(RuntimeError):
            client.encode(PIXELS)
        client.close()
    transport = FakeTransport()
    async with client_of(transport):
        pass
    assert transport.closed
