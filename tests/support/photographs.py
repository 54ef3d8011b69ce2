"""Photographs for tests: drawn scenes of a few kinds, noisy and of odd sizes, as files in a folder tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("discs", "bars", "grid")


def draw(kind: str, random: np.random.Generator, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Draw one scene: shapes of a kind in random places on a random, unevenly lit ground."""
    width, height = size
    ground = random.integers(60, 200, 3)
    light = np.linspace(0.8, 1.2, width)[None, :, None] * np.ones((height, 1, 1))
    image = Image.fromarray(np.clip(ground * light, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(5):
        x, y, r = random.integers(0, width), random.integers(0, height), random.integers(6, 16)
        colour = tuple(random.integers(0, 255, 3).tolist())
        if kind == "discs":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif kind == "bars":
            pen.rectangle((x - 3, 0, x + 3, height), fill=colour)
        else:
            for step in range(0, max(size), 12):
                pen.line((step, 0, step, height), fill=colour)
                pen.line((0, step, width, step), fill=colour)
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float32) + random.normal(
        0, 4, (height, width, 3)
    )
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def write_tree(folder: Path, each: int, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> list[Path]:
    """Write `each` files of every kind, one folder for each kind, in turn JPEG and PNG of two sizes."""
    random, files = np.random.default_rng(seed), []
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            path = folder / kind / f"{number:03}.{'jpg' if number % 2 else 'png'}"
            draw(kind, random, (96, 72) if number % 3 else (80, 120)).save(path, quality=92)
            files.append(path)
    return sorted(files)
