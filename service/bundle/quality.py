"""How good a bundle's model is, in words, from what was measured when it was exported."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from service.bundle.manifest import DECODER, Manifest

BLANK_SHARE = 0.1  # explained share below which reconstructions count as blank
POOR_SHARE = 0.5
Metrics = Mapping[str, JsonValue]


def explained_share(metrics: Metrics) -> float | None:
    """Return how far the reconstruction's nll lies between the mean image's (0) and an exact one's (1).

    None where that was not measured.
    """
    drawn, exact, mean = (
        value if isinstance(value := metrics.get(name), int | float) else None
        for name in ("reconstruction_nll", "perfect_nll", "mean_image_nll")
    )
    if drawn is None or exact is None or mean is None:
        return None
    return (mean - drawn) / (mean - exact) if mean > exact else 0.0


def remarks(metrics: Metrics, latent_dim: int) -> list[str]:
    """Return sentences about dead latents and blank reconstructions: none where the model is sound."""
    live, share, sentences = metrics.get("live_latents"), explained_share(metrics), []
    if live == 0:
        sentences.append(
            f"all {latent_dim} latents are dead: the KL cost more than the latents were worth, the encoder gives every "
            "image the same latents (posterior collapse) and the decoder draws one average image"
        )
    elif isinstance(live, int) and live < latent_dim:
        sentences.append(
            f"{latent_dim - live} of {latent_dim} latents are dead: the objective found no use for more than {live}"
        )
    if share is not None and share < BLANK_SHARE:
        sentences.append(
            f"reconstructions explain {max(share, 0):.0%} of what the images' mean does not: they are blank or nearly "
            "so"
        )
    elif share is not None and share < POOR_SHARE:
        sentences.append(
            f"reconstructions explain only {share:.0%} of what the images' mean does not: much detail is missing"
        )
    return sentences


def is_useless(metrics: Metrics) -> bool:
    """Return whether all latents are dead, or reconstructions are blank: the model tells no image from another."""
    share = explained_share(metrics)
    return metrics.get("live_latents") == 0 or (share is not None and share < BLANK_SHARE)


def describe_drawing(manifest: Manifest) -> str:
    """Return one sentence on how well the model draws images that it was not trained on."""
    if DECODER not in manifest.files:
        return "It draws no pictures: it has no decoder."
    return describe_reconstructions(manifest.metrics)


def describe_reconstructions(metrics: Metrics) -> str:
    """Return one sentence on how near the reconstructions of held-out images are to the images."""
    share, ssim = explained_share(metrics), metrics.get("ssim")
    measured = []
    if isinstance(ssim, int | float):
        measured.append(f"their structural similarity (SSIM) to the images is {ssim:.3f}, of at most 1")
    if share is not None:
        measured.append(f"they explain {max(share, 0):.0%} of what the images' mean does not")
    if not measured:
        return "How well it draws was not measured."
    return f"Reconstructions of images that it was not trained on: {', and '.join(measured)}."
