"""int8 only where the export found that it loses nothing and this machine computes it as the export did."""

import logging
import shutil

import pytest

from service.bundle import store
from service.bundle.manifest import ENCODER, ENCODER_INT8, MOST_FLAGS_CHANGED
from service.errors import BundleIncompatible
from service.inference import precision


@pytest.fixture
def copy(served_bundle, tmp_path):
    """Return what copies the shipped bundle with other fields of `int8` in its manifest, as if they were measured."""

    def make(**fields):
        directory = shutil.copytree(served_bundle.directory, tmp_path / "copy")
        manifest = store.read_manifest(directory)
        manifest = manifest.model_copy(update={"int8": manifest.int8.model_copy(update=fields)})
        (directory / store.MANIFEST).write_text(manifest.model_dump_json())
        return directory

    return make


@pytest.fixture
def difference(served_bundle, monkeypatch):
    """Return how much the latents differ on this CPU, whatever CPU it is."""
    monkeypatch.setattr(precision, "has_gpu", lambda: False)
    return precision.measure_difference(store.load(served_bundle.directory, "int8"))


def test_auto_is_int8_where_it_loses_nothing_on_this_cpu(copy, difference):
    directory = copy(difference=difference)
    assert precision.load(directory, "auto").encoder == precision.load(directory, "int8").encoder == ENCODER_INT8
    assert precision.load(directory, "fp32").encoder == ENCODER


@pytest.mark.parametrize("lost", [{"flags_changed": MOST_FLAGS_CHANGED + 0.001}, {"auroc": 0.01}, {"worst_auroc": 0.1}])
def test_auto_is_fp32_where_something_is_lost(served_bundle, copy, difference, lost):
    loss = served_bundle.manifest.int8.loss
    assert loss.is_nothing
    directory = copy(difference=difference, loss=loss.model_copy(update=lost))
    assert precision.load(directory, "auto").encoder == ENCODER
    assert precision.load(directory, "int8").encoder == ENCODER_INT8


def test_auto_is_fp32_where_nothing_was_measured(copy, difference):
    assert precision.load(copy(difference=difference, loss=None), "auto").encoder == ENCODER


def test_a_cpu_that_computes_otherwise_runs_fp32_and_says_why(copy, difference, caplog):
    directory = copy(difference=difference / 2)
    with caplog.at_level(logging.WARNING):
        assert precision.load(directory, "auto").encoder == ENCODER
    assert "runs in fp32: this CPU computes int8 otherwise" in caplog.text
    with pytest.raises(BundleIncompatible, match="MISFIT_PRECISION=fp32"):
        precision.load(directory, "int8")


def test_auto_is_fp32_where_a_gpu_runs_the_networks(copy, difference, caplog, monkeypatch):
    directory = copy(difference=difference / 2)
    monkeypatch.setattr(precision, "has_gpu", lambda: True)
    with caplog.at_level(logging.INFO):
        assert precision.load(directory, "auto").encoder == ENCODER
    assert "GPUs gain nothing" in caplog.text
    assert precision.load(directory, "int8").encoder == ENCODER_INT8  # it was asked for
