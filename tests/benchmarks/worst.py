"""The most memory that permitted requests take: the worst one of every endpoint, alone and as many as are let in.

    python tests/benchmarks/worst.py [--only explain] [--images 10000]

Each request has a service of its own, which is warmed up first; what it then takes when idle is what peaks are over. A
peak is the sum of the highest resident sizes of all its processes. "At once" sends as many as AT_ONCE; those that are
refused (429, RESOURCE_EXHAUSTED) are counted. Without the check for foreign images, which takes time and 16 bytes an
image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "support"))
import calls
from bodies import Body, encoded, npy, zipped
from grpc_soak import Watch, chunks
from serving import Served, serve
from sizing import MIB, frames

from service.bundle import store
from service.protos.inference import open_inference_pb2 as inference_pb
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.open_inference.codec import MOST_ELEMENTS

AT_ONCE = 4
PICTURES = 1000
PIECE = 1 << 16
Sent = tuple[int, int, bool]  # bytes sent, bytes answered, whether it was let in


@dataclass(frozen=True)
class Case:
    """A request: what it is called, and what sends it."""

    name: str
    send: Callable[[Served], Sent]


def http(name: str, path: str, body: Body, accept: str = "*/*", **headers: str) -> Case:
    def send(served: Served) -> Sent:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=900)
        connection.request("POST", path, body[1], {"Content-Type": body[0], "Accept": accept, **headers})
        response = connection.getresponse()
        answered, first = 0, b""
        while piece := response.read(PIECE):
            first, answered = first or piece, answered + len(piece)
        connection.close()
        if response.status not in (200, 429):
            raise RuntimeError(f"{name}: {response.status} {first[:1000]!r}")
        return len(body[1]), answered, response.status == 200

    return Case(name, send)


def infer(name: str, model: str, inputs: dict[str, NDArray[Any]], parameters: dict[str, object], form: str) -> Case:
    """A request of the Open Inference Protocol: tensors as "binary" behind the JSON, as "json", or over "grpc"."""
    datatypes = {"uint8": "UINT8", "float32": "FP32"}
    tensors = [
        {"name": key, "datatype": datatypes[each.dtype.name], "shape": each.shape} for key, each in inputs.items()
    ]
    if form == "grpc":
        message = inference_pb.ModelInferRequest(
            model_name=model, raw_input_contents=[a.tobytes() for a in inputs.values()]
        )
        for tensor in tensors:
            message.inputs.add(**tensor)
        for key, value in parameters.items():
            field = {bool: "bool_param", str: "string_param", int: "int64_param"}[type(value)]
            message.parameters[key].CopyFrom(inference_pb.InferParameter(**{field: value}))
        return unary("ModelInfer", message.SerializeToString(), name, "inference.GRPCInferenceService")
    for tensor, array in zip(tensors, inputs.values(), strict=True):
        if form == "binary":
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.reshape(-1).tolist()
    head = json.dumps(
        {"inputs": tensors, "parameters": {**parameters, "binary_data_output": form == "binary"}}
    ).encode()
    content, headers = head, {}
    if form == "binary":
        content += b"".join(array.tobytes() for array in inputs.values())
        headers = {"Inference-Header-Content-Length": str(len(head))}
    return http(name, f"/v2/models/{model}/infer", ("application/json", content), **headers)


def unary(method: str, message: bytes, name: str, service: str = "misfit.v1.MisfitService") -> Case:
    def send(served: Served) -> Sent:
        options = (*calls.UNLIMITED, ("grpc.use_local_subchannel_pool", 1))
        with grpc.insecure_channel(served.grpc_target, options) as channel:
            try:
                answer = channel.unary_unary(f"/{service}/{method}")(message, timeout=900)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return len(message), 0, False
            return len(message), len(answer), True

    return Case(name, send)


def stream(images: int) -> Case:
    options = pb.ScoreOptions(foreign=pb.FOREIGN_OFF, attributions=pb.ATTRIBUTIONS_ALL)

    def messages() -> Iterator[pb.ScoreStreamRequest]:
        for number, chunk in enumerate(chunks(images, 500)):
            if number == 0:
                chunk.options.CopyFrom(options)
            yield chunk

    def send(served: Served) -> Sent:
        with calls.stub(served.grpc_target) as stub:
            answered = sum(piece.ByteSize() for piece in stub.ScoreStream(messages(), timeout=900))
        return images * 64 * 64 * 3, answered, True

    return Case(f"gRPC ScoreStream of {images}, attributions=all", send)


def cases(count: int) -> Iterator[Callable[[], Case]]:
    """Makes of cases: their bodies are large, and each is made when it is its turn."""
    latent_dim = store.load(Settings().bundle_directory).manifest.latent_dim
    all_flagged = "foreign=off&attributions=all&interactions=true&threshold=0&top=100"
    which = ",".join(map(str, range(min(PICTURES, count))))

    def images() -> Body:
        return "application/x-npy", npy(frames(count))

    def large() -> Body:
        side = int((Settings().max_body_bytes / count / 3) ** 0.5) - 1
        return "application/x-npy", npy(np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8))

    def files() -> Body:
        return "application/zip", zipped({f"{n:05}.png": encoded(i) for n, i in enumerate(frames(count))}, 0)

    def latents() -> Body:
        return "application/x-npy", npy(np.random.default_rng(0).normal(size=(PICTURES, latent_dim)))

    def message(kind: type, **options: object) -> bytes:
        content: bytes = kind(images=calls.tensor(frames(count)), **options).SerializeToString()
        return content

    yield lambda: http("/score attributions=all", "/score?foreign=off&attributions=all", images())
    yield lambda: http("/score attributions=all, mcd", "/score?foreign=off&attributions=all&estimator=mcd", images())
    yield lambda: http("/score, the largest body", "/score?foreign=off", large())
    yield lambda: http("/score attributions=all, zip of PNG", "/score?foreign=off&attributions=all", files())
    yield lambda: http("/explain everything, all flagged", f"/explain?{all_flagged}", images())
    yield lambda: http("/explain the same, top=1", f"/explain?{all_flagged[:-2]}", images())
    yield lambda: http("/explain the same, as zip", f"/explain?{all_flagged}", images(), "application/zip")
    yield lambda: http("/explain the same, as sheet", f"/explain?{all_flagged}", images(), "image/png")
    yield lambda: http("/fit", "/fit?foreign=off", images())
    yield lambda: http("/encode", "/encode", images())
    yield lambda: http("/edit 1000", f"/edit?foreign=off&which={which}", images())
    yield lambda: http("/edit 1000, as sheet", f"/edit?foreign=off&which={which}", images(), "image/png")
    yield lambda: http("/edit 1000, as zip", f"/edit?foreign=off&which={which}", images(), "application/zip")
    yield lambda: http("/traverse 1000", "/traverse?foreign=off&steps=1000&latents=0", images())
    yield lambda: http("/interpolate 1000, as sheet", "/interpolate?foreign=off&frames=1000", images(), "image/png")
    yield lambda: http("/sample 1000", "/sample?foreign=off&count=1000", images())
    yield lambda: http("/decode 1000", "/decode", latents())
    explain = pb.ExplainOptions(foreign=pb.FOREIGN_OFF, interactions=True, threshold=0, top=100)
    attributions = pb.ScoreOptions(foreign=pb.FOREIGN_OFF, attributions=pb.ATTRIBUTIONS_ALL)
    yield lambda: unary("Score", message(pb.ScoreRequest, options=attributions), "gRPC Score attributions=all")
    yield lambda: unary("Explain", message(pb.ExplainRequest, options=explain), "gRPC Explain everything, all flagged")
    edit = pb.EditOptions(foreign=pb.FOREIGN_OFF, which=which.split(","))
    yield lambda: unary("Edit", message(pb.EditRequest, options=edit), "gRPC Edit 1000")
    yield lambda: unary("Encode", message(pb.EncodeRequest), "gRPC Encode")
    yield lambda: stream(10 * count)
    scored = {"foreign": "off", "attributions": "all", "nearest": 10}
    drawn = np.random.default_rng(0).normal(size=(PICTURES, latent_dim)).astype(np.float32)
    # As JSON an image is so many numbers that a request has few of them.
    few = MOST_ELEMENTS * Settings().max_values // (64 * 64 * 3)
    for form in ("binary", "grpc"):
        yield partial(_infer_frames, f"/v2 misfit, {form}", "misfit", count, scored, form)
        yield partial(_infer_frames, f"/v2 encoder, {form}", "encoder", count, {}, form)
        yield partial(infer, f"/v2 decoder 1000, {form}", "decoder", {"latents": drawn}, {}, form)
    yield partial(_infer_frames, f"/v2 misfit of {min(few, count)}, json", "misfit", min(few, count), scored, "json")
    yield partial(infer, "/v2 decoder 1000, json", "decoder", {"latents": drawn}, {}, "json")


def _infer_frames(name: str, model: str, count: int, parameters: dict[str, object], form: str) -> Case:
    return infer(name, model, {"images": frames(count)}, parameters, form)


def measure(served: Served, case: Case, at_once: int) -> tuple[list[Sent], float, float]:
    """Send `at_once` requests at a time: what became of them, the peak of all processes in MiB, and the seconds."""
    watch, began = Watch(psutil.Process(served.process.pid).children(recursive=True)), time.perf_counter()
    try:
        with ThreadPoolExecutor(at_once) as pool:
            outcomes = list(pool.map(lambda _: case.send(served), range(at_once)))
    finally:
        watch.stop()
    return outcomes, sum(watch.highest) / MIB, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="images in one request")
    parser.add_argument("--only", default="", help="requests whose name has this in it")
    parser.add_argument("--alone", action="store_true", help="leave out several at once")
    arguments = parser.parse_args()
    print(f"{'request':38} {'at once':>8} {'let in':>7} {'sent MiB':>9} {'answer MiB':>11} {'over idle':>10} {'s':>6}")
    warm = http("warm", "/explain", ("application/x-npy", npy(frames(500))))
    for make in cases(arguments.images):
        case = make()
        if arguments.only not in case.name:
            continue
        with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "log") as served:
            warm.send(served)
            processes = psutil.Process(served.process.pid).children(recursive=True)
            idle = sum(process.memory_info().rss for process in processes) / MIB
            for at_once in (1,) if arguments.alone else (1, AT_ONCE):
                outcomes, peak, seconds = measure(served, case, at_once)
                let_in = [outcome for outcome in outcomes if outcome[2]]
                answered = max((outcome[1] for outcome in let_in), default=0)
                print(
                    f"{case.name:38} {at_once:8} {len(let_in):7} {outcomes[0][0] / MIB:9.1f} "
                    f"{answered / MIB:11.1f} {peak - idle:10.0f} {seconds:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
