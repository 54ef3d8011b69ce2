"""Trees of classes for benchmarks of many images: a folder of each class, 3% of the images in that of another class.

    python tests/benchmarks/trees.py shapes3d data/3dshapes.h5 --images 100000 --out TREE
    python tests/benchmarks/trees.py photographs FOLDER... --images 20000 --out TREE

3D Shapes: rows of the file as PNG, by the hue of the object. Photographs: each FOLDER holds a folder of each class, and
every photograph is repeated, each time with a random crop of 85% to 100% of its sides, a random flip and a random
brightness, as JPEG.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

OBJECT_HUE = 2
SUFFIXES = (".png", ".jpg", ".jpeg")
READ_AT_ONCE = 5000
SMALLEST_CROP, BRIGHTNESS, QUALITY = 0.85, (0.8, 1.2), 92


def choose_folders(classes: list[str], share: float, random: np.random.Generator) -> list[str]:
    """Return the folder of each image: that of its class, but for a share of them."""
    names = sorted(set(classes))
    folders = list(classes)
    for number in random.permutation(len(classes))[: round(share * len(classes))]:
        folders[number] = random.choice([name for name in names if name != classes[number]])
    return folders


def write_shapes3d(data: Path, count: int, share: float, out: Path, random: np.random.Generator) -> None:
    from train.data.shapes3d import dataset

    size = int(np.prod(dataset.FACTOR_SIZES))
    rows = np.sort(random.permutation(size)[:count])
    hues = np.unravel_index(rows, dataset.FACTOR_SIZES)[OBJECT_HUE]
    folders = choose_folders([f"hue{hue}" for hue in hues], share, random)
    for start in range(0, count, READ_AT_ONCE):
        part = slice(start, start + READ_AT_ONCE)
        for row, folder, pixels in zip(rows[part], folders[part], dataset.load(data, rows[part]).images, strict=True):
            save(out / folder / f"{row:06}.png", Image.fromarray(pixels).save)


def write_photographs(sources: list[Path], count: int, share: float, out: Path, random: np.random.Generator) -> None:
    files = sorted(
        path for source in sources for path in source.glob("*/*") if path.suffix.lower() in SUFFIXES
    )  # fmt: skip
    chosen = [files[number % len(files)] for number in range(count)]
    folders = choose_folders([f"{path.parent.parent.name}_{path.parent.name}" for path in chosen], share, random)
    for number, (path, folder) in enumerate(zip(chosen, folders, strict=True)):
        with Image.open(path) as image:
            changed = change(image.convert("RGB"), random)
        save(out / folder / f"{number:06}.jpg", lambda target, changed=changed: changed.save(target, quality=QUALITY))


def change(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return the photograph with a random crop, flip and brightness."""
    width, height = (round(side * random.uniform(SMALLEST_CROP, 1)) for side in image.size)
    left, top = random.integers(image.width - width + 1), random.integers(image.height - height + 1)
    cropped = image.crop((left, top, left + width, top + height))
    flipped = ImageOps.mirror(cropped) if random.random() < 0.5 else cropped
    return ImageEnhance.Brightness(flipped).enhance(random.uniform(*BRIGHTNESS))


def save(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("shapes3d", "photographs"))
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--share", type=float, default=0.03, help="of images in the folder of another class")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    if arguments.kind == "shapes3d":
        write_shapes3d(arguments.sources[0], arguments.images, arguments.share, arguments.out, random)
    else:
        write_photographs(arguments.sources, arguments.images, arguments.share, arguments.out, random)


if __name__ == "__main__":
    main()
