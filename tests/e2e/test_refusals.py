"""Broken and excessive requests: each a clear refusal or an item's own error, and the next request is served."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bodies
import numpy as np
import psutil
import pytest
from PIL import Image

MIB = 1024 * 1024
PIXELS = np.zeros((1, 64, 64, 3), dtype=np.uint8)
PNG = bodies.encoded(PIXELS[0])


def huge_png() -> bytes:
    """A complete PNG of 20,000 x 20,000 black pixels in 50 kB."""
    import io

    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def form(*contents: bytes) -> bodies.Body:
    return bodies.as_form([("images", f"{number}.png", content) for number, content in enumerate(contents)])


REFUSED = {
    "0 images": (lambda: bodies.as_form([]), 400, "invalid_input"),
    "0 rows": (lambda: bodies.as_npy(PIXELS[:0]), 400, "invalid_input"),
    "empty body": (lambda: ("application/x-npy", b""), 400, "invalid_input"),
    "only a truncated PNG": (lambda: form(PNG[:60]), 422, "undecodable_image"),
    "only text named .png": (lambda: form(b"hello"), 422, "undecodable_image"),
    "wrong rank": (lambda: ("application/x-npy", bodies.npy(PIXELS[0, 0])), 422, "shape_mismatch"),
    "complex npy": (lambda: ("application/x-npy", bodies.npy(PIXELS * 1j)), 422, "shape_mismatch"),
    "object npy": (lambda: ("application/x-npy", bodies.npy(np.array([{}], dtype=object))), 422, "shape_mismatch"),
    "truncated npy": (lambda: ("application/x-npy", bodies.npy(PIXELS)[:-9]), 400, "invalid_input"),
    "zip bomb": (lambda: bodies.as_zip({"a.png": bytes(300 * MIB)}), 413, "too_large"),
    "zip of many": (lambda: bodies.as_zip({str(i): b"" for i in range(5000)}), 413, "too_many_images"),
    "no zip": (lambda: ("application/zip", b"hello"), 400, "invalid_input"),
    "no tar": (lambda: ("application/x-tar", b"hello"), 400, "invalid_input"),
    "huge PNG": (lambda: form(huge_png()), 413, "too_large"),
    "too many rows": (lambda: bodies.as_npy(np.zeros((1601, 8, 8, 3), dtype=np.uint8)), 413, "too_many_images"),
    "too many files": (lambda: form(*[b"x"] * 1602), 413, "too_many_images"),
    "no JSON": (lambda: ("application/json", b"hello"), 400, "invalid_input"),
    "other JSON": (lambda: ("application/json", b'{"image": []}'), 400, "invalid_input"),
    "deep JSON": (lambda: ("application/json", b"[" * 100_000), 400, "invalid_input"),
    "only a URL": (lambda: bodies.as_form([("images", None, b"http://127.0.0.1/a.png")]), 422, "undecodable_image"),
    "cut form": (lambda: (form(PNG)[0], form(PNG)[1][:-10]), 400, "invalid_input"),
    "no boundary": (lambda: ("multipart/form-data", b"abc"), 400, "invalid_input"),
    "other field": (lambda: bodies.as_form([("file", "a.png", PNG)]), 400, "invalid_input"),
    "unknown option": (
        lambda: bodies.as_form([("images", "a.png", PNG), ("options", None, b'{"estimatr": 1}')]),
        400,
        "invalid_option",
    ),
    "options no JSON": (
        lambda: bodies.as_form([("images", "a.png", PNG), ("options", None, b"robust")]),
        400,
        "invalid_option",
    ),
    "other type": (lambda: ("text/plain", b"hello"), 415, "unsupported_media_type"),
    "pickle": (lambda: ("application/vnd.bentoml+pickle", b"hello"), 415, "unsupported_media_type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_as_a_whole_is_refused(post, case):
    make_body, status, code = REFUSED[case]
    answer = post(make_body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert post(bodies.as_npy(PIXELS)).status_code == 200


def test_what_is_wrong_with_one_image_fails_it_alone(post, images):
    good = [bodies.encoded(image) for image in images[:10]]
    bad = [PNG[:60], b"hello", huge_png(), b""]
    answer = post(form(*good[:5], *bad, *good[5:]))
    assert answer.status_code == 200
    items = answer.json()["items"]
    codes = [item["error"]["code"] for item in items[5:9]]
    assert codes == ["undecodable_image", "undecodable_image", "too_large", "undecodable_image"]
    assert all(item["error"]["hint"] for item in items[5:9])
    assert all("error" not in item for item in items[:5] + items[9:])
    alone = post(form(*good)).json()
    assert alone["context"] == answer.json()["context"]
    assert [item["outlier_score"] for item in alone["items"]] == [
        item["outlier_score"] for item in items[:5] + items[9:]
    ]


def test_1500_files_in_one_form(post):
    answer = post(form(*[PNG] * 1500))
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 1500


def test_a_body_announced_too_large_is_refused_before_it_comes(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nContent-Length: 314572800\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_300_mib_is_refused(client, post, announced):
    """Sent in full, with and without a Content-Length, by a client that sends before it reads."""
    headers = {"Content-Type": "application/x-npy"}
    if announced:
        headers["Content-Length"] = str(300 * MIB)
    answer = client.post("/score", content=(bytes(MIB) for _ in range(300)), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert post(bodies.as_npy(PIXELS)).status_code == 200


def test_more_rows_than_may_be_in_flight_are_refused_until_there_is_room(post):
    large = bodies.as_npy(np.zeros((1500, 64, 64, 3), dtype=np.uint8))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, [large] * 4))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = answers[statuses.index(429)]
    assert refused.json()["error"]["code"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert post(large).status_code == 200


def test_rows_of_a_client_that_went_away_are_freed(served, post):
    content_type, content = bodies.as_npy(np.zeros((1500, 64, 64, 3), dtype=np.uint8))
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n".encode())
        connection.sendall(f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
    deadline = time.monotonic() + 60
    while post((content_type, content)).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/score", 405), ("GET", "/nowhere", 404)])
def test_what_bentoml_refuses_has_our_error_body(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error", "request_id"}


def api_workers(served):
    children = psutil.Process(served.process.pid).children(recursive=True)
    return [process for process in children if "Inference" not in process.cmdline()]


@pytest.fixture(scope="module", autouse=True)
def _peak_of_this_module(served):
    """What other modules sent to the same service is not counted."""
    for process in api_workers(served):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def test_nothing_above_has_made_memory_grow_without_bound(served):
    """Runs last in this module: the peak after every excess, of the process that took them."""
    for process in api_workers(served):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
        assert peak < 1600 * MIB, json.dumps({"peak MiB": peak // MIB})
