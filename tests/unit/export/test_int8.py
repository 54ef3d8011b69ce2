"""An encoder in int8 beside the float32 one: an id of its own, latents that differ little, chosen by a setting."""

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export import int8  # noqa: E402
from export.int8 import PrecisionError, add_int8  # noqa: E402
from service.bundle import store  # noqa: E402
from service.bundle.manifest import ENCODER_INT8  # noqa: E402
from service.errors import BundleIncompatible, InvalidInput  # noqa: E402
from service.inference.local import LocalNetworks  # noqa: E402
from service.inference.onnx_runtime import OnnxNetworks  # noqa: E402
from service.pipeline.pipeline import IN_INT8, Pipeline  # noqa: E402
from service.settings import Settings  # noqa: E402

BUNDLES = Path(store.__file__).parents[1] / "bundles"


@pytest.fixture
def plain(served_bundle, tmp_path):
    """Return a copy of the shipped bundle without its int8 encoder."""
    copy = shutil.copytree(served_bundle.directory, tmp_path / "copy")
    (copy / ENCODER_INT8).unlink()
    manifest = served_bundle.manifest.model_copy(update={"int8": None})
    (copy / store.MANIFEST).write_text(manifest.model_dump_json())
    return copy


def test_it_is_added_and_the_id_stays(served_bundle, plain, monkeypatch):
    monkeypatch.setattr(int8, "CALIBRATED_ON", 100)
    written = add_int8(plain, contexts=2)
    assert written.manifest.int8.loss.contexts == 2
    assert written.manifest.bundle_id == served_bundle.manifest.bundle_id
    assert written.manifest.screen == served_bundle.manifest.screen
    assert store.load(plain, "int8").encoder == ENCODER_INT8


def test_a_precision_is_chosen(served_bundle, plain):
    directory = served_bundle.directory
    ids = {precision: store.load(directory, precision).manifest.bundle_id for precision in ("auto", "fp32", "int8")}
    assert ids["auto"] == ids["int8"] != ids["fp32"] == served_bundle.manifest.bundle_id
    assert store.load(plain, "auto").manifest.bundle_id == ids["fp32"]
    with pytest.raises(BundleIncompatible, match=r"has no encoder\.int8\.onnx"):
        store.load(plain, "int8")


def test_latents_differ_little_and_the_answers_tell_of_it(served_bundle, images):
    bundle = store.load(served_bundle.directory, "int8")
    ours, theirs = OnnxNetworks(bundle).encode(images), OnnxNetworks(served_bundle).encode(images)
    spread = np.sqrt(np.diag(served_bundle.population.covariance))
    assert 0 < np.sqrt(np.square((ours - theirs)[:, 0] / spread).mean()) < int8.LARGEST_DIFFERENCE
    described = Pipeline(bundle, LocalNetworks(bundle), Settings()).describe("CPU")
    assert (described.bundle_id, described.remarks[-1]) == (bundle.manifest.bundle_id, IN_INT8)


def test_one_that_differs_too_much_is_refused(plain, monkeypatch):
    monkeypatch.setattr(int8, "CALIBRATED_ON", 50)
    monkeypatch.setattr(int8, "LARGEST_DIFFERENCE", 1e-6)
    with pytest.raises(PrecisionError, match="standard deviations"):
        add_int8(plain)
    assert not (plain / ENCODER_INT8).exists()


def test_a_bundle_without_convolutions_is_refused(tmp_path, capsys):
    copy = shutil.copytree(BUNDLES / "mnist", tmp_path / "copy")
    with pytest.raises(InvalidInput, match="0 convolutions"):
        add_int8(copy)
    assert int8.main([str(copy)]) == 1
    assert "0 convolutions" in capsys.readouterr().err
