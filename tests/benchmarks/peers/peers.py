"""The peers: how each is started from its own environment, and how images are sent to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ways import Connect, Way, grpc_client, http_client
from workloads import Workload

import bodies  # isort: skip - of tests/support, which `ways` adds to the path

ROOT = Path(__file__).parents[3]
APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    command  what starts it, given its ports of HTTP and gRPC and an empty directory; the first word is a program of its
             environment
    ready    the path that answers 200 once it is ready
    """

    command: Callable[[int, int, Path], list[str]]
    ready: str
    ways: dict[str, Way]


def http_way(
    path: str, files_path: str, workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int
) -> Connect:
    """Send an npy array to `path`, or PNG files as a form to `files_path`."""
    if workload.form == "png":
        content_type, content = bodies.as_form(bodies.form_of(bodies.image_files(images)))
        return partial(http_client, port, files_path, {"Content-Type": content_type}, content)
    content_type, content = bodies.as_npy(images)
    return partial(http_client, port, path, {"Content-Type": content_type}, content)


def json_way(path: str, workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int) -> Connect:
    """Send JSON: an npy array, or PNG files, in base64."""
    if workload.form == "png":
        files = bodies.image_files(images).values()
        value: dict[str, object] = {"files": [base64.b64encode(file).decode() for file in files]}
    else:
        value = {"array": base64.b64encode(bodies.npy(images)).decode()}
    return partial(http_client, port, path, {"Content-Type": "application/json"}, json.dumps(value).encode())


def open_inference_http(workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int) -> Connect:
    """Send a tensor by the binary extension of the Open Inference Protocol."""
    model, tensor, content = as_tensor(workload, images)
    head = {**tensor, "parameters": {"binary_data_size": len(content)}}
    outputs = [{"name": "latents", "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": [head], "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return partial(http_client, port, f"/v2/models/{model}/infer", headers, text + content)


def open_inference_json(workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int) -> Connect:
    """Send JSON of the Open Inference Protocol: an npy array, or PNG files, in base64."""
    contents = list(bodies.image_files(images).values()) if workload.form == "png" else [bodies.npy(images)]
    data = [base64.b64encode(each).decode() for each in contents]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(data), 1], "data": data}
    content = json.dumps({"inputs": [tensor]}).encode()
    return partial(http_client, port, "/v2/models/encoder/infer", {"Content-Type": "application/json"}, content)


def open_inference_grpc(
    is_raw: bool, workload: Workload, images: NDArray[np.uint8], port: int, grpc_port: int
) -> Connect:
    """Send a ModelInferRequest of the Open Inference Protocol, its tensor as raw bytes, or as contents where files are
    sent to a server that reads no raw bytes of them.
    """
    model, tensor, content = as_tensor(workload, images)
    if not is_raw:
        model = "encoder"
    shape = b"".join(map(_varint, tensor["shape"]))
    described = _field(1, tensor["name"].encode()) + _field(2, tensor["datatype"].encode()) + _field(3, shape)
    if workload.form == "png" and not is_raw:
        files = bodies.image_files(images).values()
        message = _field(1, model.encode()) + _field(
            5, described + _field(5, b"".join(_field(8, file) for file in files))
        )
    else:
        message = _field(1, model.encode()) + _field(5, described) + _field(7, content)
    return partial(grpc_client, grpc_port, "/inference.GRPCInferenceService/ModelInfer", message)


def as_tensor(workload: Workload, images: NDArray[np.uint8]) -> tuple[str, dict[str, object], bytes]:
    """Return the model's name, the tensor's description and its raw bytes."""
    if workload.form == "png":
        files = bodies.image_files(images).values()
        raw = b"".join(len(file).to_bytes(4, "little") + file for file in files)
        return "encoder_files", {"name": "images", "datatype": "BYTES", "shape": [len(images), 1]}, raw
    return "encoder", {"name": "images", "datatype": "UINT8", "shape": list(images.shape)}, images.tobytes()


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _python(name: str) -> Callable[[int, int, Path], list[str]]:
    return lambda port, grpc_port, scratch: [
        "python",
        str(APPS / name / "app.py"),
        str(port),
        str(grpc_port),
        str(scratch),
    ]


def _fastapi(port: int, grpc_port: int, scratch: Path) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    return ["uvicorn", "--app-dir", str(APPS / "fastapi"), "app:app", *options]


def _bentoml(port: int, grpc_port: int, scratch: Path) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(port)]
    return ["bentoml", "serve", "app:Peer", "--working-dir", str(APPS / "bentoml"), *options]


PEERS = {
    "fastapi": Peer(_fastapi, "/ready", {"HTTP": partial(http_way, "/encode", "/encode_files")}),
    "litserve": Peer(_python("litserve"), "/health", {"HTTP": partial(json_way, "/encode")}),
    "mlserver": Peer(
        _python("mlserver"),
        "/v2/health/ready",
        {"HTTP": open_inference_json, "gRPC": partial(open_inference_grpc, False)},
    ),
    "pytriton": Peer(
        _python("pytriton"),
        "/v2/models/encoder_files/ready",
        {"HTTP": open_inference_http, "gRPC": partial(open_inference_grpc, True)},
    ),
    "ray": Peer(_python("ray"), "/ready", {"HTTP": partial(http_way, "/", "/")}),
    "bentoml": Peer(_bentoml, "/readyz", {"HTTP": partial(http_way, "/encode", "/encode_files")}),
}
