"""Images read again by the paths of a table: files, files in archives, rows of arrays, and what has moved."""

import tarfile
import zipfile
from io import BytesIO

import numpy as np
import pytest

from service.api.score_records import ScoreRow
from service.errors import InvalidInput
from service.report.stored_images import StoredImages


def row(path, id_=""):
    return ScoreRow("", id_, str(path), 1, 0.0, 0.0, False, False, 1.0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a[1].png").write_bytes(b"plain")
    pixels = np.arange(2 * 1 * 5, dtype=np.uint8).reshape(2, 1, 5)
    np.save(tmp_path / "b.npy", pixels)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("in/d.png", b"zipped")
        archive.write(tmp_path / "b.npy", "images.npy")
    with tarfile.open(tmp_path / "e.tar", "w") as archive:
        info = tarfile.TarInfo("f.png")
        info.size = 3
        archive.addfile(info, BytesIO(b"tar"))
    return tmp_path


def test_what_is_at_its_path_is_read(folder):
    stored = StoredImages()
    assert stored.read(row(folder / "sub" / "a[1].png")) == b"plain"
    assert bytes(stored.read(row(f"{folder}/c.zip!/in/d.png"))) == b"zipped"
    assert bytes(stored.read(row(f"{folder}/e.tar!/f.png"))) == b"tar"
    assert stored.read(row(f"{folder}/b.npy[1]")).tolist() == [[5, 6, 7, 8, 9]]
    assert stored.read(row(f"{folder}/c.zip!/images.npy[0]")).tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    "path", ["", "gone.png", "s3://bucket/a.png", "c.zip!/gone.png", "b.npy[2]", "c.zip!/images.npy[9]", "a\0b"]
)
def test_what_is_not_there_is_none(folder, path):
    assert StoredImages().read(row(f"{folder}/{path}" if path and ":" not in path else path)) is None


def test_what_has_moved_is_found_within_the_folder(folder):
    stored = StoredImages(folder)
    assert stored.read(row("/elsewhere/sub/a[1].png", "sub/a[1].png")) == b"plain"
    assert StoredImages(folder / "sub").read(row("/elsewhere/a[1].png", "x/a[1].png")) == b"plain"
    assert bytes(stored.read(row("/elsewhere/c.zip!/in/d.png", "in/d.png"))) == b"zipped"


def test_an_archive_that_cannot_be_read_says_so(folder):
    (folder / "c.zip").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InvalidInput):
        StoredImages().read(row(f"{folder}/c.zip!/in/d.png"))
