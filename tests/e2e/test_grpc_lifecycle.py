"""gRPC starting and ending: ports, workers, TLS, tokens, readiness, and calls under way at SIGTERM."""

import hashlib
import signal
import socket
import ssl
import subprocess
import time

import bodies
import calls
import grpc
import httpx
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import OWN_PROCESS, free_ports, serve

from service.protos.inference import open_inference_pb2 as v2
from service.protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.protos.misfit.v1 import misfit_pb2 as pb

WAIT_SECONDS = 120
CALLS = 20


def health_of(served, name=""):
    with grpc.insecure_channel(served.grpc_target) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_calls_under_way_are_finished_after_sigterm(tmp_path, images):
    request = pb.ScoreRequest(images=calls.tensor(np.tile(images, (13, 1, 1, 1))))
    with serve(tmp_path / "log") as served, calls.stub(served.grpc_target) as stub:
        alone = stub.Score(request)
        under_way = [stub.Score.future(request, timeout=WAIT_SECONDS) for _ in range(CALLS)]
        # A call may end before the last one has arrived. Those that have ended are counted first, so none counts twice.
        wait_until(lambda: sum(call.done() for call in under_way) + rows_in_flight(served) / 520 >= CALLS)
        assert not all(call.done() for call in under_way)
        served.process.send_signal(signal.SIGTERM)
        assert [call.result() == alone for call in under_way] == [True] * CALLS
        assert served.process.wait(WAIT_SECONDS) == 0


def rows_in_flight(served) -> float:
    text = httpx.get(f"{served.url}/metrics", timeout=60).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("misfit_rows_in_flight"))


