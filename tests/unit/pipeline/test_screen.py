"""The screen of the foreign check: what it leaves out changes no answer."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from service.api.options import FitOptions, ScoreOptions
from service.api.requests import ImagesRequest
from service.bundle import store
from service.bundle.manifest import SCREEN
from service.core.detect.ood import OodCheck
from service.errors import BundleCorrupt
from service.images.decode import Upload
from service.inference.local import LocalNetworks
from service.inference.onnx_runtime import OnnxNetworks
from service.pipeline.familiarity import needs_all_errors
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from train.benchmarks.ood_images import KINDS, foreign_images

SCREENED = tuple(kind for kind in KINDS if kind != "photographs")  # those need packages of the training's environment


@pytest.fixture(scope="module")
def networks(served_bundle):
    return OnnxNetworks(served_bundle)


@pytest.fixture(scope="module")
def frames(networks, served_bundle):
    """Return pictures that the model draws of its population, with a little noise: uint8 (300, 64, 64, 3)."""
    drawn = networks.decode(served_bundle.population.sample[:300].astype(np.float32))
    noise = np.random.default_rng(0).integers(-4, 5, drawn.shape)
    return np.clip(drawn + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pipelines(served_bundle):
    """Return the pipeline with the screen, and one without."""
    unscreened = replace(served_bundle, manifest=served_bundle.manifest.model_copy(update={"screen": None}))
    return [Pipeline(bundle, LocalNetworks(bundle), Settings()) for bundle in (served_bundle, unscreened)]


def request_of(images, options=None):
    uploads = [Upload(f"{place}", lambda image=image: image) for place, image in enumerate(images)]
    return ImagesRequest(uploads, None, (), options or ScoreOptions())


def test_what_is_left_open_has_the_error_of_the_whole_check(networks, frames):
    made = np.concatenate([frames[:40], 255 - frames[40:60]])
    screened, checked = networks.encode_screened(made), networks.encode_checked(made)
    passed = np.isnan(screened.reconstruction_error)
    assert np.array_equal(screened.latents, checked.latents)
    assert passed[:40].mean() > 0.9
    assert not passed[40:].any()
    assert np.array_equal(screened.reconstruction_error[~passed], checked.reconstruction_error[~passed])


@pytest.mark.parametrize("kind", SCREENED)
def test_no_foreign_image_passes(kind, networks, served_bundle, frames):
    made = foreign_images(kind, 40, np.random.default_rng(2), frames)
    errors = networks.encode_checked(made).reconstruction_error
    passed = np.isnan(networks.encode_screened(made).reconstruction_error)
    assert not passed[errors > served_bundle.population.familiarity.limit].any()


@pytest.mark.parametrize("foreign", [0, 1, 20])
@pytest.mark.parametrize("count", [3, 40, 300])
async def test_answers_are_those_of_the_whole_check(pipelines, frames, foreign, count):
    """In one chunk and in several, whose pixels are read again."""
    made = np.concatenate([frames[: count - min(foreign, count)], 255 - frames[: min(foreign, count)]])
    screened, whole = [b"".join((await pipeline.score(request_of(made))).json()) for pipeline in pipelines]
    assert screened == whole


async def test_a_fitted_context_is_that_of_the_whole_check(pipelines, frames):
    screened, whole = [await pipeline.fit(request_of(frames[:20], FitOptions())) for pipeline in pipelines]
    assert screened == whole


def test_a_limit_of_the_batch_needs_the_errors_of_all_only_if_some_exceed_the_populations():
    missing, high = np.full(10, np.nan), np.r_[2.0, np.full(9, np.nan)]
    check = OodCheck(high, high)
    assert needs_all_errors(check, None)
    assert not needs_all_errors(OodCheck(missing, missing), None)
    assert not needs_all_errors(OodCheck(high[:3], high[:3]), None)  # too few to have a limit of their own
    assert not needs_all_errors(None, None)


def test_a_screen_that_was_changed_is_refused(served_bundle, tmp_path):
    copy = shutil.copytree(served_bundle.directory, tmp_path / "copy")
    (copy / SCREEN).write_bytes((copy / SCREEN).read_bytes()[:-1])
    with pytest.raises(BundleCorrupt, match=r"screen\.onnx"):
        store.load(copy)
    assert served_bundle.manifest.content_hash() == served_bundle.manifest.bundle_id
