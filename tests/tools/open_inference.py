"""Call a running service with the public clients of the Open Inference Protocol (`make open-inference`).

tritonclient (HTTP, gRPC, asyncio), KServe's REST and gRPC clients, MLServer's `infer` and curl each get the sample
batch, and must find the same misfits. The fields of the clients' own stubs are compared with
tests/data/open_inference. Last, requests of 350 images are timed, tritonclient's and our own gRPC's in turn.
"""

from __future__ import annotations

import base64
import hashlib
import json
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import calls
import numpy as np
import psutil
from PIL import Image
from serving import ROOT, Served, serve

from service.protos.misfit.v1 import misfit_pb2 as pb

CLIENTS = ROOT / "tests" / "clients" / "open_inference"
TRITON, KSERVE = ROOT / ".venv-mlserver" / "bin", ROOT / ".venv-kserve" / "bin"
STUBS = {"tritonclient.grpc.service_pb2": TRITON, "kserve.protocol.grpc.grpc_predict_v2_pb2": KSERVE}
# KServe's stubs are of a protocol without these kinds of parameters.
NOT_IN_KSERVE = {"double_param", "uint64_param"}
MISFITS = ("14.png", "35.png", "49.png", "58.png")
TOKEN = "a token of the clients"
TIMED_IMAGES, ROUNDS = 350, 20


def run(*command: str | Path) -> str:
    """Run a command, and return what it prints. Raise SystemExit with all that it printed where it fails."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:2]))} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
    return result.stdout


def compare_fields() -> None:
    """Compare the stubs of the public clients with what the tests hold our proto against."""
    published = json.loads((ROOT / "tests/data/open_inference/grpc.json").read_text())
    for module, tools in STUBS.items():
        theirs = json.loads(run(tools / "python", CLIENTS / "fields.py", module))
        for name, types in published["methods"].items():
            assert theirs["methods"][name] == types, name
        for name, fields in published["messages"].items():
            expected = {key: each for key, each in fields.items() if "kserve" not in module or key not in NOT_IN_KSERVE}
            assert theirs["messages"][name] == expected, name
    print("fields of the stubs of tritonclient and kserve")


def try_mlserver(served: Served, folder: Path) -> None:
    """Score files, as JSON and as bytes, and pixels, with MLServer's `infer`."""
    files = sorted(folder.glob("*.png"))
    texts = [base64.b64encode(file.read_bytes()).decode() for file in files]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    tensors = (
        {"datatype": "BYTES", "shape": [len(files)], "data": texts, "parameters": {"content_type": "base64"}},
        {"datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()},
    )
    lines, answers = folder / "requests.jsonl", folder / "answers.jsonl"
    lines.write_text("".join(json.dumps({"inputs": [{"name": "images", **each}]}) + "\n" for each in tensors))
    address = f"127.0.0.1:{served.port}"
    for flags in ([], ["--binary-data"]):
        files_in_and_out = ["--input-data-path", lines, "--output-data-path", answers]
        header = ["--request-headers", f"Authorization: Bearer {TOKEN}"]
        run(TRITON / "mlserver", "infer", "-u", address, "-m", "misfit", *files_in_and_out, *header, *flags)
        told = [json.loads(line) for line in answers.read_text().splitlines()]
        assert len(told) == len(tensors), told
        for answer in told:
            check_ranks(answer, [file.name for file in files])
    print("mlserver infer, JSON and bytes")


def try_curl(served: Served, folder: Path) -> None:
    """Send what the protocol's own examples show: a request with an id and one output, and a request for a picture."""
    files = sorted(folder.glob("*.png"))
    texts = [base64.b64encode(file.read_bytes()).decode() for file in files]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(files)], "data": texts}
    outputs = [{"name": "rank"}, {"name": "is_outlier"}]
    (folder / "request.json").write_text(json.dumps({"id": "42", "inputs": [tensor], "outputs": outputs}))
    curl = ["curl", "--silent", "--show-error", "--header", f"Authorization: Bearer {TOKEN}"]
    answer = json.loads(run(*curl, f"{served.url}/v2/models/misfit/infer", "--data", f"@{folder / 'request.json'}"))
    assert answer["id"] == "42"
    check_ranks(answer, [file.name for file in files])
    # The protocol's example of a request, which names tensors of another model.
    example = {
        "id": "42",
        "inputs": [
            {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
            {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True]},
        ],
        "outputs": [{"name": "output0"}],
    }
    told = json.loads(run(*curl, f"{served.url}/v2/models/misfit/infer", "--data", json.dumps(example)))
    assert told.keys() == {"error"}, told
    assert "takes 3 elements, but data holds 1" in told["error"], told
    print("curl")


def check_ranks(answer: dict[str, Any], names: Sequence[str]) -> None:
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert {names[row] for row in np.argsort(outputs["rank"])[: len(MISFITS)]} == set(MISFITS), outputs["rank"]
    assert sum(outputs["is_outlier"]) == len(MISFITS)


def cpu_seconds(served: Served) -> float:
    """The CPU that all processes of the service have taken."""
    processes = [psutil.Process(served.process.pid), *psutil.Process(served.process.pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def compare_rates(served: Served, arguments: Sequence[str | Path], folder: Path) -> None:
    """Time requests of TIMED_IMAGES images, in turn: tritonclient's over HTTP and gRPC, and our own gRPC's."""
    images = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])
    many = np.resize(images, (TIMED_IMAGES, *images.shape[1:]))
    command = [TRITON / "python", CLIENTS / "triton_client.py", *arguments, "--rate", str(TIMED_IMAGES)]
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    seconds, metadata = [], (("authorization", f"Bearer {TOKEN}"),)
    with calls.stub(served.grpc_target) as stub:
        for _ in range(ROUNDS + 2):
            started = time.perf_counter()
            stub.Score(pb.ScoreRequest(images=calls.tensor(many)), metadata=metadata)
            own = time.perf_counter() - started
            process.stdin.write("\n")
            process.stdin.flush()
            seconds.append((own, *map(float, process.stdout.readline().split())))
    process.stdin.close()
    process.wait()
    own, http, triton = (statistics.median(column) for column in zip(*seconds[2:], strict=True))
    ratios = [tuple(row[0] / each for each in row[1:]) for row in seconds[2:]]
    over_http, over_grpc = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"{TIMED_IMAGES} images: own gRPC {own:.3f} s, tritonclient over HTTP {http:.3f} s, over gRPC {triton:.3f} s")
    print(f"rate of tritonclient, of our own gRPC's: over HTTP {over_http:.2f}, over gRPC {over_grpc:.2f}")


def main() -> None:
    compare_fields()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        with zipfile.ZipFile(ROOT / "tests/data/shapes3d_batch.zip") as batch:
            batch.extractall(folder, [name for name in batch.namelist() if name.endswith(".png")])
        tokens = folder / "tokens"
        tokens.write_text(hashlib.sha256(TOKEN.encode()).hexdigest())
        with serve(folder / "log", {"MISFIT_TOKENS_FILE": str(tokens)}) as served:
            arguments = [f"127.0.0.1:{served.port}", served.grpc_target, TOKEN, folder]
            for tools, program in ((TRITON, "triton_client.py"), (KSERVE, "kserve_client.py")):
                print(run(tools / "python", CLIENTS / program, *arguments, *MISFITS), end="")
            try_mlserver(served, folder)
            try_curl(served, folder)
            compare_rates(served, arguments, folder)


if __name__ == "__main__":
    main()
