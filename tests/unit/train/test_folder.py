"""A folder of the user's own images: any sizes and modes, labels, damaged files, the cache, and warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tqdm")

from train.data import folder
from train.data.dataset import Dataset

SHAPE = (16, 16, 3)
MODES = ("L", "RGB", "RGBA", "P", "1", "LA", "I;16")


def picture(number: int) -> Image.Image:
    """Noise with a size and a mode of its own."""
    rng = np.random.default_rng(number)
    side = (rng.integers(8, 40), rng.integers(8, 40))
    mode = MODES[number % len(MODES)]
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65_536, side, dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).convert(mode)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sixty images in two folders, two damaged ones, and files that are no images."""
    root = tmp_path / "images"
    for number in range(60):
        path = root / ("cats" if number % 3 else "dogs") / "deep" / f"{number:02}.{('png', 'PNG')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, "PNG")
    (root / "cats" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (root / "dogs" / "empty.png").touch()
    (root / "notes.txt").write_text("no image")
    (root / ".thumbnails").mkdir()
    picture(0).convert("L").save(root / ".thumbnails" / "00.png")
    return root


def read(root: Path, shape: tuple[int, int, int] = SHAPE) -> folder.Contents:
    return folder.read(root, shape, root.parent / "cache")


def test_every_image_is_read_and_every_damaged_file_listed(images):
    contents = read(images)
    assert contents.dataset.images.shape == (60, *SHAPE)
    assert sorted(contents.skipped) == ["cats/cut.jpg", "dogs/empty.png"]
    assert "cannot be decoded" in contents.skipped["cats/cut.jpg"]
    assert "0 bytes" in contents.skipped["dogs/empty.png"]
    assert contents.dataset.factors.shape == (60, 0)
    assert (contents.dataset.name, contents.dataset.source) == ("folder", "own files")


def test_subfolders_are_labels(images):
    dataset = read(images).dataset
    assert dataset.label_names == ("cats", "dogs")
    assert np.bincount(dataset.labels).tolist() == [40, 20]
    assert dataset.labels.tolist() == [0] * 40 + [1] * 20, "in the order of the paths"


def test_images_that_lie_loose_have_no_labels(images):
    picture(1).convert("L").save(images / "loose.png")
    assert read(images).dataset.labels is None


def test_training_sees_an_image_as_the_service_does(images):
    from service.bundle.manifest import ImageSpec
    from service.images.decode import to_row
    from service.images.limits import Limits

    spec = ImageSpec(height=16, width=16, channels=1)
    path = images / "cats" / "deep" / "01.PNG"
    expected = to_row(path.read_bytes(), spec, "fit", Limits(10**9))
    np.testing.assert_array_equal(read(images, (16, 16, 1)).dataset.images[0], expected)


def test_files_are_decoded_once_until_one_changes(images, monkeypatch):
    first = read(images)
    with monkeypatch.context() as patched:
        patched.setattr(folder, "_decoded", lambda *_: pytest.fail("the cache was not used"))
        again = read(images)
    np.testing.assert_array_equal(again.dataset.images, first.dataset.images)
    assert again.skipped == first.skipped
    assert again.dataset.label_names == first.dataset.label_names
    picture(99).convert("RGB").save(images / "cats" / "new.png")
    assert len(read(images).dataset.images) == 61
    assert read(images, (32, 32, 3)).dataset.images.shape == (61, 32, 32, 3)


def test_too_few_images_are_refused_with_what_was_skipped(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_bytes(b"?")
    with pytest.raises(ValueError, match=r"(?s)holds 0 images that can be read; at least 50.*skipped bad\.png"):
        read(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        read(tmp_path / "nowhere")


def dataset(images: np.ndarray) -> Dataset:
    return Dataset(images.astype(np.uint8), np.zeros((len(images), 0), np.int64), (), (), "folder", "own files")


def test_what_speaks_against_training_is_said_early():
    rng = np.random.default_rng(0)
    good = rng.integers(0, 256, (1_200, 4, 4, 3))
    assert folder.list_warnings(dataset(good)) == []
    assert "only 60 images" in folder.list_warnings(dataset(good[:60]))[0]
    flat = good.copy()
    flat[:7] = np.arange(21).reshape(7, 1, 1, 3)
    assert folder.list_warnings(dataset(flat)) == ["warning: 7 of 1200 images are of one flat colour"]
    copies = good.copy()
    copies[:10] = copies[10:20]
    assert "10 of 1200 images repeat another" in folder.list_warnings(dataset(copies))[0]
    assert any("hardly differ" in line for line in folder.list_warnings(dataset(np.repeat(good[:1], 1_200, axis=0))))


def test_loading_tells_what_was_skipped_and_what_looks_wrong(images, monkeypatch, capsys):
    monkeypatch.setattr(folder, "CACHE", images.parent / "cache")
    for number in range(12):
        (images / f"bad{number:02}.png").write_bytes(b"?")
    folder.load(images, SHAPE)
    told = capsys.readouterr().err
    assert "skipped bad00.png: 1 bytes that begin with b'?'" in told
    assert "skipped 4 more files" in told
    assert "warning: only 60 images" in told
