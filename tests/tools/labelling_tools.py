"""What `misfit convert` writes, read by the labelling tools' own code (`make labelling`).

    .venv-labelling/bin/python tests/tools/labelling_tools.py FOLDER

FOLDER holds batch/ (images), fiftyone/ (--to fiftyone --maps), tasks.json (--to label-studio), and annotations.xml
(--to cvat). FiftyOne's importer reads the samples, without its database. Label Studio's SDK checks each task against
the labelling configuration of docs/command-line.md. Datumaro, which reads what CVAT exports, reads the annotations.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

# FiftyOne starts its database where it is not told that one runs. Samples need none.
os.environ["FIFTYONE_DATABASE_URI"] = "mongodb://127.0.0.1:9"

import fiftyone
from datumaro.components.dataset import Dataset
from fiftyone.utils.data.importers import LegacyFiftyOneDatasetImporter
from label_studio_sdk.label_interface import LabelInterface

CONFIGURATION = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="misfit" toName="image"><Choice value="outlier"/><Choice value="normal"/></Choices>
</View>
"""
FLAGGED = {"14.png", "35.png", "49.png", "58.png"}


def read_fiftyone(folder: Path) -> None:
    """Raise AssertionError where FiftyOne reads anything else than was written."""
    with LegacyFiftyOneDatasetImporter(str(folder)) as importer:
        samples = list(importer)
    assert len(samples) == 60
    assert all(Path(sample.filepath).is_file() for sample in samples)
    flagged = {Path(sample.filepath).name: sample for sample in samples if "outlier" in sample.tags}
    assert set(flagged) == FLAGGED
    for sample in flagged.values():
        assert sample.is_outlier
        assert sample.outlier_probability > 0.5
        assert sample.reason
        heat_maps = [value for _, value in sample.iter_fields() if isinstance(value, fiftyone.Heatmap)]
        assert heat_maps
        for heat_map in heat_maps:
            values = heat_map.get_map()
            assert values.shape == (64, 64)
            assert values.max() > 200
    print(f"FiftyOne {fiftyone.__version__}: {len(samples)} samples, {len(flagged)} with heat maps")


def read_label_studio(path: Path) -> None:
    """Raise ValueError or AssertionError where Label Studio's SDK takes a task or prediction to be invalid."""
    tasks, interface = json.loads(path.read_text()), LabelInterface(CONFIGURATION)
    for task in tasks:
        interface.validate_task({name: value for name, value in task.items() if name != "predictions"})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction), prediction
    outliers = [task for task in tasks if task["predictions"][0]["result"][0]["value"]["choices"] == ["outlier"]]
    assert {task["data"]["id"] for task in outliers} == FLAGGED
    print(f"Label Studio: {len(tasks)} tasks, {len(outliers)} predicted to be outliers")


def read_cvat(folder: Path, annotations: Path) -> None:
    """Raise AssertionError where Datumaro reads anything else than was written."""
    dataset = folder / "cvat"
    shutil.copytree(folder / "batch", dataset / "images", dirs_exist_ok=True)
    shutil.copy(annotations, dataset / "annotations.xml")
    items = list(Dataset.import_from(str(dataset), "cvat"))
    assert len(items) == 60
    flagged = {item.id: item for item in items if item.annotations}
    assert {f"{Path(name).stem}.png" for name in flagged} == FLAGGED
    assert all(float(item.annotations[0].attributes["outlier_probability"]) > 0.5 for item in flagged.values())
    print(f"Datumaro, CVAT 1.1: {len(items)} images, {len(flagged)} tagged")


def main() -> None:
    folder = Path(sys.argv[1])
    read_fiftyone(folder / "fiftyone")
    read_label_studio(folder / "tasks.json")
    read_cvat(folder, folder / "annotations.xml")


if __name__ == "__main__":
    main()
