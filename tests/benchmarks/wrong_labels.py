"""A tree of classes with some wrong labels, scored folder by folder in one command: are the wrong ones found?

    python tests/benchmarks/wrong_labels.py FOLDER... [--bundle NAME|PATH] [--share 0.03] [--images 200]

Each FOLDER holds a folder of each class, or MNIST's test images. So many images of each class go into a tree, and a
share of all images goes into the folder of another class instead. Without --bundle the tree is learned first (`misfit
learn`), the wrong ones among it, as its owner would. Precision and recall are those of the flags; "at k" is the
precision among the first k images of the ranking, where k is the number of wrong labels.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
from measurements import save
from sklearn.metrics import average_precision_score

from service.offline.scores_table import read_scores

MISFIT = [sys.executable, "-m", "service.cli"]
SUFFIXES = (".png", ".jpg", ".jpeg")


def read_classes(folder: Path, count: int, random: np.random.Generator) -> dict[str, list[tuple[str, bytes | Path]]]:
    """Return `count` images of each class: a name, and a file or its pixels as PNG."""
    images = next(folder.glob("t10k-images-idx3-ubyte.gz"), None)
    classes: dict[str, list[tuple[str, bytes | Path]]] = {}
    if images is None:
        for each in sorted(path for path in folder.iterdir() if path.is_dir()):
            files = sorted(path for path in each.iterdir() if path.suffix.lower() in SUFFIXES)
            some = random.permutation(len(files))[:count]
            classes[f"{folder.name}_{each.name}"] = [(files[at].name, files[at]) for at in some]
        return classes
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    pixels = np.frombuffer(gzip.decompress(images.read_bytes())[16:], np.uint8).reshape(len(labels), 28, 28)
    for label in range(10):
        some = random.permutation(np.flatnonzero(labels == label))[:count]
        classes[str(label)] = [(f"{at}.png", pixels[at].tobytes()) for at in some]
    return classes


def write_tree(
    tree: Path, classes: dict[str, list[tuple[str, bytes | Path]]], share: float, random: np.random.Generator
) -> set[str]:
    """Write the tree. Return the paths in it of the images in the folder of another class."""
    names, wrong = list(classes), set()
    everything = [(label, *image) for label, images in classes.items() for image in images]
    moved = set(random.permutation(len(everything))[: round(share * len(everything))].tolist())
    for number, (label, name, content) in enumerate(everything):
        if number in moved:
            label = random.choice([each for each in names if each != label])
        path = tree / label / f"{number:06}_{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.write_bytes(content.read_bytes())
        else:
            Image.frombytes("L", (28, 28), content).save(path)
        if number in moved:
            wrong.add(f"{label}/{path.name}")
    return wrong


def measure(
    folders: list[Path], bundle: str | None, share: float, count: int, seed: int, options: list[str]
) -> dict[str, float]:
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as directory:
        tree, out = Path(directory) / "tree", Path(directory) / "scores.csv"
        classes = {name: images for folder in folders for name, images in read_classes(folder, count, random).items()}
        wrong = write_tree(tree, classes, share, random)
        began = time.monotonic()
        if bundle is None:
            bundle = str(Path(directory) / "bundle")
            subprocess.run([*MISFIT, "learn", tree, "--out", bundle], check=True, capture_output=True)
        learned = time.monotonic()
        command = [*MISFIT, "score", tree, "--by", "folder", "--bundle", bundle, "--out", out, "--quiet", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - learned
        rows = [row for row in read_scores(out).rows if row.rank is not None]
    is_wrong = np.array([row.id in wrong for row in rows])
    assert is_wrong.sum() == len(wrong)
    flagged = np.array([bool(row.is_outlier) for row in rows])
    order = sorted(range(len(rows)), key=lambda at: -(rows[at].outlier_probability or 0))
    hits = int((flagged & is_wrong).sum())
    return {
        "images": len(rows),
        "classes": len(classes),
        "wrong": len(wrong),
        "flagged": int(flagged.sum()),
        "precision": hits / max(int(flagged.sum()), 1),
        "recall": hits / len(wrong),
        "precision at k": float(is_wrong[order[: len(wrong)]].mean()),
        "average precision": float(average_precision_score(is_wrong, [row.outlier_probability for row in rows])),
        "seconds to learn": round(learned - began, 1),
        "seconds to score": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--bundle", help="one that knows such images; by default the tree is learned")
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--images", type=int, default=200, help="of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--option", action="append", default=[], help="of misfit score, as in --option=--fdr=0.1")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = [
        measure(arguments.folders, arguments.bundle, arguments.share, arguments.images, seed, arguments.option)
        for seed in range(arguments.seeds)
    ]
    median = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    for name, value in median.items():
        print(f"{name:20} {value:10.3f}   {min(run[name] for run in runs):.3f} to {max(run[name] for run in runs):.3f}")
    save(arguments.out, {"median": median, "runs": runs})


if __name__ == "__main__":
    main()
