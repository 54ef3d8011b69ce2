"""Tensors: every form holds the same, and what does not fit is told with what came and what was expected."""

import json
import struct

import numpy as np
import pytest

from service.errors import InvalidInput
from service.transports.open_inference.tensors import CONTENTS, DTYPES, Tensor, announce


def naive_bytes(elements):
    """Elements of BYTES, each behind its length."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_form_of_a_datatype_is_read_and_written_alike(datatype):
    values = np.array([[0, 1], [1, 1], [0, 1]]).astype(DTYPES[datatype])
    tensor = Tensor.of("x", datatype, values)
    announced = announce("x", datatype, [3, 2])
    text = json.loads(b"".join(tensor.to_json()))
    for other in (
        announced.read_bytes(tensor.to_bytes()),
        announced.read_list(text, "data"),
        announced.read_list(values.tolist(), "data"),
        announced.read_list(tensor.to_list(), "contents"),
    ):
        assert other.values.dtype == values.dtype
        assert other.values.tolist() == values.tolist()


def test_bytes_of_every_form_are_read_alike():
    elements = [b"", b"\x89PNG", b"\0" * 300]
    announced = announce("x", "BYTES", [3])
    content = naive_bytes(elements)
    assert [bytes(each) for each in announced.read_bytes(content).values] == elements
    assert Tensor("x", "BYTES", (3,), elements).to_bytes() == content
    assert announced.read_list(elements, "contents").values == elements
    assert announced.read_texts(["", "iVBORw==", "AAAA" * 100], "data").values == elements
    assert announce("x", "BYTES", [1]).read_texts(['{"size": 1}'], "data").values == [b'{"size": 1}']


def test_every_bit_of_a_number_survives_json():
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-500, 500).clip(-300, 300)
    again = np.array(json.loads(b"".join(Tensor.of("x", "FP64", values).to_json())))
    assert again.tobytes() == values.tobytes()
    singles = values[470:530].astype(np.float32)
    again = np.array(json.loads(b"".join(Tensor.of("x", "FP32", singles).to_json())), dtype=np.float32)
    assert again.tobytes() == singles.tobytes()


def test_what_is_no_number_is_null_in_json():
    assert b"".join(Tensor.of("x", "FP64", np.array([np.nan, 1.5])).to_json()) == b"[null,1.5]"


def test_long_tensors_are_written_in_pieces_that_make_one_list():
    values = np.arange(200_000, dtype=np.int64)
    assert json.loads(b"".join(Tensor.of("x", "INT64", values).to_json())) == values.tolist()


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "text"),
    [
        ("", "UINT8", [1], "has the name ''"),
        (None, "UINT8", [1], "has the name None"),
        ("x", "BF16", [1], "datatype 'BF16', expected one of BOOL"),
        ("x", "uint8", [1], "datatype 'uint8'"),
        ("x", None, [1], "datatype None"),
        ("x", ["UINT8"], [1], r"datatype \['UINT8'\]"),
        ("x", "UINT8", None, "shape None, expected a list"),
        ("x", "UINT8", "12", "shape '12', expected a list"),
        ("x", "UINT8", [1.0], r"shape \[1.0\], expected a list of whole"),
        ("x", "UINT8", [True], "expected a list of whole"),
        ("x", "UINT8", [], r"shape \[\], expected 1 to 8 axes"),
        ("x", "UINT8", [-1, 64, 64, 3], "none of them negative"),
        ("x", "UINT8", [1] * 9, "expected 1 to 8 axes"),
        ("x", "UINT8", [2**64, 2], "expected 1 to 8 axes"),
        ("x", "UINT8", [0, 64, 64, 3], "no elements"),
    ],
)
def test_what_a_tensor_states_is_checked(name, datatype, shape, text):
    with pytest.raises(InvalidInput, match=text):
        announce(name, datatype, shape)


@pytest.mark.parametrize(
    ("datatype", "shape", "content", "text"),
    [
        ("UINT8", [2, 2], b"123", "takes 4 bytes, but 3 came"),
        ("UINT8", [2, 2], b"12345", "takes 4 bytes, but 5 came"),
        ("FP32", [2], b"1234", "takes 8 bytes, but 4 came"),
        ("UINT8", [2**32, 2**32], b"", "takes 18446744073709551616 bytes, but 0 came"),
        ("UINT8", [2**62, 2**62, 2**62, 2**62], b"", "takes 4523128485"),
        ("BYTES", [1], b"123", "ends within the length of element 0"),
        ("BYTES", [1], struct.pack("<I", 5) + b"1234", "announces 5 bytes for element 0, but only 4 are left"),
        ("BYTES", [1], struct.pack("<I", 2**32 - 1), "announces 4294967295 bytes"),
        ("BYTES", [1], naive_bytes([b"1", b"2"]), "5 bytes more came"),
        ("BYTES", [3], naive_bytes([b"1", b"2"]), "takes 3 elements, but its content holds 2"),
        ("BYTES", [2**40], naive_bytes([b"1"]), "takes 1099511627776 elements, but its content holds 1"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype, shape, content, text):
    with pytest.raises(InvalidInput, match=text):
        announce("x", datatype, shape).read_bytes(content)


@pytest.mark.parametrize(
    ("datatype", "shape", "elements", "text"),
    [
        ("UINT8", [3], [1, 2], "takes 3 elements, but data holds 2"),
        ("UINT8", [2, 2], [[1, 2, 3, 4]], r"data is nested as \[1, 4\]"),
        ("UINT8", [4], [[1, 2], [3]], "no table of numbers"),
        ("UINT8", [2], [1, 256], "data holds 256"),
        ("UINT8", [2], [1, -1], "data holds -1"),
        ("UINT8", [2], [1, 1.5], "data holds 1.5"),
        ("UINT8", [2], [1, "2"], "no number"),
        ("UINT8", [2], [1, None], "no number"),
        ("UINT8", [2], [1, {}], "no number"),
        ("INT64", [1], [2**63], "data holds 9223372036854775808"),
        ("INT64", [1], [2.0**63], "data holds 9.2233"),
        ("UINT64", [1], [2.0**64], "data holds 1.8446"),
        ("UINT64", [2], [-1, 2**64 - 1], "data holds|no number"),
        ("BOOL", [1], [2], "data holds 2"),
        ("FP16", [1], [70_000], "data holds 70000"),
        ("FP32", [1], [1e39], "data holds 1e"),
        ("FP64", [1], [10**400], "no number|no table"),
    ],
)
def test_elements_that_do_not_fit_are_refused(datatype, shape, elements, text):
    with pytest.raises(InvalidInput, match=text):
        announce("x", datatype, shape).read_list(elements, "data")


@pytest.mark.parametrize(
    ("elements", "text"),
    [(["@@@@"], "'@@@@', is not base64"), ([5], "no text"), (["QQ==", "QQ=="], "takes 1 elements, but data holds 2")],
)
def test_texts_that_are_no_bytes_are_refused(elements, text):
    with pytest.raises(InvalidInput, match=text):
        announce("x", "BYTES", [1]).read_texts(elements, "data")


def test_the_largest_numbers_of_64_bits_are_exact():
    for datatype, number in (("UINT64", 2**64 - 1), ("INT64", 2**63 - 1), ("INT64", -(2**63))):
        assert announce("x", datatype, [1]).read_list([number], "data").values.tolist() == [number]


def test_every_datatype_but_fp16_has_a_field():
    assert set(CONTENTS) == set(DTYPES) - {"FP16"} | {"BYTES"}
