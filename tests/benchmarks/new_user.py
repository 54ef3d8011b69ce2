"""A folder of photographs with a few odd ones, learned and scored as a new user would: are the odd ones ranked first?

    python tests/benchmarks/new_user.py FOLDER FOLDER [--images 2000] [--odd 20] [--seeds 2]

Each FOLDER is a collection, and holds a folder of each class. Where a collection has too few photographs, copies of
them fill up, cropped, flipped and of another brightness. A case is a folder without labels. It is learned with its odd
ones (`misfit learn`), and scored as one batch (`misfit score --out`). Other pictures are crops of those that
scikit-image and scikit-learn ship.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
from measurements import save
from trees import QUALITY, SUFFIXES, change

from service.offline.scores_table import read_scores

MISFIT = [sys.executable, "-m", "service.cli"]
PICTURES = [
    *(Path(sklearn.__file__).parent / "datasets/images" / name for name in ("china.jpg", "flower.jpg")),
    *(
        Path(skimage.__file__).parent / "data" / name
        for name in (
            *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
            *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png"),
            *("retina.jpg", "rocket.jpg"),
        )
    ),
]
SMALLEST_CROP, LARGEST_CROP = 0.5, 0.95
# A folder of one class alone is a smaller one.
OF_ONE_CLASS = 0.2


@dataclass(frozen=True)
class Case:
    """Photographs that belong together, by collection, and others that do not; crops of PICTURES if there are none."""

    name: str
    normal: list[list[Path]]
    odd: list[Path]
    images: int


def read_classes(collection: Path) -> dict[str, list[Path]]:
    """Return the photographs of each class."""
    return {
        each.name: sorted(path for path in each.iterdir() if path.suffix.lower() in SUFFIXES)
        for each in sorted(collection.iterdir())
        if each.is_dir()
    }


def list_cases(collections: list[Path], images: int, random: np.random.Generator) -> list[Case]:
    """Return the cases of two collections; which classes they are about is random."""
    classes = {path.name: read_classes(path) for path in collections}
    everything = {name: list(chain.from_iterable(each.values())) for name, each in classes.items()}
    first, second = everything
    cases = [
        Case(f"{first} among {second}", [everything[second]], everything[first], images),
        Case(f"{second} among {first}", [everything[first]], everything[second], images),
        Case(f"other pictures among {second}", [everything[second]], [], images),
        Case(f"other pictures among {first} and {second}", list(everything.values()), [], images),
    ]
    for name, each in classes.items():
        odd, usual = random.permutation(sorted(each))[:2].tolist()
        rest = [path for label, paths in each.items() if label != odd for path in paths]
        few = round(OF_ONE_CLASS * images)
        cases.append(Case(f"one class of {name} among one other", [each[usual]], each[odd], few))
        cases.append(Case(f"one class of {name} among all others", [rest], each[odd], images))
    return cases


def write_folder(folder: Path, case: Case, odd: int, random: np.random.Generator) -> set[str]:
    """Write the photographs of a case in random order. Return the names of the odd ones."""
    folder.mkdir()
    names, usual = random.permutation(case.images).tolist(), case.images - odd
    sizes, number = [], 0
    for share, paths in zip(np.array_split(np.arange(usual), len(case.normal)), case.normal, strict=True):
        order = random.permutation(len(paths))
        for place in range(len(share)):
            path, name = paths[order[place % len(paths)]], f"{names[number]:06}"
            if place < len(paths):
                (folder / f"{name}{path.suffix}").write_bytes(path.read_bytes())
            else:
                with Image.open(path) as image:
                    change(image.convert("RGB"), random).save(folder / f"{name}.jpg", quality=QUALITY)
            with Image.open(path) as image:
                sizes.append(image.size)
            number += 1
    strange, chosen = set(), random.permutation(len(case.odd)).tolist()
    for place in range(odd):
        name = f"{names[usual + place]:06}"
        if case.odd:
            path = case.odd[chosen[place]]
            file = folder / f"{name}{path.suffix}"
            file.write_bytes(path.read_bytes())
        else:
            file = folder / f"{name}.jpg"
            # As large as one of the others: the size of a file tells nothing.
            size = sizes[int(random.integers(len(sizes)))]
            crop(PICTURES[place % len(PICTURES)], random).resize(size).save(file, quality=QUALITY)
        strange.add(file.name)
    return strange


def crop(path: Path, random: np.random.Generator) -> Image.Image:
    """Return a random square of a picture."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    side = round(min(picture.size) * random.uniform(SMALLEST_CROP, LARGEST_CROP))
    left, top = random.integers(picture.width - side + 1), random.integers(picture.height - side + 1)
    return picture.crop((left, top, left + side, top + side))


def measure(case: Case, odd: int, random: np.random.Generator) -> dict[str, float]:
    """Learn and score the folder of a case."""
    with tempfile.TemporaryDirectory() as directory:
        folder, bundle, out = (Path(directory) / name for name in ("photographs", "bundle", "scores.csv"))
        strange = write_folder(folder, case, odd, random)
        began = time.monotonic()
        subprocess.run([*MISFIT, "learn", folder, "--out", bundle], check=True, capture_output=True)
        learned = time.monotonic()
        subprocess.run([*MISFIT, "score", folder, "--bundle", bundle, "--out", out, "--quiet"], check=True)
        seconds = time.monotonic() - learned
        rows = [row for row in read_scores(out).rows if row.rank is not None]
    first = sorted(rows, key=lambda row: row.rank or 0)
    assert len(rows) == case.images
    assert strange <= {row.id for row in rows}
    return {
        "images": len(rows),
        "odd": odd,
        "in the first": sum(row.id in strange for row in first[:odd]),
        "in three times as many": sum(row.id in strange for row in first[: 3 * odd]),
        "flagged": sum(bool(row.is_outlier) for row in rows if row.id in strange),
        "others flagged": sum(bool(row.is_outlier) for row in rows if row.id not in strange),
        "seconds to learn": round(learned - began, 1),
        "seconds to score": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", type=Path, nargs=2, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--odd", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--case", action="append", help="only those with this in their name; may be repeated")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.seeds):
        random = np.random.default_rng(seed)
        for case in list_cases(arguments.collections, arguments.images, random):
            of_case = np.random.default_rng([seed, *case.name.encode()])
            if arguments.case and not any(part in case.name for part in arguments.case):
                continue
            result = measure(case, arguments.odd, of_case)
            runs.setdefault(case.name, []).append(result)
            print(f"seed {seed}  {case.name:44} {result['in the first']:3} of {arguments.odd}  {result}", flush=True)
    save(arguments.out, [{"case": name, "runs": each} for name, each in runs.items()])


if __name__ == "__main__":
    main()
