"""Where `misfit explain --maps` puts heat maps, and which of them are there."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from service.api.score_records import ScoreRow


def safe_path(id_: str) -> PurePosixPath:
    """Return an id as a path that stays within a folder: the names of an archive may lead anywhere."""
    parts = [part for part in id_.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*(part.replace("\0", "").replace(":", "_") for part in parts or ["image"]))


def name_heat_map(group: str, id_: str, latent: str) -> PurePosixPath:
    """Return the path of a heat map within its folder: GROUP/ID.LATENT.png."""
    stem = safe_path(id_ if not group or id_.startswith(f"{group}/") else f"{group}/{id_}")
    return stem.with_name(f"{stem.name}.{safe_path(latent.replace('/', '_'))}.png")


def find_heat_maps(folder: Path, row: ScoreRow) -> dict[str, Path]:
    """Return the heat maps of an image that are in `folder`, by latent: of those latents that have a share."""
    paths = {latent: folder / name_heat_map(row.group, row.id, latent) for latent in json.loads(row.attributions)}
    return {latent: path for latent, path in paths.items() if path.is_file()}
