"""A backbone by itself: pooled features of images, for learning. Serving runs it within a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import ImageSpec
from service.errors import BundleIncompatible
from service.images.spec import Uint8Array
from service.inference.backbone import pool
from service.inference.onnx_runtime import open_session

# Images that run at a time. More take more memory and are no faster.
ROWS = 16


class FeatureNetwork:
    """An ONNX graph of `images` uint8 (N, H, W, 3) -> `features` float32 (N, C, h, w). Threads may share it.

    Raises BundleCorrupt where the file cannot be opened, and BundleIncompatible where the graph is of another kind.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_session(path, with_gpu=False)
        images, features = self._session.get_inputs(), self._session.get_outputs()
        actual = [(tensor.name, tensor.type, tensor.shape) for tensor in (*images, *features)]
        try:
            (_, height, width, channels), (_, self.channels, _, _) = (tensor.shape for tensor in (*images, *features))
            self.image = ImageSpec(height=height, width=width, channels=channels)
            fits = [entry[:2] for entry in actual] == [("images", "tensor(uint8)"), ("features", "tensor(float)")]
        except ValueError:
            fits = False
        if not fits or channels != 3:
            raise BundleIncompatible(
                f"{path} maps {actual}; a backbone maps images, uint8 (N, H, W, 3), to features, float32 (N, C, h, w), "
                "with H, W and C fixed.",
                "Export it with the scaling of pixels in the graph and the last feature map as its output.",
            )

    def pooled(self, images: Uint8Array) -> NDArray[np.float64]:
        """Return the features (n, C) of images (n, H, W, 3), each the mean over its map's positions."""
        parts = [np.empty((0, self.channels))]
        for start in range(0, len(images), ROWS):
            (features,) = self._session.run(None, {"images": images[start : start + ROWS]})
            parts.append(pool(np.asarray(features)))
        return np.concatenate(parts)
