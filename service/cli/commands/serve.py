"""`misfit serve`: the service, in this terminal. BentoML runs it, and takes this process's place."""

from __future__ import annotations

import os
import sys

import click

from service.cli.endings import explain_errors
from service.offline.in_process import load_bundle


@click.command()
@click.argument("bundle", required=False, metavar="[NAME|PATH]")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that HTTP and gRPC listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="The port of HTTP.")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="The port of gRPC; 0 is none.  [default: MISFIT_GRPC_PORT or 3001]",
)
@explain_errors
def serve(bundle: str | None, host: str, port: int, grpc_port: int | None) -> None:
    """Serve a bundle, by name or path, over HTTP and gRPC: http://127.0.0.1:3000 shows how to call it.

    Settings are the environment variables MISFIT_...; docs/deployment.md lists them.
    """
    directory = load_bundle(bundle).directory
    environment = {**os.environ, "MISFIT_BUNDLE": str(directory.resolve())}
    environment.setdefault("MISFIT_GRPC_HOST", host)
    if grpc_port is not None:
        environment["MISFIT_GRPC_PORT"] = str(grpc_port)
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Misfit", "--host", host, "--port", str(port)]
    sys.stdout.flush()
    os.execve(command[0], command, environment)
