"""Distillation: a bundle's networks are read back exactly, the encoder learns nuisances, and the decoder stays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("h5py")

import torch

from service.bundle.store import Bundle
from service.inference.onnx_runtime import OnnxNetworks
from train.data.shapes3d import dataset as shapes3d
from train.models.from_bundle import load_vae
from train.models.inference import decode, encode
from train.training import distillation
from train.training.checkpoint import load_config, load_model
from train.training.distillation import Distillation, TreatedImages, distill, missed

RECIPE = Distillation(steps=12, training_batch=8, images=24, learning_rate=1e-4)
DATA = {"name": "shapes3d", "source": "rendered", "images": 480_000}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return shapes3d.rendered(np.arange(0, 480_000, 20_001)).images


def test_the_networks_of_a_bundle_are_read_back(served_bundle: Bundle, images: np.ndarray) -> None:
    networks, model = OnnxNetworks(served_bundle), load_vae(served_bundle)
    latents = encode(model, images, np.arange(len(images)))
    np.testing.assert_allclose(latents, networks.encode(images), rtol=1e-4, atol=1e-4)
    drawn = networks.decode(latents[:, 0]).astype(int)
    assert np.abs(decode(model, latents[:, 0]).astype(int) - drawn).max() <= 1


def test_exported_again_the_decoder_is_the_same_file(served_bundle: Bundle) -> None:
    pytest.importorskip("onnxscript")
    from export import graphs

    assert graphs.decoder(load_vae(served_bundle)) == (served_bundle.directory / "decoder.onnx").read_bytes()


def test_a_learned_bundle_has_no_networks_to_train(served_bundle: Bundle) -> None:
    learned = served_bundle.manifest.model_copy(update={"training": {"backbone": "b"}})
    with pytest.raises(ValueError, match="learned by the service"):
        load_vae(replace(served_bundle, manifest=learned))


def test_a_batch_depends_on_its_number_alone(images: np.ndarray) -> None:
    batches = TreatedImages(images, RECIPE, seed=1)
    treated, rows = batches[5]
    again, same_rows = TreatedImages(images, RECIPE, seed=1)[5]
    assert torch.equal(treated, again)
    assert torch.equal(rows, same_rows)
    assert len(batches) == RECIPE.steps
    clean = round(RECIPE.clean_share * RECIPE.training_batch)
    untreated = images[rows.numpy()].astype(np.float32).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(treated.numpy()[:clean], untreated[:clean], atol=1e-6)


def test_what_is_missed_counts_in_posterior_deviations() -> None:
    target = torch.tensor([[[0.0, 1.0], [2 * np.log(0.5), 2 * np.log(0.001)]]])
    mean, logvar = torch.tensor([[0.25, 1.0]]), target[:, 1] + torch.tensor([[0.0, 1.0]])
    assert missed(mean, logvar, target).item() == pytest.approx(0.25 / 0.5 + distillation.LOGVAR_WEIGHT)
    assert missed(target[:, 0], target[:, 1], target).item() == 0


@pytest.fixture(scope="module")
def run(served_bundle: Bundle, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("runs") / "distilled"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield directory, distill(served_bundle, images, DATA, directory, RECIPE, workers=0)
    torch.set_num_threads(threads)


def test_the_run_is_one_that_evaluation_and_export_read(run, served_bundle: Bundle, images: np.ndarray) -> None:
    directory, model = run
    config, loaded = load_config(directory), load_model(directory)
    assert config["preset"] == served_bundle.manifest.training["preset"]
    assert config["distillation"]["bundle_id"] == served_bundle.manifest.bundle_id
    assert config["distillation"]["tolerance"] == RECIPE.tolerance
    before = served_bundle.manifest.training
    assert config["earlier_distillations"] == [*before.get("earlier_distillations", []), before["distillation"]]
    np.testing.assert_allclose(
        encode(loaded, images, np.arange(4)), encode(model, images, np.arange(4)), rtol=1e-4, atol=1e-5
    )
    before = load_vae(served_bundle)
    same = [torch.equal(a, b) for a, b in zip(before.decoder.parameters(), loaded.decoder.parameters(), strict=True)]
    assert all(same)
    changed = [torch.equal(a, b) for a, b in zip(before.encoder.parameters(), loaded.encoder.parameters(), strict=True)]
    assert not any(changed)


def test_a_run_goes_on_as_if_never_stopped(
    run, served_bundle: Bundle, images: np.ndarray, tmp_path, monkeypatch
) -> None:
    _, whole = run
    stopped = tmp_path / "stopped"
    monkeypatch.setattr(distillation, "CHECKPOINT_EVERY", 4)

    class Stopped(Exception):
        pass

    def interrupt(path, model, optimizer, step):
        saved(path, model, optimizer, step)
        raise Stopped

    saved = distillation.save
    monkeypatch.setattr(distillation, "save", interrupt)
    with pytest.raises(Stopped):
        distill(served_bundle, images, DATA, stopped, RECIPE, workers=0)
    monkeypatch.setattr(distillation, "save", saved)
    with pytest.raises(FileExistsError, match="--resume"):
        distill(served_bundle, images, DATA, stopped, RECIPE, workers=0)
    with pytest.raises(ValueError, match="another bundle, seed or recipe"):
        distill(served_bundle, images, DATA, stopped, replace(RECIPE, clean_share=0.5), resume=True, workers=0)
    resumed = distill(served_bundle, images, DATA, stopped, RECIPE, resume=True, workers=0)
    for one, other in zip(whole.encoder.parameters(), resumed.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    steps = [json.loads(line)["step"] for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert steps == [RECIPE.steps]


@pytest.mark.parametrize("change", [{"steps": 0}, {"images": 0}, {"clean_share": 1.0}])
def test_impossible_recipes_are_refused(change) -> None:
    with pytest.raises(ValueError, match="distillation needs"):
        Distillation(**change)
