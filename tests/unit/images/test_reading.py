"""How the images of a request are read together, and which warnings come of it."""

import numpy as np
import tifffile
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.images.decode import Limits, Upload
from service.images.reading import Reading
from service.images.sample_range import Extent

SPEC = ImageSpec(height=8, width=8, channels=1)


def test_what_was_measured_first_stays_for_the_whole_stream():
    reading = Reading.of([Upload("a", bytes)], "file")
    reading.set_measured({"uint16": Extent(0, 4000)})
    assert reading.samples.is_complete
    reading.go_on([Upload("b", bytes)])
    assert not reading.samples.is_complete
    reading.set_measured({"uint16": Extent(0, 60000), "float32": Extent(0, 1)})
    assert reading.samples.measured == {"uint16": (0, 4000), "float32": (0, 1)}


def test_a_range_that_was_inferred_is_told():
    reading = Reading.of([], "file")
    reading.set_measured({"uint16": Extent(12, 4000), "float32": Extent(-3, 1e9)})
    first, second = reading.list_warnings()
    assert "uint16 were read with 0 as black and 4095 as white" in first
    assert "12 to 4000" in first
    assert "float32 were read with -3 as black and 1,000,000,000 as white" in second
    full = Reading.of([], "file")
    full.set_measured({"uint16": Extent(0, 60000)})
    assert full.list_warnings() == []
    batch = Reading.of([], "batch")
    batch.set_measured({"uint16": Extent(0, 60000)})
    assert "60000 as white; range=batch" in batch.list_warnings()[0]


def test_notes_make_one_warning_of_a_kind():
    reading = Reading()
    reading.note(["a", "b", "c"], {1: ["pages"], 2: ["pages", "unused_alpha"]}, 3)
    reading.note(["d" * 500], {0: ["pages"]}, 1)
    pages, alpha = reading.list_warnings()
    assert pages.startswith("3 images (the first is b) are files of several pages")
    assert alpha.startswith("Image c has an alpha channel that is 0 everywhere")
    long = Reading()
    long.note(["d" * 500], {0: ["cut"]}, 1)
    assert len(long.list_warnings()[0]) < 200


def test_darkness_is_told_where_it_is_most_images():
    reading = Reading()
    reading.note(["a", "b"], {0: ["dark"]}, 2)
    assert reading.list_warnings() == []
    reading.note(["c"], {0: ["dark"]}, 1)
    assert reading.list_warnings()[0].startswith("2 of 3 images reach less than a quarter")


def test_files_are_measured_together(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 4000, np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 8), np.uint16))
    tifffile.imwrite(tmp_path / "c.tif", np.full((8, 8), 200, np.uint8))
    (tmp_path / "d.tif").write_bytes(b"II*\0broken")
    Image.new("L", (8, 8)).save(tmp_path / "e.png")
    files = [*sorted(tmp_path.iterdir()), tmp_path / "gone.tif"]
    reading = Reading.of_files(files, SPEC, Limits(1000))
    assert reading.samples.measured == {"uint16": (0, 4000)}
    assert reading.samples.is_complete
