"""What a bundle says of its model: what it knows, how it draws, and whether it is of any use."""

from __future__ import annotations

import pytest

from service.bundle import quality

SOUND = {"reconstruction_nll": 60.0, "perfect_nll": 40.0, "mean_image_nll": 240.0, "live_latents": 6, "ssim": 0.97}


def test_a_sound_model_gets_no_remark():
    assert quality.remarks(SOUND, 6) == []
    assert not quality.is_useless(SOUND)
    assert quality.explained_share(SOUND) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"live_latents": 0}, "all 6 latents are dead"),
        ({"reconstruction_nll": 239.0}, "blank or nearly so"),
        ({"reconstruction_nll": 300.0}, "explain 0% of"),
    ],
)
def test_a_model_that_tells_no_image_from_another_is_useless(change, words):
    assert quality.is_useless(SOUND | change)
    assert any(words in remark for remark in quality.remarks(SOUND | change, 6))


def test_a_poor_model_is_no_useless_one():
    poor = SOUND | {"reconstruction_nll": 160.0, "live_latents": 4}
    assert [remark[:14] for remark in quality.remarks(poor, 6)] == ["2 of 6 latents", "reconstruction"]
    assert not quality.is_useless(poor)


def test_what_was_not_measured_is_no_fault():
    assert quality.explained_share({"photographs": 100}) is None
    assert quality.remarks({"photographs": 100}, 6) == []
    assert not quality.is_useless({})


def test_the_shipped_model_draws_well(served_bundle):
    manifest = served_bundle.manifest
    assert manifest.trained_on == "3D Shapes"
    assert "(SSIM) to the images is 0.97" in quality.describe_drawing(manifest)
    assert "explain 99%" in quality.describe_drawing(manifest)
    measured = manifest.model_copy(update={"metrics": {}})
    assert quality.describe_drawing(measured) == "How well it draws was not measured."
    blind = manifest.model_copy(update={"files": {}})
    assert "no decoder" in quality.describe_drawing(blind)
