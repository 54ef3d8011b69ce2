"""What is in an image, and what must not be: packages as locked and no others, the service, one bundle, no tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NEVER = ["torch", "onnx", "onnxscript", "h5py", "matplotlib", "pytest"]
TOOLS = ["gcc", "cc", "g++", "make", "ld", "git", "gpg", "curl", "wget", "uv"]
# Run in the image, by its own Python.
LIST = """
import json, os, shutil, stat
from importlib.metadata import distributions
from pathlib import Path

def is_set_id(path):
    mode = os.lstat(path).st_mode
    return stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID)

source = Path(os.environ["BENTO_PATH"]) / "src"
programs = [os.path.join(top, name) for top, _, names in os.walk("/usr") for name in names]
print(json.dumps({
    "user": os.getuid(),
    "bundle": os.environ["MISFIT_BUNDLE"],
    "packages": {each.metadata["Name"]: each.version for each in distributions()},
    "files": [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()],
    "lock": (source.parent / "env/python/requirements.txt").read_text(),
    "tools": [name for name in TOOLS if shutil.which(name)],
    "set_id": [path for path in programs if is_set_id(path)],
}))
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def listed(engine: str, image: str) -> dict[str, Any]:
    program = f"TOOLS = {TOOLS!r}\n{LIST}"
    if engine == "docker":
        return dict(json.loads(run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", program)))
    container = run("buildah", "from", image)
    try:
        return dict(
            json.loads(run("buildah", "run", "--isolation", "chroot", container, "--", "python", "-c", program))
        )
    finally:
        run("buildah", "rm", container)


def size(engine: str, image: str) -> str:
    if engine == "docker":
        return f"{int(run('docker', 'image', 'inspect', '--format', '{{.Size}}', image)) / 1e6:.0f} MB"
    return run("buildah", "images", "--format", "{{.Size}}", image)


def locked(lock: str) -> dict[str, str]:
    """The packages that a lock has for this platform, by canonical name. Fails where one has no hash."""
    requirements = [entry.split("--hash=") for entry in lock.replace("\\\n", "").splitlines() if entry.strip()]
    # BentoML adds itself once more, without hashes; uv holds it against those of the first.
    assert [entry for entry, *hashes in requirements if not hashes and not entry.startswith("bentoml==")] == []
    parsed = [Requirement(entry) for entry, *_ in requirements]
    return {canonical(each.name): str(each.specifier) for each in parsed if not each.marker or each.marker.evaluate()}


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def check(engine: str, image: str, user: int) -> tuple[str, bool]:
    """The image's bundle, and whether it has CUDA's libraries, if it holds what it has to and no more."""
    listing = listed(engine, image)
    assert listing["user"] == user, listing["user"]
    packages = {canonical(name): f"=={version}" for name, version in listing["packages"].items()}
    assert packages == locked(listing["lock"]), packages.items() ^ locked(listing["lock"]).items()
    assert [name for name in NEVER if name in packages] == []
    assert (listing["tools"], listing["set_id"]) == ([], []), (listing["tools"], listing["set_id"])
    service, bundle = ROOT / "service", ROOT / "service" / "bundles" / listing["bundle"]
    ours = {str(path.relative_to(ROOT)) for path in [*service.rglob("*.py"), *bundle.iterdir()]}
    # BentoML puts its own notes beside them.
    assert set(listing["files"]) - {"bentofile.yaml"} == ours, set(listing["files"]) ^ ours
    print(f"{image} ({size(engine, image)}) holds {len(packages)} packages as locked, the service, {listing['bundle']}")
    return str(listing["bundle"]), "nvidia-cublas" in packages
