"""Heat maps and pictures of answers as PNG files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.api.schemas import ScoreResponse
from service.client.client import png
from service.offline.atomic_files import write_bytes
from service.offline.heat_map_files import name_heat_map


def write_heat_maps(answers: Mapping[str, ScoreResponse], folder: Path) -> int:
    """Write the heat maps of answers by group: GROUP/ID.LATENT.png. Return how many. Raises OSError."""
    count = 0
    for group, answer in answers.items():
        for item in answer.items:
            for heat_map in item.heat_maps or ():
                path = folder / name_heat_map(group, item.id, heat_map.latent)
                write_bytes(path, png(heat_map))
                count += 1
    return count
