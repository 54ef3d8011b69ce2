"""What options call an image: its id, the number that its id is, or its place. Nothing is guessed."""

import re

import pytest

from service.api.image_names import ImageNames, warn_of_doubles
from service.api.options import EditOptions, InterpolateOptions, TraverseOptions
from service.errors import InvalidOption

FROM_ONE = [str(number) for number in range(1, 41)]


@pytest.mark.parametrize("spell", ["{}", "{}.png", "{:04}", "{:04}.JPG", "folder/{:03}.png"])
def test_a_number_is_the_id_that_is_this_number(spell):
    names = ImageNames([spell.format(number) for number in range(1, 41)])
    assert [names.find(choice) for choice in (15, "15", "0015", "015", "index:15", "INDEX:15")] == [14] * 4 + [15] * 2


def test_a_number_is_a_place_only_where_no_id_is_a_number():
    letters = ImageNames(["a.png", "b.png", "c"])
    assert [letters.find(choice) for choice in (0, "2", "02", "index:2", "b.png")] == [0, 2, 2, 2, 1]
    with pytest.raises(InvalidOption, match="no image 0 among the 40"):
        ImageNames(FROM_ONE).find(0)


def test_the_ids_of_images_without_names_are_their_places():
    assert ImageNames(["0", "1", "2"]).find(2) == 2


def test_the_exact_id_wins_over_its_number():
    names = ImageNames(["0015", "15", "015.png"])
    assert [names.find(choice) for choice in (15, "0015", "015.png")] == [1, 0, 2]


@pytest.mark.parametrize(
    ("ids", "choice", "places"),
    [
        (["a", "dup.png", "b", "dup.png"], "dup.png", "index:1.*index:3"),
        (["7.png", "a/7.jpg"], 7, "index:0.*index:1"),
        (["0007", "007"], "7", "index:0.*index:1"),
        (["a/1.png", "b/1.png"], "1.png", "index:0.*index:1"),
        ([f"frame_{number:02}.png" for number in range(1, 41)], 15, "frame_15.*index:14.*frame_16.*index:15"),
        (["a[0]", "a[1]", "b[0]", "b[1]"], 1, "index:1.*index:3"),
        (["x", "index:0"], "index:0", "index:0.*index:1"),
    ],
)
def test_what_may_be_several_images_is_refused_with_their_places(ids, choice, places):
    with pytest.raises(InvalidOption, match=rf"may be 2 of the {len(ids)} images") as caught:
        ImageNames(ids).find(choice)
    assert re.search(places, caught.value.message)
    assert re.search("index:", caught.value.hint)


def test_a_file_name_is_enough_where_only_one_path_ends_in_it():
    assert ImageNames(["a/1.png", "b/2.png"]).find("2.png") == 1


@pytest.mark.parametrize(
    "choice", ["c.png", "index:3", "index:-1", "-1", "1.0", "9" * 5000, "index:" + "9" * 5000, "", "²"]
)
def test_what_no_image_is_called_is_refused(choice):
    with pytest.raises(InvalidOption, match="There is no image"):
        ImageNames(["a.png", "b.png", "1"]).find(choice)


def test_options_keep_a_number_as_it_was_written():
    assert EditOptions(which=["0015", 15]).which == ["0015", 15]
    assert EditOptions(which="0015, index:3").which == ["0015", "index:3"]
    assert TraverseOptions(start="0015").start == "0015"
    assert (InterpolateOptions().start, InterpolateOptions().end) == ("index:0", "index:1")
    with pytest.raises(ValueError, match="which"):
        EditOptions(which=[True])


def test_doubles_are_told_once():
    assert warn_of_doubles(["a", "b"]) == ()
    (warning,) = warn_of_doubles(["b", "a", "b", "a", "c"])
    assert warning.startswith("2 images have the id 'b' (index 0, 2), and 1 more ids stand for several images")


def test_accents_are_found_however_they_are_written():
    names = ImageNames(["a/e\u0301.png", "\u00fc.png", "u\u0308.png"])
    assert names.find("a/\u00e9.png") == names.find("\u00e9.png") == 0
    assert (names.find("\u00fc.png"), names.find("u\u0308.png")) == (1, 2)
