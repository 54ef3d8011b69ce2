"""Reasons, contexts and pictures over HTTP, on the sample batch: what its misfits are, why, and what mends them."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
import sys
import zipfile
from io import BytesIO

import bodies
import numpy as np
import pytest
from conftest import LATENT_DIM, SAMPLE_BATCH
from PIL import Image

ZIP = {"Content-Type": "application/zip"}
NPY = {"Content-Type": "application/x-npy"}


@pytest.fixture(scope="module")
def batch() -> bytes:
    return SAMPLE_BATCH.read_bytes()


@pytest.fixture(scope="module")
def hue_misfits() -> dict[str, list[str]]:
    """The misfits of the sample batch that differ in a hue, and what differs."""
    with SAMPLE_BATCH.with_suffix(".csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    normal = next(row for row in rows if row["misfit"] == "no")
    hues = ("object hue", "wall hue")
    return {
        row["file"]: changed
        for row in rows
        if row["misfit"] == "yes" and (changed := [hue for hue in hues if row[hue] != normal[hue]])
    }


@pytest.fixture(scope="module")
def ask(client):
    def ask(path, content, headers=ZIP, status=200, **query):
        response = client.post(path, content=content, headers=headers, params=query)
        assert response.status_code == status, response.text
        return response

    return ask


def picture_of(text: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(text))))


def test_the_reasons_name_what_was_changed(ask, batch, hue_misfits):
    items = {item["id"]: item for item in ask("/explain", batch, heat_maps="flagged").json()["items"]}
    for name, changed in hue_misfits.items():
        item = items[name]
        assert item["is_outlier"]
        assert set(changed) <= set(item["minimal_set"])
        assert item["attributions"][0]["latent"] in changed
        assert all(factor in item["reason"] for factor in changed)
        assert picture_of(item["heat_maps"][0]["image"]).shape == (64, 64, 3)
    assert all("heat_maps" not in item for item in items.values() if not item["is_outlier"])


def test_score_and_explain_agree(ask, batch):
    scored = ask("/score", batch, attributions="all").json()
    explained = ask("/explain", batch, heat_maps="none").json()
    for short, long in zip(scored["items"], explained["items"], strict=True):
        assert {name: long[name] for name in short} == short


def test_counterfactuals_are_back_inside(ask, batch, hue_misfits):
    answer = ask("/edit", batch).json()
    pictures = {picture["id"]: picture for picture in answer["pictures"]}
    for name, changed in hue_misfits.items():
        picture = pictures[name]
        assert set(changed) <= set(picture["changed"])
        assert picture["inside"]
        assert picture["mahalanobis_squared"]["before"] > picture["mahalanobis_squared"]["reencoded"]
        assert picture_of(picture["image"]).shape == (64, 64, 3)


def test_pictures_come_as_a_sheet_and_as_files(ask, batch):
    sheet = ask("/edit", batch, ZIP | {"Accept": "image/png"})
    assert sheet.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(sheet.content)).height > 64
    files = ask("/edit", batch, ZIP | {"Accept": "application/zip"})
    with zipfile.ZipFile(BytesIO(files.content)) as archive:
        answer = json.loads(archive.read("answer.json"))
        assert len(archive.namelist()) == len(answer["pictures"]) + 1


def test_a_context_travels(ask, batch, images):
    fitted = ask("/fit", batch).json()["context"]
    few = base64.b64encode(bodies.encoded(images[0])).decode()
    for path, options in (("/score", {}), ("/explain", {}), ("/edit", {"which": "all"}), ("/sample", {})):
        body = json.dumps({"images": [few], "context": fitted, "options": options}).encode()
        answer = ask(path, body, {"Content-Type": "application/json"}).json()
        assert (answer["context"]["source"], answer["context"]["size"]) == ("reference", fitted["size"])
    form = bodies.as_form(
        [("images", "a.png", bodies.encoded(images[0])), ("context", None, json.dumps(fitted).encode())]
    )
    by_form = ask("/score", form[1], {"Content-Type": form[0]}).json()["items"][0]
    archive = bodies.as_zip({"0.png": bodies.encoded(images[0]), "context.json": json.dumps(fitted).encode()})
    by_zip = ask("/score", archive[1]).json()["items"][0]
    assert by_form["outlier_score"] == by_zip["outlier_score"]


def test_a_spoilt_context_is_refused(ask, batch, images):
    fitted = ask("/fit", batch).json()["context"]
    few = base64.b64encode(bodies.encoded(images[0])).decode()
    nan = {"location": [float("nan"), *fitted["location"][1:]]}
    for change in (
        {"bundle_id": "0" * 64},
        {"covariance": np.zeros((LATENT_DIM, LATENT_DIM)).tolist()},
        {"size": -1},
        nan,
    ):
        body = json.dumps({"images": [few], "context": fitted | change}).encode()
        error = ask("/score", body, {"Content-Type": "application/json"}, 400).json()["error"]
        assert error["code"] == "invalid_input"
        assert error["hint"]


def test_pictures_of_every_kind(ask, batch, images):
    latents = "object hue,scale"
    assert len(ask("/traverse", batch, latents=latents, steps=3).json()["pictures"]) == 6
    terms = ask("/score", batch, attributions="all").json()["items"][0]["attributions"]
    live = [term["latent"] for term in terms if not term["dead"]]
    rows = ask("/traverse", batch, steps=2).json()["pictures"]
    assert {name for picture in rows for name in picture["changed"]} == set(live)
    assert len(rows) == 2 * len(live)
    assert len(ask("/traverse", batch, latents=latents, plane=True, steps=3).json()["pictures"]) == 9
    assert len(ask("/interpolate", batch, start="00.png", end="58.png", frames=5).json()["pictures"]) == 5
    assert len(ask("/sample", batch, count=4, seed=3).json()["pictures"]) == 4
    encoded = ask("/encode", bodies.npy(images[:2]), NPY).json()["items"]
    means = [item["mean"] for item in encoded]
    by_json = ask("/decode", json.dumps({"latents": means}), {"Content-Type": "application/json"}).json()
    by_npy = ask("/decode", bodies.npy(np.array(means, dtype=np.float32)), NPY).json()
    assert [picture["image"] for picture in by_json["pictures"]] == [p["image"] for p in by_npy["pictures"]]
    difference = picture_of(by_json["pictures"][0]["image"]).astype(float) - images[0]
    assert np.abs(difference).mean() < 16


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/edit", {"which": "all", "latents": "hat"}, 422, "unknown_latent"),
        ("/edit", {"edit": "set"}, 400, "invalid_option"),
        ("/edit", {"edit": "set", "values": '{"scale": "NaN"}'}, 400, "invalid_option"),
        ("/edit", {"edit": "shift", "values": "scale"}, 400, "invalid_option"),
        ("/edit", {"edit": "dance"}, 400, "invalid_option"),
        ("/traverse", {"plane": True}, 400, "invalid_option"),
        ("/traverse", {"steps": 900}, 400, "invalid_option"),
        ("/traverse", {"latents": "scale", "steps": 1}, 400, "invalid_option"),
        ("/traverse", {"latents": "scale,orientation", "steps": 900}, 400, "invalid_option"),
        ("/traverse", {"latents": "scale,orientation", "steps": 100, "plane": True}, 400, "invalid_option"),
        ("/traverse", {"latents": "scale,scale", "plane": True}, 400, "invalid_option"),
        ("/interpolate", {"frames": 5000}, 400, "invalid_option"),
        ("/interpolate", {"end": 1000}, 400, "invalid_option"),
        ("/sample", {"count": 0}, 400, "invalid_option"),
        ("/explain", {"heat_maps": "some"}, 400, "invalid_option"),
    ],
)
def test_what_makes_no_sense_is_refused(ask, batch, path, query, status, code):
    error = ask(path, batch, status=status, **query).json()["error"]
    assert error["code"] == code
    assert error["message"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"latents": [[1, 2]]}', 422, "shape_mismatch"),
        (b'{"latents": [["a"]]}', 400, "invalid_input"),
        (b'{"latents": []}', 422, "shape_mismatch"),
        (json.dumps({"latents": [[1e9] * LATENT_DIM]}).encode(), 400, "invalid_input"),
        (b'{"latents": [[NaN]]}', 400, "invalid_input"),
        (b'{"images": []}', 400, "invalid_input"),
        (b"hello", 400, "invalid_input"),
    ],
)
def test_latents_that_cannot_be_decoded_are_refused(ask, content, status, code):
    error = ask("/decode", content, {"Content-Type": "application/json"}, status).json()["error"]
    assert error["code"] == code


CLIENT = """
import json, sys
from pathlib import Path
import bentoml

files = sorted(Path(sys.argv[2]).glob("*.png"))
with bentoml.SyncHTTPClient(sys.argv[1]) as client:
    explained = client.explain(images=files, options={"heat_maps": "none"})
    fitted = client.fit(images=files)
    edited = client.edit(images=files, context=fitted["context"])
    sampled = client.sample(context=fitted["context"], options={"method": "gaussian", "count": 2})
    decoded = client.decode(latents=[[0.0] * int(sys.argv[3])])
print(json.dumps({
    "flagged": [item["id"] for item in explained["items"] if item["is_outlier"]],
    "edited": [picture["id"] for picture in edited["pictures"]],
    "drawn": [len(sampled["pictures"]), len(decoded["pictures"])],
}))
"""


def test_bentomls_own_client_asks_for_everything(served, tmp_path, hue_misfits):
    zipfile.ZipFile(SAMPLE_BATCH).extractall(tmp_path)
    command = [sys.executable, "-c", CLIENT, served.url, str(tmp_path), str(LATENT_DIM)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    answers = json.loads(finished.stdout)
    assert set(answers["flagged"]) >= set(hue_misfits)
    assert set(answers["edited"]) >= set(hue_misfits)
    assert answers["drawn"] == [2, 1]
