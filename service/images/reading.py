"""How the images of one request are read, the same for all of them, and the warnings that come of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from service.errors import LONGEST_QUOTE
from service.images import sample_range
from service.images.conform import Note
from service.images.decode import Rows, Upload
from service.images.sample_range import Extent, Extents, SampleRange
from service.images.spec import RangeChoice

# What a warning says of images by their notes, after their number: of one image, and of several.
TEXTS: dict[Note, str] = {
    "pages": "{} of several pages or frames, of which only the first was read. pages=all reads every one.",
    "unused_alpha": "{} an alpha channel that is 0 everywhere. It was taken as unused: the colours count without it.",
    "profile": "{} a colour profile that cannot be used. The colours were read as sRGB.",
    "cut": "{} samples beyond the range, which were cut off.",
}
VERBS: dict[Note, tuple[str, str]] = {
    "pages": ("is a file", "are files"),
    "unused_alpha": ("has", "have"),
    "profile": ("has", "have"),
    "cut": ("has", "have"),
}


@dataclass
class Reading:
    """What reading the images of a request needs to know, and what was noted. It grows while they are read.

    uploads   the images whose range is taken where their files state none: all of the request, its reference included
    samples   the range of deep samples
    lock      held while the images are measured
    """

    uploads: Sequence[Upload] = ()
    samples: SampleRange = field(default_factory=SampleRange)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ids: dict[Note, list[str]] = field(default_factory=dict)
    _count: int = 0

    @classmethod
    def of(cls, uploads: Sequence[Upload], choice: RangeChoice) -> Reading:
        """Return how to read `uploads`, the images of a request, with the range that its options ask for."""
        return cls(uploads, SampleRange(choice))

    def go_on(self, uploads: Sequence[Upload]) -> None:
        """Go on with the next images of a stream. The range of what was measured stays."""
        self.uploads = uploads
        self.samples = SampleRange(self.samples.choice, self.samples.measured)

    def set_measured(self, extents: Extents) -> None:
        """Keep what was measured. What is known already stays."""
        measured = {**extents, **self.samples.measured}
        self.samples = SampleRange(self.samples.choice, measured, is_complete=True)

    def note(self, uploads: Sequence[Upload], rows: Rows) -> None:
        """Keep what is noted of images that were read."""
        self._count += len(rows.pixels)
        for position, notes in rows.notes.items():
            for note in notes:
                self._ids.setdefault(note, []).append(uploads[position].id)

    def list_warnings(self) -> list[str]:
        """Return the warnings, one of a kind."""
        return [*self._warn_of_ranges(), *self._warn_of_darkness(), *self._warn_of_notes()]

    def _warn_of_ranges(self) -> list[str]:
        warnings = []
        for name, measured in self.samples.measured.items():
            dtype = np.dtype(name)
            low, high = self.samples.of_measured(dtype, measured)
            if self.samples.choice == "file" and sample_range.is_full(dtype, Extent(low, high)):
                continue
            source = (
                "range=batch takes" if self.samples.choice == "batch" else "no file states a range: it is taken from"
            )
            hint = "range=full takes the whole type's" if dtype.kind != "f" else "range=full takes 0 to 1"
            warnings.append(
                f"Images of type {name} were read with {_number(low)} as black and {_number(high)} as white; {source} "
                f"this request's images, which go from {_number(measured.low)} to {_number(measured.high)}. Other "
                f"requests may get another range: {hint}, or send 8 bits a channel."
            )
        return warnings

    def _warn_of_darkness(self) -> list[str]:
        dark = self._ids.get("dark", [])
        if not dark or len(dark) < self._count:
            return []
        return [
            "No image reaches a quarter of the range that was read: all are dark. range=batch takes the images' own."
        ]

    def _warn_of_notes(self) -> list[str]:
        warnings = []
        for note, text in TEXTS.items():
            if ids := self._ids.get(note):
                first = ids[0] if len(ids[0]) <= LONGEST_QUOTE else f"{ids[0][:LONGEST_QUOTE]}..."
                one, several = VERBS[note]
                subject = (
                    f"Image {first} {one}" if len(ids) == 1 else f"{len(ids)} images (the first is {first}) {several}"
                )
                warnings.append(text.format(subject))
        return warnings


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
