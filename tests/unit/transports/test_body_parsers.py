"""Bodies in every wire format to the same uploads, and every malformed one to its own error."""

import base64
import io
import json
import tarfile
import zipfile

import bodies
import numpy as np
import pytest
from starlette.datastructures import QueryParams

from service.api import json_texts
from service.api.options import EncodeOptions, FitOptions, ScoreOptions
from service.errors import (
    InvalidInput,
    InvalidOption,
    ShapeMismatch,
    TooLarge,
    TooManyImages,
    UndecodableImage,
    UnsupportedMediaType,
)
from service.images import archived_arrays, arrays
from service.settings import Settings
from service.transports.http.body_parsers import parse_images
from service.transports.http.handler import read_query

SMALL = Settings(max_images=10, max_body_bytes=1_000_000, max_rows_in_flight=10, max_bytes_in_flight=1_000_000)


def parsed(body: bodies.Body, settings: Settings = SMALL, **query: str):
    return parse_images(body[0], query, body[1], settings, ScoreOptions)


def contents(uploads):
    return [bytes(upload.read()) for upload in uploads]


@pytest.fixture
def files(images):
    return bodies.image_files(images[:4])


def test_every_format_gives_the_same_files(files):
    names, whole = list(files), list(files.values())
    for body in (bodies.as_form(bodies.form_of(files)), bodies.as_zip(files), bodies.as_tar(files)):
        request = parsed(body)
        assert [upload.id for upload in request.images] == names
        assert contents(request.images) == whole
        assert request.reference is None
    request = parsed(bodies.as_json(whole))
    assert [upload.id for upload in request.images] == ["0", "1", "2", "3"]
    assert contents(request.images) == whole


@pytest.mark.parametrize("media_type", ["application/x-zip-compressed", "Application/X-ZIP; x=y", "application/x-gtar"])
def test_other_names_of_archives_are_known(files, media_type):
    content = (bodies.tarred if "tar" in media_type else bodies.zipped)(files)
    assert len(parsed((media_type, content)).images) == 4


def test_npy_gives_rows(images):
    for array in (images[:3], images[:3, ..., 0], np.asfortranarray(images[:3])):
        request = parsed(bodies.as_npy(array))
        assert [upload.id for upload in request.images] == ["0", "1", "2"]
        assert np.array_equal(np.stack([upload.read() for upload in request.images]), array)


def test_reference_comes_in_every_format(images, files):
    more = {f"reference/{name}": content for name, content in files.items()}
    arrays = {"images.npy": bodies.npy(images[:4]), "reference.npy": bodies.npy(images[4:6])}
    for body, size in (
        (bodies.as_form(bodies.form_of(files) + bodies.form_of(files, "reference")), 4),
        (bodies.as_zip(files | more), 4),
        (bodies.as_tar(files | more), 4),
        (bodies.as_json(files.values(), reference=[base64.b64encode(b).decode() for b in files.values()]), 4),
        (bodies.as_zip(arrays), 2),
        (
            bodies.as_form(
                [("images", "a.npy", arrays["images.npy"]), ("reference", "b.npy", arrays["reference.npy"])]
            ),
            2,
        ),
        (bodies.as_form([("images", "a.zip", bodies.zipped(files)), ("reference", "b.tar", bodies.tarred(files))]), 4),
    ):
        request = parsed(body)
        assert len(request.images) == 4
        assert request.reference is not None
        assert len(request.reference) == size


def test_savez_is_a_zip_of_arrays(images):
    buffer = io.BytesIO()
    np.savez(buffer, images=images[:5], reference=images[5:8])
    request = parsed(("application/zip", buffer.getvalue()))
    assert (len(request.images), len(request.reference or ())) == (5, 3)


def test_what_file_managers_add_to_an_archive_is_left_out(files):
    clutter = {"__MACOSX/0000.png": b"x", ".DS_Store": b"x", "./0001/.hidden.png": b"x"}
    assert len(parsed(bodies.as_zip(files | clutter)).images) == 4
    assert len(parsed(bodies.as_tar(files | clutter)).images) == 4


