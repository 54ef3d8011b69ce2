"""Limits on decoding one image: they are checked on its header, before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import TooLarge

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Limits on decoding one image.

    max_pixels  width times height
    max_cost    bytes of memory; None for no limit
    """

    max_pixels: int
    max_cost: int | None = None

    def check_pixels(self, size: tuple[int, int]) -> None:
        """Raise TooLarge where an image of `size`, (width, height), has too many pixels."""
        width, height = size
        if width * height > self.max_pixels:
            raise TooLarge(
                f"The image has {width} x {height} pixels; at most {self.max_pixels} are taken.",
                "Scale it down before sending.",
            )

    def check_cost(self, cost: int, size: tuple[int, int], length: int) -> None:
        """Raise TooLarge where decoding takes too many bytes, `cost`, of an image of `size` in a file of `length`
        bytes.
        """
        if self.max_cost is not None and cost > self.max_cost:
            raise TooLarge(
                f"The image has {size[0]} x {size[1]} pixels in a file of {length} bytes: decoding it takes some "
                f"{cost // MIB} MiB; at most {self.max_cost // MIB} MiB are taken for one image of this request.",
                "Scale it down before sending. The more is sent in a request, the more its images may take "
                "(MISFIT_MAX_DECODE_RATIO), up to MISFIT_MAX_DECODE_BYTES.",
            )
