"""The benchmark's foreign stratum, with networks that see one number an image and redraw the frames alone."""

import numpy as np
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("skimage")

from service.core.detect.reconstruction import reconstruction_error
from service.core.population import Familiarity, Population
from service.inference.protocol import CheckedLatents
from train.benchmarks import ood as benchmark
from train.benchmarks.baselines import Material
from train.benchmarks.contexts import LEVELS
from train.benchmarks.ood_images import HARD_KINDS, KINDS
from train.reports.tables import foreign_section

GREY = 128


class Networks:
    """Encodes any image near the population's centre, and decodes everything to the grey that all the frames are."""

    def encode_checked(self, images):
        latents = np.zeros((len(images), 2, len(LEVELS)), np.float32)
        latents[:, 0] = images.reshape(len(images), -1)[:, : len(LEVELS)] / 255 - 0.5
        error = reconstruction_error(images, np.full((len(images), 64, 64, 3), GREY, np.uint8))
        return CheckedLatents(latents, error.astype(np.float32))


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(GREY - 2, GREY + 3, (2_000, 64, 64, 3), dtype=np.uint8)


def material_of(frames, familiarity):
    rng = np.random.default_rng(1)
    factors = rng.integers(0, LEVELS, (len(frames), len(LEVELS)))
    mean = (factors - (LEVELS - 1) / 2) / (LEVELS / 3.5) + 0.02 * rng.standard_normal(factors.shape)
    latents = np.stack([mean, np.full_like(mean, -6.0)], axis=1).astype(np.float32)
    errors = ((frames.astype(np.float64) - GREY) ** 2).mean(axis=(1, 2, 3))
    population = Population.from_latents(latents, familiarity and familiarity.of(errors))
    return Material(latents, factors, population, errors, np.zeros((len(frames), 1)), np.arange(len(LEVELS)))


def test_what_no_network_redraws_is_found_and_leaves_the_scores_as_they_were(frames, monkeypatch):
    monkeypatch.setattr(benchmark, "IMAGES_A_KIND", 40)
    monkeypatch.setattr(benchmark, "CONTEXTS", 4)
    material = material_of(frames, Familiarity)
    report = benchmark.measure(material, Networks(), frames, seed=0)
    assert report["kinds"].keys() == (KINDS | HARD_KINDS).keys()
    for kind in ("digits", "photographs", "sprites", "uniform noise", "smooth noise"):
        assert report["kinds"][kind]["found"] == 1.0
        assert report["kinds"][kind]["auroc"] == 1.0
    # Turned over, one frame of noise is like another: nothing could tell.
    assert report["kinds"]["upside down"]["found"] == 0.0
    assert 0.3 < report["kinds"]["upside down"]["auroc"] < 0.7
    assert report["found"] < 1.0
    assert report["known_images_flagged"] == 0.0
    section = "\n".join(foreign_section(report))
    assert "| digits | yes | 1.00000 | 1.000 |" in section
    assert "| tenth covered | no |" in section


def test_foreign_images_that_are_known_leave_the_context_alone(frames, monkeypatch):
    monkeypatch.setattr(benchmark, "IMAGES_A_KIND", 40)
    monkeypatch.setattr(benchmark, "CONTEXTS", 4)
    monkeypatch.setattr(benchmark, "KINDS", {kind: KINDS[kind] for kind in ("digits", "uniform noise")})
    contexts = benchmark.measure(material_of(frames, Familiarity), Networks(), frames, seed=0)["contexts"]
    assert contexts["outlier_auroc"]["checked"] == contexts["outlier_auroc"]["alone"]
    assert contexts["foreign_auroc"]["checked"] == contexts["foreign_found"] == 1.0
    assert contexts["foreign_auroc"]["unchecked"] < 1.0


def test_nothing_is_measured_where_the_bundle_cannot_tell(frames):
    assert benchmark.measure(material_of(frames, None), Networks(), frames, seed=0) is None
