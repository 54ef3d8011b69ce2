"""Heat maps over grey images: brighter, warmer colours mark the pixels that count as evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.images.spec import Uint8Array

# From violet to yellow. Each colour is about 15 lighter than the one before (CIELAB L* from 18 to 95), so that a
# stronger value looks stronger.
HEAT = np.array([[70, 20, 90], [130, 30, 115], [195, 60, 100], [240, 115, 75], [250, 180, 80], [250, 242, 160]])

STRONGEST_ALPHA = 0.85  # of the colour where the evidence is at its maximum
STRENGTHS, GREYS = 1024, 256
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)


def overlays(image: Uint8Array, evidence: NDArray[np.floating]) -> Uint8Array:
    """Return `image` (H, W, C) in grey under each heat map of `evidence` (t, h, w), as uint8 (t, H, W, 3).

    No evidence is negative. Each map is enlarged bilinearly and scaled by its own maximum. Where it is 0 the grey image
    shows unchanged; where it is at its maximum the colour hides it nearly. Colour therefore means evidence, whatever
    colours the image has.
    """
    height, width = image.shape[:2]
    weights = np.array(LUMINANCE if image.shape[2] == 3 else (1,), dtype=np.float32)
    grey = (image.astype(np.float32) @ weights).round().astype(np.uint32)
    peaks = np.where((peaks := evidence.max(axis=(1, 2), keepdims=True)) > 0, peaks, 1)
    small = (evidence / peaks * (STRENGTHS - 1)).astype(np.float32)
    enlarged = [Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR) for heat in small]
    strength = np.stack([np.asarray(heat) for heat in enlarged]).round().astype(np.uint32)
    result: Uint8Array = TINTED[strength * GREYS + grey]
    return result


def read_strength(overlay: Uint8Array) -> Uint8Array:
    """Return the strength (H, W), 0 to 255, that an overlay (H, W, 3) shows, to some 2%.

    Grey has equal channels. So the differences between the channels of a mixed colour are those of the heat's colour
    alone, times its alpha, and no two strengths have the same ones.
    """
    strength = np.linspace(0, 1, GREYS)
    colours, shown = heat_colours(strength), overlay.astype(np.int16).reshape(-1, 3)
    expected = STRONGEST_ALPHA * strength[:, None] * (colours[:, 1:] - colours[:, :-1])
    pixels, places = np.unique(shown[:, 1:] - shown[:, :-1], axis=0, return_inverse=True)
    nearest = ((pixels[:, None] - expected) ** 2).sum(axis=2).argmin(axis=1)
    result: Uint8Array = nearest.astype(np.uint8)[places].reshape(overlay.shape[:2])
    return result


def heat_colours(strength: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the colour (..., 3), 0 to 255, of each strength (...) in [0, 1]. A stronger value is lighter."""
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(strength, stops, channel) for channel in HEAT.T], axis=-1)


def _tinted() -> Uint8Array:
    """Return the colour of each grey under each strength, (STRENGTHS * GREYS, 3). A look-up is faster than mixing."""
    strength = np.linspace(0, 1, STRENGTHS)[:, None, None]
    alpha, grey = STRONGEST_ALPHA * strength, np.arange(GREYS)[:, None]
    mixed = (1 - alpha) * grey + alpha * heat_colours(strength[..., 0])
    return mixed.round().astype(np.uint8).reshape(-1, 3)


TINTED = _tinted()
