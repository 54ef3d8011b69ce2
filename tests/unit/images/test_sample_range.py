"""Which values of deep samples become 0 and 255, and what becomes of those between."""

import numpy as np
import pytest

from service.errors import UndecodableImage
from service.images import sample_range
from service.images.sample_range import Extent, SampleRange, infer, measure, merge, to_bytes


def naive_level(value, extent):
    """The grey level of one sample."""
    value, (low, high) = float(value), extent
    if isinstance(value, float) and not abs(value) < 1e30:
        return 0
    count = high - low + 1
    whole = float(low).is_integer() and float(high).is_integer() and count in [2**bits for bits in range(8, 65)]
    level = (value - low) * 256 // count if whole else np.rint((value - low) * 255 / (high - low))
    return int(min(max(level, 0), 255))


@pytest.mark.parametrize(
    ("dtype", "extent"),
    [
        ("uint8", Extent(0, 63)),
        ("int8", Extent(-128, 127)),
        ("uint16", Extent(0, 65535)),
        ("uint16", Extent(0, 4095)),
        ("uint16", Extent(300, 999)),
        ("int16", Extent(-32768, 32767)),
        ("int16", Extent(-1024, 3071)),
        (">u2", Extent(0, 65535)),
        ("uint32", Extent(0, 2**32 - 1)),
        ("int64", Extent(-5, 70_000)),
    ],
)
def test_whole_numbers_become_levels_as_one_by_one(dtype, extent):
    rng = np.random.default_rng(0)
    reach = extent.high - extent.low
    values = rng.integers(extent.low - reach // 5, extent.high + reach // 5, (20, 30, 1), endpoint=True)
    info = np.iinfo(dtype)
    samples = np.clip(values, info.min, min(info.max, 2**62)).astype(dtype)
    expected = [naive_level(value, extent) for value in samples.ravel().tolist()]
    assert to_bytes(samples, extent).ravel().tolist() == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("extent", [Extent(0.0, 1.0), Extent(-2.5, 40.0)])
def test_floats_become_levels_and_what_is_missing_black(dtype, extent):
    samples = np.linspace(-4, 50, 601).astype(dtype).reshape(-1, 1, 1)
    samples[[0, 5, 9]] = [[[np.nan]], [[np.inf]], [[-np.inf]]]
    levels = to_bytes(samples, extent).ravel()
    expected = np.clip(np.rint((samples.ravel().astype(float) - extent.low) * 255 / (extent.high - extent.low)), 0, 255)
    expected[[0, 5, 9]] = 0
    assert np.array_equal(levels, expected)


def test_eight_bits_come_back_from_every_depth():
    """Written as v * (2^n - 1) / 255 or as v << (n - 8), with or without sign, or as v / 255."""
    grey = np.arange(256)[:, None, None]
    for bits in (10, 12, 14, 15, 16):
        for deep in (np.rint(grey * (2**bits - 1) / 255), grey << (bits - 8)):
            samples = deep.astype(np.int16 if bits == 15 else np.uint16)
            extent = infer(samples.dtype, measure(samples))
            assert extent == (0, 2**bits - 1)
            assert np.array_equal(to_bytes(samples, extent), grey)
    for dtype in (np.float16, np.float32, np.float64):
        samples = (grey / 255).astype(dtype)
        assert np.array_equal(to_bytes(samples, infer(samples.dtype, measure(samples))), grey)
        assert np.array_equal(to_bytes(grey.astype(dtype), infer(np.dtype(dtype), Extent(0, 255))), grey)


@pytest.mark.parametrize(
    ("dtype", "measured", "expected"),
    [
        ("uint16", (0, 60000), (0, 65535)),
        ("uint16", (0, 17000), (0, 65535)),
        ("uint16", (0, 16000), (0, 16383)),
        ("uint16", (900, 3000), (0, 4095)),
        ("uint16", (0, 200), (0, 255)),
        ("uint16", (0, 5), (0, 5)),  # labels
        ("uint16", (0, 0), (0, 1)),
        ("int16", (0, 30000), (0, 32767)),
        ("int16", (-1024, 3071), (-1024, 3071)),  # Hounsfield units
        ("int16", (-30000, 30000), (-32768, 32767)),
        ("int8", (-100, 100), (-128, 127)),
        ("int8", (-10, 100), (-128, 127)),
        ("uint32", (0, 4000), (0, 4095)),
        ("uint32", (0, 200_000), (0, 200_000)),
        ("uint32", (0, 2**31), (0, 2**32 - 1)),
        ("int32", (0, 60000), (0, 65535)),
        ("float32", (0.1, 0.9), (0, 1)),
        ("float32", (0.0, 0.001), (0, 0.001)),
        ("float32", (0.0, 1.02), (0, 1.02)),
        ("float32", (3.0, 240.0), (0, 255)),
        ("float64", (0.0, 60000.0), (0, 65535)),
        ("float32", (-1.0, 1.0), (-1, 1)),
        ("float32", (-0.7, 0.5), (-1, 1)),
        ("float32", (-0.05, 0.98), (-0.05, 0.98)),  # a little beyond, as resizing leaves it
        ("float32", (-2.1, 2.6), (-2.1, 2.6)),
        ("int16", (-20, 30000), (-20, 30000)),
        ("float32", (5.0, 5.0), (0, 5)),
    ],
)
def test_the_range_is_the_one_that_the_images_seem_to_be_made_for(dtype, measured, expected):
    assert infer(np.dtype(dtype), Extent(*measured)) == expected


def test_what_an_image_states_goes_first_unless_the_options_ask_for_another():
    dtype, full, stated = np.dtype("uint16"), Extent(0, 65535), Extent(0, 4095)
    measured = {"uint16": Extent(10, 900)}
    assert SampleRange().find(dtype, full, stated) == stated
    assert SampleRange().find(dtype, full, None) is None
    assert SampleRange("file", measured).find(dtype, full, None) == (0, 1023)
    assert SampleRange("batch").find(dtype, full, stated) is None
    assert SampleRange("batch", measured).find(dtype, full, stated) == (10, 900)
    assert SampleRange("full", measured).find(dtype, full, stated) == full
    assert SampleRange("batch", {}, is_complete=True).find(dtype, full, stated) == full


def test_images_are_measured_together():
    parts = [{"uint16": Extent(3, 9)}, {}, {"uint16": Extent(1, 5), "float32": Extent(0, 1)}]
    assert merge(parts) == {"uint16": (1, 9), "float32": (0, 1)}


def test_what_is_not_finite_does_not_count():
    samples = np.array([np.nan, np.inf, -3.4e38, 0.5, 2.0], np.float32).reshape(1, 5, 1)
    assert measure(samples) == (0.5, 2.0)
    with pytest.raises(UndecodableImage, match="finite"):
        measure(samples[:, :3])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1000, 3), (1000, 3, 4), (1, 5000, 2)])
def test_the_parts_are_all_of_an_image_once(monkeypatch, shape):
    monkeypatch.setattr(sample_range, "SAMPLES_AT_A_TIME", 256)
    seen = np.zeros(shape, int)
    for part in sample_range.parts(seen):
        assert seen[part].size <= max(256, shape[2])
        seen[part] += 1
    assert (seen == 1).all()
