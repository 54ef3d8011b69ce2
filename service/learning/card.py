"""The model card of a learned bundle, and the sheet that shows what its axes mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.bundle.manifest import ImageSpec, Manifest
from service.core.latent import CONTENT
from service.core.population import Population
from service.core.types import Float64Array
from service.images.pictures.contact_sheet import sheet_png
from service.images.properties import PROPERTIES
from service.images.sample_range import SampleRange
from service.learning import folder

SHEET = "axes.png"
# Photographs at either end of an axis, and their side on the sheet.
AT_AN_END, SIDE = 4, 80

CARD = """\
# {model}

Learned from {photographs} photographs of the folder `{data}` for misfit: a pretrained backbone turns a photograph into
features, linear axes turn these into latents, and the service compares the photographs of a request with each other
there. {unreadable} files could not be read.

## Use

For photographs like those that it was learned from. Photographs that lie further from them than {high:.1%} of their
own did are called foreign. {draws} Contexts are estimated by `{estimator}` where a request does not say.

## Latents

- `content 1` to `content {content}` tell what a photograph shows. [axes.png](axes.png) has the photographs at both
  ends of each. They are locality preserving projections (He & Niyogi 2003): neighbours lie close, strangers far apart.
- {properties} are measured, on the pixels and on the size of the image as it came, and count in standard deviations
  of the learned photographs.

## Backbone

{backbone}. Licence of the weights: {licence}.
"""

NO_PICTURES = "It draws no pictures."
PICTURES = """\
It draws pictures of {side} x {side} pixels, enlarged, by a decoder that was trained on these photographs. On {held_out}
of them that the training did not see, the structural similarity (SSIM) is {ssim:.3f} and the mean absolute error
{absolute_error_grey_levels:.1f} grey levels of 255; the mean of all photographs reaches {mean_image_ssim:.3f} and
{mean_image_absolute_error_grey_levels:.1f}. Few latents hold little detail: a picture shows colours, light and layout
rather than texture."""


def write_card(manifest: Manifest, population: Population) -> str:
    """Return the text of the model card."""
    backbone = manifest.training["backbone"]
    assert isinstance(backbone, dict)
    return CARD.format(
        model=manifest.model,
        photographs=population.size,
        data=manifest.data["name"],
        unreadable=manifest.data.get("unreadable") or "No",
        draws=_draws(manifest),
        high=0.999,
        estimator=manifest.default_estimator,
        content=sum(latent.factor == CONTENT for latent in manifest.latents),
        properties=", ".join(f"`{each.name}`" for each in PROPERTIES),
        backbone=", ".join(f"{key}: {backbone[key]}" for key in ("name", "source", "trained_on") if key in backbone),
        licence=backbone.get("licence", "not stated"),
    )


def _draws(manifest: Manifest) -> str:
    recipe, measured = manifest.training.get("decoder"), manifest.metrics.get("decoder")
    if not isinstance(recipe, dict) or not isinstance(measured, dict):
        return NO_PICTURES
    return PICTURES.format(**{**recipe, **measured})


def draw_axes(means: Float64Array, files: Sequence[Path], samples: SampleRange, manifest: Manifest) -> bytes:
    """Return a PNG with a row for each latent: the photographs at its lower end, then those at its upper end.

    means (n, L) of the photographs in `files` (n,), which `samples` tells how to read
    """
    spec = ImageSpec(height=SIDE, width=SIDE, channels=3)
    rows, captions = [], []
    for latent in manifest.latents:
        if latent.dead:
            continue
        order = np.argsort(means[:, latent.index], kind="stable")
        chosen = [*order[:AT_AN_END], *order[-AT_AN_END:]]
        rows.append(folder.read([files[row] for row in chosen], spec, samples).pixels)
        captions.append(latent.name)
    columns = ["least", *[""] * (2 * AT_AN_END - 2), "most"]
    return sheet_png(rows, captions, columns)
