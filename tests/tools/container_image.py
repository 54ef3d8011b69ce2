"""Hold an image against what may be in it, run it as the pods do, and score the sample batch over HTTP and gRPC.

    python tests/tools/container_image.py docker|buildah IMAGE [--out FILE]

As the pods do: user 1034, no capabilities, the root file system read-only, /tmp the one place to write, in memory.
Where there is no docker daemon, the image's root is mounted by buildah and entered with chroot, which takes root.
Where there is no GPU, it must serve without one, and refuse to with MISFIT_REQUIRE_GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import calls
import container_contents
import numpy as np
from container_contents import run
from measurements import save
from PIL import Image
from serving import BOOT_SECONDS, STOP_SECONDS, Served, free_ports

from service.inference.hardware import has_gpu
from service.protos.misfit.v1 import misfit_pb2 as pb

SAMPLE_BATCH = Path(__file__).parents[1] / "data" / "shapes3d_batch.zip"
MISFITS = {"58.png", "14.png", "49.png", "35.png"}
USER = 1034


def in_docker(image: str, port: int, grpc_port: int, settings: Mapping[str, str]) -> list[str]:
    return [
        *("docker", "run", "--rm", "--init", "--read-only", "--tmpfs", "/tmp:size=64m,mode=1777"),
        *("--user", f"{USER}:{USER}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--env", "BENTOML_HOME=/tmp/bentoml", "--publish", f"127.0.0.1:{port}:3000"),
        *("--publish", f"127.0.0.1:{grpc_port}:3001"),
        *(f"--env={name}={value}" for name, value in settings.items()),
        image,
    ]


def in_chroot(container: str, port: int, grpc_port: int, settings: Mapping[str, str]) -> list[str]:
    """The container's root in a mount namespace of its own, which takes every mount along when it ends."""
    root = run("buildah", "mount", container)
    config = json.loads(run("buildah", "inspect", "--type", "container", container))["OCIv1"]["config"]
    variables = {
        **dict(pair.split("=", 1) for pair in config["Env"]),
        "HOME": "/home/bentoml",
        "BENTOML_HOME": "/tmp/bentoml",
        "BENTOML_HOST": "127.0.0.1",
        "BENTOML_PORT": str(port),
        "MISFIT_GRPC_HOST": "127.0.0.1",
        "MISFIT_GRPC_PORT": str(grpc_port),
        **settings,
    }
    assignments = shlex.join(f"{name}={value}" for name, value in variables.items())
    serve = shlex.join(config["Entrypoint"])
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
        exec chroot {root} {powerless} env --ignore-environment {assignments} sh -c {enter}
    """
    return ["unshare", "--mount", "sh", "-c", script]


@contextmanager
def served(engine: str, image: str, log: Path, settings: Mapping[str, str] | None = None) -> Iterator[Served]:
    ports, settings = free_ports(2), settings or {}
    container = run("buildah", "from", image) if engine == "buildah" else ""
    command = in_chroot(container, *ports, settings) if container else in_docker(image, *ports, settings)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        service = Served(*ports, process, log)
        service.wait_for("/readyz", 200)
        yield service
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        if container:
            run("buildah", "rm", container)


Ranks = dict[str, int]


def over_http(service: Served) -> Ranks:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=BOOT_SECONDS)
    connection.request("POST", "/score", SAMPLE_BATCH.read_bytes(), {"Content-Type": "application/zip"})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return {item["id"]: item["rank"] for item in json.loads(body)["items"]}


def over_grpc(service: Served) -> Ranks:
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        names = sorted(name for name in batch.namelist() if name.endswith(".png"))
        images = np.stack([np.asarray(Image.open(io.BytesIO(batch.read(name)))) for name in names])
    with calls.stub(service.grpc_target) as stub:
        answer = stub.Score(pb.ScoreRequest(images=calls.tensor(images)), wait_for_ready=True, timeout=BOOT_SECONDS)
    return {names[item.index]: item.rank for item in answer.items}


def check_answers(service: Served, bundle: str) -> None:
    for name, ask in (("HTTP", over_http), ("gRPC", over_grpc)):
        ranks = ask(service)
        assert sorted(ranks.values()) == list(range(1, len(ranks) + 1))
        print(f"the {len(ranks)} images of the sample batch are ranked over {name}")
        if bundle == "shapes3d":  # to another, their misfits are nothing special
            first = {id_ for id_, rank in ranks.items() if rank <= len(MISFITS)}
            assert first == MISFITS, f"{name}: {sorted(first)} come first; expected {sorted(MISFITS)}"
            print("its four misfits come first")
    assert service.status("/livez") == 200
    assert service.status("/metrics") == 200


def check_refusal(engine: str, image: str, log: Path) -> None:
    """Without a GPU and with MISFIT_REQUIRE_GPU it must end, and its last line say why."""
    try:
        with served(engine, image, log, {"MISFIT_REQUIRE_GPU": "1"}):
            raise AssertionError("MISFIT_REQUIRE_GPU is set, there is no GPU, and it is ready")
    except TimeoutError:
        last = log.read_text().strip().splitlines()[-1]
    assert "MISFIT_REQUIRE_GPU" in last, last
    print(f"where a GPU is required and there is none: {last}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["docker", "buildah"])
    parser.add_argument("image")
    parser.add_argument("--out", type=Path, help="also write the image's size and time to be ready to this JSON file")
    arguments = parser.parse_args()
    engine, image = arguments.engine, arguments.image
    bundle, has_cuda = container_contents.check(engine, image, USER)
    with tempfile.TemporaryDirectory() as scratch:
        start, log = time.perf_counter(), Path(scratch) / "log"
        with served(engine, image, log) as service:
            seconds = time.perf_counter() - start
            print(f"it is ready after {seconds:.1f} s, read-only and as user {USER}")
            check_answers(service, bundle)
            if has_cuda and not has_gpu():
                assert "no GPU can be used: the networks run on CPUExecutionProvider" in log.read_text()
                print("its log warns that there is no GPU")
        print(f"stopped by SIGTERM with exit code {service.process.returncode}")
        if not has_gpu():
            check_refusal(engine, image, log)
    size = container_contents.size(engine, image)
    save(arguments.out, {"size": size, "has_cuda": has_cuda, "seconds_until_ready": seconds})


if __name__ == "__main__":
    main()
