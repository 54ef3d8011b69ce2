"""Colours to sRGB: by numbers that the file names (CICP), its ICC profile, a PNG's gamma, or a camera's EXIF.

A profile that differs from sRGB by hardly a grey level is left alone, as most profiles do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from service.images.spec import Uint8Array

Float64Array = NDArray[np.float64]
Uint16Array = NDArray[np.uint16]
ToLinear = Callable[[Float64Array], Float64Array]

# Pillow's mode of the images that a profile of this colour space is for.
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
DEVICE_CLASSES = ("mntr", "scnr", "prtr", "spac")
LARGEST_PROFILE = 4 * 1024 * 1024
# Grey levels by which colours may differ and pass as sRGB.
TOLERANCE = 2
# Chromaticities of red, green, blue and white, by the number that ITU-T H.273 gives them.
SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
PRIMARIES = {
    1: SRGB,
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, 0.3127, 0.3290),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290),
}
ADOBE_RGB, ADOBE_GAMMA = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.3290), 563 / 256
# Entries of EXIF, in either byte order, by which cameras say so: R03 as the interoperability index (DCF), or 2 as the
# colour space, as some write it. Cameras embed no profile.
SAYS_ADOBE_RGB = re.compile(
    rb"\x01\0\x02\0\x04\0\0\0R03\0|\0\x01\0\x02\0\0\0\x04R03\0"
    rb"|\x01\xa0\x03\0\x01\0\0\0\x02\0|\xa0\x01\0\x03\0\0\0\x01\0\x02"
)
GAMMA_22, GAMMA_28, LINEAR, PQ, HLG = 4, 5, 8, 16, 18
LIKE_SRGB = (1, 2, 6, 13, 14, 15)
# The luminance of white in PQ, and its signal in HLG (ITU-R BT.2408).
WHITE_NITS, HLG_WHITE = 203.0, 0.75
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class Cicp(NamedTuple):
    """Numbers that name colours (ITU-T H.273), and whether samples go from 16 to 235 as in video, not from 0 to 255."""

    primaries: int
    transfer: int
    is_narrow: bool = False


@dataclass(frozen=True)
class Conversion:
    """What brings an image of `mode` to sRGB.

    apply       returns an image of mode RGB, or L where it was grey
    apply_deep  returns the levels (H, W, C) of samples of 16 bits (H, W, C), C 1 for grey or 3: of 8 bits in light that
                is linear, dark tones are too coarse
    """

    mode: str
    apply: Callable[[Image.Image], Image.Image]
    apply_deep: Callable[[Uint16Array], Uint8Array]


def find_conversion(info: Mapping[Any, Any], mode: str, cicp: Cicp | None = None) -> Conversion | None:
    """Return what brings the colours of an image with that mode and info to sRGB, or None where they are.

    cicp precedes all else. Raises ValueError where the file's profile cannot be used.
    """
    if cicp is not None:
        return _of_cicp(cicp)
    if mode == "LAB":
        return _of_lab()  # it needs no profile
    if profile := info.get("icc_profile"):
        return _of_profile(profile, mode)
    if mode in ("RGB", "RGBA") and SAYS_ADOBE_RGB.search(info.get("exif") or b""):
        return _of_adobe_rgb()
    gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
    if "srgb" in info or (gamma is None and chromaticity is None):
        return None
    # A PNG has white first.
    return _of_gamma(gamma or 1 / 2.2, SRGB if not chromaticity else (*chromaticity[2:], *chromaticity[:2]))


def _of_profile(profile: bytes, mode: str) -> Conversion | None:
    if len(profile) > LARGEST_PROFILE:
        raise ValueError(f"its profile has {len(profile)} bytes")
    space, conversion = _open_profile(profile)
    four_channels = mode == "CMYK"
    if (space == "CMYK") != four_channels:
        raise ValueError(f"its profile is for {space}, but it is {mode}")
    if space == "GRAY" and mode not in ("1", "L", "LA", "I;16"):
        raise ValueError(f"its profile is for {space}, but it is {mode}")
    return conversion


@lru_cache(maxsize=16)
def _open_profile(profile: bytes) -> tuple[str, Conversion | None]:
    """Return a profile's colour space, and the conversion by it; None where it is sRGB's. Raises ValueError."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space not in MODES or source.profile.device_class not in DEVICE_CLASSES:
            raise ValueError(f"its profile is of class {source.profile.device_class} for {space}")
        conversion = _build(source, MODES[space])
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        raise ValueError(f"its profile cannot be read: {error}") from error
    return space, None if _is_srgb(conversion) else conversion


@lru_cache(maxsize=1)
def _of_adobe_rgb() -> Conversion | None:
    return _of_encoding(partial(_power, exponent=ADOBE_GAMMA), ADOBE_RGB)


