"""Several bundles in one service: each answers as it does alone, under its own name, over every transport."""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import calls
import grpc
import httpx
import numpy as np
import pytest
from bodies import as_npy
from serving import serve

from service.api.options import ScoreOptions
from service.api.requests import RequestBuilder
from service.bundle import store
from service.inference.local import LocalNetworks
from service.pipeline.pipeline import Pipeline
from service.protos.inference import open_inference_pb2 as v2
from service.protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings, find_bundle

OTHER, CLIENTS = "dsprites", 32
SETTINGS = {"MISFIT_BUNDLES": f"{OTHER},again=shapes3d", "MISFIT_BUNDLE_LIMITS": '{"again": {"max_images": 30}}'}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("bundles") / "log", SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served.url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        yield client


def batch(bundle: str, seed: int) -> np.ndarray:
    """A batch of images that the bundle decodes from its population, uint8 (n, H, W, C)."""
    loaded = store.load(find_bundle(bundle))
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(12 + seed, loaded.manifest.latent_dim)).astype(np.float32)
    return asyncio.run(LocalNetworks(loaded).decode(latents))


@pytest.fixture(scope="module")
def batches():
    return {bundle: [batch(bundle, seed) for seed in range(4)] for bundle in ("shapes3d", OTHER)}


def alone(bundle: str, images: np.ndarray) -> dict:
    """The answer of /score from a pipeline that has only this bundle."""
    loaded, settings = store.load(find_bundle(bundle)), Settings()
    builder = RequestBuilder(settings, images.nbytes)
    for place, pixels in enumerate(images):
        builder.add_image("images", pixels, str(place))
    answer = asyncio.run(Pipeline(loaded, LocalNetworks(loaded), settings).score(builder.build(ScoreOptions)))
    return json.loads(answer.whole().model_dump_json(exclude_unset=True))


def score(client: httpx.Client, path: str, images: np.ndarray) -> dict:
    content_type, body = as_npy(images)
    response = client.post(f"{path}/score", content=body, headers={"Content-Type": content_type})
    assert response.status_code == 200, response.text
    return response.json()


def test_mixed_clients_are_answered_as_each_bundle_alone_does(client, batches):
    expected = {
        (path, place): alone(bundle, images)
        for path, bundle in (("", "shapes3d"), (f"/models/{OTHER}", OTHER))
        for place, images in enumerate(batches[bundle])
    }
    jobs = [("", "shapes3d", place % 4) for place in range(CLIENTS // 2)]
    jobs += [(f"/models/{OTHER}", OTHER, place % 4) for place in range(CLIENTS // 2)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda job: score(client, job[0], batches[job[1]][job[2]]), jobs))
    for (path, _, place), answer in zip(jobs, answers, strict=True):
        assert answer == expected[path, place]


def test_the_name_chooses_over_every_transport(served, client, batches):
    ids = {name: store.load(find_bundle(name)).manifest.bundle_id for name in ("shapes3d", OTHER)}
    assert client.post("/describe").json()["bundle_id"] == ids["shapes3d"]
    assert client.post("/models/again/describe").json()["bundle_id"] == ids["shapes3d"]
    assert client.post(f"/models/{OTHER}/describe").json()["bundle_id"] == ids[OTHER]
    images = batches[OTHER][0]
    by_http = score(client, f"/models/{OTHER}", images)
    with calls.stub(served.grpc_target) as stub:
        assert stub.Describe(pb.DescribeRequest()).bundle_id == ids["shapes3d"]
        request, chosen = pb.ScoreRequest(images=calls.tensor(images)), (("misfit-bundle", OTHER),)
        by_grpc = stub.Score(request, metadata=chosen)
        assert [item.outlier_score for item in by_grpc.items] == [each["outlier_score"] for each in by_http["items"]]
        with pytest.raises(grpc.RpcError, match="which is no bundle of this service") as refused:
            stub.Score(request, metadata=(("misfit-bundle", "nothing"),))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    described = client.get(f"/v2/models/misfit-{OTHER}").json()
    assert described["versions"] == [ids[OTHER]]
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    with grpc.insecure_channel(served.grpc_target) as channel:
        message = v2.ModelInferRequest(model_name=f"misfit-{OTHER}", inputs=[tensor])
        message.raw_input_contents.append(images.tobytes())
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message)
    scores = np.frombuffer(answer.raw_output_contents[0], dtype="<f8")
    assert scores.tolist() == [each["outlier_score"] for each in by_http["items"]]
    assert client.post("/models/nothing/score").status_code == 404


def test_a_context_is_of_one_bundle(client, batches):
    content_type, body = as_npy(batches[OTHER][1])
    headers = {"Content-Type": content_type}
    context = client.post(f"/models/{OTHER}/fit", content=body, headers=headers).json()["context"]
    files = [base64.b64encode(b"nothing").decode()]
    refused = client.post("/score", json={"images": files, "context": context})
    assert refused.status_code == 400
    assert "bundle" in refused.json()["error"]["message"]


def test_metrics_of_further_bundles_have_its_name(client):
    lines = client.get("/metrics").text.splitlines()
    scored = dict(line.split() for line in lines if line.startswith("misfit_images_scored_total"))
    assert float(scored["misfit_images_scored_total"]) > 0
    assert float(scored[f'misfit_images_scored_total{{bundle="{OTHER}"}}']) > 0
    assert any(line.startswith(f'misfit_drift_requests{{bundle="{OTHER}"') for line in lines)
    assert sum(line.startswith("misfit_info{") for line in lines) == 3


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"MISFIT_BUNDLES": "nothing"}, "nothing/manifest.json cannot be read"),
        ({"MISFIT_BUNDLES": "dsprites", "MISFIT_INFERENCE_PROCESS": "own"}, "needs the networks in the API's process"),
    ],
)
def test_what_cannot_be_served_is_told_at_start(tmp_path, settings, text):
    with pytest.raises((TimeoutError, subprocess.SubprocessError), match=text), serve(tmp_path / "log", settings):
        pass


