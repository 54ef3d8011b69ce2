"""Cut the two photographs that scikit-learn ships into a folder of photographs, and a batch to score.

    python tests/tools/crops.py DIRECTORY

DIRECTORY/photographs/temple and .../flower get 150 crops each. DIRECTORY/batch.zip gets 40 other crops of the temple
and four misfits: three crops of the flower, and a blurred one of the temple. The photographs are china.jpg and
flower.jpg, CC BY 2.0, by the Flickr users danielbuechele and vultilion.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.datasets import load_sample_image

SOURCES = {"temple": "china.jpg", "flower": "flower.jpg"}
LEARNED, SENT, STRANGE = 150, 40, 3
SMALLEST, LARGEST = 120, 240


def crops(source: str, seed: int) -> Iterator[Image.Image]:
    """Yield crops of one photograph, of random places and sizes, some mirrored and a little brighter or darker."""
    random = np.random.default_rng(seed)
    whole = Image.fromarray(load_sample_image(source))
    while True:
        side = int(random.integers(SMALLEST, LARGEST))
        left, top = random.integers(0, whole.width - side), random.integers(0, whole.height - side)
        crop = whole.crop((int(left), int(top), int(left) + side, int(top) + side))
        if random.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield ImageEnhance.Brightness(crop).enhance(float(random.uniform(0.85, 1.15)))


def main(directory: Path) -> None:
    for seed, (kind, source) in enumerate(SOURCES.items()):
        folder = directory / "photographs" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number, crop in zip(range(LEARNED), crops(source, seed), strict=False):
            crop.save(folder / f"{number:03}.jpg", quality=92)
    temple, flower = crops(SOURCES["temple"], 10), crops(SOURCES["flower"], 11)
    batch = {f"temple_{number:02}.jpg": next(temple) for number in range(SENT)}
    batch |= {f"flower_{number}.jpg": next(flower) for number in range(STRANGE)}
    batch["blurred.jpg"] = next(temple).filter(ImageFilter.GaussianBlur(6))
    with zipfile.ZipFile(directory / "batch.zip", "w") as archive:
        for name, image in batch.items():
            image.save(content := io.BytesIO(), "JPEG", quality=92)
            archive.writestr(zipfile.ZipInfo(name), content.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