@lru_cache(maxsize=1)
def _of_lab() -> Conversion:
    return _build(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _build(source: ImageCms.ImageCmsProfile, mode: str) -> Conversion:
    target, intent = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), ImageCms.Intent.PERCEPTUAL
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE  # a cache would tie it to one thread
    if mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # which makes a curve of grey too coarse
    transform = ImageCms.buildTransform(source, target, mode, "RGB", intent, flags)

    def apply(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None, "it is not in place"
        return converted.getchannel(1) if mode == "L" else converted

    def apply_deep(samples: Uint16Array) -> Uint8Array:
        import imagecodecs  # here, because few images need it

        channels = samples.shape[2]
        if mode == "RGB" and channels == 1:
            samples = samples.repeat(3, axis=2)
        converted = imagecodecs.cms_transform(
            np.ascontiguousarray(samples[..., 0] if mode == "L" else samples),
            source.tobytes(),
            target.tobytes(),
            colorspace="gray" if mode == "L" else "rgb",
            outcolorspace="rgb",
            outdtype="uint8",
            intent=intent,
            flags=flags,
        )
        return np.asarray(converted[..., 1:2] if channels == 1 else converted)

    return Conversion(mode, apply, apply_deep)


@lru_cache(maxsize=16)
def is_steep(conversion: Conversion) -> bool:
    """Return whether a conversion of RGB or grey draws neighbouring levels of 8 bits far apart, as of linear light."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    converted = np.asarray(conversion.apply(ramp if conversion.mode == "L" else ramp.convert("RGB")))
    return int(np.diff(converted.astype(int), axis=1).max()) > TOLERANCE


def _is_srgb(conversion: Conversion) -> bool:
    """Return whether a conversion changes no colour by more than TOLERANCE."""
    if conversion.mode not in ("RGB", "L"):
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if conversion.mode == "L":
        colours = levels[None]
    else:
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    changed = np.asarray(conversion.apply(Image.fromarray(colours)))
    return int(np.abs(changed.astype(int) - colours).max()) <= TOLERANCE


def _of_cicp(cicp: Cicp) -> Conversion | None:
    primaries, transfer, is_narrow = cicp
    if transfer in LIKE_SRGB and primaries not in PRIMARIES and not is_narrow:
        return None
    transfers: dict[int, ToLinear] = {
        GAMMA_22: partial(_power, exponent=2.2),
        GAMMA_28: partial(_power, exponent=2.8),
        LINEAR: partial(_power, exponent=1.0),
        PQ: _linear_of_pq,
        HLG: _linear_of_hlg,
    }
    to_linear = transfers.get(transfer, _linear_of_srgb)
    return _of_encoding(partial(_of_narrow, to_linear) if is_narrow else to_linear, PRIMARIES.get(primaries, SRGB))


@lru_cache(maxsize=16)
def _of_gamma(gamma: float, chromaticity: tuple[float, ...]) -> Conversion | None:
    if not 0.05 < gamma < 20 or len(chromaticity) != len(SRGB) or min(chromaticity[1::2]) <= 0:
        raise ValueError("its gamma or its chromaticities cannot be")
    # With the primaries of sRGB this gamma stands for the curve of sRGB, as PNG has it.
    is_usual = abs(gamma * 2.2 - 1) < 0.05 and np.allclose(chromaticity, SRGB, rtol=0, atol=0.001)
    to_linear: ToLinear = _linear_of_srgb if is_usual else partial(_power, exponent=1 / gamma)
    return _of_encoding(to_linear, chromaticity)


def _of_encoding(to_linear: ToLinear, chromaticity: tuple[float, ...]) -> Conversion | None:
    """Return the conversion from colours that `to_linear` makes linear, of these primaries; None where it is sRGB."""
    matrix = np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(chromaticity)
    table, deep_table = to_linear(np.arange(2**8) / (2**8 - 1)), to_linear(np.arange(2**16) / (2**16 - 1))

    def apply(image: Image.Image) -> Image.Image:
        pixels: Uint8Array = np.asarray(image)
        linear = table[pixels]
        if pixels.ndim == 3:
            linear = linear @ matrix.T
        return Image.fromarray(_encode_srgb(linear))

    def apply_deep(samples: Uint16Array) -> Uint8Array:
        linear = deep_table[samples]
        if samples.shape[2] == 3:
            linear = linear @ matrix.T
        levels: Uint8Array = _srgb_levels()[np.rint(np.clip(linear, 0, 1) * (2**16 - 1)).astype(np.uint16)]
        return levels

    conversion = Conversion("RGB", apply, apply_deep)
    return None if _is_srgb(conversion) else conversion


def _to_xyz(chromaticity: tuple[float, ...]) -> Float64Array:
    """Return the matrix (3, 3) from linear colours to XYZ, adapted to the white of sRGB (Bradford)."""
    x, y = np.array(chromaticity[::2]), np.array(chromaticity[1::2])
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    to_xyz = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    white = np.array([SRGB[6] / SRGB[7], 1, (1 - SRGB[6] - SRGB[7]) / SRGB[7]])
    scale = (BRADFORD @ white) / (BRADFORD @ xyz[:, 3])
    adapted: Float64Array = np.linalg.inv(BRADFORD) @ (scale[:, None] * BRADFORD) @ to_xyz
    return adapted


def _encode_srgb(linear: Float64Array) -> Uint8Array:
    linear = np.clip(linear, 0, 1)
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    encoded: Uint8Array = np.rint(255 * values).astype(np.uint8)
    return encoded


@lru_cache(maxsize=1)
def _srgb_levels() -> Uint8Array:
    """Return the level in sRGB of each of 2**16 linear samples, which is quicker than to compute it of each."""
    return _encode_srgb(np.arange(2**16) / (2**16 - 1))


def _linear_of_srgb(values: Float64Array) -> Float64Array:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _power(values: Float64Array, exponent: float) -> Float64Array:
    linear: Float64Array = values**exponent
    return linear


def _of_narrow(to_linear: ToLinear, values: Float64Array) -> Float64Array:
    """Return what `to_linear` makes of values whose black is 16 of 255 and whose white is 235."""
    return to_linear(np.clip((255 * values - 16) / (235 - 16), 0, 1))


def _linear_of_pq(values: Float64Array) -> Float64Array:
    """Return luminance relative to white (SMPTE ST 2084)."""
    root = values ** (32 / 2523)
    linear: Float64Array = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610)
    return linear * 10000 / WHITE_NITS


def _linear_of_hlg(values: Float64Array) -> Float64Array:
    """Return light relative to white (ITU-R BT.2100)."""

    def to_scene(signal: Float64Array) -> Float64Array:
        return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)

    return to_scene(values) / to_scene(np.array(HLG_WHITE))
