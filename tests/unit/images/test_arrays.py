"""Arrays whose axes are in another order than (N, H, W, C): refused, with the transposition that mends it."""

import numpy as np
import pytest

from service.bundle.manifest import ImageSpec
from service.errors import ShapeMismatch
from service.images.arrays import check_axes, check_images

SPECS = {channels: ImageSpec(height=28, width=28, channels=channels) for channels in (1, 3)}


@pytest.mark.parametrize(
    ("shape", "channels", "hint"),
    [((28, 28, 60), 1, "transpose(2, 0, 1)"), ((28, 28, 27), 3, "transpose(2, 0, 1)"), ((3, 28, 28), 3, "(1, 2, 0)")],
)
def test_an_order_that_may_be_another_is_refused(shape, channels, hint):
    check_images(shape, np.dtype(np.uint8))
    with pytest.raises(ShapeMismatch) as caught:
        check_axes(shape, SPECS[channels])
    assert hint in caught.value.hint
    check_axes((*shape, 1), SPECS[channels])


@pytest.mark.parametrize("shape", [(28, 28, 28), (60, 28, 28), (28, 60, 28), (5, 40, 30), (28, 28, 60, 1)])
def test_every_other_order_is_taken(shape):
    check_axes(shape, SPECS[1])
    check_axes(shape, SPECS[3])


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((60, 3, 28, 28), "(0, 2, 3, 1)"),
        ((32, 32, 3, 60), "(3, 0, 1, 2)"),
        ((60, 784), "reshape"),
        ((3, 28, 28, 60), "(3, 1, 2, 0)"),
    ],
)
def test_a_shape_that_is_none_is_refused_with_the_order_that_it_has(shape, hint):
    with pytest.raises(ShapeMismatch) as caught:
        check_images(shape, np.dtype(np.uint8))
    assert hint in caught.value.hint
