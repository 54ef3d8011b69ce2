"""A screen draws coarsely what the decoder draws, and is refused where it would hide foreign images."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export import screen  # noqa: E402
from export.screen import BLOCK, ScreenError, add_screen, blocks_of, draw_latents  # noqa: E402
from service.bundle import store  # noqa: E402
from service.errors import InvalidInput  # noqa: E402


def naive_blocks(image):
    height, width, channels = image.shape
    values = []
    for measure in (np.mean, np.std):
        for channel in range(channels):
            for row in range(0, height, BLOCK):
                for column in range(0, width, BLOCK):
                    values.append(measure(image[row : row + BLOCK, column : column + BLOCK, channel] / 255))
    return values


def test_blocks_have_means_and_deviations():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    for image, blocks in zip(images, blocks_of(torch.from_numpy(images)).numpy(), strict=True):
        np.testing.assert_allclose(blocks, naive_blocks(image), atol=1e-5)


def test_the_coarse_error_is_at_most_the_plain_one():
    """With a screen that draws exactly."""
    first, second = np.random.default_rng(1).integers(0, 256, (2, 5, 8, 8, 3), np.uint8)
    exact = screen.Screen(2, 2 * 3 * 4)
    exact.blocks = lambda latents: blocks_of(torch.from_numpy(second))
    with torch.no_grad():
        coarse = exact(torch.from_numpy(first), torch.zeros(5, 2)).numpy()
    plain = np.square(first.astype(float) - second).mean(axis=(1, 2, 3))
    assert (coarse <= plain + 1e-3).all()


def test_latents_are_drawn_around_the_populations_sample(served_bundle):
    drawn = draw_latents(served_bundle.population, 4000, np.random.default_rng(0))
    assert (drawn.shape, drawn.dtype) == ((4000, served_bundle.manifest.latent_dim), np.float32)
    sample = served_bundle.population.sample
    np.testing.assert_allclose(drawn.mean(axis=0), sample.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.corrcoef(drawn[:2000].T), np.corrcoef(sample.T), atol=0.2)


def test_a_screen_that_has_not_learnt_hides_nothing_and_changes_no_id(served_bundle, tmp_path):
    copy = shutil.copytree(served_bundle.directory, tmp_path / "copy")
    written = add_screen(copy, steps=2, latents=100)
    assert written.manifest.bundle_id == served_bundle.manifest.bundle_id
    assert written.manifest.screen != served_bundle.manifest.screen
    assert (copy / store.CARD).read_text() == (served_bundle.directory / store.CARD).read_text()
    assert store.load(copy).manifest == written.manifest


def test_a_screen_that_hides_foreign_images_is_refused(served_bundle, tmp_path, monkeypatch):
    copy = shutil.copytree(served_bundle.directory, tmp_path / "copy")
    monkeypatch.setattr(screen, "CUTOFF", 1e6)
    with pytest.raises(ScreenError, match="foreign and pass"):
        add_screen(copy, steps=2, latents=100)
    assert store.load(copy).manifest == served_bundle.manifest


def test_a_bundle_without_a_population_to_draw_is_refused(served_bundle, tmp_path, capsys):
    bundle = replace(served_bundle, population=replace(served_bundle.population, familiarity=None))
    files = {name: (bundle.directory / name).read_bytes() for name in ("encoder.onnx", "decoder.onnx")}
    manifest = bundle.manifest.model_copy(update={"screen": None})
    store.write(tmp_path / "bundle", manifest, files, bundle.population)
    with pytest.raises(InvalidInput, match="nothing to screen"):
        add_screen(tmp_path / "bundle")
    assert screen.main([str(tmp_path / "bundle")]) == 1
    assert "nothing to screen" in capsys.readouterr().err
