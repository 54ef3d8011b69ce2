"""How the images of one request, or of a folder, are read, the same for all, and the warnings that come of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import numpy as np

from service.errors import LONGEST_QUOTE, InvalidInput
from service.images import sample_range
from service.images.conform import Note
from service.images.decode import Upload, open_image
from service.images.formats.files import HEAD_BYTES, may_be_deep
from service.images.limits import Limits
from service.images.sample_range import Extent, Extents, SampleRange
from service.images.spec import RangeChoice, Spec

# What a warning says of images by their notes, after their number: of one image, and of several.
TEXTS: dict[Note, str] = {
    "pages": "{} of several pages or frames, of which only the first was read. pages=all reads every one.",
    "stack": "{} a stack of ImageJ with one directory: only its first image was read. Save it as single images.",
    "unused_alpha": "{} an alpha channel that is 0 everywhere. It was taken as unused: the colours count without it.",
    "profile": "{} a colour profile that cannot be used. The colours were read as sRGB.",
    "cut": "{} samples beyond the range, which were cut off.",
    "missing": "{} samples that are no numbers (nan, infinite), which were read as black.",
}
VERBS: dict[Note, tuple[str, str]] = {
    "pages": ("is a file", "are files"),
    "stack": ("is", "are each"),
    "unused_alpha": ("has", "have"),
    "profile": ("has", "have"),
    "cut": ("has", "have"),
    "missing": ("has", "have"),
}
# Of images whose levels are 0 and 1.
FAINT = "have no level above 1 of 255, and are all but black: multiply masks of 0 and 1 by 255."


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

    @classmethod
    def of_files(cls, files: Iterable[Path], spec: Spec, limits: Limits) -> Reading:
        """Return how to read image files, which are measured together. A file that cannot be read has no part in it."""

        def measure(path: Path) -> Extents:
            with suppress(InvalidInput, OSError):
                with path.open("rb") as file:
                    if not may_be_deep(file.read(HEAD_BYTES)):
                        return {}
                opened = open_image(path.read_bytes(), spec, "fit", limits)
                return opened.measure() if opened.find_range(SampleRange()) is None else {}
            return {}

        reading = cls()
        with ThreadPoolExecutor(joblib.cpu_count(), "measuring") as pool:
            reading.set_measured(sample_range.merge(pool.map(measure, files)))
        return reading

    def go_on(self, uploads: Sequence[Upload]) -> None:
        """Go on with the next images of a stream. The range of what was measured stays."""
        self.uploads = uploads
        self.samples = SampleRange(self.samples.choice, self.samples.measured)

    def set_measured(self, extents: Extents) -> None:
        """Keep what was measured. What is known already stays."""
        measured = {**extents, **self.samples.measured}
        self.samples = SampleRange(self.samples.choice, measured, is_complete=True)

    def note(self, ids: Sequence[str], notes: Mapping[int, Sequence[Note]], count: int) -> None:
        """Keep the notes on images by their positions among `ids`, of which `count` were read."""
        self._count += count
        for position, kinds in sorted(notes.items()):
            for kind in kinds:
                self._ids.setdefault(kind, []).append(ids[position])

    @property
    def noted(self) -> tuple[dict[Note, list[str]], int]:
        """Return the ids of the images of each note, and how many images were read."""
        return self._ids, self._count

    def note_all(self, ids: Mapping[Note, Sequence[str]], count: int) -> None:
        """Keep what another object, of other images of the same request, has `noted`."""
        self._count += count
        for kind, names in ids.items():
            self._ids.setdefault(kind, []).extend(names)

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
            source = "range=batch takes" if self.samples.choice == "batch" else "no file states a range: it comes from"
            hint = "range=full takes the whole type's" if dtype.kind != "f" else "range=full takes 0 to 1"
            warnings.append(
                f"Images of type {name} were read with {_number(low)} as black and {_number(high)} as white; {source} "
                f"these images together, which go from {_number(measured.low)} to {_number(measured.high)}. Others may "
                f"get another range: {hint}, or send 8 bits a channel."
            )
        return warnings

    def _warn_of_darkness(self) -> list[str]:
        if 2 * (faint := len(self._ids.get("faint", []))) > self._count:
            return [f"{faint} of {self._count} images {FAINT}"]
        dark = len(self._ids.get("dark", []))
        if 2 * dark <= self._count or self.samples.choice == "batch":
            return []
        return [
            f"{dark} of {self._count} images reach less than a quarter of the range that was read, and are dark: "
            "range=batch takes what the images have."
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
