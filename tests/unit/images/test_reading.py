"""How the images of a request are read together, and which warnings come of it."""

import numpy as np
import tifffile
from bodies import encoded
from PIL import Image

from service.bundle.manifest import ImageSpec
from service.images.decode import Upload, read_row
from service.images.limits import Limits
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


def test_images_of_zeros_and_ones_are_noted_where_most_are():
    spec, limits = ImageSpec(height=8, width=8, channels=3), Limits(1000)
    mask = np.eye(8, dtype=np.uint8)
    assert read_row(encoded(mask), spec, "fit", limits).notes == ("faint",)
    assert read_row(encoded(mask * 2), spec, "fit", limits).notes == ()
    assert read_row(encoded(np.zeros_like(mask)), spec, "fit", limits).notes == ()
    reading = Reading()
    reading.note(["a", "b"], {0: ["faint"]}, 2)
    assert reading.list_warnings() == []
    reading.note(["c"], {0: ["faint"]}, 1)
    (warning,) = reading.list_warnings()
    assert warning.startswith("2 of 3 images have no level above 1")


def test_samples_that_are_no_numbers_are_noted():
    samples = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    samples[3, 3] = np.nan
    row = read_row(samples, ImageSpec(height=8, width=8, channels=1), "fit", Limits(1000))
    assert row.notes == ("missing",)
    assert row.pixels[3, 3, 0] == 0
    reading = Reading()
    reading.note(["a"], {0: row.notes}, 1)
    assert "Image a has samples that are no numbers" in reading.list_warnings()[0]
