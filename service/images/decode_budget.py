"""A request's budget for decoding its images, in bytes and in seconds of CPU. It grows with the body's length."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field, replace

from service.errors import TooLarge
from service.images.limits import MIB
from service.settings import Settings

# Bytes that decoding one image may take, however short the body is. All images of a request may take
# SHARES_OF_A_REQUEST times what one may.
FREE_BYTES = 96 * MIB
SHARES_OF_A_REQUEST = 2
HINT = (
    "Scale the images down, or send fewer at a time, with a reference set so that the context stays the same. "
    "Whoever runs the service can raise MISFIT_MAX_DECODE_RATIO and MISFIT_DECODE_SECONDS."
)


@dataclass
class DecodeBudget:
    """What one request may spend, and what it has spent.

    sent_bytes       length of the body
    max_image_bytes  limit for one image; None for no limit
    max_bytes        limit for all images together
    bytes, seconds   spent so far
    began            when the request came, in seconds of the monotonic clock
    is_admitted      True once there was room for images that are not decoded at once
    """

    sent_bytes: int
    max_image_bytes: int | None
    max_bytes: int
    max_seconds: float
    bytes: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)
    is_admitted: bool = False

    @classmethod
    def of(cls, settings: Settings, sent_bytes: int) -> DecodeBudget:
        """Return the budget of a request whose body has `sent_bytes` bytes."""
        by_length = settings.max_decode_ratio * sent_bytes
        return cls(
            sent_bytes,
            min(settings.max_decode_bytes, max(FREE_BYTES, by_length)),
            SHARES_OF_A_REQUEST * (FREE_BYTES + by_length),
            settings.decode_seconds * (1 + sent_bytes / MIB),
        )

    @classmethod
    def unlimited(cls) -> DecodeBudget:
        """Return a budget without limits, for images that no client sent."""
        return cls(0, None, sys.maxsize, math.inf)

    def again(self) -> DecodeBudget:
        """Return a budget to decode the same images once more. They are admitted already."""
        return replace(self, bytes=0, seconds=0.0, is_admitted=True)

    @property
    def bytes_left(self) -> int:
        return self.max_bytes - self.bytes

    @property
    def seconds_left(self) -> float:
        return self.max_seconds - self.seconds

    def take(self, bytes: int) -> None:
        """Count `bytes` more. Raises TooLarge where the images then take more bytes than they may."""
        self.bytes += bytes
        self.check(self.bytes)

    def check(self, bytes: int) -> None:
        """Raise TooLarge where images that take `bytes` are more than a request may have. Nothing is counted."""
        if bytes > self.max_bytes:
            raise TooLarge(
                f"Decoding the images takes {bytes // MIB} MiB or more; of a body of {self.sent_bytes} bytes at "
                f"most {self.max_bytes // MIB} MiB are taken.",
                HINT,
            )

    def spend(self, seconds: float) -> None:
        """Count `seconds` of CPU more. Raises TooLarge where the images then take more than they may."""
        self.seconds += seconds
        if self.seconds >= self.max_seconds:
            raise TooLarge(
                f"Decoding the images takes more than {self.max_seconds:.1f} s of CPU, the most that is taken of a "
                f"body of {self.sent_bytes} bytes.",
                HINT,
            )
