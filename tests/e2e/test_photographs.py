"""A folder is learned and served: every endpoint, over HTTP and gRPC, as its owner would ask."""

import io
import json
import re
import zipfile

import calls
import httpx
import numpy as np
import photographs
import pytest
from PIL import Image
from serving import serve

from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES
from service.learning import learn
from service.protos.misfit.v1 import misfit_pb2 as pb

STRANGE = ("grid/000.png", "grid/001.jpg", "grid/002.png")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("learned")
    photographs.write_tree(root / "mine", 40)
    bundle = learn.learn(root / "mine", root / "bundle", backbone=BACKBONES / DEFAULT_BACKBONE / FEATURES).bundle
    with serve(root / "log", {"MISFIT_BUNDLE": str(bundle.directory)}) as service:
        yield service


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Return files by name: 40 new photographs of one kind, and three of another."""
    root = tmp_path_factory.mktemp("batch")
    files = photographs.write_tree(root, 40, ("discs",), seed=5) + photographs.write_tree(root, 3, ("grid",), seed=6)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def post(served, path, content, content_type="application/zip"):
    return httpx.post(served.url + path, content=content, headers={"Content-Type": content_type}, timeout=60)


def test_what_does_not_belong_ranks_first_with_a_reason_and_neighbours(served, batch):
    answer = post(served, "/explain?attributions=top&nearest=3", zipped(batch)).json()
    first = sorted(answer["items"], key=lambda item: item["rank"])[:3]
    assert {item["id"] for item in first} == set(STRANGE)
    for item in answer["items"]:
        assert len(item["nearest"]) == 3
        assert item["is_outlier"] or item["reason"] == "fits this batch"
    for item in first:
        neighbours = [each["id"] for each in item["nearest"]]
        assert set(neighbours) & set(STRANGE)
        assert item["reason"].startswith(
            f"its content is unlike this batch: nearest are {neighbours[0]} and {neighbours[1]}"
        )
        assert item["factors"][0]["factor"] == "content"


def test_a_file_of_another_shape_says_so_and_has_the_same_neighbours(served, batch):
    """The pixels are those of another photograph, squeezed: the service resizes both to the same."""
    original = Image.open(io.BytesIO(batch["discs/006.png"]))
    buffer = io.BytesIO()
    original.resize((original.width * 8, original.height), Image.Resampling.NEAREST).save(buffer, "PNG")
    answer = post(served, "/explain?nearest=1&attributions=top&top=2", zipped({**batch, "wide.png": buffer.getvalue()}))
    items = {item["id"]: item for item in answer.json()["items"]}
    assert {each["latent"] for each in items["wide.png"]["attributions"]} & {"aspect ratio", "pixel count"}
    assert items["wide.png"]["nearest"][0]["id"] == "discs/006.png"
    assert "aspect ratio is" in items["wide.png"]["reason"] or "pixel count is" in items["wide.png"]["reason"]


def test_grpc_gives_the_same_scores(served, batch):
    answer = post(served, "/score", zipped(batch)).json()
    with calls.stub(served.grpc_target) as stub:
        request = pb.ScoreRequest(images=calls.files(list(batch.values()), list(batch)))
        items = stub.Score(request).items
    assert [item.id for item in items] == [item["id"] for item in answer["items"]]
    np.testing.assert_allclose(
        [item.outlier_score for item in items], [item["outlier_score"] for item in answer["items"]], rtol=1e-6
    )


def test_strangers_are_foreign_and_say_why(served, batch):
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    answer = post(served, "/score?attributions=top", zipped({**batch, "noise.png": buffer.getvalue()})).json()
    (noisy,) = [item for item in answer["items"] if item["id"] == "noise.png"]
    assert noisy["is_foreign"]
    assert noisy["rank"] == 1
    assert re.match(r"noise is \d+ sd above the learned photographs; ", noisy["reason"])


def test_a_context_travels(served, batch):
    normal = {name: content for name, content in batch.items() if name.startswith("discs")}
    context = post(served, "/fit", zipped(normal)).json()["context"]
    files = [("images", (name, batch[name])) for name in STRANGE]
    answer = httpx.post(served.url + "/score", files=files, data={"context": json.dumps(context)}, timeout=60).json()
    assert "error" not in answer, answer
    assert answer["context"]["source"] == "reference"
    assert all(item["is_outlier"] for item in answer["items"])


def test_copies_are_duplicates(served, batch):
    name, content = next(iter(batch.items()))
    answer = post(served, "/score?duplicates=groups", zipped({**batch, "copy.jpg": content})).json()
    ids = {item["index"]: item["id"] for item in answer["items"]}
    assert {name, "copy.jpg"} in [{ids[index] for index in members} for members in answer["duplicates"]]


def test_heat_maps_are_drawn(served, batch):
    answer = post(served, "/explain?heat_maps=flagged&top=2", zipped(batch)).json()
    maps = [item["heat_maps"] for item in answer["items"] if item["is_outlier"]]
    assert maps
    assert all(len(each) == 2 for each in maps)


def test_edits_show_the_nearest_photograph_that_fits(served, batch):
    answer = post(served, "/edit", zipped(batch)).json()
    assert any("cannot draw" in warning for warning in answer["context"]["warnings"])
    edited = {picture["id"]: picture for picture in answer["pictures"]}
    assert set(STRANGE) <= set(edited)
    for picture in edited.values():
        assert picture["exemplar"].startswith("discs/")
        assert picture["mahalanobis_squared"]["reencoded"] < picture["mahalanobis_squared"]["before"]
    with calls.stub(served.grpc_target) as stub:
        pictures = stub.Edit(pb.EditRequest(images=calls.files(list(batch.values()), list(batch)))).pictures
    assert {picture.id: picture.exemplar for picture in pictures} == {
        id_: picture["exemplar"] for id_, picture in edited.items()
    }


@pytest.mark.parametrize("path", ["/traverse?steps=5", "/interpolate?start=index:0&end=index:1", "/sample?count=4"])
def test_what_would_be_drawn_is_shown_by_photographs(served, batch, path):
    answer = post(served, path, zipped(batch)).json()
    assert answer["pictures"]
    assert all(picture["exemplar"] in batch for picture in answer["pictures"])


def test_latents_alone_cannot_be_drawn(served):
    answer = httpx.post(served.url + "/decode", json={"latents": [[0.0] * 22]}, timeout=60)
    assert answer.status_code == 400
    assert "has no decoder" in answer.json()["error"]["message"]


def test_describe_tells_what_it_can(served):
    described = httpx.post(served.url + "/describe", json={}, timeout=60).json()
    assert described["capabilities"] == {"can_decode": False, "has_saliency": True, "has_uncertainty": False}
    assert described["default_estimator"] == "density_ratio"
    by_name = {latent["name"]: latent for latent in described["latents"]}
    assert by_name["sharpness"]["unit"] == "log2 grey levels"
    with calls.stub(served.grpc_target) as stub:
        latents = stub.Describe(pb.DescribeRequest()).latents
    assert [latent.name for latent in latents] == list(by_name)
