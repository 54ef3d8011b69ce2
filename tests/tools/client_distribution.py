"""Build the client's own distribution, install it by itself, and call a running service with it (`make client`).

The wheel goes to dist/. It is installed in an environment that has nothing else, and used by a project that has a
package called service.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from client_project import use_client
from serving import ROOT, serve

BATCH = ROOT / "tests" / "data" / "shapes3d_batch.zip"
SOURCE, DIST = ROOT / "build" / "client", ROOT / "dist"


def main() -> None:
    subprocess.run([sys.executable, ROOT / "clients" / "python" / "collect.py", SOURCE], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", DIST, SOURCE], check=True)
    (wheel,) = DIST.glob("misfit_client-*.whl")
    scratch = Path(tempfile.mkdtemp())
    try:
        environment = scratch / "environment"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        constraints = ["--constraint", ROOT / "constraints.txt"]
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraints, wheel]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(BATCH) as archive:
            archive.extractall(scratch / "batch")
        images = sorted((scratch / "batch").glob("*.png"))
        with serve(scratch / "log") as served:
            urls = (served.url, f"grpc://{served.grpc_target}")
            printed = use_client(python, scratch / "project", [], urls, images)
        assert printed.split() == ["14.png", "35.png", "49.png", "58.png"], printed
        names = {path.name for path in environment.glob("lib/*/site-packages/*") if path.is_dir()}
        assert not names & {"service", "bentoml", "onnxruntime", "scipy", "sklearn"}, names
    finally:
        shutil.rmtree(scratch)
    print(f"{wheel}: built, installed by itself, and used by another project")


if __name__ == "__main__":
    main()
