"""A decoded image to the shape that an encoder takes: its alpha, its colours and its size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image, ImageChops

from service.errors import ShapeMismatch
from service.images.formats import colour
from service.images.spec import Resize, Spec, Uint8Array

# What is noted of an image beside its pixels. pages: only the first of its pages was read. unused_alpha: its alpha is 0
# everywhere and counts for nothing. cut: samples lay beyond the range. dark: they reach little of the range. faint: of
# 256 levels it has 0 and 1. missing: some samples are no numbers. profile: its colour profile cannot be used. stack: it
# has more images, of which the file has no list.
Note = Literal["pages", "unused_alpha", "cut", "dark", "faint", "missing", "profile", "stack"]


def conform(image: Image.Image, spec: Spec, resize: Resize, cicp: colour.Cicp | None, notes: list[Note]) -> Uint8Array:
    """Return a decoded image as uint8 `spec.shape`, and add to its notes."""
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = _invert_ink(image)
    image, is_unused = _without_unused_alpha(image)
    notes += ["unused_alpha"] if is_unused else []
    try:
        conversion = colour.find_conversion(image.info, image.mode, cicp)
    except ValueError:
        conversion = None
        notes.append("profile")
    final_mode = "RGB" if spec.channels == 3 else "L"
    # Grey is resized before it becomes colour: three equal channels would be resized alike.
    grey = image.mode in ("1", "L") and not image.has_transparency_data
    mode = "RGBA" if image.has_transparency_data else "L" if grey else conversion.mode if conversion else final_mode
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (spec.width, spec.height):
        if resize == "reject":
            raise ShapeMismatch(
                f"The image has {image.width} x {image.height} pixels; the model takes "
                f'{spec.width} x {spec.height}, and resize is "reject".',
                'Send images of that size, or set resize to "fit".',
            )
        image = image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    if conversion is not None:
        image = _to_srgb(image, conversion)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == final_mode else image.convert(final_mode)
    return np.asarray(image).reshape(spec.shape)


def _invert_ink(image: Image.Image) -> Image.Image:
    """Return a CMYK image with 0 for no ink.

    Adobe's programs write JPEGs the other way round, and Pillow takes all JPEGs for theirs. Others say so by having no
    marker of Adobe.
    """
    inverted = ImageChops.invert(image)
    inverted.info = image.info
    return inverted


def _without_unused_alpha(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image without its channel of alpha where that is 0 everywhere, and whether it is so.

    Programs that know no alpha write zeros there. A single colour that is said to be transparent is another matter.
    """
    key = image.info.get("transparency")
    if image.mode == "P" and isinstance(key, bytes) and not any(key) and len(key) > int(np.asarray(image).max()):
        image = image.copy()
        del image.info["transparency"]
        return image, True
    if image.mode not in ("RGBA", "LA") or image.getchannel("A").getextrema()[1] != 0:
        return image, False
    info = image.info
    image = image.convert(image.mode[:-1])
    image.info = info
    return image, True


def _to_srgb(image: Image.Image, conversion: colour.Conversion) -> Image.Image:
    """Return an image in sRGB, with its alpha."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha is not None else image
    if conversion.mode == "L" and colours.mode == "RGB":
        colours = colours.getchannel(0)  # of grey with alpha
    converted = conversion.apply(colours if colours.mode == conversion.mode else colours.convert(conversion.mode))
    if alpha is not None:
        converted = converted.convert("RGB")
        converted.putalpha(alpha)
    return converted
