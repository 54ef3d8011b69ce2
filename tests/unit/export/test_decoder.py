"""A learned bundle gets a decoder: it draws, it is resumed after SIGTERM, and it is refused where it cannot be."""

import os
import shutil
import signal

import numpy as np
import photographs
import pytest

torch = pytest.importorskip("torch")

from export import decoder  # noqa: E402
from export.parity import ParityError  # noqa: E402
from service.api.options import EditOptions, InterpolateOptions, SampleOptions, TraverseOptions  # noqa: E402
from service.api.requests import ImagesRequest  # noqa: E402
from service.bundle import store  # noqa: E402
from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES  # noqa: E402
from service.errors import InvalidInput  # noqa: E402
from service.images.decode import Upload  # noqa: E402
from service.inference.local import LocalNetworks  # noqa: E402
from service.inference.onnx_runtime import OnnxNetworks  # noqa: E402
from service.learning import folder, learn  # noqa: E402
from service.pipeline.pipeline import Pipeline  # noqa: E402
from service.settings import Settings  # noqa: E402
from train.training import decoder as training  # noqa: E402

DRAWING = {
    "edit": EditOptions(which="all"),
    "traverse": TraverseOptions(steps=3),
    "interpolate": InterpolateOptions(start="index:0", end="index:1"),
    "sample": SampleOptions(count=4),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    photographs.write_tree(root, 20)
    return root


@pytest.fixture(scope="module")
def learned(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "mine"
    learn.learn(tree, out, backbone=BACKBONES / DEFAULT_BACKBONE / FEATURES)
    (out / store.NAMES).write_text('{"content 1": "shapes"}')
    return store.load(out)


@pytest.fixture
def copy(learned, tmp_path):
    return shutil.copytree(learned.directory, tmp_path / "copy")


@pytest.fixture(scope="module")
def drawing(learned, tree, tmp_path_factory):
    directory = shutil.copytree(learned.directory, tmp_path_factory.mktemp("drawing") / "mine")
    written = decoder.add_decoder(directory, tree, steps=150)
    assert written.manifest == store.load(directory).manifest
    return written


def test_the_bundle_is_the_same_but_for_the_decoder(learned, drawing):
    assert drawing.manifest.capabilities.can_decode
    files = dict(drawing.manifest.files)
    del files["decoder.onnx"]
    assert files == learned.manifest.files
    assert drawing.manifest.latents[0].name == "shapes"
    assert drawing.manifest.parity.pixels_grey_levels <= 1
    assert not list(drawing.directory.parent.glob(".*decoder*"))


def test_the_card_says_how_well_it_draws(learned, drawing):
    assert "draws no pictures" in (learned.directory / store.CARD).read_text()
    measured = drawing.manifest.metrics["decoder"]
    card = (drawing.directory / store.CARD).read_text()
    assert f"(SSIM) is {measured['ssim']:.3f}" in card
    assert measured["held_out"] == 6
    assert "draws no pictures" not in card


def test_pictures_are_nearer_to_their_photographs_than_the_mean_is(drawing, tree):
    files = folder.find(tree)
    pixels = folder.read(files, drawing.manifest.image).pixels
    networks = OnnxNetworks(drawing)
    drawn = networks.decode(networks.encode(pixels)[:, 0])
    assert (drawn.shape, drawn.dtype) == (pixels.shape, np.uint8)
    typical = pixels.mean(axis=0)
    assert np.abs(drawn - pixels.astype(float)).mean() < 0.8 * np.abs(typical - pixels).mean()


@pytest.mark.parametrize("name", DRAWING)
async def test_what_was_shown_by_photographs_is_drawn(drawing, tree, name):
    pipeline = Pipeline(drawing, LocalNetworks(drawing), Settings())
    uploads = [Upload(file.name, file.read_bytes) for file in folder.find(tree)[:24]]
    answer = (await getattr(pipeline, name)(ImagesRequest(uploads, None, [], DRAWING[name]))).as_json().whole()
    assert answer.pictures
    assert all(picture.image is not None and picture.exemplar is None for picture in answer.pictures)
    assert not any("cannot draw" in warning for warning in answer.context.warnings)


async def test_latents_alone_are_drawn(drawing):
    pipeline = Pipeline(drawing, LocalNetworks(drawing), Settings())
    answer = (await pipeline.decode(np.zeros((2, drawing.manifest.latent_dim)))).as_json().whole()
    assert len(answer.pictures) == 2


def test_after_sigterm_it_goes_on_where_it_stopped(copy, tree, monkeypatch):
    seen = []

    def train(*arguments, progress, **options):
        def stop_in_the_middle(step):
            seen.append(step)
            progress(step)
            if step == 7 and len(seen) == 7:
                os.kill(os.getpid(), signal.SIGTERM)

        return training_decoder(*arguments, progress=stop_in_the_middle, **options)

    training_decoder = training.train_decoder
    monkeypatch.setattr(training, "train_decoder", train)
    command = [str(copy), str(tree), "--steps", "12"]
    assert decoder.main(command) == decoder.INTERRUPTED
    assert not store.load(copy).manifest.capabilities.can_decode
    assert decoder.main(command) == 0
    assert store.load(copy).manifest.capabilities.can_decode
    assert seen == list(range(1, 13))


def test_a_resumed_training_equals_one_that_never_stopped(tmp_path):
    random = np.random.default_rng(0)
    latents = random.normal(size=(40, 3)).astype(np.float32)
    images = random.integers(0, 256, (40, decoder.SIDE, decoder.SIDE, 3), dtype=np.uint8)
    whole = training.train_decoder(latents, images, tmp_path / "whole", steps=6)
    steps = []
    stopped = training.train_decoder(
        latents, images, tmp_path / "parts", steps=6, progress=steps.append, should_stop=lambda: steps[-1] == 3
    )
    assert stopped is None
    parts = training.train_decoder(latents, images, tmp_path / "parts", steps=6)
    for name, weight in whole.decoder.state_dict().items():
        assert torch.equal(weight, parts.decoder.state_dict()[name]), name
    assert whole.metrics == parts.metrics


def test_other_bundles_and_empty_folders_are_refused(copy, tmp_path, served_bundle, tree, capsys):
    with pytest.raises(InvalidInput, match="kind vae"):
        decoder.add_decoder(served_bundle.directory, tree)
    (tmp_path / "empty").mkdir()
    assert decoder.main([str(copy), str(tmp_path / "empty")]) == 1
    assert "holds no image file" in capsys.readouterr().err


def test_a_graph_that_draws_otherwise_is_not_written(copy, tree, monkeypatch):
    monkeypatch.setattr(decoder, "PIXELS_GREY_LEVELS", -1)
    with pytest.raises(ParityError, match="grey levels"):
        decoder.add_decoder(copy, tree, steps=2)
    assert not store.load(copy).manifest.capabilities.can_decode
