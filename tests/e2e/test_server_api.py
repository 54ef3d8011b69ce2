"""The service in a thread of another program, as BentoML's Server API runs it."""

import os
import subprocess
import sys

import psutil
from serving import ROOT, STOP_SECONDS, Served, free_ports

SCRIPT = """
import sys

from service.app import Misfit

Misfit.inject_config()
with Misfit.serve_http(host="127.0.0.1", port=int(sys.argv[1]), threaded=True):
    sys.stdin.readline()
"""


def test_a_threaded_supervisor_listens_to_nobody(tmp_path):
    """It would run any program that a client on its control socket names."""
    port, grpc_port = free_ports(2)
    settings = {"MISFIT_GRPC_HOST": "127.0.0.1", "MISFIT_GRPC_PORT": str(grpc_port), "PYTHONPATH": str(ROOT)}
    settings |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(tmp_path / "home")}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(port)],
            cwd=ROOT,
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    supervisor = psutil.Process(process.pid)
    try:
        Served(port, grpc_port, process, log).wait_for("/readyz", 200)
        processes = [supervisor, *supervisor.children(recursive=True)]
        connections = [each for member in processes for each in member.net_connections("inet")]
        assert {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN} == {port, grpc_port}
        process.communicate(b"\n", timeout=STOP_SECONDS)
        assert process.returncode == 0, log.read_text()[-4000:]
        assert [member for member in processes if member.is_running()] == []
    finally:
        if process.poll() is None:
            for member in [*supervisor.children(recursive=True), supervisor]:
                member.kill()
            process.wait()
