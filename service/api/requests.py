"""Requests of images: uploads, contexts and options, gathered within the limits. No image is decoded here.

`service.api.uploads.archive_contents` says what the files of an archive are. Several contexts are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Generic, TypeVar

from service.api.contexts.portable import PortableContext
from service.api.json_texts import read_json, read_object
from service.api.options import Options
from service.api.uploads.archive_contents import (
    leave_out_arrays,
    sort_members,
    warn_of_left_out,
    warn_of_like_reference,
)
from service.api.uploads.mistaken_uploads import read_image
from service.api.validation import cut_name, read_contexts, read_options
from service.errors import (
    InvalidInput,
    InvalidOption,
    TooManyImages,
    readable,
)
from service.images import archives, arrays, tar_headers
from service.images.archive_names import is_no_image, is_system_file
from service.images.archived_arrays import ArrayHeaders, is_array
from service.images.decode import Upload
from service.images.decode_budget import DecodeBudget
from service.images.page_uploads import split_pages
from service.images.reading import FAINT, Reading
from service.images.sample_range import Samples
from service.settings import MIB, Settings

# What archives may unpack to: so much in any case, and so many bytes more for each byte of the body.
FREE_UNPACKED_BYTES, UNPACKED_PER_BYTE = 64 * MIB, 64
# Files of a request that are unpacked at a time (`service.pipeline.chunked_inference`: so many chunks of so many rows).
UNPACKED_AT_A_TIME = 4 * 128

OptionsT = TypeVar("OptionsT", bound=Options)
OptionsT_co = TypeVar("OptionsT_co", bound=Options, covariant=True)


@dataclass(frozen=True)
class ImagesRequest(Generic[OptionsT_co]):
    """The input of an endpoint that takes images. Without `reference` and `contexts` the images are their own context.

    budget          limits what decoding the images may take
    unpacked_bytes  memory that archives take beside the body
    notes           warnings of how the request was read
    shapes          of arrays of images
    """

    images: Sequence[Upload]
    reference: Sequence[Upload] | None
    contexts: Sequence[PortableContext]
    options: OptionsT_co
    budget: DecodeBudget = field(default_factory=DecodeBudget.unlimited)
    unpacked_bytes: int = 0
    notes: Sequence[str] = ()
    shapes: Sequence[tuple[int, ...]] = ()

    @cached_property
    def reading(self) -> Reading:
        """Return how the images are read, with what is noted of them so far: one object for the whole request."""
        return Reading.of(self.uploads, self.options.range)

    @property
    def uploads(self) -> Sequence[Upload]:
        """Return all images, those of the reference included."""
        return [*self.images, *(self.reference or ())]

    @property
    def size(self) -> int:
        """Return how many rows the networks will see at least."""
        return len(self.images) + len(self.reference or ()) + self.options.pictures


class RequestBuilder:
    """Builds a request from its files, one by one, and keeps it within the limits."""

    def __init__(self, settings: Settings, sent_bytes: int) -> None:
        """Start an empty request, whose body has `sent_bytes` bytes."""
        self._budget = DecodeBudget.of(settings, sent_bytes)
        self._unpacked_bytes = 0
        self._left_out: list[str] = []  # names of files in archives
        self._notes: list[str] = []
        self._is_reference_given = False  # by the client, not by a folder's name alone
        self.images: list[Upload] = []
        self.reference: list[Upload] | None = None
        self.contexts: list[PortableContext] = []
        self.options: dict[str, object] = {}
        self.shapes: list[tuple[int, ...]] = []  # of arrays of images
        self.max_images = settings.max_images
        # Of what the archives unpack to, all together.
        self._bytes_left = min(settings.max_body_bytes, FREE_UNPACKED_BYTES + UNPACKED_PER_BYTE * sent_bytes)
        self._values_left = settings.max_values  # in all that is JSON

    def build(self, options_type: type[OptionsT], *, in_chunks: bool = False) -> ImagesRequest[OptionsT]:
        """Return the request. Where the images come `in_chunks`, this chunk may have none.

        Raises InvalidInput where images are missing, InvalidOption where the options do not fit.
        """
        self._notes += warn_of_left_out(self._left_out)
        self._settle_reference(options_type)
        may_be_empty = in_chunks or (options_type.images_needed == "unless context" and bool(self.contexts))
        if not self.images and not may_be_empty:
            raise no_images(notes=self._notes)
        if self.reference == []:
            raise no_images("reference images", self._notes)
        options = read_options(self.options, options_type)
        if self.contexts and (self.reference is not None or getattr(options, "estimator", None) is not None):
            second_source = "a reference set" if self.reference is not None else "an estimator"
            raise InvalidOption(
                f"Given both a context and {second_source}: what is normal is then said twice.",
                "A context was fitted before, with an estimator of its own: send it alone.",
            )
        if options.pages == "all":
            self.images = split_pages(self.images, self.max_images)
            self.reference = None if self.reference is None else split_pages(self.reference, self.max_images)
            self._check_count()
        return ImagesRequest(
            self.images,
            self.reference,
            self.contexts,
            options,
            self._budget,
            self._unpacked_bytes,
            tuple(self._notes),
            tuple(self.shapes),
        )

    def _settle_reference(self, options_type: type[Options]) -> None:
        """Take the images that only an archive's names call a reference as the batch itself where no others came.

        Raises InvalidInput where a reference comes to an endpoint that compares with none.
        """
        if self.reference and not self.images and not self._is_reference_given:
            self._notes.append(
                f"All {len(self.reference)} images are in a folder or an array called reference, and no others came: "
                "they were taken as the images themselves."
            )
            self.images, self.reference = self.reference, None
        if self.reference is not None and not options_type.takes_reference:
            raise InvalidInput(
                "A reference set came, with which nothing is compared here.",
                "Send its images as `images`, or in a folder of another name: POST /fit makes a context of them.",
            )

    def _check_count(self) -> None:
        if len(self.images) + len(self.reference or ()) > self.max_images:
            raise TooManyImages(
                f"The request has more than {self.max_images} images, reference included.",
                "Send them in several requests, with a reference set so that the context stays the same.",
            )

    def parse_json(self, text: bytes | memoryview, what: str, error_type: type[InvalidInput] = InvalidInput) -> object:
        """Return the value of a JSON text. Raises `error_type`, or TooLarge where all texts together hold too many
        values.
        """
        value, count = read_json(text, what, self._values_left, error_type)
        self._values_left -= count
        return value

    def add_options(self, text: bytes | memoryview) -> None:
        """Add options to those that came before; null, which a form of JavaScript has for nothing, is none.

        Raises InvalidOption where both have one with different values.
        """
        value = self.parse_json(text, "options", InvalidOption)
        options = {} if value is None else read_object(value)
        if doubles := [name for name in options.keys() & self.options.keys() if options[name] != self.options[name]]:
            raise InvalidOption(
                f"Options came several times and differ in {', '.join(sorted(map(cut_name, doubles)))}.",
                "Give each option once.",
            )
        self.options |= options

    def add_contexts(self, text: bytes | memoryview, what: str) -> None:
        """Add a context, or a list of them, to those that came before; null is none."""
        value = self.parse_json(text, what)
        self.contexts += [] if value is None else read_contexts(value)

    def get_uploads(self, field: str) -> list[Upload]:
        """Return the list of uploads of `images` or `reference`, which the client named. Once named, a reference set
        exists, even if empty.
        """
        self._is_reference_given |= field == "reference"
        return self._uploads_of(field)

    def _uploads_of(self, field: str) -> list[Upload]:
        if field == "reference" and self.reference is None:
            self.reference = []
        return self.images if self.reference is None or field == "images" else self.reference

    def add_file(self, field: str, content: bytes | memoryview, name: str) -> None:
        """Add one file: an image, or an npy, zip or tar of images. What is neither by its name is left out."""
        if is_system_file(name) or is_no_image(name):
            self._left_out.append(name)
        elif content[:6] == b"\x93NUMPY":
            self.add_rows(field, content, name)
        elif archives.is_zip(content) or tar_headers.is_tar(content):
            self.add_archive(field, content)
        else:
            self.add_image(field, content, name)

    def add_image(self, field: str, content: bytes | memoryview | Samples, name: str) -> None:
        """Add one image: a file's bytes, or pixels (H, W) or (H, W, C)."""
        self.add(field, name, lambda: content, is_in_memory=True)

    def add_rows(self, field: str, content: bytes | memoryview, name: str = "") -> None:
        rows = arrays.read_npy(content)
        self.shapes.append(rows.shape)
        # The first line of pixels tells it of nearly all arrays.
        if rows.dtype == "uint8" and len(rows) and not rows[0, 0].tobytes().strip(b"\0\1") and rows.max() == 1:
            self._notes.append(f"All {len(rows)} images of an array {FAINT}")
        for row, pixels in enumerate(rows):
            self.add_image(field, pixels, f"{name}[{row}]" if name else "")

    def add_archive(self, field: str, content: bytes | memoryview) -> None:
        archive = archives.read_archive(content, self.max_images, self._bytes_left)
        self._bytes_left -= sum(member.size for member in archive.members)
        # Arrays stay unpacked, other files only while they are decoded.
        sizes = [member.size for member in archive.members if not is_array(member)]
        self._unpacked_bytes += sum(sorted(sizes)[-UNPACKED_AT_A_TIME:])
        contents, headers = sort_members(archive), ArrayHeaders()
        files, other_arrays, notes = leave_out_arrays(contents.files, headers)
        self._left_out += contents.left_out + other_arrays
        self._notes += [*notes, *warn_of_like_reference(files)]
        for member in contents.contexts:
            self.add_contexts(member.read(), member.name)
        for member, is_reference in files:
            own_field = "reference" if is_reference else field
            if is_array(member):
                self.add_member_rows(own_field, member, headers)
            else:
                self.add(own_field, member.name, member.read)

    def add_member_rows(self, field: str, member: archives.Member, headers: ArrayHeaders) -> None:
        """Add the images of an npy file in an archive. Raises what `ArrayHeaders.iterate_rows` raises."""
        self._unpacked_bytes += member.size
        self.shapes.append(headers.read(member).shape)
        for row, read in enumerate(headers.iterate_rows(member)):
            self.add(field, f"{member.name}[{row}]", read)

    def add(
        self, field: str, name: str, read: Callable[[], bytes | memoryview | Samples], *, is_in_memory: bool = False
    ) -> None:
        """Add the image that `read` returns. Its id is the readable part of `name`, or else its place in the list."""
        uploads = self._uploads_of(field)
        read = partial(read_image, read)
        uploads.append(Upload(readable(name) or str(len(uploads)), read, is_in_memory=is_in_memory))
        self._check_count()


def no_images(what: str = "images", notes: Sequence[str] = ()) -> InvalidInput:
    """Return the error of a request without any; `notes` say what it has instead."""
    return InvalidInput(" ".join((f"The request has 0 {what}.", *notes)), "Send at least one.")
