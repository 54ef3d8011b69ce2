"""The pictures of README, quickstart and the page on photographs, made by the pages' own commands.

`make example` leaves them in train/results/example.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "support"))
from documents import QUICKSTART, addresses_of, blocks, example, run
from serving import ROOT, serve

from service.images.pictures import contact_sheet, png

OUT = ROOT / "train" / "results" / "example"
SAMPLE_BATCH = ROOT / "tests" / "data" / "shapes3d_batch.zip"
IN_A_ROW, FIRST = 12, 8
# Of the sheet of axes: five rows.
SHOWN_HEIGHT = 460


def ranking(scores: Path) -> bytes:
    """The sample batch as a contact sheet, in the order of its ranks."""
    items = sorted(json.loads(scores.read_text())["items"], key=lambda item: item["rank"])
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        images = np.stack([np.asarray(Image.open(batch.open(item["id"]))) for item in items])
    rows = [images[at : at + IN_A_ROW] for at in range(0, len(images), IN_A_ROW)]
    captions = [f"rank {at + 1} to {min(at + IN_A_ROW, len(images))}" for at in range(0, len(images), IN_A_ROW)]
    return png.to_png(contact_sheet.contact_sheet(rows, captions))


def photographs(directory: Path) -> None:
    """Learn the crops of the page on photographs, score its batch, and draw the first ranks and some of the axes."""
    page = ROOT / "docs" / "photographs.md"
    print(run(example(page, "learn"), directory, {}), end="")
    with serve(directory / "log", {"MISFIT_BUNDLE": str(directory / "out" / "mine")}) as served:
        (scoring,) = (block for block in blocks(page) if "out/reasons.json" in block.code)
        print(run(scoring, directory, addresses_of(served)), end="")
    items = sorted(json.loads((directory / "out" / "reasons.json").read_text())["items"], key=lambda item: item["rank"])
    with zipfile.ZipFile(directory / "out" / "batch.zip") as batch:
        sized = [Image.open(batch.open(item["id"])).convert("RGB").resize((112, 112)) for item in items[:FIRST]]
    captions = [f"{item['rank']}: {item['id']}{' (flagged)' if item['is_outlier'] else ''}" for item in items[:FIRST]]
    sheet = contact_sheet.contact_sheet([np.stack([np.asarray(image) for image in sized])], [], captions)
    (OUT / "photographs.png").write_bytes(png.to_png(sheet))
    with Image.open(directory / "out" / "mine" / "axes.png") as axes:
        top = axes.crop((0, 0, axes.width, SHOWN_HEIGHT))
        top.convert("P", palette=Image.Palette.ADAPTIVE).save(OUT / "photographs_axes.png", optimize=True)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        photographs(Path(scratch))
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "log") as served:
        directory = Path(scratch)
        for name in ("score", "explain", "edit", "traverse"):
            print(run(example(QUICKSTART, name), directory, addresses_of(served)), end="")
        (OUT / "batch.png").write_bytes(ranking(directory / "out" / "scores.json"))
        for picture in sorted((directory / "out").glob("*.png")):
            (OUT / picture.name).write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
