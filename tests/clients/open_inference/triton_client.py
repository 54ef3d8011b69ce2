"""Score the sample batch with tritonclient: HTTP, gRPC and asyncio, pixels and files, JSON and bytes.

    triton_client.py HTTP GRPC TOKEN FOLDER MISFIT...

prints what went well, or ends with the first thing that did not. `--rate N` times requests of N images: for each line
of standard input, one request each over HTTP and gRPC, whose seconds are printed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from PIL import Image
from tritonclient.utils import InferenceServerException

http, grpc, token, folder, *misfits = sys.argv[1:6] if "--rate" in sys.argv else sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"}
metadata = {"authorization": f"Bearer {token}"}  # gRPC takes lower case only
paths = sorted(Path(folder).glob("*.png"))
files = np.array([path.read_bytes() for path in paths], dtype=object)
images = np.stack([np.asarray(Image.open(path)) for path in paths])


def pixels(module, array=images, **options):
    tensor = module.InferInput("images", array.shape, "UINT8")
    tensor.set_data_from_numpy(array, **options)
    return [tensor]


def encoded(module, contents=files):
    tensor = module.InferInput("images", contents.shape, "BYTES")
    tensor.set_data_from_numpy(contents)
    return [tensor]


def check(result):
    ranks = result.as_numpy("rank")
    found = {paths[row].name for row in np.argsort(ranks)[: len(misfits)]}
    assert found == set(misfits), found
    assert result.as_numpy("is_outlier").sum() == len(misfits)


def check_refused(text, call, *arguments, **more):
    told = "nothing"
    try:
        call(*arguments, **more)
    except InferenceServerException as error:
        told = str(error)
    assert text in told, told


def try_client(module, address, sent):
    client = module.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    check_refused("no bearer token", client.get_model_metadata, "misfit")
    assert client.is_model_ready("misfit", headers=sent)
    assert client.get_server_metadata(headers=sent)
    assert client.get_model_metadata("encoder", headers=sent)
    check(client.infer("misfit", pixels(module), headers=sent))
    check(client.infer("misfit", encoded(module), headers=sent, request_id="1", parameters={"estimator": "robust"}))
    spoiled = np.append(files, np.array([b"no image"], dtype=object))
    outputs = [module.InferRequestedOutput(name) for name in ("rank", "is_outlier", "reason", "error")]
    result = client.infer("misfit", encoded(module, spoiled), outputs=outputs, headers=sent)
    check(result)
    assert result.as_numpy("error")[-1].startswith(b"undecodable_image")
    means = client.infer("encoder", pixels(module), headers=sent).as_numpy("mean")[:5]
    latents = module.InferInput("latents", means.shape, "FP32")
    latents.set_data_from_numpy(means)
    drawn = client.infer("decoder", [latents], headers=sent).as_numpy("images")
    assert np.abs(drawn.astype(int) - images[:5]).mean() < 10
    wrong = module.InferInput("images", [60, 64, 64, 5], "UINT8")
    wrong.set_data_from_numpy(np.zeros((60, 64, 64, 5), dtype=np.uint8))
    for model, tensors, text in (("misfit", [wrong], "1 to 4 channels"), ("nothing", [wrong], "There is no ")):
        check_refused(text, client.infer, model, tensors, headers=sent)
    return client


async def try_asyncio(module, address, sent):
    async with module.InferenceServerClient(address) as client:
        for result in await asyncio.gather(*(client.infer("misfit", pixels(module), headers=sent) for _ in range(4))):
            check(result)


def time_requests(count):
    many = np.resize(images, (count, *images.shape[1:]))
    clients = [
        (module, module.InferenceServerClient(address), sent)
        for module, address, sent in ((tritonclient.http, http, headers), (tritonclient.grpc, grpc, metadata))
    ]
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = []
        for module, client, sent in clients:
            started = time.perf_counter()
            client.infer("misfit", pixels(module, many), headers=sent)
            seconds.append(time.perf_counter() - started)
        print(*seconds, flush=True)


if "--rate" in sys.argv:
    time_requests(int(sys.argv[-1]))
    raise SystemExit
over_http = try_client(tritonclient.http, http, headers)
some = pixels(tritonclient.http, images, binary_data=False)
outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=False) for name in ("rank", "is_outlier")]
# A copy: the client has added the length of another request's JSON to the headers that it was given.
check(over_http.infer("misfit", some, outputs=outputs, headers={"Authorization": headers["Authorization"]}))
print("tritonclient over HTTP")
try_client(tritonclient.grpc, grpc, metadata)
print("tritonclient over gRPC")
asyncio.run(try_asyncio(tritonclient.http.aio, http, headers))
asyncio.run(try_asyncio(tritonclient.grpc.aio, grpc, metadata))
print("tritonclient with asyncio, both")
