"""Files of several pages as uploads, one for each page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from service.errors import InvalidInput
from service.images.decode import Upload
from service.images.formats import pages


def split_pages(uploads: Iterable[Upload], most: int) -> list[Upload]:
    """Return an upload for each page of each file; their ids are NAME[0], NAME[1], ...

    A file of one page stays as it is. The result stops short once there are more than `most`.
    """
    split: list[Upload] = []
    for upload in uploads:
        numbers = _find_pages(upload, most)
        if len(numbers) > 1:
            split += [replace(upload, id=f"{upload.id}[{at}]", page=page) for at, page in enumerate(numbers)]
        else:
            split.append(upload)
        if len(split) > most:
            break
    return split


def _find_pages(upload: Upload, most: int) -> list[int]:
    """Return the numbers of a file's pages. One that cannot be read has none: its error comes when it is decoded."""
    try:
        content = upload.read()
    except InvalidInput:
        return []
    return [] if isinstance(content, np.ndarray) else pages.find_pages(content, most)
