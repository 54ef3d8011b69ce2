"""Spoiled images, bodies and messages by the thousand, against the real service: each is read, or refused as such."""

from __future__ import annotations

import random
import time
import zipfile
from collections import Counter
from pathlib import Path

import bodies
import calls
import grpc
import httpx
import malformed
import numpy as np
import psutil
import pytest
from serving import serve

from service.protos.misfit.v1 import misfit_pb2 as pb

SPOILED_IMAGES, SPOILED_BODIES, SPOILED_MESSAGES = 1500, 800, 400
IN_ONE_REQUEST = 50
ITEM_ERRORS = {"undecodable_image", "too_large"}
REFUSALS = {200, 400, 413, 415, 422}
STATUSES = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
CALL_SECONDS = 120
MOST_MEMORY = 600 * 1024 * 1024  # what the API worker's peak may gain


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("inputs") / "log") as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served.url, timeout=CALL_SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def files(images) -> list[bytes]:
    return malformed.image_files(images[0])


@pytest.fixture(autouse=True)
def _it_goes_on(served, client, images):
    """After each test the same processes answer as before, in as much memory."""
    api = served.worker("Misfit")
    good = bodies.as_npy(images)
    before = post(client, good).json()
    peak = peak_of(api)
    yield
    assert post(client, good).json() == before
    assert api.is_running()
    assert peak_of(api) < peak + MOST_MEMORY
    assert "failed\n" not in served.log.read_text()  # as every internal error is logged


def post(client: httpx.Client, body: bodies.Body) -> httpx.Response:
    return client.post("/score", content=body[1], headers={"Content-Type": body[0]})


def peak_of(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])


def test_spoiled_images_fail_alone(client, images, files, report):
    """Among good images, which get the very scores that they get without the bad ones."""
    chance, good = random.Random(1), [bodies.encoded(image) for image in images[:10]]
    errors: Counter[str] = Counter()
    lost, began = 0, time.perf_counter()
    for _ in range(SPOILED_IMAGES // IN_ONE_REQUEST):
        bad = [malformed.spoil(chance.choice(files), chance) for _ in range(IN_ONE_REQUEST)]
        answer = post(client, form_of([*good, *bad]))
        assert answer.status_code == 200
        items = answer.json()["items"]
        errors.update(item["error"]["code"] if item["status"] == "error" else "ok" for item in items[10:])
        readable = [content for content, item in zip(bad, items[10:], strict=True) if item["status"] == "ok"]
        alone = post(client, form_of([*good, *readable])).json()
        usable = [item for item in items if item["status"] == "ok"]
        lost += [item["outlier_score"] for item in usable] != [item["outlier_score"] for item in alone["items"]]
    seconds = time.perf_counter() - began
    assert errors.keys() <= ITEM_ERRORS | {"ok"}
    assert sum(errors.values()) == SPOILED_IMAGES
    report(
        fault="spoiled images among good ones",
        held=f"{errors['ok']} still readable, {SPOILED_IMAGES - errors['ok']} with an error of their own; "
        f"{SPOILED_IMAGES / seconds:.0f} images/s",
        answered=2 * SPOILED_IMAGES // IN_ONE_REQUEST,
        bad_inputs=SPOILED_IMAGES,
        lost=lost,
    )


def form_of(contents: list[bytes]) -> bodies.Body:
    return bodies.as_form([("images", str(number), content) for number, content in enumerate(contents)])


def test_spoiled_bodies_are_refused(client, images, files, report):
    chance, sound = random.Random(2), malformed.request_bodies(files[:3], images[:2])
    statuses: Counter[int] = Counter()
    for _ in range(SPOILED_BODIES):
        content_type, content = chance.choice(sound)
        answer = post(client, (content_type, malformed.spoil(content, chance)))
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]
        statuses[answer.status_code] += 1
    assert statuses.keys() <= REFUSALS, statuses
    report(
        fault="spoiled bodies in every wire format",
        held=", ".join(f"{count} times {status}" for status, count in sorted(statuses.items())),
        answered=statuses.pop(200, 0),
        refused=sum(statuses.values()),
        bad_inputs=SPOILED_BODIES,
    )


def test_spoiled_messages_are_refused(served, images, files, report):
    chance = random.Random(3)
    sound = [
        pb.ScoreRequest(images=calls.tensor(images[:2]), options=pb.ScoreOptions(threshold=0.25)),
        pb.ScoreRequest(images=calls.files(files[:3], ["a", "b", "c"]), reference=calls.tensor(images[:3])),
    ]
    statuses: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(served.grpc_target, calls.UNLIMITED) as channel:
        score = channel.unary_unary("/misfit.v1.MisfitService/Score")
        for _ in range(SPOILED_MESSAGES):
            message = malformed.spoil(chance.choice(sound).SerializeToString(), chance)
            call = score.future(message, timeout=CALL_SECONDS)
            if (error := call.exception()) is not None:
                assert calls.error_of(error)[1].message
            statuses[call.code()] += 1
    assert statuses.keys() <= STATUSES, statuses
    report(
        fault="spoiled gRPC messages",
        held=", ".join(f"{count} times {status.name}" for status, count in statuses.items()),
        answered=statuses.pop(grpc.StatusCode.OK, 0),
        refused=sum(statuses.values()),
        bad_inputs=SPOILED_MESSAGES,
    )


def test_what_is_made_to_unpack_large_takes_no_memory(client, report):
    """Small bodies that promise much: members, pixels and rows are counted before any is unpacked."""
    black = np.zeros((3000, 3000), dtype=np.uint8)
    bombs = {
        "300 MB in a zip": bodies.as_zip({"a.png": bytes(300_000_000)}),
        "a zip of 20,000 members": bodies.as_zip({f"{number}": b"" for number in range(20_000)}),
        "81 pictures of 9 megapixels": bodies.as_zip(dict.fromkeys(map(str, range(81)), bodies.encoded(black))),
        "3 pictures of 9 megapixels": bodies.as_zip(dict.fromkeys(map(str, range(3)), bodies.encoded(black))),
        "one picture of 100 megapixels": form_of([bodies.encoded(np.zeros((10_000, 10_000), dtype=np.uint8))]),
        "an npz of 300 MB": ("application/zip", zipped_rows(24_000)),
    }
    statuses = {name: post(client, body).status_code for name, body in bombs.items()}
    assert statuses == {
        "300 MB in a zip": 413,
        "a zip of 20,000 members": 413,
        "81 pictures of 9 megapixels": 413,
        "3 pictures of 9 megapixels": 200,
        "one picture of 100 megapixels": 413,
        "an npz of 300 MB": 413,
    }
    report(fault="zip and picture bombs", answered=1, refused=len(bombs) - 1, bad_inputs=len(bombs))


def zipped_rows(count: int) -> bytes:
    return bodies.zipped({"images.npy": bodies.npy(np.zeros((count, 64, 64, 3), dtype=np.uint8))}, zipfile.ZIP_DEFLATED)
