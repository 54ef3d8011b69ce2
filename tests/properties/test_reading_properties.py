"""Whatever bytes come: they are read, or refused in an error of ours. `make fuzz` tries many more of them."""

from __future__ import annotations

import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import malformed
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.api.options import ScoreOptions
from service.bundle.manifest import ImageSpec
from service.errors import InvalidInput
from service.images.decode import read_rows, to_row
from service.images.limits import Limits
from service.settings import Settings
from service.transports.http.body_parsers import MEDIA_TYPES, parse_images, parse_latents

SAMPLE_BATCH = Path(__file__).parents[1] / "data" / "shapes3d_batch.zip"
SPECS = [ImageSpec(height=64, width=64, channels=3), ImageSpec(height=28, width=28, channels=1)]
MAX_PIXELS = 1_000_000
LIMITS = Settings(max_images=100, max_body_bytes=1_000_000, max_image_pixels=MAX_PIXELS)

with zipfile.ZipFile(SAMPLE_BATCH) as batch:
    PIXELS = np.asarray(Image.open(batch.open("00.png")))
FILES = malformed.image_files(PIXELS)
SMALL = [file for file in malformed.image_files(PIXELS[:16, :16]) if len(file) < 2000][:3]
BODIES = malformed.request_bodies(SMALL, np.stack([PIXELS[:8, :8]] * 2))

spoiled_files = st.builds(malformed.spoil, st.sampled_from(FILES), st.randoms())
spoiled_bodies = st.sampled_from(BODIES).flatmap(
    lambda body: st.tuples(st.just(body[0]), st.builds(malformed.spoil, st.just(body[1]), st.randoms()))
)
# A profile may ask for more examples; none may run for long, but how long depends on the machine.
trying = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(autouse=True, scope="module")
def _as_in_the_service():
    """Pillow warns of some damage and goes on, which in tests would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_the_seeds_are_sound():
    for spec in SPECS:
        for file in FILES:
            assert to_row(file, spec, "fit", Limits(MAX_PIXELS)).shape == spec.shape
    for content_type, body in BODIES:
        if b"context" in body:  # a context that is none
            with pytest.raises(InvalidInput, match="context"):
                rows_of(content_type, body)
        else:
            assert len(rows_of(content_type, body)) >= 2


@trying
@given(spoiled_files, st.sampled_from(SPECS), st.sampled_from(["fit", "reject"]))
def test_a_spoiled_image_becomes_a_row_or_an_error(content, spec, resize):
    with suppress(InvalidInput):
        row = to_row(content, spec, resize, Limits(MAX_PIXELS))
        assert (row.shape, row.dtype) == (spec.shape, np.uint8)


@trying
@given(spoiled_bodies)
def test_a_spoiled_body_becomes_images_or_an_error(body):
    with suppress(InvalidInput):
        assert rows_of(*body).shape[1:] == SPECS[0].shape


@trying
@given(st.sampled_from([*MEDIA_TYPES, "multipart/form-data; boundary=a", ""]), st.binary(max_size=300))
@example("multipart/form-data; boundary=a", b"--a--")
def test_any_bytes_become_images_or_an_error(media_type, content):
    with suppress(InvalidInput):
        rows_of(media_type, content)
    with suppress(InvalidInput):
        parse_latents(media_type, content, 12)


def rows_of(content_type: str, body: bytes) -> np.ndarray:
    """The images of a request as far as they are usable, as the pipeline reads them."""
    request = parse_images(content_type, {}, body, LIMITS, ScoreOptions)
    uploads = [*request.images, *(request.reference or ())]
    return read_rows(uploads, SPECS[0], request.options.resize, Limits(MAX_PIXELS)).pixels
