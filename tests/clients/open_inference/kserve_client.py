"""Score the sample batch with KServe's InferenceRESTClient and InferenceGRPCClient, as JSON, bytes and contents.

    kserve_client.py HTTP GRPC TOKEN FOLDER MISFIT...

prints what went well, or ends with the first thing that did not.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from PIL import Image

http, grpc, token, folder, *misfits = sys.argv[1:]
paths = sorted(Path(folder).glob("*.png"))
images = np.stack([np.asarray(Image.open(path)) for path in paths])


def pixels(is_binary, **more):
    tensor = InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=is_binary)
    return InferRequest("misfit", [tensor], request_id="1", **more)


def files():
    tensor = InferInput("images", [len(paths)], "BYTES")
    tensor.set_data_from_numpy(np.array([path.read_bytes() for path in paths], dtype=object), binary_data=True)
    return InferRequest("misfit", [tensor])


def check(response):
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    found = {paths[row].name for row in np.argsort(outputs["rank"])[: len(misfits)]}
    assert found == set(misfits), found
    assert outputs["is_outlier"].sum() == len(misfits)


async def try_rest():
    client, base, headers = InferenceRESTClient(RESTConfig(protocol="v2")), f"http://{http}", bearer("Authorization")
    assert await client.is_server_live(base)
    assert await client.is_server_ready(base)
    assert await client.is_model_ready(base, "misfit", headers=headers)
    for request in (pixels(True), pixels(False), files(), pixels(True, parameters={"estimator": "robust"})):
        # A copy: the client adds the length of the request's JSON to the headers that it is given.
        check(await client.infer(base, request, model_name="misfit", headers=dict(headers)))
    told = "nothing"
    try:
        await client.infer(base, InferRequest("misfit", []), model_name="misfit", headers=headers)
    except httpx.HTTPStatusError as error:
        told = str(error)
    assert "has no input images" in told, told
    print("kserve's InferenceRESTClient")


async def try_grpc():
    client, headers = InferenceGRPCClient(grpc), list(bearer("authorization").items())
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("misfit", headers=headers)
    for request in (pixels(True), pixels(False), files()):
        check(await client.infer(request, headers=headers))
    await client.close()
    print("kserve's InferenceGRPCClient")


def bearer(name):
    return {name: f"Bearer {token}"}


asyncio.run(try_rest())
asyncio.run(try_grpc())
