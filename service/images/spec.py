"""The images that an encoder takes: their type and shape, and what happens to images of another size."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Uint8Array = NDArray[np.uint8]

Resize = Literal["fit", "reject"]  # images of another size: resize them, or raise ShapeMismatch
# Which values of deep samples become 0 and 255: those that the file states, the batch's own, the sample type's.
RangeChoice = Literal["file", "batch", "full"]
Pages = Literal["first", "all"]  # of a file of several pages


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
