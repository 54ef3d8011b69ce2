"""A heat map over a grey image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.images.spec import Uint8Array

# Violet to yellow, each about 15 lighter than the one before (CIELAB L* 18 to 95): a stronger value looks stronger.
HEAT = np.array([[70, 20, 90], [130, 30, 115], [195, 60, 100], [240, 115, 75], [250, 180, 80], [250, 242, 160]])

STRONGEST_ALPHA = 0.85

STRENGTHS, GREYS = 1024, 256

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)


def overlays(image: Uint8Array, evidence: NDArray[np.floating]) -> Uint8Array:
    """`image` (H, W, C), in grey, under each heat map of `evidence` (t, h, w), not negative: uint8 (t, H, W, 3).

    A map is enlarged bilinearly and measured against its own greatest value: nothing there leaves the grey
    image as it is, the most covers it nearly. Colour then means evidence, whatever colours the image has.
    """
    height, width = image.shape[:2]
    weights = np.array(LUMINANCE if image.shape[2] == 3 else (1,), dtype=np.float32)
    grey = (image.astype(np.float32) @ weights).round().astype(np.uint32)
    peaks = np.where((peaks := evidence.max(axis=(1, 2), keepdims=True)) > 0, peaks, 1)
    small = (evidence / peaks * (STRENGTHS - 1)).astype(np.float32)
    enlarged = [Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR) for each in small]
    strength = np.stack([np.asarray(each) for each in enlarged]).round().astype(np.uint32)
    tinted: Uint8Array = TINTED[strength * GREYS + grey]
    return tinted


def heat(strength: NDArray[np.floating]) -> NDArray[np.float64]:
    """The colour (..., 3), 0 to 255, of each strength (...) in [0, 1]: the stronger, the lighter."""
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(strength, stops, channel) for channel in HEAT.T], axis=-1)


def _tinted() -> Uint8Array:
    """The colour of each grey under each strength, (STRENGTHS * GREYS, 3): looking it up is faster than mixing it."""
    strength = np.linspace(0, 1, STRENGTHS)[:, None, None]
    alpha, grey = STRONGEST_ALPHA * strength, np.arange(GREYS)[:, None]
    mixed = (1 - alpha) * grey + alpha * heat(strength[..., 0])
    return mixed.round().astype(np.uint8).reshape(-1, 3)


TINTED = _tinted()
