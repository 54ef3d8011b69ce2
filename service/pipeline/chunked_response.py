"""A response whose long list is made in chunks of a few records, so that memory never holds all of it.

An answer of 10,000 images takes tens of MiB as JSON, and ten times that as dicts and models. Each transport asks for
the records chunk by chunk and sends, or keeps, only their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

ResponseT = TypeVar("ResponseT", bound=BaseModel)
ResponseT_co = TypeVar("ResponseT_co", bound=BaseModel, covariant=True)

# Bytes of JSON that one chunk should have: its records take some ten times as many as dicts and models.
PIECE_BYTES = 256 * 1024
# Records of up to so many bytes of JSON may be made at once, while the networks work on something else.
EARLY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ChunkedResponse(Generic[ResponseT_co]):
    """A response, and the records of one of its lists.

    head     the response with an empty list
    field    the list's name
    records  makes the records, in order, in lists of at least one; it must not fail
    is_short whether making all of it takes about a millisecond
    """

    head: ResponseT_co
    field: str
    records: Callable[[], Iterator[Sequence[BaseModel]]]
    is_short: bool = False

    def whole(self) -> ResponseT_co:
        """Return the response with all of its records."""
        return self._with([record for records in self.records() for record in records])

    def parts(self) -> Iterator[tuple[ResponseT_co, set[str]]]:
        """Yield responses, each with the names of the fields that count in it: together they make the whole.

        The fields before the list come first, then the list chunk by chunk, then the fields after it.
        """
        names = list(type(self.head).model_fields)
        if self.is_short:
            yield self.whole(), set(names)
            return
        place = names.index(self.field)
        yield self.head, set(names[:place])
        for records in self.records():
            yield self._with(records), {self.field}
        yield self.head, set(names[place + 1 :])

    def json(self, indent: int | None = None) -> Iterator[bytes]:
        """Yield the JSON of the response, byte for byte as `whole().model_dump_json(exclude_unset=True)` has it."""
        if self.is_short:
            yield self.whole().model_dump_json(exclude_unset=True, indent=indent).encode()
            return

        def dump(response: BaseModel, include: set[str]) -> str:
            return response.model_dump_json(exclude_unset=True, indent=indent, include=include)

        names = list(type(self.head).model_fields)
        whole, alone = dump(self.head, set(names)), dump(self.head, {self.field})
        # The list is empty: where it stands last, the last bracket that opens is its own.
        start = dump(self.head, set(names[: names.index(self.field) + 1])).rindex("[") + 1
        opening, end = alone.rindex("[") + 1, "" if indent is None else "\n" + indent * " "
        closing = len(end + alone[opening:])
        before = whole[:start]
        for records in self.records():
            yield f"{before}{dump(self._with(records), {self.field})[opening:-closing]}".encode()
            before = ","
        yield (f"{end}{whole[start:]}" if before == "," else whole).encode()

    def _with(self, records: Sequence[BaseModel]) -> ResponseT_co:
        return self.head.model_copy(update={self.field: records})


def cut(weights: NDArray[np.int64]) -> list[slice]:
    """Return slices of consecutive records that take `weights` (n,) bytes of JSON: each about PIECE_BYTES together."""
    if 0 < weights.sum() <= PIECE_BYTES:
        return [slice(0, len(weights))]
    begins = (np.cumsum(weights) - weights) // PIECE_BYTES
    starts = np.flatnonzero(np.diff(begins, prepend=-1)).tolist()
    return [slice(start, stop) for start, stop in pairwise([*starts, len(weights)])]
