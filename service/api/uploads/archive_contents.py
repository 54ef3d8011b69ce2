"""What the files of an archive are: images, a reference set, contexts. Folders and names decide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import NamedTuple

from service.errors import InvalidInput
from service.images.archive_names import is_no_image
from service.images.archived_arrays import ArrayHeaders, is_array
from service.images.archives import Archive, Member

REFERENCE = ("reference", "references")
REFERENCE_ARRAYS = tuple(f"{name}.npy" for name in REFERENCE)
# Folders whose names a person may take for that of a reference set, also in other languages; without their accents.
LIKE_REFERENCE = re.compile(r"refs?|referen[a-z]*|(refs?|references?)[ _-].*|.*[ _-](refs?|references?)", re.IGNORECASE)
IMAGES_ARRAY = "images.npy"
CONTEXT = "context.json"
# How many names a warning lists.
MOST_LISTED = 5


class Contents(NamedTuple):
    """The files of one archive, in its order.

    contexts  files that hold a context
    files     images and arrays, each with whether it belongs to the reference set
    left_out  names of what is neither
    """

    contexts: list[Member]
    files: list[tuple[Member, bool]]
    left_out: list[str]


def sort_members(archive: Archive) -> Contents:
    """Return what the files of an archive are.

    The reference set is what lies in a folder called reference, and an array reference.npy. A folder that holds all
    files of the archive counts only where no folder within it is called so. Raises InvalidInput for a file of PyTorch.
    """
    _check_torch({member.name for member in archive.members})
    contexts, files, left_out = [], [], list(archive.left_out)
    for member in archive.members:
        if _file_name(member) == CONTEXT:
            contexts.append(member)
        elif is_no_image(member.name):
            left_out.append(member.name)
        else:
            files.append(member)
    is_inside = find_reference([member.name for member in files])
    in_reference = [inside or is_reference_array(member.name) for member, inside in zip(files, is_inside, strict=True)]
    return Contents(contexts, list(zip(files, in_reference, strict=True)), left_out)


def _check_torch(names: Collection[str]) -> None:
    """Raise InvalidInput where the files are those of a file that torch.save has written, which is a zip."""
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if any(f"{folder}version" in names for folder in folders):
        raise InvalidInput(
            "The zip is a file of PyTorch, expected a zip of images.",
            "Send its images as an npy array: numpy.save('images.npy', tensor.numpy()).",
        )


def find_reference(names: Sequence[str]) -> list[bool]:
    """Return which files, by their paths with /, lie in a folder called reference.

    A folder that holds all of them counts only where no folder within it is called so.
    """
    own_folders = [name.rpartition("/")[0].casefold() for name in names]
    parts = {folder: folder.split("/") if folder else [] for folder in own_folders}
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*parts.values(), strict=False))
    outer = sum(1 for _ in shared)
    is_inside = {folder: _names_reference(each[outer:]) for folder, each in parts.items()}
    if not any(is_inside.values()):
        is_inside = {folder: _names_reference(each) for folder, each in parts.items()}
    return [is_inside[folder] for folder in own_folders]


def warn_of_like_reference(files: Sequence[tuple[Member, bool]]) -> tuple[str, ...]:
    """Return a warning where a part of the images lies in a folder whose name is like reference, and none is one."""
    if any(is_reference for _, is_reference in files):
        return ()
    folders = [member.name.split("/")[:-1] for member, _ in files]
    alike = {folder for each in folders for folder in each if LIKE_REFERENCE.fullmatch(_without_accents(folder))}
    name = next((name for name in sorted(alike) if not all(name in each for each in folders)), None)
    if name is None:
        return ()
    return (
        f"What is in the folder {name[:80]!r} was taken as images of the batch: a reference set is in 'reference'.",
    )


def _without_accents(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def leave_out_arrays(
    files: Sequence[tuple[Member, bool]], headers: ArrayHeaders
) -> tuple[list[tuple[Member, bool]], list[str], list[str]]:
    """Return the files but for arrays that are no images, the names of these, and warnings of what was taken.

    Where all files are such arrays they stay, and reading them says what is wrong. Raises InvalidInput where a file is
    called npy and is none.
    """
    others = _list_other_arrays(files, headers)
    if len(others) == len(files):
        return list(files), [], []
    left_out = set(others)
    images = [each for each in files if each[0] not in left_out]
    return images, [member.name for member in others], _note_arrays(images, headers)


def _list_other_arrays(files: Sequence[tuple[Member, bool]], headers: ArrayHeaders) -> list[Member]:
    """Return the arrays that are no images: labels and the like, of fewer than three axes or of objects; and where an
    array is called images, all others, as masks, but for those of the reference set.
    """
    arrays = [(member, is_reference) for member, is_reference in files if is_array(member)]
    tables = {m for m, _ in arrays if not is_reference_array(m.name) and len(headers.read(m).shape) < 3}
    named = {m for m, is_reference in arrays if not is_reference and m not in tables and _file_name(m) == IMAGES_ARRAY}
    return [m for m, is_reference in arrays if m in tables or (named and not is_reference and m not in named)]


def _note_arrays(files: Sequence[tuple[Member, bool]], headers: ArrayHeaders) -> list[str]:
    """Return a warning where the images come from several arrays, which may be something else, as masks are."""
    arrays = [member for member, is_reference in files if is_array(member) and not is_reference]
    if len(arrays) < 2:
        return []
    listed = ", ".join(f"{member.name[:80]} {headers.read(member).shape}" for member in arrays[:MOST_LISTED])
    more = f" and {len(arrays) - MOST_LISTED} more" if len(arrays) > MOST_LISTED else ""
    return [
        f"The images of {len(arrays)} arrays were taken: {listed}{more}. Call one of them images to leave out the rest."
    ]


def is_reference_array(name: str) -> bool:
    """Return whether a file is the array of a reference set by its own name. An image of that name is an image."""
    return name.rpartition("/")[2].casefold() in REFERENCE_ARRAYS


def _file_name(member: Member) -> str:
    return member.name.rpartition("/")[2].casefold()


def _names_reference(folders: Sequence[str]) -> bool:
    return not set(REFERENCE).isdisjoint(folders)


def warn_of_left_out(names: Sequence[str]) -> tuple[str, ...]:
    """Return one warning of the files of a request that were left out, none where there are none."""
    if not names:
        return ()
    listed = ", ".join(repr(name[:80]) for name in names[:MOST_LISTED])
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    verb = "is no image and was" if len(names) == 1 else "are no images and were"
    return (f"{len(names)} {'file' if len(names) == 1 else 'files'} {verb} left out: {listed}{more}.",)
