"""Which files of an archive are the reference set, contexts, images, or none of these."""

import bodies
import pytest

from service.api.uploads.archive_contents import sort_members, warn_of_left_out, warn_of_like_reference
from service.errors import InvalidInput
from service.images.archives import read_archive


def sort(*names: str):
    contents = sort_members(read_archive(bodies.zipped(dict.fromkeys(names, b"x")), 100, 10**6))
    reference = [member.name for member, is_reference in contents.files if is_reference]
    images = [member.name for member, is_reference in contents.files if not is_reference]
    return reference, images


FOLDERS = ["reference/", "Reference/", "REFERENCE/sub/", "data/reference/", "references/", "reference\\"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_called_reference_holds_the_reference_set(folder):
    assert sort(f"{folder}a.png", "b.png") == ([f"{folder}a.png".replace("\\", "/")], ["b.png"])


@pytest.mark.parametrize(
    "name", ["reference.png", "Reference.JPG", "a/reference", "my reference/a.png", "reference.txt.png"]
)
def test_a_file_or_another_folder_is_no_reference(name):
    assert sort(name, "b.png") == ([], [name, "b.png"])


@pytest.mark.parametrize(
    "folder", ["ref", "Refs", "reference_images", "reference-set/a", "my references", "Référence", "Referenz"]
)
def test_a_folder_that_is_nearly_called_reference_is_told(folder):
    def warn(*names: str):
        return warn_of_like_reference(
            sort_members(read_archive(bodies.zipped(dict.fromkeys(names, b"x")), 9, 99)).files
        )

    (warning,) = warn("images/a.png", f"all/{folder}/b.png")
    assert f"{folder.split('/')[0]!r} was taken as images" in warning
    assert warn("a.png", "reference/c.png", f"{folder}/b.png") == ()
    assert warn(f"{folder}/a.png", f"{folder}/b.png") == ()
    assert warn("a.png", f"{folder.replace('/', '-')}.png", "refined/b.png", "preferences/c.png") == ()


@pytest.mark.parametrize("name", ["reference.npy", "a/Reference.NPY"])
def test_an_array_called_reference_is_one(name):
    assert sort(name, "images.npy") == ([name], ["images.npy"])


def test_a_folder_that_holds_everything_is_the_archive_s_own_name():
    assert sort("Reference/reference/a.png", "Reference/b.png") == (["Reference/reference/a.png"], ["Reference/b.png"])
    assert sort("x/reference/a.png", "x/b.png") == (["x/reference/a.png"], ["x/b.png"])
    # Whether these are a reference for other files, the request decides.
    assert sort("reference/a.png", "reference/b.png") == (["reference/a.png", "reference/b.png"], [])


def test_contexts_and_what_is_no_image_are_told_apart():
    files = dict.fromkeys(["a/Context.json", "a.png", "labels.json", "Thumbs.db", "c.npy"], b"x")
    contents = sort_members(read_archive(bodies.zipped(files), 100, 10**6))
    assert [member.name for member in contents.contexts] == ["a/Context.json"]
    assert [member.name for member, _ in contents.files] == ["a.png", "c.npy"]
    assert contents.left_out == ["labels.json", "Thumbs.db"]


def test_one_warning_tells_all_that_was_left_out():
    assert warn_of_left_out([]) == ()
    assert warn_of_left_out(["a.csv"]) == ("1 file is no image and was left out: 'a.csv'.",)
    (warning,) = warn_of_left_out([f"{number}.csv" for number in range(7)])
    assert warning.startswith("7 files are no images and were left out: '0.csv', ")
    assert warning.endswith("'4.csv' and 2 more.")


def test_a_file_of_pytorch_is_told():
    with pytest.raises(InvalidInput, match="a file of PyTorch") as caught:
        sort("archive/data.pkl", "archive/version", "archive/data/0")
    assert "numpy.save" in caught.value.hint
    assert sort("model/data.pkl", "a.png") == ([], ["a.png"])
