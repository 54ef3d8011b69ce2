"""A table of scores for labelling tools: tasks of Label Studio, and annotations of CVAT.

Label Studio: the JSON of tasks with predictions, https://labelstud.io/guide/predictions
CVAT: "CVAT for images 1.1", https://docs.cvat.ai/docs/other/xml_format
FiftyOne: see fiftyone_dataset.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from PIL import Image, UnidentifiedImageError

from service.api.score_records import ScoreRow, ScoresTable
from service.errors import InvalidInput

# The names that a labelling configuration of Label Studio must have: <Choices name="misfit" toName="image">.
FROM_NAME, TO_NAME = "misfit", "image"
OUTLIER, NORMAL = "outlier", "normal"
# Where Label Studio serves files of the folder that LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT names.
LOCAL_FILES = "/data/local-files/?d="
ATTRIBUTES = ("outlier_probability", "rank", "reason")


def to_label_studio(table: ScoresTable, root: Path | None = None) -> str:
    """Return the scored images as tasks, the most outlying first, each with what misfit thinks of it.

    root  the folder that Label Studio serves files of; without it the address of an image is its path

    Raises InvalidInput where an image lies outside of `root`.
    """
    version = table.info.bundle if table.info else "misfit"
    tasks = [
        {
            "data": {
                "image": _address(row, root),
                "id": row.id,
                "group": row.group,
                "outlier_score": row.outlier_score,
                "outlier_probability": row.outlier_probability,
                "reason": row.reason,
            },
            "predictions": [
                {
                    "model_version": f"misfit {version}",
                    "score": row.outlier_probability,
                    "result": [
                        {
                            "from_name": FROM_NAME,
                            "to_name": TO_NAME,
                            "type": "choices",
                            "value": {"choices": [OUTLIER if row.is_outlier else NORMAL]},
                        }
                    ],
                }
            ],
        }
        for row in _most_outlying_first(table.rows)
    ]
    return json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"


def to_cvat(table: ScoresTable, root: Path | None = None) -> str:
    """Return the scored images as annotations: a tag on each flagged one, with probability, rank and reason.

    root  the folder that a task's names of images start at; without it they are the ids

    Raises InvalidInput where an image lies outside of `root`, or is no file whose size can be read.
    """
    annotations = Element("annotations")
    SubElement(annotations, "version").text = "1.1"
    task = SubElement(SubElement(annotations, "meta"), "task")
    for name, text in (("name", "misfit"), ("size", str(len(table.rows))), ("mode", "annotation")):
        SubElement(task, name).text = text
    label = SubElement(SubElement(task, "labels"), "label")
    SubElement(label, "name").text = OUTLIER
    attributes = SubElement(label, "attributes")
    for name in ATTRIBUTES:
        attribute = SubElement(attributes, "attribute")
        for key, text in (("name", name), ("mutable", "False"), ("input_type", "text"), ("default_value", "")):
            SubElement(attribute, key).text = text
        SubElement(attribute, "values").text = ""
    for number, row in enumerate(row for row in table.rows if row.rank is not None):
        width, height = _size_of(row)
        name = row.id if root is None else path_within(row, root)
        image = SubElement(
            annotations, "image", {"id": str(number), "name": name, "width": str(width), "height": str(height)}
        )
        if row.is_outlier:
            tag = SubElement(image, "tag", {"label": OUTLIER, "source": "auto"})
            for name in ATTRIBUTES:
                SubElement(tag, "attribute", {"name": name}).text = _without_controls(str(getattr(row, name)))
    indent(annotations)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(annotations, encoding="unicode") + "\n"


FORMATS: dict[str, Callable[[ScoresTable, Path | None], str]] = {"label-studio": to_label_studio, "cvat": to_cvat}


def _most_outlying_first(rows: Sequence[ScoreRow]) -> Iterator[Any]:
    scored = [row for row in rows if row.rank is not None]
    return iter(sorted(scored, key=lambda row: (-(row.outlier_probability or 0), row.rank or 0)))


def _address(row: ScoreRow, root: Path | None) -> str:
    return row.path if root is None else f"{LOCAL_FILES}{path_within(row, root)}"


def path_within(row: ScoreRow, root: Path) -> str:
    """Return the path of an image within `root`. Raises InvalidInput where it lies outside of it."""
    try:
        return Path(row.path).relative_to(root.resolve()).as_posix()
    except ValueError:
        raise InvalidInput(f"{row.path} is not in {root}.", "Name a folder that holds all images.") from None


def _size_of(row: ScoreRow) -> tuple[int, int]:
    try:
        with Image.open(row.path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        raise InvalidInput(
            f"The size of {row.path} cannot be read: {error}.", "CVAT takes image files that are where they were."
        ) from error


def _without_controls(text: str) -> str:
    """Return a text that XML can hold."""
    return "".join(letter for letter in text if letter.isprintable())
