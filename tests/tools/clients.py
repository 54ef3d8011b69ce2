"""Generate clients of the HTTP and gRPC APIs, compile them, and call a running service with each (`make clients`).

TypeScript: openapi-typescript and openapi-fetch. Python: openapi-python-client. Go: openapi-generator, and
protoc-gen-go for gRPC. Each client gets the sample batch, sends the defaults of /docs.json along, and must find the
same misfits. tests/clients holds the calling programs, and pins the generators. gRPC in Go takes the Debian packages of
DEBIAN_PACKAGES; the Go toolchain comes from the Python package index. openapi-generator needs Java.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving import ROOT, Served, serve

SOURCES = ROOT / "tests" / "clients"
TOOLS = ROOT / ".venv-clients" / "bin"
SAMPLE_BATCH = ROOT / "tests" / "data" / "shapes3d_batch.zip"
MISFITS = ("14.png", "35.png", "49.png", "58.png")
TOKEN = "a token of the clients"
PROTO = Path("misfit/v1/misfit.proto")
GO_PACKAGES = Path("/usr/share/gocode")
# The last one takes the place of an older one, with which gRPC cannot send the messages.
DEBIAN_PACKAGES = (
    "protoc-gen-go",
    "protoc-gen-go-grpc",
    "golang-google-grpc-dev",
    "golang-github-golang-protobuf-1-5-dev",
)


@dataclass(frozen=True)
class Build:
    """A folder of builds beside the document that they are made of, and the service that they call."""

    folder: Path
    service: Served

    @property
    def document(self) -> Path:
        return self.folder / "docs.json"

    def arguments(self, address: str) -> list[str]:
        """Return what every calling program takes."""
        return [address, TOKEN, str(self.folder / "batch"), *MISFITS]

    def prepare(self) -> None:
        """Write the document that the service publishes, and the files of the sample batch."""
        request = urllib.request.Request(f"{self.service.url}/docs.json", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as response:
            self.document.write_bytes(response.read())
        shutil.rmtree(self.folder / "batch", ignore_errors=True)
        with zipfile.ZipFile(SAMPLE_BATCH) as batch:
            batch.extractall(self.folder / "batch", [name for name in batch.namelist() if name.endswith(".png")])

    def start(self, name: str) -> Path:
        """Return an empty folder for one client, with the sources of its calling program."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(SOURCES / name, folder))


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command silently. Raise SystemExit with what it printed where it fails."""
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", **(environment or {})}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    if result.returncode:
        words = " ".join(map(str, command[:3]))
        raise SystemExit(f"{words} ... failed in {cwd}:\n{result.stdout[-6000:]}{result.stderr[-6000:]}")


def lint(build: Build) -> None:
    npx(build, "redocly", "lint", build.document, "--max-problems", "20", "--extends", "recommended")


def typescript(build: Build) -> None:
    folder = build.start("typescript")
    npx(build, "openapi-typescript", build.document, "--output", folder / "schema.d.ts")
    npx(build, "tsc", "--project", folder / "tsconfig.json")
    run("node", folder / "out" / "call.js", *build.arguments(build.service.url), cwd=folder)


def python(build: Build) -> None:
    folder = build.start("python")
    command = ["generate", "--path", build.document, "--meta", "none", "--config", folder / "config.yaml"]
    run(TOOLS / "openapi-python-client", *command, "--output-path", folder / "misfit_client", cwd=folder)
    run(TOOLS / "python", "-m", "compileall", "-q", folder / "misfit_client", cwd=folder)
    run(TOOLS / "python", folder / "call.py", *build.arguments(build.service.url), cwd=folder)


def go_http(build: Build) -> None:
    folder = build.start("go_http")
    names = ["--git-host", "example.com", "--git-user-id", "clients", "--git-repo-id", "misfit"]
    command = ["generate", "--generator-name", "go", "--input-spec", build.document, "--output", folder / "misfit"]
    options = ["--additional-properties", "packageName=misfit,enumClassPrefix=true"]
    run(TOOLS / "openapi-generator-cli", *command, *names, *options, cwd=folder)
    go(build, "build", "-o", "call", ".", cwd=folder)
    run(folder / "call", *build.arguments(build.service.url), cwd=folder)


def go_grpc(build: Build) -> None:
    missing = [name for name in DEBIAN_PACKAGES[:2] if shutil.which(name) is None]
    if missing or not (GO_PACKAGES / "src/google.golang.org/grpc").is_dir():
        raise SystemExit(f"apt-get install {' '.join(DEBIAN_PACKAGES)}, then again.")
    folder = build.start("go_grpc")
    (generated := folder / "path" / "src").mkdir(parents=True)
    outputs = [f"--go_out={generated}", f"--go-grpc_out={generated}"]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'service' / 'protos'}"]
    run(*protoc, *outputs, PROTO, cwd=folder)
    # Debian's packages have no module proxy: they are found by path.
    paths = {"GO111MODULE": "off", "GOPATH": f"{folder / 'path'}:{GO_PACKAGES}"}
    go(build, "build", "-o", "call", ".", cwd=folder, environment=paths)
    run(folder / "call", *build.arguments(build.service.grpc_target), cwd=folder)


def npx(build: Build, *command: str | Path) -> None:
    run("npx", "--no-install", *command, cwd=build.folder, environment={"REDOCLY_TELEMETRY": "off"})


def go(build: Build, *command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOCACHE": str(build.folder / "go-cache")}
    run(TOOLS / "go", *command, cwd=cwd, environment={**offline, **(environment or {})})


CLIENTS: dict[str, Callable[[Build], None]] = {
    "lint": lint,
    "typescript": typescript,
    "python": python,
    "go_http": go_http,
    "go_grpc": go_grpc,
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "clients")
    parser.add_argument("clients", nargs="*", help=f"some of {', '.join(CLIENTS)}; by default all")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tokens = folder / "tokens"
    tokens.write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
    with serve(folder / "service.log", {"MISFIT_TOKENS_FILE": str(tokens)}) as service:
        build = Build(folder, service)
        build.prepare()
        for name in options.clients or CLIENTS:
            begin = time.monotonic()
            CLIENTS[name](build)
            print(f"{name:12} passed in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
