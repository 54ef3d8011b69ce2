"""`misfit score` in its own process and against a running service: the answers are the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile

from serving import ROOT, Served, free_ports

BATCH = ROOT / "tests/data/shapes3d_batch.zip"


def run(*arguments, **options):
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def test_the_numbers_are_those_of_the_service(served, client):
    answer = client.post(
        "/score?attributions=top", content=BATCH.read_bytes(), headers={"Content-Type": "application/zip"}
    )
    local = run("score", BATCH, "--json")
    assert local.stdout.strip() == answer.text
    over_http = run("score", BATCH, "--json", "--url", served.url)
    assert over_http.stdout.strip() == answer.text
    over_grpc = run("score", BATCH, "--grpc", served.grpc_target)
    assert over_grpc.stdout == run("score", BATCH).stdout


def test_large_groups_go_in_a_stream(served, tmp_path):
    names = "\n".join([str(path) for path in unpack(tmp_path)] * 17)
    result = run("score", "-", "--grpc", served.grpc_target, "--show", 3, input=names)
    assert "1,020 images scored" in result.stderr, result.stderr
    assert run("score", "-", "--show", 3, input=names).stdout == result.stdout


def test_a_refusal_of_the_service_is_one_line(served):
    result = run("score", BATCH, "--url", f"http://{served.grpc_target}")
    assert result.returncode == 4
    assert result.stderr.count("\n") == 1


def test_serve_is_the_service(tmp_path):
    port, grpc_port = free_ports(2)
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "serve",
        "mnist",
        "--port",
        str(port),
        "--grpc-port",
        str(grpc_port),
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        Served(port, grpc_port, process, tmp_path / "log").wait_for("/readyz", 200)
        assert "handwritten digits" in run("describe", "--grpc", f"127.0.0.1:{grpc_port}").stdout
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert run("serve", "nowhere").returncode == 4


def unpack(folder):

    zipfile.ZipFile(BATCH).extractall(folder)
    return sorted(folder.glob("*.png"))
