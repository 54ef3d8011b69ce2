"""What takes long to parse counts as long: very many pieces, however short the body."""

import bodies
import calls
import pytest

from service.protos.misfit.v1 import misfit_pb2 as pb
from service.short_work import SHORT_BYTES
from service.transports import parse_cost

EMPTY = {str(number): b"" for number in range(1000)}
MANY_PIECES = {
    "form": bodies.as_form(("images", "a", b"") for _ in EMPTY),
    "zip": ("application/zip", bodies.zipped(EMPTY)),
    "zip in a form": bodies.as_form([("images", "a.zip", bodies.zipped(EMPTY))]),
    "JSON": ("application/json; charset=utf-8", b'{"images": [' + b'"", ' * 1000 + b'""]}'),
}


@pytest.mark.parametrize("name", MANY_PIECES)
def test_many_pieces_are_no_short_work(name):
    content_type, body = MANY_PIECES[name]
    assert len(body) <= SHORT_BYTES < parse_cost.of_body(content_type, body)


def test_ten_small_images_are_short_work(images):
    files = bodies.image_files(images[:10])
    form, numbers = bodies.as_form(bodies.form_of(files)), bodies.as_json(files.values())
    for content_type, body in (form, numbers, bodies.as_zip(files), bodies.as_tar(files), bodies.as_npy(images[:10])):
        assert len(body) <= parse_cost.of_body(content_type, body) <= SHORT_BYTES


def test_a_long_body_counts_as_it_is():
    assert parse_cost.of_body("application/zip", b"PK\1\2" * SHORT_BYTES) == 4 * SHORT_BYTES


def test_a_message_of_many_pieces_is_no_short_work(images):
    kind = pb.ScoreRequest.DESCRIPTOR
    short = pb.ScoreRequest(images=calls.tensor(images[:8])).SerializeToString()
    assert len(short) < parse_cost.of_message(kind, short) <= SHORT_BYTES
    many = pb.ScoreRequest(images=pb.Images(files=pb.ImageFiles(contents=[b""] * 10_000))).SerializeToString()
    long = pb.ScoreRequest(images=calls.tensor(images[:32])).SerializeToString()
    assert len(many) < SHORT_BYTES < parse_cost.of_message(kind, many)
    assert parse_cost.of_message(kind, long) > SHORT_BYTES


def test_a_message_whose_pieces_are_not_counted_may_be_made_of_them():
    assert parse_cost.of_uncounted(4_096) < SHORT_BYTES < parse_cost.of_uncounted(40_000)
