"""A table of scores as a data set that FiftyOne imports, with heat maps as fields.

The format is `fiftyone.types.LegacyFiftyOneDataset`, the one that describes itself in JSON: every sample has its
fields, and files that fields name lie in fields/NAME.
https://docs.voxel51.com/user_guide/import_datasets.html#legacyfiftyonedataset
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from PIL import Image

from service.api.score_records import ScoreRow, ScoresTable
from service.errors import InvalidInput
from service.images.pictures.heat_map import read_strength
from service.offline.atomic_files import about, name_scratch
from service.offline.hand_over import path_within
from service.offline.heat_map_files import find_heat_maps

SAMPLES, METADATA, FIELDS = "samples.json", "metadata.json", "fields"
# Columns of the table that are fields of the same name. Names such as "id" are FiftyOne's own.
COLUMNS = (
    "group", "rank", "outlier_score", "outlier_probability", "is_outlier", "is_foreign", "mahalanobis_squared",
    "reason", "error",
)  # fmt: skip
OUTLIER, UNREADABLE = "outlier", "unreadable"
# What a field's name cannot hold.
NO_NAME = re.compile(r"\W+")


def write_fiftyone(table: ScoresTable, out: Path, root: Path | None = None, maps: Path | None = None) -> None:
    """Write a folder `out` that FiftyOne imports. It appears whole, or not at all.

    root  the folder that the paths of images start at (FiftyOne's `rel_dir`); without it they are absolute
    maps  the folder of heat maps that `misfit explain --maps` wrote

    Raises InvalidInput where an image is no file or lies outside of `root`, or where `out` is there, and OSError.
    """
    if out.exists():
        raise InvalidInput(f"{out} is there already.", "Name a new folder.")
    scratch = name_scratch(out)
    try:
        (scratch / FIELDS).mkdir(parents=True)
        samples = [_build_sample(row, root, _write_heat_maps(row, maps, scratch)) for row in table.rows]
        (scratch / SAMPLES).write_text(json.dumps({"samples": samples}, ensure_ascii=False) + "\n", encoding="utf-8")
        info = {"bundle": table.info.bundle, "options": table.info.options} if table.info else {}
        metadata = {"media_type": "image", "info": info}
        (scratch / METADATA).write_text(json.dumps(metadata, ensure_ascii=False) + "\n", encoding="utf-8")
        os.rename(scratch, out)
    except OSError as error:
        raise about(error, scratch, out) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build_sample(row: ScoreRow, root: Path | None, heat_maps: dict[str, str]) -> dict[str, Any]:
    if not Path(row.path).is_file():
        raise InvalidInput(f"{row.path} is no file.", "FiftyOne takes image files that are where they were.")
    tags = [name for name, is_so in ((OUTLIER, row.is_outlier), (UNREADABLE, bool(row.error))) if is_so]
    return {
        "filepath": row.path if root is None else path_within(row, root),
        "tags": tags,
        **{name: getattr(row, name) for name in COLUMNS},
        "attributions": {name_field(name): share for name, share in json.loads(row.attributions).items()},
        **{name: {"_cls": "Heatmap", "map_path": path, "range": [0, 255]} for name, path in heat_maps.items()},
    }


def _write_heat_maps(row: ScoreRow, maps: Path | None, folder: Path) -> dict[str, str]:
    """Write the heat maps of an image as grey PNG. Return their paths within `folder`, by field."""
    paths: dict[str, str] = {}
    for latent, path in (find_heat_maps(maps, row) if maps is not None else {}).items():
        name = f"heat_map_{name_field(latent)}"
        target = folder / FIELDS / name / f"{uuid4().hex}.png"
        target.parent.mkdir(exist_ok=True)
        with Image.open(path) as overlay:
            Image.fromarray(read_strength(np.asarray(overlay.convert("RGB")))).save(target)
        paths[name] = target.relative_to(folder).as_posix()
    return paths


def name_field(latent: str) -> str:
    """Return a latent's name as that of a field."""
    return NO_NAME.sub("_", latent).strip("_") or "latent"