def test_what_is_no_image_is_left_out_with_one_warning(files):
    more = {"Thumbs.db": b"x", "labels.csv": b"a,b", "README": b"x"}
    parts = bodies.form_of(files | more)
    zips = [("images", f"{name}.zip", bodies.zipped({name: b"x"})) for name in more]
    for body in (bodies.as_zip(files | more), bodies.as_tar(files | more), bodies.as_form(parts)):
        request = parsed(body)
        assert [upload.id for upload in request.images] == list(files)
        assert request.notes == ("3 files are no images and were left out: 'Thumbs.db', 'labels.csv', 'README'.",)
    assert parsed(bodies.as_form(bodies.form_of(files) + zips)).notes == request.notes
    with pytest.raises(InvalidInput, match=r"0 images\. 3 files are no images"):
        parsed(bodies.as_zip(more))


def test_labels_beside_arrays_of_images_are_left_out(images):
    buffer = io.BytesIO()
    np.savez(buffer, images=images[:3], labels=np.arange(3), table=np.zeros((3, 2)))
    request = parsed(("application/zip", buffer.getvalue()))
    assert [upload.id for upload in request.images] == ["images.npy[0]", "images.npy[1]", "images.npy[2]"]
    assert request.notes == ("2 files are no images and were left out: 'labels.npy', 'table.npy'.",)
    for wrong in ({"labels": np.arange(3)}, {"images": images[:3], "reference": np.arange(3)}):
        buffer = io.BytesIO()
        np.savez(buffer, **wrong)
        name = "reference" if "reference" in wrong else "labels"
        with pytest.raises(ShapeMismatch, match=rf"'{name}\.npy': The array has"):
            parsed(("application/zip", buffer.getvalue()))


def test_arrays_beside_the_images_are_told_or_left_out(images):
    def request_of(**files):
        buffer = io.BytesIO()
        np.savez(buffer, **files)
        return parsed(("application/zip", buffer.getvalue()))

    masks, scalar, objects = np.zeros((3, 64, 64), bool), np.float64(3), np.array([{}, None], dtype=object)
    request = request_of(images=images[:3], masks=masks, scalar=scalar, objects=objects, reference=images[:1])
    assert (len(request.images), len(request.reference)) == (3, 1)
    assert request.notes == ("3 files are no images and were left out: 'masks.npy', 'scalar.npy', 'objects.npy'.",)
    request = request_of(train=images[:3], test=images[:2])
    assert len(request.images) == 5
    assert request.notes[0].startswith("The images of 2 arrays were taken: train.npy (3, 64, 64, 3), test.npy (2, ")
    assert request_of(train=images[:3], labels=np.arange(3)).notes[0].startswith("1 file is no image")
    with pytest.raises(ShapeMismatch, match=r"'scalar\.npy'"):
        request_of(scalar=scalar)


def test_a_folder_called_reference_without_other_images_is_the_batch(files):
    inside = {f"Reference/{name}": content for name, content in files.items()}
    for body in (bodies.as_zip(inside), bodies.as_form([("images", "r.zip", bodies.zipped(inside))])):
        request = parsed(body)
        assert ([upload.id for upload in request.images], request.reference) == (list(inside), None)
        assert request.notes[0].startswith("All 4 images are in a folder or an array called reference")
    together = [*bodies.form_of(files), ("images", "r.zip", bodies.zipped(inside))]
    request = parsed(bodies.as_form(together))
    assert (len(request.images), len(request.reference or ())) == (4, 4)
    assert request.notes == ()
    with pytest.raises(InvalidInput, match="0 images"):
        parsed(bodies.as_form([("reference", "r.zip", bodies.zipped(inside))]))


@pytest.mark.parametrize("options_type", [FitOptions, EncodeOptions])
def test_a_reference_is_refused_where_nothing_is_compared(files, options_type):
    inside = {f"reference/{name}": content for name, content in files.items()}
    for body in (
        bodies.as_zip(files | inside),
        bodies.as_form(bodies.form_of(files) + bodies.form_of(files, "reference")),
    ):
        with pytest.raises(InvalidInput, match="with which nothing is compared"):
            parse_images(body[0], {}, body[1], SMALL, options_type)
    alone = bodies.as_zip(inside)
    assert len(parse_images(alone[0], {}, alone[1], SMALL, options_type).images) == 4


