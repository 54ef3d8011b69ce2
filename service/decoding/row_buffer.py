"""The rows of some uploads while they are filled in: first arrays of the right shape, then decoded files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from service.decoding.jobs import REFUSED_BYTES, Decoded, Job
from service.errors import InvalidInput, MisfitError
from service.images import sample_range
from service.images.conform import Note
from service.images.decode import Content, Rows, Upload, is_row, with_channels
from service.images.decode_budget import DecodeBudget
from service.images.formats import decode_cost
from service.images.sample_range import Extents
from service.images.spec import Spec


class RowBuffer:
    """The rows of some uploads while they are filled in: first arrays of the right shape, then decoded files."""

    def __init__(self, uploads: Sequence[Upload], spec: Spec, budget: DecodeBudget) -> None:
        """Read every upload. Call this in a thread where that may unpack an archive.

        Raises TooLarge once the sizes in the files' first bytes tell that all together exceed the budget: the rest is
        not unpacked, and no worker sees them.
        """
        self.files: dict[int, Content] = {}
        self.errors: dict[int, MisfitError] = {}
        self._pages = [upload.page for upload in uploads]
        self._unknown: set[int] = set()
        self._extents: list[Extents] = []
        self._notes: dict[int, Sequence[Note]] = {}
        self._pixels = np.empty((len(uploads), *spec.shape), dtype=np.uint8)
        self._sizes = np.full((len(uploads), 2), (spec.width, spec.height), dtype=np.int64)
        least_cost = 0
        for position, upload in enumerate(uploads):
            try:
                content = upload.read()
            except InvalidInput as error:
                self.errors[position] = error
                continue
            if isinstance(content, np.ndarray) and is_row(content, spec):
                self._pixels[position] = with_channels(content)
            else:
                self.files[position] = content
                if not isinstance(content, np.ndarray):
                    # An image that is refused by itself counts as REFUSED_BYTES.
                    least_cost += min(decode_cost.estimate_least(content), REFUSED_BYTES)
                    budget.check(least_cost)

    def select(self, job: Job, positions: Sequence[int]) -> Job:
        """Return the job with the files at `positions`."""
        pages = [self._pages[at] for at in positions]
        contents = [self.files[at] for at in positions]
        return replace(job, contents=contents, pages=[] if pages.count(None) == len(pages) else pages)

    def add(self, positions: Sequence[int], decoded: Decoded) -> None:
        """Fill in the result of the files at `positions`."""
        self.errors |= {positions[at]: error for at, error in decoded.errors.items()}
        self._unknown |= {positions[at] for at in decoded.unknown}
        self._extents.append(decoded.extents)
        self._notes |= {positions[at]: notes for at, notes in decoded.notes.items()}
        if decoded.pixels is not None and len(decoded.pixels):
            usable = [at for at in positions if self._is_usable(at)]
            self._pixels[usable], self._sizes[usable] = decoded.pixels, decoded.sizes

    def result(self) -> Rows:
        """Return the rows of the usable uploads."""
        if not self.errors and not self._unknown:
            return Rows(self._pixels, self._sizes, {}, notes=self._notes)
        usable = [at for at in range(len(self._pixels)) if self._is_usable(at)]
        return Rows(
            self._pixels[usable],
            self._sizes[usable],
            dict(sorted(self.errors.items())),
            sorted(self._unknown - self.errors.keys()),
            sample_range.merge(self._extents),
            self._notes,
        )

    def _is_usable(self, position: int) -> bool:
        return position not in self.errors and position not in self._unknown
