import base64
from io import BytesIO

import numpy as np
from PIL import Image
from random_images import random_image

from service.images.pictures import png


def _decode(content):
    image = Image.open(BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image)


def test_a_colour_image_survives_png_and_base64():
    image = random_image()
    np.testing.assert_array_equal(_decode(png.to_png(image)), image)
    np.testing.assert_array_equal(_decode(base64.b64decode(png.to_base64(image), validate=True)), image)


def test_a_grey_image_is_a_grey_png():
    image = random_image(channels=1)
    np.testing.assert_array_equal(_decode(png.to_png(image)), image[..., 0])