def test_options_come_in_the_body_or_in_the_query(files):
    given = {"estimator": "robust", "threshold": 0.9}
    for body, query in (
        (bodies.as_form([*bodies.form_of(files), ("options", None, json.dumps(given).encode())]), {}),
        (bodies.as_json(files.values(), options=given), {}),
        (bodies.as_zip(files), {"options": json.dumps(given)}),
        (bodies.as_zip(files), {"estimator": "robust", "threshold": "0.9"}),
        (bodies.as_json(files.values(), options={"threshold": 0.9}), {"estimator": "robust"}),
    ):
        options = parsed(body, **query).options
        assert (options.estimator, options.threshold, options.fdr, options.resize) == ("robust", 0.9, None, "fit")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (
            {"estimatr": "robust"},
            "Known options are resize, range, pages, estimator, foreign, threshold, fdr, nearest, duplicates,",
        ),
        ({"estimator": "kmeans"}, "leave_one_out"),
        ({"threshold": "2"}, "threshold"),
        ({"nearest": "11"}, "nearest"),
        ({"nearest": "-1"}, "nearest"),
        ({"nearest": "all"}, "nearest"),
        ({"duplicates": "on"}, "'off' or 'groups'"),
        ({"threshold": "nan"}, "threshold"),
        ({"fdr": "0"}, "fdr"),
        ({"fdr": "0.1", "threshold": "0.6"}, "give one of them"),
        ({"options": "{"}, "not JSON"),
        ({"options": "[1]"}, "not a JSON object"),
        ({"options": '{"threshold": 0.1}', "threshold": "0.2"}, None),
    ],
)
def test_bad_options_are_refused_by_name(files, query, named):
    if named is None:
        assert parsed(bodies.as_zip(files), **query).options.threshold == 0.1
        return
    with pytest.raises(InvalidOption) as caught:
        parsed(bodies.as_zip(files), **query)
    assert named in str(caught.value)


@pytest.mark.parametrize("field", ["reference", "context", "options", "images", "anything"])
def test_a_field_of_a_form_that_was_left_empty_counts_as_absent(files, field):
    """Browsers and Swagger UI send such fields."""
    parts = bodies.form_of(files)
    assert parsed(bodies.as_form([*parts, (field, None, b"")])).reference is None
    assert len(parsed(bodies.as_form([(field, "", b""), *parts])).images) == len(files)


@pytest.mark.parametrize("field", ["context", "options"])
def test_a_blob_that_was_left_empty_counts_as_absent(files, field):
    """Swagger UI sends such a field as an empty file called blob."""
    request = parsed(bodies.as_form([*bodies.form_of(files), (field, "blob", b"")]))
    assert (request.contexts, request.options) == ([], ScoreOptions())


@pytest.mark.parametrize("field", ["context", "options"])
def test_null_in_a_form_counts_as_absent(files, field):
    """JavaScript's FormData makes that text of null."""
    request = parsed(bodies.as_form([*bodies.form_of(files), (field, None, b"null")]))
    assert (request.contexts, request.options) == ([], ScoreOptions())
    with pytest.raises(InvalidInput):
        parsed(bodies.as_form([*bodies.form_of(files), (field, None, b"false")]))


def test_an_empty_file_with_a_name_is_an_image_all_the_same(files):
    assert len(parsed(bodies.as_form([*bodies.form_of(files), ("images", "a.png", b"")])).images) == len(files) + 1


def test_json_that_was_written_as_json_twice_is_told(files):
    content_type, body = bodies.as_json(files.values())
    with pytest.raises(InvalidInput, match="The body has str") as caught:
        parsed((content_type, json.dumps(body.decode()).encode()))
    assert "JSON twice" in caught.value.hint


@pytest.mark.parametrize("name", ["image", "files[]", "images[0]", "resize"])
def test_a_field_of_another_name_is_told_what_to_be_called(files, name):
    with pytest.raises(InvalidInput, match="The form has a field") as caught:
        parsed(bodies.as_form([(name, "a.png", b"x")]))
    assert '"images"' in caught.value.hint
    assert "options" in caught.value.hint


