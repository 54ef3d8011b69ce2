"""What an operator sees of a running service: its metrics, its log and its traces."""

from __future__ import annotations

import hashlib
import json
import random
import string
import time
from dataclasses import dataclass

import bodies
import calls
import grpc
import httpx
import pytest
from collector import Collector, collecting
from prometheus_client.parser import text_string_to_metric_families
from serving import OWN_PROCESS, Served, serve

from service.protos.misfit.v1 import misfit_pb2 as pb

TOKEN = "open sesame"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
SECRET = "secret-name-of-a-file"
SERVER, INTERNAL = 2, 1  # kinds of spans


@dataclass(frozen=True)
class Running:
    served: Served
    collector: Collector

    http: httpx.Client

    def post(self, body: bodies.Body, path: str = "/score", **headers: str) -> httpx.Response:
        headers = {"Content-Type": body[0], **AUTHORIZATION, **headers}
        return self.http.post(path, content=body[1], headers=headers)

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every series at /metrics, by name and labels."""
        families = text_string_to_metric_families(httpx.get(f"{self.served.url}/metrics", timeout=60).text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[name, frozenset(labels.items())]

    def log(self, request_id: str) -> list[dict[str, object]]:
        """The lines of the log that belong to a request."""
        deadline = time.monotonic() + 10
        while not (lines := [line for line in self.lines() if line.get("request_id") == request_id]):
            assert time.monotonic() < deadline, self.served.log.read_text()
            time.sleep(0.05)
        return lines

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.served.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("observed")
    (directory / "tokens").write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
    with collecting() as collector:
        settings = {
            **OWN_PROCESS,
            "MISFIT_TOKENS_FILE": str(directory / "tokens"),
            "MISFIT_LOG_FORMAT": "json",
            "MISFIT_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        # One connection for all: each request on it has a trace of its own.
        with serve(directory / "log", settings) as served, httpx.Client(base_url=served.url, timeout=120) as http:
            yield Running(served, collector, http)


@pytest.fixture(scope="module")
def form(images):
    """Images, and one file that is none."""
    files = [("images", f"{number}.png", bodies.encoded(image)) for number, image in enumerate(images)]
    return bodies.as_form([*files, ("images", f"{SECRET}.png", b"these bytes are no image")])


def score_by_grpc(running: Running, images, trace: str, request_id: str, token: str = TOKEN) -> pb.ScoreResponse:
    metadata = (("authorization", f"Bearer {token}"), ("traceparent", trace), ("x-request-id", request_id))
    with grpc.insecure_channel(running.served.grpc_target) as channel:
        call = channel.unary_unary("/misfit.v1.MisfitService/Score")
        content = pb.ScoreRequest(images=calls.tensor(images)).SerializeToString()
        return pb.ScoreResponse.FromString(call(content, metadata=metadata, timeout=120))


def test_what_the_networks_process_counts_is_at_the_api_s_metrics(running, form, images):
    assert running.post(form).status_code == 200
    before = running.samples()
    assert running.post(form).status_code == 200
    after = running.samples()

    def more(name, **labels):
        series = name, frozenset(labels.items())
        return after[series] - before[series]

    assert more("misfit_images_scored_total") == len(images)
    assert more("misfit_images_flagged_total") == 2
    assert more("misfit_item_errors_total", code="undecodable_image") == 1
    assert more("misfit_context_size_count") == more("misfit_drift_requests") == 1
    for stage in ("parse", "decode", "encode", "statistics", "serialise"):
        assert more("misfit_stage_seconds_count", stage=stage) >= 1
        assert more("misfit_stage_seconds_sum", stage=stage) > 0
    assert more("misfit_adaptive_batch_rows_sum", network="encode_screened") == len(images)
    batches = more("misfit_adaptive_batch_rows_count", network="encode_screened")
    assert batches >= 2  # a tile has at most 32 rows
    assert 0 < more("misfit_adaptive_batch_fill_sum", network="encode_screened") <= batches
    assert more("misfit_queue_age_seconds_count", network="encode_screened") >= 1
    assert more("misfit_adaptive_batch_seconds_sum", network="encode_screened") > 0
    described = httpx.post(f"{running.served.url}/describe", headers=AUTHORIZATION, timeout=60).json()
    labels = {name: described[name] for name in ("bundle_id", "model", "provider")}
    assert running.value("misfit_info", **labels) == 1


def test_paths_that_do_not_exist_add_no_series(running):
    letters = random.Random(0)
    httpx.get(f"{running.served.url}/nowhere", timeout=60)
    before = running.samples().keys()
    with httpx.Client(base_url=running.served.url, timeout=60) as client:
        for number in range(1_000):
            path = "".join(letters.choices(string.ascii_letters, k=12))
            method = ("GET", "POST", "PUT", "PROPFIND")[number % 4]
            prefix = ("/", "/score/", "/static_content/", "/metrics/")[number // 4 % 4]
            assert client.request(method, prefix + path).status_code == 404
    assert running.samples().keys() == before


def test_methods_that_a_path_does_not_have_add_no_series_but_their_status(running):
    with httpx.Client(base_url=running.served.url, timeout=60, headers=AUTHORIZATION) as client:
        client.request("GET", "/score")
        before = running.samples().keys()
        for method in ("PUT", "DELETE", "PATCH", "PROPFIND", "TRACE"):
            assert client.request(method, "/score").status_code == 405
        for number in range(50):
            assert client.request(f"X{number}", "/score").status_code == 400
    assert running.samples().keys() == before


def test_unknown_grpc_methods_and_callers_add_no_series_but_one(running, images):
    def call(path, token):
        with grpc.insecure_channel(running.served.grpc_target) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(path)(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=60)
        return refused.value.code()

    for number in range(10):
        assert call(f"/misfit.v1.MisfitService/Method{number}", "guess") == grpc.StatusCode.UNAUTHENTICATED
        assert call(f"/other.Service{number}/Score", TOKEN) == grpc.StatusCode.UNIMPLEMENTED
    assert call("/misfit.v1.MisfitService/Fit", "guess") == grpc.StatusCode.UNAUTHENTICATED
    counted = {dict(labels)["method"] for name, labels in running.samples() if name == "misfit_grpc_calls_total"}
    assert {"unknown", "Fit"} <= counted <= {"unknown", "Fit", "Score"}
    assert running.value("misfit_grpc_calls_total", method="unknown", code="UNAUTHENTICATED") == 10
    assert running.value("misfit_grpc_calls_total", method="Fit", code="UNAUTHENTICATED") == 1


def test_each_request_is_one_line_of_the_log(running, form, images):
    running.post(form, **{"X-Request-ID": "by-http"})
    score_by_grpc(running, images, "", "by-grpc")
    running.post(("application/json", b"{"), **{"X-Request-ID": "refused"})
    running.post(form, **{"X-Request-ID": "unknown-caller", "Authorization": "Bearer guess"})
    with pytest.raises(grpc.RpcError):
        score_by_grpc(running, images, "", "unknown-caller-by-grpc", token="guess")
    expected = {
        "by-http": ("POST", "/score", 200, len(images) + 1, None),
        "by-grpc": ("gRPC", "/misfit.v1.MisfitService/Score", "OK", len(images), None),
        "refused": ("POST", "/score", 400, 0, "invalid_input"),
        "unknown-caller": ("POST", "/score", 401, 0, "unauthenticated"),
        "unknown-caller-by-grpc": ("gRPC", "/misfit.v1.MisfitService/Score", "UNAUTHENTICATED", 0, "unauthenticated"),
    }
    for request_id, told in expected.items():
        (line,) = running.log(request_id)
        assert tuple(line.get(name) for name in ("method", "route", "status", "images", "error")) == told
        assert line["seconds"] > 0
        assert line["process"] == "Misfit"
        assert line["client"]


def test_one_request_over_http_is_one_trace_from_the_api_to_the_networks(running, form):
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{caller}-01", "X-Request-ID": "traced-http"}
    assert running.post(form, **headers).status_code == 200
    root = assert_connected(running, trace, caller, "POST /score")
    assert root.attributes["http.status_code"] == 200
    assert running.log("traced-http")[0]["trace_id"] == trace


def test_every_request_on_a_connection_is_a_trace_of_its_own(running, form):
    for number in range(4):
        trace, caller = f"{number + 1:032x}", "a7ad6b7169203331"
        assert running.post(form, traceparent=f"00-{trace}-{caller}-01").status_code == 200
        assert_connected(running, trace, caller, "POST /score")


def test_one_call_over_grpc_is_one_trace_from_the_api_to_the_networks(running, images):
    trace, caller = "1af7651916cd43dd8448eb211c80319c", "c7ad6b7169203331"
    score_by_grpc(running, images, f"00-{trace}-{caller}-01", "traced-grpc")
    root = assert_connected(running, trace, caller, "misfit.v1.MisfitService/Score")
    assert root.attributes["rpc.grpc.status_code"] == 0
    assert running.log("traced-grpc")[0]["trace_id"] == trace


def assert_connected(running: Running, trace: str, caller: str, name: str):
    """The trace's root span. Below it are the stages, and below those that wait for them the networks' own."""
    spans = running.collector.trace(
        trace, lambda spans: {name, "POST /encode_screened"} <= {each.span.name for each in spans}
    )
    by_id = {each.id: each for each in spans}
    (root,) = [each for each in spans if each.parent == caller]
    assert (root.process, root.span.name, root.span.kind) == ("Misfit", name, SERVER)
    stages = [each for each in spans if each.parent == root.id]
    assert {each.span.name for each in stages} == {"parse", "decode", "encode", "statistics", "serialise"}
    assert {each.process for each in stages} == {"Misfit"}
    networks = [each for each in spans if each.process == "Inference"]
    assert {(each.span.name, by_id[each.parent].span.name) for each in networks} == {
        ("POST /encode_screened", "encode"),
    }
    assert all(each.span.kind == SERVER for each in networks)
    assert len(spans) == 1 + len(stages) + len(networks), "a span for every message would be too many"
    return root


def test_a_request_that_was_not_to_be_traced_is_not(running, form):
    trace = "2af7651916cd43dd8448eb211c80319c"
    running.post(form, traceparent=f"00-{trace}-b7ad6b7169203331-00", **{"X-Request-ID": "not-traced"})
    assert "trace_id" not in running.log("not-traced")[0]
    time.sleep(0.5)
    assert running.collector.trace(trace, lambda spans: True) == []


def test_neither_log_nor_traces_tell_what_was_sent(running, form):
    """Not even of a request that is refused for it, whose answer does."""
    only = bodies.as_form([("images", f"{SECRET}.png", b"these bytes are no image")])
    trace = "3af7651916cd43dd8448eb211c80319c"
    refused = running.post(only, traceparent=f"00-{trace}-b7ad6b7169203331-01", **{"X-Request-ID": "telling"})
    assert SECRET in refused.text
    assert "these bytes" in refused.text
    (line,) = running.log("telling")
    assert (line["status"], line["error"]) == (422, "undecodable_image")
    running.collector.trace(trace, lambda spans: "POST /score" in {each.span.name for each in spans})
    for written in (running.served.log.read_bytes(), *running.collector.bodies):
        for secret in (SECRET, "these bytes", TOKEN, "guess"):
            assert secret.encode() not in written


def test_every_line_is_json_and_probes_are_neither_logged_nor_traced(running):
    assert running.served.status("/livez") == running.served.status("/readyz") == 200
    logged = {str(line["route"]) for line in running.lines() if "route" in line}
    assert "/score" in logged
    assert logged.isdisjoint({"/livez", "/readyz", "/metrics"})
    assert not any("livez" in each.span.name or "readyz" in each.span.name for each in running.collector.spans)


def test_untraced_by_default(tmp_path, form):
    with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with serve(tmp_path / "log", settings) as served:
            headers = {"Content-Type": form[0]}
            assert httpx.post(f"{served.url}/score", content=form[1], headers=headers, timeout=120).status_code == 200
        assert collector.bodies == []
        assert "[INFO] [Misfit] POST /score 200, 41 images, " in served.log.read_text()
