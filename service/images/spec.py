"""The rows that an encoder takes: their shape, and how other sizes become it."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Uint8Array = NDArray[np.uint8]

Resize = Literal["fit", "reject"]


class Spec(Protocol):
    """The rows that the encoder takes, as `service.bundle.store.ImageSpec` has them."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