def test_a_port_in_use_stops_the_command_with_one_clear_line(tmp_path):
    """Whoever has it: another program, or another misfit, which would share it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert_refused(tmp_path / "log", other.getsockname()[1])
    with serve(tmp_path / "first") as first:
        assert_refused(tmp_path / "second", first.grpc_port)
        with serve(tmp_path / "third", ports=(first.port, free_ports(1)[0])) as third:  # the first one answers there
            assert third.process.wait(WAIT_SECONDS) == 1
        line = f"misfit cannot start: HTTP cannot listen on 127.0.0.1:{first.port}: Address already in use."
        assert (tmp_path / "third").read_text().startswith(line)
        assert "Traceback" not in (tmp_path / "third").read_text()
        assert health_of(first) == health_pb2.HealthCheckResponse.SERVING


def assert_refused(log, port):
    with pytest.raises(TimeoutError), serve(log, {"MISFIT_GRPC_PORT": str(port)}):
        pass
    assert f"misfit cannot start: gRPC cannot listen on 127.0.0.1:{port}: Address already in use" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_grpc_can_be_turned_off(tmp_path):
    with serve(tmp_path / "log", {"MISFIT_GRPC_PORT": "0"}) as served:
        assert served.status("/livez") == 200


def test_two_workers_share_the_port_and_the_networks(tmp_path, images, client):
    """Their networks have a process of their own, and give the same bits as those in the process of a single worker."""
    request = pb.ScoreRequest(images=calls.tensor(images))
    workers = {"BENTOML_CONFIG_OPTIONS": "services.Misfit.workers=2"}
    with serve(tmp_path / "log", workers) as served:

        def listeners():
            by_process = (process.net_connections("tcp") for process in psutil.Process(served.process.pid).children())
            return [
                connection
                for connections in by_process
                for connection in connections
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == served.grpc_port
            ]

        wait_until(lambda: len(listeners()) == 2)
        assert sorted("Inference" in worker.cmdline() for worker in served.workers) == [False, False, True]
        body = {
            "content": bodies.npy(images),
            "headers": {"Content-Type": "application/x-npy"},
            "timeout": WAIT_SECONDS,
        }
        assert httpx.post(f"{served.url}/explain", **body).content == client.post("/explain", **body).content
        # The kernel deals connections out to the listeners: one after the other, until both have had some.
        answers = []
        for _ in range(20):
            with grpc.insecure_channel(served.grpc_target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                call = channel.unary_unary("/misfit.v1.MisfitService/Score")
                answers.append(pb.ScoreResponse.FromString(call(request.SerializeToString(), timeout=WAIT_SECONDS)))
        assert all(answer == answers[0] for answer in answers)


def test_health_follows_readiness(tmp_path):
    with serve(tmp_path / "log", OWN_PROCESS) as served:
        wait_until(lambda: health_of(served) == health_pb2.HealthCheckResponse.SERVING)
        arbiter = psutil.Process(served.process.pid)
        arbiter.suspend()  # it would start another one; a container has nobody who does
        served.worker("Inference").send_signal(signal.SIGKILL)
        try:
            wait_until(
                lambda: health_of(served, "misfit.v1.MisfitService") == health_pb2.HealthCheckResponse.NOT_SERVING
            )
            assert served.status("/readyz") == 503
            with calls.stub(served.grpc_target) as stub, pytest.raises(grpc.RpcError) as failed:
                stub.Score(pb.ScoreRequest(images=calls.tensor(np.zeros((2, 64, 64, 3), np.uint8))), timeout=60)
            status, detail = calls.error_of(failed.value)
            assert (status, detail.code) == (grpc.StatusCode.UNAVAILABLE, "inference_unavailable")
        finally:
            arbiter.resume()


def test_tls_and_tokens(tmp_path, images):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 1 -subj /CN=localhost"
    subprocess.run([*command.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{hashlib.sha256(b'open sesame').hexdigest()}  # the first client\n")
    settings = {
        "MISFIT_GRPC_TLS_CERT": str(certificate),
        "MISFIT_GRPC_TLS_KEY": str(key),
        "MISFIT_TOKENS_FILE": str(tokens),
    }
    request = pb.ScoreRequest(images=calls.tensor(images))
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with (
        serve(tmp_path / "log", settings) as served,
        grpc.secure_channel(f"localhost:{served.grpc_port}", credentials) as channel,
    ):
        stub = calls.misfit_pb2_grpc.MisfitServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer open barley"),), (("authorization", "open sesame"),)):
            with pytest.raises(grpc.RpcError) as failed:
                stub.Score(request, metadata=metadata)
            status, detail = calls.error_of(failed.value)
            by_http = httpx.post(f"{served.url}/score", headers=dict(metadata), timeout=60)
            assert (status, by_http.status_code) == (grpc.StatusCode.UNAUTHENTICATED, 401)
            assert by_http.headers["www-authenticate"] == "Bearer"
            assert by_http.json()["error"] == {"code": detail.code, "message": detail.message, "hint": detail.hint}
        let_in = (("authorization", "Bearer open sesame"),)
        assert len(stub.Score(request, metadata=let_in).items) == len(images)
        assert httpx.post(f"{served.url}/describe", headers=dict(let_in), timeout=60).status_code == 200
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
        inference = GRPCInferenceServiceStub(channel)
        assert inference.ServerLive(v2.ServerLiveRequest()).live
        assert inference.ServerReady(v2.ServerReadyRequest()).ready
        with pytest.raises(grpc.RpcError, match="no bearer token"):
            inference.ModelInfer(v2.ModelInferRequest(model_name="misfit"))
        for path in ("live", "ready"):
            assert httpx.get(f"{served.url}/v2/health/{path}", timeout=60).status_code == 200
        refused = httpx.get(f"{served.url}/v2/models/misfit", timeout=60)
        assert (refused.status_code, "no bearer token" in refused.json()["error"]) == (401, True)
        tokens.write_text(f"{hashlib.sha256(b'next').hexdigest()}\n")  # rotated without a restart
        with pytest.raises(grpc.RpcError):
            stub.Score(request, metadata=let_in)
        assert stub.Score(request, metadata=(("authorization", "Bearer next"),)).items
        with pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(
                socket.create_connection(("localhost", served.grpc_port)), server_hostname="localhost"
            )
