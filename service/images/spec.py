"""The images that an encoder takes: their type and shape, and what happens to images of another size."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Uint8Array = NDArray[np.uint8]

Resize = Literal["fit", "reject"]  # images of another size: resize them, or raise ShapeMismatch


class Spec(Protocol):
    """The shape of the encoder's images. `service.bundle.manifest.ImageSpec` is one."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