def test_an_option_that_differs_in_query_and_body_is_refused(files):
    with pytest.raises(InvalidOption, match="differ in fdr"):
        parsed(bodies.as_json(files.values(), options={"fdr": 0.1}), fdr="0.2")


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((2, 64, 64, 3), dtype=complex), "astype"),
        (np.zeros((2, 64, 64), dtype="U1"), "holds texts"),
        (np.array([b"a.png"]), "holds texts"),
        (np.zeros((64, 64), dtype=np.uint8), "reshape(len(images), H, W, C)"),
        (np.zeros((1, 2, 64, 64, 3), dtype=np.uint8), "squeeze(0)"),
        (np.zeros((2, 3, 64, 64), dtype=np.uint8), "transpose(0, 2, 3, 1)"),
        (np.zeros((64, 64, 3, 9), dtype=np.uint8), "transpose(3, 0, 1, 2)"),
        (np.zeros((3, 64, 64, 9), dtype=np.uint8), "transpose(3, 1, 2, 0)"),
        (np.zeros((64, 64, 3), dtype=np.uint8), "None"),
        (np.zeros((2, 0, 64, 3), dtype=np.uint8), ""),
        (np.array([{}, []], dtype=object), "numpy.stack"),
        (np.zeros(3, dtype=[("a", "u1")]), "named fields"),
    ],
)
def test_arrays_of_the_wrong_rank_or_type_are_refused(array, hint):
    with pytest.raises(ShapeMismatch) as caught:
        parsed(("application/x-npy", bodies.npy(array)))
    assert hint in caught.value.hint


def test_npy_that_promises_more_than_it_holds_is_refused():
    whole = bodies.npy(np.zeros((2, 64, 64, 3), dtype=np.uint8))
    for body in (
        whole[:-1],
        whole + b"x",
        whole[:20],
        whole[:6],
        b"",
        b"no npy",
        whole.replace(b"(2, ", b"(9999999, "),
        whole.replace(b"(2, 64", b"(-2, -64").replace(b", 3), }  ", b", 3), }"),
        whole.replace(b"{", b" "),
        whole.replace(b" " * 40, b"-" * 40),
    ):
        with pytest.raises(InvalidInput):
            parsed(("application/x-npy", body))


