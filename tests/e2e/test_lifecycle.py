"""Starting and dying: readiness, liveness, and bundles that cannot be served."""

import signal

import bodies
import httpx
import numpy as np
import psutil
import pytest
from serving import OWN_PROCESS, serve


def test_alive_and_ready(served):
    assert served.status("/livez") == 200
    assert served.status("/readyz") == 200


def test_one_api_worker_runs_the_networks_itself(served):
    assert [process.pid for process in served.workers] == [served.worker("Misfit").pid]


def test_without_inference_the_service_is_neither_alive_nor_ready(tmp_path):
    with serve(tmp_path / "log", OWN_PROCESS) as served:
        arbiter = psutil.Process(served.process.pid)
        arbiter.suspend()  # it would start another one; a container has nobody who does
        served.worker("Inference").send_signal(signal.SIGKILL)
        try:
            served.wait_for("/livez", 503)
            served.wait_for("/readyz", 503)
            content_type, content = bodies.as_npy(np.zeros((2, 64, 64, 3), dtype=np.uint8))
            answer = httpx.post(
                f"{served.url}/score", content=content, headers={"Content-Type": content_type}, timeout=60
            )
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "inference_unavailable"
            assert httpx.get(f"{served.url}/livez", timeout=60).json()["error"]["code"] == "service_unavailable"
        finally:
            arbiter.resume()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"MISFIT_BUNDLE": "nowhere"}, "nowhere/manifest.json cannot be read"),
        ({"MISFIT_MAX_IMAGES": "0"}, "MISFIT_MAX_IMAGES is '0'"),
        ({"MISFIT_BUNDLE": "nowhere", "MISFIT_BUNDEL": "x"}, "did you mean MISFIT_BUNDLE?"),
    ],
)
def test_what_cannot_be_served_stops_the_command_with_one_clear_line(tmp_path, setting, named):
    log = tmp_path / "log"
    with pytest.raises(TimeoutError), serve(log, setting):
        pass
    assert named in log.read_text()
    assert "Traceback" not in log.read_text()