def test_a_bundle_is_changed_with_no_request_lost(tmp_path, batches):
    """As a rolling update does it: the new pod gets ready, requests go there, and the old one finishes what it has."""
    content_type, body = as_npy(batches["shapes3d"][0])
    headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
    answers: queue.Queue[tuple[int, str]] = queue.Queue()
    with serve(tmp_path / "old", {"MISFIT_BUNDLE": "shapes3d"}) as old:
        address, is_over = [old.url], threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=120) as client:
                while not is_over.is_set():
                    response = client.post(f"{address[0]}/score", content=body, headers=headers)
                    answers.put((response.status_code, response.json().get("bundle_id", "")))

        with ThreadPoolExecutor(4) as pool, serve(tmp_path / "new", {"MISFIT_BUNDLE": OTHER}) as new:
            asking = [pool.submit(ask) for _ in range(4)]
            seen = [answers.get(timeout=120) for _ in range(8)]
            late = HTTPConnection("127.0.0.1", old.port, timeout=120)
            late.putrequest("POST", "/score")
            for name, value in headers.items():
                late.putheader(name, value)
            late.endheaders(body[:-1])
            while old.in_flight("bytes") < len(body) - 1:
                pass
            address[0] = new.url
            ids = store.load(find_bundle(OTHER)).manifest.bundle_id
            while sum(id_ == ids for _, id_ in seen) < 20:  # the pause before the end of a pod
                seen.append(answers.get(timeout=120))
            old.process.terminate()
            late.send(body[-1:])
            response = late.getresponse()
            assert (response.status, len(json.loads(response.read())["items"])) == (200, len(batches["shapes3d"][0]))
            late.close()
            assert old.process.wait(60) == 0
            is_over.set()
            for each in asking:
                each.result()
    assert {status for status, _ in seen} == {200}
    assert all(status == 200 for status, _ in answers.queue)
    assert len({id_ for _, id_ in seen}) == 2


def test_a_bundle_has_limits_of_its_own(client, served):
    content_type, body = as_npy(np.zeros((31, 64, 64, 3), dtype=np.uint8))
    answers = {
        path: client.post(f"{path}/encode", content=body, headers={"Content-Type": content_type})
        for path in ("", "/models/again")
    }
    assert answers[""].status_code == 200
    error = answers["/models/again"].json()["error"]
    assert (answers["/models/again"].status_code, error["code"]) == (413, "too_many_images")
    assert "30" in error["message"]
    assert client.post("/models/again/describe").json()["limits"]["max_images"] == 30
    with calls.stub(served.grpc_target) as stub:
        described = stub.Describe(pb.DescribeRequest(), metadata=[("misfit-bundle", "again")])
    assert described.limits.max_images == 30