def npy_of(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An npy file with any header."""
    text = header.encode("latin-1").ljust(118) + b"\n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + content


HUGE = "0x" + "f" * 6000  # which Python reads, but does not write


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        ("(True, 64, 64, 3)", bytes(12288)),
        ("(1, True, 64, 3)", bytes(192)),
        ("(False, 64, 64, 3)", b""),
        ("(-1, 64, 64, 3)", b""),
        ("(-1, -64, 64, 3)", bytes(12288)),
        ("(1.0, 64, 64, 3)", bytes(12288)),
        ("((1,), 64, 64, 3)", bytes(12288)),
        (f"({HUGE}, 64, 64, 3)", b""),
        (f"(1, 64, {HUGE})", b""),
        (f"(1, 64, -{HUGE})", b""),
        (f"(0, {HUGE}, 64, 3)", b""),
        ("(0, 1099511627776, 1099511627776, 3)", b""),
        (f"({'9' * 5000}, 64, 64, 3)", b""),
        ("()", b"\0"),
        ("None", b""),
        ("[1, 64, 64, 3]", bytes(12288)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_npy_shapes_that_are_none_are_refused(shape, content):
    body = npy_of(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}", content)
    with pytest.raises(InvalidInput) as refused:
        parsed(("application/x-npy", body))
    assert len(str(refused.value)) < 2500


@pytest.mark.parametrize(
    "descr", ["None", "True", "[]", "'|S0'", "('|u1', (2,))", "[('\\ud800', '|u1')]", "'V9999999999'"]
)
@pytest.mark.parametrize("order", ["False", "True", "1", "None", "'x'", "[]"])
def test_npy_headers_of_other_kinds_are_refused(descr, order):
    for version in ((1, 0), (2, 0), (3, 0), (9, 9)):
        header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': (1, 64, 64, 3), }}"
        with pytest.raises(InvalidInput) as refused:
            parsed(("application/x-npy", npy_of(header, bytes(12288), version)))
        str(refused.value).encode()


RAW_NAMES = (b"caf\xe9.png", b"\xff\xfe.png", b"\xed\xa0\x80.png", b"\x80" * 99, b"a\x01\x1b.png")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_names_that_are_not_utf8_become_readable(files, form):
    content, buffer = files["0000.png"], io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for name in (*RAW_NAMES, "größe.png".encode(), b"x" * 90):
            member = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    uploads = parsed(("application/x-tar", buffer.getvalue())).images
    assert [upload.id for upload in uploads[-2:]] == ["größe.png", "x" * 90]
    assert uploads[0].id == "café.png"
    assert len({upload.id for upload in uploads}) == len(uploads)
    for upload in uploads:
        upload.id.encode()
        assert bytes(upload.read()) == content


@pytest.mark.parametrize("name", RAW_NAMES)
def test_form_names_that_are_not_utf8_become_readable(files, name):
    content_type, body = bodies.as_form([("images", "NAME", files["0000.png"])])
    (upload,) = parsed((content_type, body.replace(b"NAME", name))).images
    assert upload.id.encode()


def test_zip_names_that_are_not_utf8_become_readable(files):
    whole = bodies.zipped({"NAME.png": files["0000.png"]}).replace(b"NAME", b"\xff\xed\xa0\x80")
    (upload,) = parsed(("application/zip", whole)).images
    assert upload.id.encode()
    says_utf8 = bytearray(whole)
    says_utf8[whole.find(b"PK\x01\x02") + 9] |= 8
    with pytest.raises(InvalidInput, match="not a complete zip"):
        parsed(("application/zip", bytes(says_utf8)))


def test_zero_images_are_refused(images):
    for body in (
        bodies.as_form([]),
        bodies.as_form([("options", None, b"{}")]),
        bodies.as_npy(images[:0]),
        bodies.as_zip({}),
        bodies.as_json([]),
        ("application/json", b"{}"),
        bodies.as_tar({"folder/.keep": b""}),
    ):
        with pytest.raises(InvalidInput, match="0 images"):
            parsed(body)


def test_an_empty_reference_is_refused_rather_than_ignored(files):
    for body in (
        bodies.as_json(files.values(), reference=[]),
        bodies.as_form([*bodies.form_of(files), ("reference", "r.zip", bodies.zipped({}))]),
    ):
        with pytest.raises(InvalidInput, match="0 reference images"):
            parsed(body)


def test_more_images_than_the_limit_are_refused_in_every_format(images):
    eleven = images[:11]
    files = bodies.image_files(eleven)
    half = bodies.form_of(bodies.image_files(images[:6]))
    for body in (
        bodies.as_form(bodies.form_of(files)),
        bodies.as_form(half + bodies.form_of(bodies.image_files(images[:5]), "reference")),
        bodies.as_npy(eleven),
        bodies.as_zip(files),
        bodies.as_tar(files),
        bodies.as_json(files.values()),
        bodies.as_zip({str(number): b"" for number in range(5000)}),
        bodies.as_tar({str(number): b"" for number in range(500)}),
    ):
        with pytest.raises(TooManyImages):
            parsed(body)
    assert len(parsed(bodies.as_npy(images[:10])).images) == 10


def test_zip_bomb_is_refused_before_it_unpacks():
    bomb = bodies.as_zip({"a.png": bytes(50_000_000)})
    assert len(bomb[1]) < 100_000
    with pytest.raises(TooLarge, match="50000000"):
        parsed(bomb)


def test_zip_bombs_in_several_parts_share_one_limit():
    part = bodies.zipped({"a.png": bytes(600_000)})
    with pytest.raises(TooLarge):
        parsed(bodies.as_form([("images", "a.zip", part), ("images", "b.zip", part)]))


def test_a_zip_that_lies_about_its_sizes_unpacks_no_further():
    honest = bodies.zipped({"a.png": bytes(50_000_000)})
    lying = honest.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    (upload,) = parsed(("application/zip", lying)).images
    with pytest.raises(UndecodableImage):
        upload.read()


def test_an_archive_in_an_archive_is_not_unpacked(files):
    (upload,) = parsed(bodies.as_zip({"inner.zip": bodies.zipped(files)})).images
    with pytest.raises(UndecodableImage, match=r"'inner\.zip' is an archive within the archive"):
        upload.read()


def test_members_that_cannot_be_unpacked_fail_alone(files):
    content = bytearray(bodies.zipped(files, zipfile.ZIP_STORED))
    first = content.find(b"\x89PNG")
    content[first + 30] ^= 1
    uploads = parsed(("application/zip", bytes(content))).images
    with pytest.raises(UndecodableImage, match=r"0000\.png"):
        uploads[0].read()
    assert contents(uploads[1:]) == list(files.values())[1:]


def test_a_member_without_a_name_is_called_by_its_place(files):
    nameless = dict(zip(("0.png", "@.png"), files.values(), strict=False))
    content = bodies.zipped(nameless).replace(b"@.png", b"\0.png")  # zip ends a name at the first zero
    uploads = parsed(("application/zip", content)).images
    assert [upload.id for upload in uploads] == ["0.png", "1"]
    assert contents(uploads) == list(nameless.values())


def test_exotic_compression_is_refused(files):
    (upload, *_) = parsed(("application/zip", bodies.zipped(files, zipfile.ZIP_BZIP2))).images
    with pytest.raises(UndecodableImage, match="bzip2"):
        upload.read()


@pytest.mark.parametrize("media_type", ["application/zip", "application/x-tar"])
def test_what_is_no_archive_is_refused(files, media_type):
    for body in (b"", b"text", bodies.zipped(files)[:100], b"PK\x05\x06" + bytes(30), b"\x1f\x8b" + bytes(600)):
        with pytest.raises(InvalidInput):
            parsed((media_type, body))


def test_truncated_tar_is_refused(files):
    whole = bodies.tarred(files)
    with pytest.raises(InvalidInput, match="complete tar"):
        parsed(("application/x-tar", whole[: whole.rfind(b"\x89PNG") + 20]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "3",
        '{"images": "abc"}',
        '{"images": [1]}',
        '{"images": ["aGk="], "extra": 1}',
        '{"images": [[0, 1]]}',
        "[" * 100_000,
    ],
)
def test_json_of_another_form_is_refused(text):
    with pytest.raises(InvalidInput):
        parsed(("application/json", text.encode()))


def test_hexadecimal_is_no_base64(files):
    request = parsed(("application/json", json.dumps({"images": [files["0000.png"].hex()]}).encode()))
    with pytest.raises(UndecodableImage, match="is hexadecimal"):
        request.images[0].read()


@pytest.mark.parametrize("text", ["http://127.0.0.1/a.png", "data:image/png;base64,aGk=", "a", "é"])
def test_what_is_no_base64_fails_alone(text, files):
    good = base64.b64encode(files["0000.png"]).decode()
    uploads = parsed(("application/json", json.dumps({"images": [good, text]}).encode())).images
    assert bytes(uploads[0].read()) == files["0000.png"]
    with pytest.raises(UndecodableImage, match="not base64"):
        uploads[1].read()


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.translate(str.maketrans("+/", "-_")),
        lambda text: text.rstrip("="),
        lambda text: "\r\n".join(f"  {text[at : at + 76]} " for at in range(0, len(text), 76)),
    ],
)
def test_base64_of_every_spelling_is_taken(write):
    for content in (b"\xfb\xff\xfe" * 99, b"\xfb\xff\xfe" * 99 + b"a", b"\xfb\xff\xfe" * 99 + b"ab"):
        body = json.dumps({"images": [write(base64.b64encode(content).decode())]}).encode()
        (upload,) = parsed(("application/json", body)).images
        assert upload.read() == content


def test_a_plus_that_became_a_space_is_told():
    text = base64.b64encode(b"\xfb\xef\xbe a" * 99).decode().replace("+", " ")
    (upload,) = parsed(("application/json", json.dumps({"images": [text]}).encode())).images
    with pytest.raises(UndecodableImage, match="not base64") as caught:
        upload.read()
    assert "%2B" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_json_as_powershell_writes_it(encoding, files):
    body = json.dumps({"images": [base64.b64encode(files["0000.png"]).decode()], "options": {"fdr": 0.1}})
    request = parsed(("application/json", body.encode(encoding)))
    assert (len(request.images), request.options.fdr) == (1, 0.1)
    form = [*bodies.form_of(files), ("options", "options.json", '{"fdr": 0.1}'.encode(encoding))]
    assert parsed(bodies.as_form(form)).options.fdr == 0.1


@pytest.mark.parametrize(
    "text",
    [
        '{"images": ["AAAA"], "images": ["AAAA", "AAAA"]}',
        '{"images": ["AAAA"], "options": {"fdr": 0.1, "fdr": 0.2}}',
        '{"images": ["' + "A" * 80_000 + '"], "images": []}',
    ],
)
def test_a_name_that_comes_twice_is_refused(text):
    with pytest.raises(InvalidInput, match=r"'(images|fdr)' twice"):
        parsed(("application/json", text.encode()))
    parsed(("application/json", ('{"options": {}, "images": ["' + "A" * 80_000 + '"]}').encode()))


def test_a_name_that_comes_twice_among_very_many():
    options = ",".join(f'"{number}": 1' for number in [*range(100_000), 99_999])
    text = f'{{"images": [], "images": [], "options": {{{options}}}}}'
    with pytest.raises(InvalidInput, match=r"'99999' twice"):
        parsed(("application/json", text.encode()))


def test_a_query_of_very_many_names():
    query = "&".join(f"{number}=1" for number in range(20_000))
    values = read_query(QueryParams(f"top=1&top=2&{query}"))
    assert (values["top"], values["7"], len(values)) == (["1", "2"], "1", 20_001)


def test_an_option_of_the_query_without_a_value_is_absent(files):
    options = parsed(bodies.as_zip(files), fdr="", estimator="", options="", top="2").options
    assert (options.fdr, options.estimator, options.top) == (None, None, 2)


def test_options_of_several_parts_may_not_differ(files):
    def request_of(*options):
        return parsed(bodies.as_form([*bodies.form_of(files), *(("options", None, each) for each in options)]))

    assert request_of(b'{"fdr": 0.1}', b'{"top": 2, "fdr": 0.1}').options.top == 2
    with pytest.raises(InvalidOption, match="several times and differ in fdr"):
        request_of(b'{"fdr": 0.1}', b'{"fdr": 0.2}')


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        ('{"images": [[[0.5, 0.1]]]}', "a list with list in it", "application/x-npy"),
        ('{"images": "AAAA"}', "images is str", "base64 of a file"),
        ('{"images": ["AAAA"], "options": {"fdr": NaN}}', "not JSON", "no NaN"),
        ("images=a.png", "begins with 'images=a.png'", "base64 of a file"),
        ('{"images": ["AAAA"], "options": {"threshold": true}}', "threshold is true", "docs.json"),
        ('{"images": ["AAAA"], "options": {"fdr": [0.1, 0.2]}}', "2 values came", "docs.json"),
    ],
)
def test_json_that_cannot_be_used_says_what_came(body, message, hint):
    with pytest.raises(InvalidInput) as caught:
        parsed(("application/json", body.encode()))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_body_of_another_type_is_named(files):
    for content, told in ((bodies.zipped(files), "application/zip"), (files["0000.png"], "PNG image")):
        with pytest.raises(UnsupportedMediaType) as caught:
            parsed(("application/octet-stream", content))
        assert told in caught.value.hint


def test_wrapped_base64_is_taken(files):
    wrapped = base64.encodebytes(files["0000.png"]).decode()
    (upload,) = parsed(("application/json", json.dumps({"images": [wrapped]}).encode())).images
    assert upload.read() == files["0000.png"]


@pytest.mark.parametrize("media_type", ["", "text/plain", "image/png", "application/x-www-form-urlencoded", "a/b/c"])
def test_other_media_types_are_refused_with_the_list(media_type):
    with pytest.raises(UnsupportedMediaType, match="application/x-npy"):
        parsed((media_type, b"abc"))


def test_media_type_is_read_as_http_has_it(images):
    request = parse_images("Application/X-NPY; charset=binary", {}, bodies.npy(images[:2]), SMALL, ScoreOptions)
    assert len(request.images) == 2


def test_unknown_form_field_is_refused(files):
    with pytest.raises(InvalidInput, match="'image'"):
        parsed(bodies.as_form(bodies.form_of(files, "image")))


def test_form_files_without_a_name_get_their_position(files):
    request = parsed(bodies.as_form([("images", None, content) for content in files.values()]))
    assert [upload.id for upload in request.images] == ["0", "1", "2", "3"]


def test_a_form_without_files_may_bring_options_and_a_context():
    body = ("application/x-www-form-urlencoded", b"options=%7B%22estimator%22%3A%22robust%22%7D")
    with pytest.raises(InvalidInput, match="The request has 0 images"):
        parsed(body)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"images=a.png", b"a=" + bytes(2_000_000)])
def test_curls_own_content_type_is_refused_with_the_right_one(content):
    with pytest.raises(UnsupportedMediaType, match="With curl"):
        parsed(("application/x-www-form-urlencoded", content))


def test_arrays_in_archives_are_unpacked_when_they_are_read(images):
    """And once: a damaged one is not unpacked again for each of its rows."""
    arrays = io.BytesIO()
    np.savez_compressed(arrays, images=images)
    request = parse_images("application/zip", {}, arrays.getvalue(), Settings(), ScoreOptions)
    assert images.nbytes < request.unpacked_bytes < images.nbytes + 1000
    assert [upload.id for upload in request.images[:2]] == ["images.npy[0]", "images.npy[1]"]
    assert all(np.array_equal(upload.read(), image) for upload, image in zip(request.images, images, strict=True))

    content = bytearray(arrays.getvalue())
    at = len(content) // 2
    content[at : at + 100] = bytes(100)
    damaged = parse_images("application/zip", {}, bytes(content), Settings(), ScoreOptions)
    for upload in damaged.images[:3]:
        with pytest.raises(UndecodableImage, match=r"cannot be unpacked.*zip it again"):
            upload.read()


def test_headers_of_arrays_in_archives_are_read_once(images, monkeypatch):
    heads = []
    monkeypatch.setattr(archived_arrays, "read_header", lambda head, *rest: heads.append(head) or read(head, *rest))
    read = arrays.read_header
    body = bodies.zipped({f"{number}.npy": bodies.npy(images[number : number + 1]) for number in range(5)})
    assert len(parsed(("application/zip", body)).images) == 5
    assert len(heads) == 5


def test_an_array_in_an_archive_that_is_none_is_named(images):
    files = {"a.npy": bodies.npy(images), "b.npy": b"no array"}
    with pytest.raises(InvalidInput, match=r"'b\.npy': 8 bytes are not an npy file"):
        parsed(("application/zip", bodies.zipped(files)))


def test_what_an_archive_may_unpack_to_follows_from_its_length():
    flat = {"images.npy": bodies.npy(np.zeros((8000, 64, 64, 3), dtype=np.uint8))}  # 94 MiB
    small = bodies.zipped(flat)
    with pytest.raises(TooLarge, match="unpacks to"):
        parse_images("application/zip", {}, small, Settings(), ScoreOptions)
    beside = bodies.zipped({**flat, "a.png": np.random.default_rng(0).bytes(600_000)})
    assert len(parse_images("application/zip", {}, beside, Settings(), ScoreOptions).images) == 8001


@pytest.mark.parametrize("odd", ["ä", "\\u00e4", "𝔘"])
def test_large_json_with_odd_characters_is_refused_which_as_text_takes_four_times_as_much(odd, monkeypatch):
    monkeypatch.setattr(json_texts, "MOST_WIDE_JSON", 1000)

    def body(size, odd):
        return (
            "application/json",
            f'{{"images": ["{"A" * size}"], "context": null, "options": {{"{odd}": 1}}}}'.encode(),
        )

    with pytest.raises(TooLarge, match="beyond ASCII"):
        parsed(body(1000, odd))
    for size, word in ((100, odd), (1000, "plain")):
        with pytest.raises(InvalidOption, match="Unknown option"):
            parsed(body(size, word))


@pytest.mark.parametrize(
    ("content_type", "body", "told"),
    [
        ("text/plain", b' {"images": []}', "The body is JSON. Send it as application/json"),
        ("application/grpc", bytes(5), "gRPC has a port of its own"),
        ("application/grpc-web+proto", bytes(5), "gRPC-Web is not spoken"),
    ],
)
def test_a_body_of_another_type_is_told(content_type, body, told):
    with pytest.raises(UnsupportedMediaType) as caught:
        parsed((content_type, body))
    assert told in caught.value.hint


def test_an_array_of_zeros_and_ones_is_told():
    masks = np.eye(8, dtype=np.uint8)[None].repeat(3, 0)
    assert "masks of 0 and 1" in parsed(bodies.as_npy(masks)).notes[0]
    masks[2, 0, 0] = 2
    assert parsed(bodies.as_npy(masks)).notes == ()
    assert parsed(bodies.as_npy(np.zeros((2, 8, 8), np.uint8))).notes == ()
