"""What BentoML puts around the services, as far as it matters."""

import os
import subprocess
import sys

from serving import ROOT

# In a process of its own: making a worker's application configures logs, and BentoML's imports warn.
SCRIPT = """
from service.app import Inference, Misfit

for service in (Misfit, Inference):
    app = service.to_asgi()
    while not hasattr(app, "user_middleware"):
        app = vars(app).get("_server") or app._app
    print(*(middleware.cls.__name__ for middleware in app.user_middleware))
"""


def test_no_timer_outlives_its_request():
    """BentoML's timeout would hold what belongs to each request for an hour."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "true"}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    lines = [line.split() for line in run.stdout.splitlines() if "TrafficMetrics" in line]
    assert len(lines) == 2
    assert all("TimeoutMiddleware" not in line for line in lines)
