"""Sources as columns: the same images, ids and groups as a list of objects would have, in any process."""

import os
import pickle
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidInput, UndecodableImage
from service.offline.inputs import stored_files
from service.offline.inputs.source_table import TableBuilder
from service.offline.inputs.sources import by_group, find_sources
from service.offline.inputs.stored_files import Kind


def png(value):
    file = BytesIO()
    Image.new("RGB", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def npy(array):
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def images(tmp_path):
    """One image of every kind of place, and a name that is no UTF-8."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/1.png", png(1))
        archive.writestr("x/many.npy", npy(np.arange(128, dtype=np.uint8).reshape(2, 8, 8)))
    (tmp_path / "b.npy").write_bytes(npy(np.arange(128, dtype=np.uint8).reshape(2, 8, 8)))
    name = os.fsdecode(b"c\xff.png")
    (tmp_path / name).write_bytes(png(2))
    return find_sources([str(tmp_path / each) for each in ("a.zip", "b.npy", name)]).images


def test_every_kind_is_read_here_and_in_another_process(images, tmp_path):
    there = pickle.loads(pickle.dumps(images))  # noqa: S301  # our own
    assert [each.id for each in images] == [each.id for each in there] == list(images.ids)
    assert [each.id.rpartition("/")[2] for each in images] == [
        "1.png", "many.npy[0]", "many.npy[1]", "b.npy[0]", "b.npy[1]", "c\ufffd.png"
    ]  # fmt: skip
    for here, other in zip(images, there, strict=True):
        assert (here.path, here.group, here.is_file) == (other.path, other.group, other.is_file)
        np.testing.assert_array_equal(here.read(), other.read())
    assert images[0].path == f"{tmp_path}/a.zip!/x/1.png"
    assert images[2].read()[0, 0] == 64
    assert [each.is_file for each in images] == [False] * 5 + [True]
    assert [each.id for each in images[4:]] == [images[4].id, images[5].id]


def test_an_archive_that_changed_is_no_image_and_no_other_one(images, tmp_path):
    assert images[0].read()[:4] == b"\x89PNG"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/another.png", png(3))
    for at, message in ((0, "the archive has changed"), (2, "out of range")):
        with pytest.raises(UndecodableImage, match=message):
            images[at].read()
    os.remove(tmp_path / "b.npy")
    with pytest.raises(UndecodableImage, match="cannot be read"):
        images[3].read()


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_a_dictionary(seed):
    random = np.random.default_rng(seed)
    builder = TableBuilder()
    for number, group in enumerate(random.integers(0, 5, 40)):
        builder.add(Kind.FILE, "/x", f"{number}.png", group=str(group), is_reference=number < 5)
    images, reference = builder.build(0, lambda folder, name, id_: "unused")
    assert len(reference) == 5
    naive = by_group(list(images))
    table = images.sort_by_group()
    assert [each.id for each in table] == [each.id for members in naive.values() for each in members]
    assert {group: stop - start for group, start, stop in table.spans()} == {k: len(v) for k, v in naive.items()}
    assert [group for group, _, _ in table.spans()] == list(naive)
    assert TableBuilder().build(0, None)[0].sort_by_group().spans() == []


def test_hdf5_says_what_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("service.offline.inputs.hdf5_files.find_spec", lambda name: None)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n and more")
    with pytest.raises(InvalidInput, match="takes h5py") as error:
        find_sources([str(tmp_path / "x.h5")])
    assert error.value.hint == 'pip install "misfit[hdf5]"'


def test_few_archives_stay_open(tmp_path):
    for number in range(stored_files.OPEN_FILES + 3):
        with zipfile.ZipFile(tmp_path / f"{number:02}.zip", "w") as archive:
            archive.writestr("1.png", png(number))
    images = find_sources([str(tmp_path / "*.zip")]).images
    assert len({bytes(each.read()) for each in images}) == len(images) == stored_files.OPEN_FILES + 3
    assert stored_files._open_archive.cache_info().currsize <= stored_files.OPEN_FILES
