"""Real frames of every data set that a bundle ships for, through the whole path: known, ranked, drawn again.

The bundles of dSprites and 3D Shapes were trained on renderings, and have seen none of these.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.api.options import ScoreOptions
from service.api.requests import ImagesRequest
from service.bundle import store
from service.images.decode import Upload
from service.inference.local import LocalNetworks
from service.pipeline.pipeline import Pipeline
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
MNIST_HEADER_BYTES = 16


def shapes3d() -> NDArray[np.uint8]:
    with (DATA / "shapes3d_reference" / "frames.csv").open() as table:
        files = [row["file"] for row in csv.DictReader(table)]
    return np.stack([np.asarray(Image.open(DATA / "shapes3d_reference" / file)) for file in files])


def mnist() -> NDArray[np.uint8]:
    packed = (DATA / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()
    return np.frombuffer(gzip.decompress(packed)[MNIST_HEADER_BYTES:], np.uint8).reshape(-1, 28, 28)


def dsprites() -> NDArray[np.uint8]:
    frames: NDArray[np.uint8] = np.load(DATA / "dsprites_reference" / "frames.npz")["frames"]
    return frames * np.uint8(255)


FRAMES: dict[str, Callable[[], NDArray[np.uint8]]] = {"dsprites": dsprites, "mnist": mnist, "shapes3d": shapes3d}


@pytest.fixture(scope="module", params=FRAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def frames(name):
    return FRAMES[name]()


@pytest.fixture(scope="module")
def pipeline(name):
    served = store.load(ROOT / "service" / "bundles" / name)
    return Pipeline(served, LocalNetworks(served), Settings())


def request_of(images: NDArray[np.uint8]) -> ImagesRequest[ScoreOptions]:
    uploads = [Upload(str(row), partial(images.__getitem__, row)) for row in range(len(images))]
    return ImagesRequest(uploads, None, (), ScoreOptions())


def test_every_bundle_that_ships_is_held_against_real_frames():
    assert {path.name for path in (ROOT / "service" / "bundles").iterdir()} == set(FRAMES)


async def test_real_frames_are_known_and_noise_among_them_is_not(pipeline, frames):
    noise = np.random.default_rng(0).integers(0, 256, (3, *frames.shape[1:]), dtype=np.uint8)
    answer = (await pipeline.score(request_of(np.concatenate([frames, noise])))).whole()
    assert [item.index for item in answer.items if item.is_foreign] == [len(frames) + row for row in range(3)]
    assert sorted(item.rank for item in answer.items[-3:]) == [1, 2, 3]


async def test_real_frames_are_drawn_again(pipeline, frames):
    """To what is drawn of a frame's latents no other frame is nearer, by mean absolute difference.

    As near as itself may be its twin: an animation shows some of them twice.
    """
    frames = frames.reshape(len(frames), *pipeline.bundle.manifest.image.shape)
    latents = await pipeline.networks.encode(frames)
    drawn = (await pipeline.networks.decode(latents[:, 0])).astype(np.float32)
    distance = np.array([np.abs(frames - each).mean(axis=(1, 2, 3)) for each in drawn])
    assert (distance.min(axis=1) == np.diagonal(distance)).mean() > 0.9
