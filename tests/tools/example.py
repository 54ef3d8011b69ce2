"""The pictures of README and quickstart, made by the quickstart's own commands.

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
from documents import QUICKSTART, addresses_of, example, run
from serving import ROOT, serve

from service.images import contact_sheet, png

OUT = ROOT / "train" / "results" / "example"
SAMPLE_BATCH = ROOT / "tests" / "data" / "shapes3d_batch.zip"
IN_A_ROW = 12


def ranking(scores: Path) -> bytes:
    """The sample batch as a contact sheet, in the order of its ranks."""
    items = sorted(json.loads(scores.read_text())["items"], key=lambda item: item["rank"])
    with zipfile.ZipFile(SAMPLE_BATCH) as batch:
        images = np.stack([np.asarray(Image.open(batch.open(item["id"]))) for item in items])
    rows = [images[at : at + IN_A_ROW] for at in range(0, len(images), IN_A_ROW)]
    captions = [f"rank {at + 1} to {min(at + IN_A_ROW, len(images))}" for at in range(0, len(images), IN_A_ROW)]
    return png.to_png(contact_sheet.contact_sheet(rows, captions))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "log") as served:
        directory = Path(scratch)
        for name in ("score", "explain", "edit", "traverse"):
            print(run(example(QUICKSTART, name), directory, addresses_of(served)), end="")
        (OUT / "batch.png").write_bytes(ranking(directory / "out" / "scores.json"))
        for picture in sorted((directory / "out").glob("*.png")):
            (OUT / picture.name).write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
