"""Where images come from: what the command line makes of files, folders, patterns, archives, arrays and lists."""

import io
import os
import zipfile

import fsspec
import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidInput, UndecodableImage
from service.offline.inputs.sources import by_group, find_sources


@pytest.fixture
def tree(tmp_path):
    """A folder with images in folders, and what is none."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "reference/r.png", ".hidden/x.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), len(name) * 9).save(path)
    (tmp_path / "tree/notes.txt").write_text("no image")
    return tmp_path / "tree"


def ids(sources):
    return [source.id for source in sources]


def test_a_folder_is_read_as_a_zip_of_it(tree, tmp_path):
    folder = find_sources([str(tree)])
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
        for path in sorted(tree.rglob("*")):
            archive.write(path, path.relative_to(tree))
    archive = find_sources([str(tmp_path / "tree.zip")])
    assert ids(folder.images) == ids(archive.images) == ["a/1.png", "a/2.png", "b/1.png"]
    assert ids(folder.reference) == ids(archive.reference) == ["reference/r.png"]
    assert [each.read() for each in folder.images] == [bytes(each.read()) for each in archive.images]
    assert folder.images[0].path == str(tree / "a/1.png")
    assert archive.images[0].path == f"{tmp_path / 'tree.zip'}!/a/1.png"
    assert folder.images[0].is_file
    assert not archive.images[0].is_file
    assert "'notes.txt'" in folder.notes[0]
    assert ids(find_sources([str(tmp_path / "tree.zip"), str(tree / "a")]).images)[-1] == "tree/a/2.png"

    (tree / "a-b").mkdir()
    Image.new("RGB", (4, 4)).save(tree / "a-b/1.png")
    assert ids(find_sources([str(tree / "a"), str(tree / "a-b"), str(tree / "a/1.png")]).images)[2] == "a-b/1.png"


def test_a_table_of_a_spreadsheet_may_have_semicolons(tree, tmp_path):
    (tmp_path / "list.csv").write_bytes("\ufeffimage_path;size\r\ntree/a/1.png;1,5\r\ntree/b/1.png;2,5\r\n".encode())
    assert len(find_sources([str(tmp_path / "list.csv")]).images) == 2


def test_a_column_of_images_is_no_column_of_paths(tree, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [str(path) for path in sorted(tree.glob("*/*.png"))]
    for column in (paths, pa.array(paths).dictionary_encode(), pa.array(paths, pa.large_string())):
        parquet.write_table(pa.table({"image": column}), tmp_path / "list.parquet")
        assert len(find_sources([str(tmp_path / "list.parquet")]).images) == len(paths)
    for column in ([{"bytes": b"x", "path": "1.png"}], [b"x"]):
        parquet.write_table(pa.table({"image": column}), tmp_path / "images.parquet")
        with pytest.raises(InvalidInput, match="expected texts that are paths"):
            find_sources([str(tmp_path / "images.parquet")])


def test_groups_are_folders_or_a_column(tree, tmp_path):
    groups = by_group(find_sources([str(tree / "a"), str(tree / "b")], by="folder").images)
    assert {name: ids(each) for name, each in groups.items()} == {"a": ["a/1.png", "a/2.png"], "b": ["b/1.png"]}
    (tmp_path / "list.csv").write_text("label,file\ncat,tree/a/1.png\ndog,tree/b/1.png\n")
    found = find_sources([str(tmp_path / "list.csv")], by="label")
    assert [(each.group, each.id) for each in found.images] == [("cat", "a/1.png"), ("dog", "b/1.png")]
    with pytest.raises(InvalidInput, match="no column shape; its columns are label, file"):
        find_sources([str(tmp_path / "list.csv")], by="shape")
    with pytest.raises(InvalidInput, match="comes from no table"):
        find_sources([str(tree)], by="label")


def test_lists_come_in_every_form(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ["tree/a/1.png", str(tree / "b/1.png")]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    (tmp_path / "list.csv").write_text("\n".join(paths))
    for inputs in (["list.txt"], ["list.csv"], ["tree/a/1.png", "tree/b/1.png"], ["-"]):
        found = find_sources(inputs, stdin=io.BytesIO(("\0" if inputs == ["-"] else "\n").join(paths).encode()))
        assert ids(found.images) == ["a/1.png", "b/1.png"]
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"where": paths, "n": [1, 2]}), "list.parquet")
    with pytest.raises(InvalidInput, match="--path-column"):
        find_sources(["list.parquet"])
    found = find_sources(["list.parquet"], path_column="where", by="n")
    assert [(each.id, each.group) for each in found.images] == [("a/1.png", "1"), ("b/1.png", "2")]
    assert ids(find_sources(["tree/?/1.png"]).images) == ["a/1.png", "b/1.png"]


def test_arrays_and_files_that_vanish(tree, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8))
    found = find_sources([str(tmp_path / "x.npy"), str(tree / "a/1.png")])
    assert ids(found.images) == ["x.npy[0]", "x.npy[1]", "tree/a/1.png"]
    assert found.images[1].read()[0, 0] == 64
    os.remove(tree / "a/1.png")
    with pytest.raises(UndecodableImage, match="No such file"):
        found.images[2].read()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["none/*.png"], "No file matches"),
        (["empty"], "holds no image"),
        (["words.txt"], "was read as a list of paths"),
        (["bare.csv"], "has the columns a, b"),
        (["ragged.csv"], "line 2 has 1 cells"),
        (["not.zip"], "not a complete zip"),
        (["list-of-folder.txt"], "which is a folder"),
        (["nosuch://x/y.png"], "Protocol not known"),
    ],
)
def test_mistakes_are_explained(inputs, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("these are\nwords")
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    (tmp_path / "ragged.csv").write_text("a,file\n1\n")
    (tmp_path / "not.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "list-of-folder.txt").write_text("empty\n")
    with pytest.raises(InvalidInput, match=message):
        find_sources(inputs)[0].read()


def test_files_elsewhere_are_listed_and_read():
    store = fsspec.filesystem("memory")
    store.pipe({"/bucket/a/1.png": b"one", "/bucket/a/2.png": b"two", "/bucket/a/notes.md": b"no image"})
    found = find_sources(["memory://bucket/a"])
    assert [(each.id, each.read()) for each in found.images] == [("1.png", b"one"), ("2.png", b"two")]
    assert found.images[0].path == "memory:///bucket/a/1.png"
    assert ids(find_sources(["memory://bucket/a/2*"]).images) == ["2.png"]
    gone = find_sources(["memory://bucket/a/1.png", "memory://bucket/gone.png"]).images[1]
    with pytest.raises(UndecodableImage, match="cannot be read"):
        gone.read()
