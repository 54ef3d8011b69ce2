"""Messages to requests and back: words, numbers to the last bit, and what cannot be a request."""

import math

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct

from service.api.options import EditOptions, ScoreOptions
from service.errors import InvalidInput, InvalidOption, ShapeMismatch
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.settings import Settings
from service.transports.grpc import converters

FILES = pb.Images(files=pb.ImageFiles(contents=[b"\x89a", b"\x89b"]))


def read(request, options_type=ScoreOptions):
    return converters.read_images_request(request, options_type, Settings(), request.ByteSize())


def test_options_that_are_left_out_keep_their_defaults():
    request = read(pb.ScoreRequest(images=FILES))
    assert request.options == ScoreOptions()
    assert request.options.model_fields_set == set()


def test_a_zero_that_was_given_is_no_default():
    assert read(pb.ScoreRequest(images=FILES, options=pb.ScoreOptions(threshold=0))).options.threshold == 0
    with pytest.raises(InvalidOption, match="top"):
        read(pb.ScoreRequest(images=FILES, options=pb.ScoreOptions(top=0)))


def test_enums_become_words_and_lists_keep_their_order():
    options = pb.EditOptions(
        estimator=pb.ESTIMATOR_LEAVE_ONE_OUT, edit=pb.EDIT_KIND_SHIFT, which=["3", "a"], values={"scale": 1.5}
    )
    given = read(pb.EditRequest(images=FILES, options=options), EditOptions).options
    assert (given.estimator, given.edit, given.which, given.values) == (
        "leave_one_out",
        "shift",
        ["3", "a"],
        {"scale": 1.5},
    )
    for word in ("all", "flagged"):
        assert (
            read(pb.EditRequest(images=FILES, options=pb.EditOptions(which=[word])), EditOptions).options.which == word
        )


def test_images_have_the_ids_that_came_with_them_or_their_places():
    assert [image.id for image in read(pb.ScoreRequest(images=FILES)).images] == ["0", "1"]
    named = pb.Images(files=FILES.files, ids=["x", "y"])
    assert [(image.id, image.read()) for image in read(pb.ScoreRequest(images=named)).images] == [
        ("x", b"\x89a"),
        ("y", b"\x89b"),
    ]
    with pytest.raises(InvalidInput, match="1 ids came for 2 images"):
        read(pb.ScoreRequest(images=pb.Images(files=FILES.files, ids=["x"])))


def test_a_tensor_is_its_rows():
    pixels = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)
    tensor = pb.ImageTensor(shape=pixels.shape, data=pixels.tobytes())
    rows = [image.read() for image in read(pb.ScoreRequest(images=pb.Images(tensor=tensor))).images]
    assert np.array_equal(rows, pixels)
    with pytest.raises(InvalidInput, match=r"announces shape \(2, 5, 6, 3\), which takes 180 bytes, but holds 179"):
        read(pb.ScoreRequest(images=pb.Images(tensor=pb.ImageTensor(shape=pixels.shape, data=pixels.tobytes()[:-1]))))
    with pytest.raises(ShapeMismatch, match="expected"):
        read(pb.ScoreRequest(images=pb.Images(tensor=pb.ImageTensor(shape=[6, 30], data=pixels.tobytes()))))


def test_numbers_of_a_context_keep_every_bit():
    numbers = [0.1, -0.0, 5e-324, 1 / 3, 2.0**53 - 1, 1.7976931348623157e308]
    struct = Struct()
    struct.update({"numbers": numbers, "nested": {"rows": [[1.5], []]}, "none": None, "yes": True, "word": "a"})
    plain = converters._plain_object(Struct.FromString(struct.SerializeToString()))
    assert [value.hex() for value in plain["numbers"]] == [value.hex() for value in numbers]
    assert math.copysign(1, plain["numbers"][1]) == -1
    assert plain == {"numbers": numbers, "nested": {"rows": [[1.5], []]}, "none": None, "yes": True, "word": "a"}


def test_a_later_chunk_of_a_stream_has_images_only():
    later = pb.ScoreStreamRequest(images=FILES, reference=FILES, options=pb.ScoreOptions(top=2)).SerializeToString()
    assert converters.read_stream_chunk(later, Settings(), is_first=True).size == 4
    with pytest.raises(InvalidInput, match="brings options, reference"):
        converters.read_stream_chunk(later, Settings(), is_first=False)


def test_what_is_no_message_is_refused():
    with pytest.raises(InvalidInput, match=r"3 bytes is no misfit\.v1\.ScoreRequest"):
        converters.parse_message(pb.ScoreRequest, b"\xff\xff\xff", Settings())
