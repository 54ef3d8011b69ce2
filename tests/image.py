"""Run an image as the pods do, and score the sample batch over HTTP and gRPC.

    python tests/image.py docker|buildah IMAGE

As the pods do: user 1034, no capabilities, the root file system read-only, /tmp the one place to write, in memory.
Where there is no docker daemon, the image's root is mounted by buildah and entered with chroot, which takes root.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import calls
import numpy as np
from PIL import Image
from serving import BOOT_SECONDS, STOP_SECONDS, Served, free_ports

from service.protos.misfit.v1 import misfit_pb2 as pb

SAMPLE_BATCH = Path(__file__).parent / "data" / "shapes3d_batch.zip"
MISFITS = {"58.png", "14.png", "49.png", "35.png"}
USER = 1034


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def in_docker(image: str, port: int, grpc_port: int) -> list[str]:
    return [
        *("docker", "run", "--rm", "--init", "--read-only", "--tmpfs", "/tmp:size=64m,mode=1777"),
        *("--user", f"{USER}:{USER}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--env", "BENTOML_HOME=/tmp/bentoml", "--publish", f"127.0.0.1:{port}:3000"),
        *("--publish", f"127.0.0.1:{grpc_port}:3001", image, "serve"),
    ]


def in_chroot(container: str, port: int, grpc_port: int) -> list[str]:
    """The container's root in a mount namespace of its own, which takes every mount along when it ends."""
    root = run("buildah", "mount", container)
    config = json.loads(run("buildah", "inspect", "--type", "container", container))["OCIv1"]["config"]
    variables = {
        **dict(pair.split("=", 1) for pair in config["Env"]),
        "HOME": "/tmp",
        "BENTOML_HOME": "/tmp/bentoml",
        "MISFIT_GRPC_HOST": "127.0.0.1",
        "MISFIT_GRPC_PORT": str(grpc_port),
    }
    given = shlex.join(f"{name}={value}" for name, value in variables.items())
    serve = shlex.join([*config["Entrypoint"], "serve", "--host", "127.0.0.1", "--port", str(port)])
    enter = shlex.quote(f"cd {shlex.quote(config['WorkingDir'])} && exec {serve}")
    powerless = f"setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set=-all"
    script = f"""
        set -e
        mount --bind {root} {root}
        cd {root}
        touch etc/hosts && mount --bind /etc/hosts etc/hosts
        mount --rbind /dev dev
        mount -t proc proc proc
        mount -t tmpfs -o size=64m,mode=1777 tmpfs tmp
        mount -o remount,bind,ro {root}
        exec chroot {root} {powerless} env --ignore-environment {given} sh -c {enter}
    """
    return ["unshare", "--mount", "sh", "-c", script]


@contextmanager
def served(engine: str, image: str, log: Path) -> Iterator[Served]:
    port, grpc_port = free_ports(2)
    container = run("buildah", "from", image) if engine == "buildah" else ""
    command = in_chroot(container, port, grpc_port) if container else in_docker(image, port, grpc_port)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        service = Served(port, grpc_port, process, log)
        service.wait_for("/readyz", 200)
        yield service
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        if container:
            run("buildah", "rm", container)


def top_of(items: list[tuple[int, str]]) -> set[str]:
    return {name for rank, name in items if rank <= len(MISFITS)}


def over_http(service: Served) -> set[str]:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=BOOT_SECONDS)
    connection.request("POST", "/score", SAMPLE_BATCH.read_bytes(), {"Content-Type": "application/zip"})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return top_of([(item["rank"], item["id"]) for item in json.loads(body)["items"]])


def over_grpc(service: Served) -> set[str]:
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        names = sorted(name for name in batch.namelist() if name.endswith(".png"))
        images = np.stack([np.asarray(Image.open(io.BytesIO(batch.read(name)))) for name in names])
    with calls.stub(service.grpc_target) as stub:
        answer = stub.Score(pb.ScoreRequest(images=calls.tensor(images)), wait_for_ready=True, timeout=BOOT_SECONDS)
    return top_of([(item.rank, names[item.index]) for item in answer.items])


def main() -> None:
    engine, image = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        with served(engine, image, Path(scratch) / "log") as service:
            print(f"{image} is ready after {time.perf_counter() - start:.1f} s, read-only and as user {USER}")
            for name, ask in (("HTTP", over_http), ("gRPC", over_grpc)):
                top = ask(service)
                assert top == MISFITS, f"{name}: {sorted(top)} come first; expected {sorted(MISFITS)}"
                print(f"the four misfits of the sample batch come first over {name}")
            assert service.status("/livez") == 200
            assert service.status("/metrics") == 200
    print(f"stopped by SIGTERM with exit code {service.process.returncode}")


if __name__ == "__main__":
    main()
