"""Heat maps and pictures of answers as PNG files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.api.schemas import ScoreResponse
from service.cli.flagged_files import safe_path
from service.client.client import png


def write_heat_maps(answers: Mapping[str, ScoreResponse], folder: Path) -> int:
    """Write the heat maps of answers by group: GROUP/ID.LATENT.png. Return how many. Raises OSError."""
    count = 0
    for group, answer in answers.items():
        for item in answer.items:
            for heat_map in item.heat_maps or ():
                stem = safe_path(item.id if not group or item.id.startswith(f"{group}/") else f"{group}/{item.id}")
                latent = safe_path(heat_map.latent.replace("/", "_"))
                path = folder / stem.with_name(f"{stem.name}.{latent}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(heat_map))
                count += 1
    return count
