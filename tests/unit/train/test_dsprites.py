"""dSprites: renderings against real frames, the file's layout, and the loader."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("skimage")  # comes with the environment that trains

from train.data.dsprites import dataset as dsprites
from train.data.dsprites import fidelity as dsprites_fidelity

REFERENCE = Path("tests/data/dsprites_reference")


@pytest.fixture(scope="module")
def report():
    return dsprites_fidelity.fidelity(REFERENCE)


def test_renderings_are_the_real_frames(report):
    assert len(report.real) == 160
    assert report.exact_share >= 0.95
    assert report.wrong_pixels.max() <= 4
    assert report.faithful
    assert "heart: 92 of 96" in str(report)


def test_one_step_of_any_factor_is_seen_as_a_difference(report):
    """The measure can fail."""
    for factor, size in enumerate(dsprites.FACTOR_SIZES):
        moved = report.factors.copy()
        moved[:, factor] += np.where(moved[:, factor] < size - 1, 1, -1)
        other = dsprites_fidelity.FidelityReport(report.real, dsprites.frames(moved), moved)
        assert other.exact_share < 0.1, dsprites.FACTOR_NAMES[factor]
        assert not other.faithful


def test_the_nearest_rendering_is_found_without_a_table(report, monkeypatch):
    outlines = [tuple(classes) for classes in np.unique(report.factors[::40, :3], axis=0)]
    sizes = (3, 6, 40)

    def few(*ranges):
        return iter(list(product(*ranges)) if len(ranges) != 3 else outlines)

    monkeypatch.setattr(dsprites_fidelity, "product", few)
    classes = dsprites_fidelity.find_nearest(report.real[::40])
    numbers = [outlines.index(tuple(classes)) for classes in report.factors[::40, :3]]
    expected = np.stack(np.unravel_index(numbers, sizes), axis=1)
    np.testing.assert_array_equal(classes[:, :3], expected)
    np.testing.assert_array_equal(classes[:, 3:], report.factors[::40, 3:])


def test_a_pixel_is_on_where_its_centre_is_inside():
    """Against a test of every pixel's centre on its own."""
    from matplotlib.path import Path as Outline

    rows, columns = np.mgrid[:64, :64] + 0.5
    for classes in ((0, 5, 7, 3, 30), (1, 2, 11, 31, 0), (2, 4, 25, 17, 9)):
        corners = dsprites.outline(*classes[:3])
        centre = 16 + 32 * np.array(classes[3:]) / 31
        points = np.stack([columns.ravel(), rows.ravel()], axis=1) - centre
        expected = Outline(np.vstack([corners, corners[:1]])).contains_points(points).reshape(64, 64)
        np.testing.assert_array_equal(dsprites.frames([classes])[0].astype(bool), expected)


def test_a_rendered_file_loads_as_the_official_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(dsprites, "FACTOR_SIZES", (3, 1, 2, 32, 32))
    monkeypatch.setattr(dsprites, "COUNT", 6 * 1024)
    monkeypatch.setattr(dsprites, "OUTLINES", 6)
    values = dsprites.FACTOR_VALUES
    monkeypatch.setattr(dsprites, "FACTOR_VALUES", (values[0], values[1][:1], values[2][:2], *values[3:]))
    path = tmp_path / "dsprites.npz"
    dsprites.render(path)
    assert [file.name for file in tmp_path.iterdir()] == ["dsprites.npz"]
    with np.load(path) as file:  # nothing in it is pickled
        assert (file["imgs"].shape, file["latents_values"].shape) == ((6144, 64, 8), (6144, 6))
        assert file["latents_values"][1].tolist() == pytest.approx([1, 1, 0.5, 0, 0, 1 / 31])

    rendered = dsprites.load(path)
    assert (rendered.images.shape, rendered.source) == ((6144, 64, 64, 1), "rendered")
    assert set(np.unique(rendered.images)) == {0, 255}
    assert rendered.factors[-1].tolist() == [2, 0, 1, 31, 31]
    for row in (0, 33, 5000):
        expected = 255 * dsprites.frames(rendered.factors[row : row + 1])[0]
        np.testing.assert_array_equal(rendered.images[row, ..., 0], expected)

    classes = np.hstack([np.zeros((6144, 1), np.int64), rendered.factors])
    np.savez(tmp_path / "official.npz", imgs=rendered.images[..., 0] // 255, latents_classes=classes)
    official = dsprites.load(tmp_path / "official.npz")
    assert official.source == "official"
    np.testing.assert_array_equal(official.images, rendered.images)


def test_an_interrupted_render_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dsprites, "everywhere", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dsprites.render(tmp_path / "dsprites.npz")
    assert not list(tmp_path.iterdir())


def test_the_loader_refuses_what_is_not_dsprites(tmp_path):
    path = tmp_path / "file.npz"
    with pytest.raises(FileNotFoundError, match="python -m train render dsprites"):
        dsprites.load(path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match="Is the download complete"):
        dsprites.load(path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(ValueError, match="is not dSprites: it holds"):
        dsprites.load(path)
    np.savez(path, imgs=np.zeros((2, 32, 32), np.uint8), latents_classes=np.zeros((2, 6), int))
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 64, 64\)"):
        dsprites.load(path)


@pytest.mark.parametrize("factors", [[0, 0, 0, 0, 0], [[3, 0, 0, 0, 0]], [[0, 0, 0, 0]], [[0, -1, 0, 0, 0]]])
def test_frames_refuse_impossible_factors(factors):
    with pytest.raises(ValueError, match="factor"):
        dsprites.frames(factors)


def test_fidelity_refuses_frames_that_it_cannot_use(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"frames\.npz is not there"):
        dsprites_fidelity.fidelity(tmp_path)
    np.savez(tmp_path / "frames.npz", frames=np.full((2, 64, 64), 255, np.uint8))
    with pytest.raises(ValueError, match="of 0 and 1"):
        dsprites_fidelity.fidelity(tmp_path)
    np.savez(tmp_path / "frames.npz", frames=np.zeros((2, 64, 64), np.uint8))
    (tmp_path / "frames.csv").write_text("shape,scale\n0,0\n")
    with pytest.raises(ValueError, match="should have 2 rows"):
        dsprites_fidelity.fidelity(tmp_path)


def test_the_comparison_shows_what_differs(report, tmp_path):
    from PIL import Image

    dsprites_fidelity.save_comparison(report, tmp_path / "frames.png")
    picture = np.asarray(Image.open(tmp_path / "frames.png"))
    wrong = report.wrong_pixels
    assert picture.shape == (3 * 64, 64 * (wrong > 0).sum())
    assert (picture[128:] > 0).sum() == wrong.sum()
