"""Files that are no images, or images that are not read: what they are by their first bytes, and how to send them."""

from __future__ import annotations

import re
from typing import NamedTuple

# The marker of the frame of a JPEG-LS.
JPEG_LS = 0xF7
# Of a file, as many bytes as the patterns below look at.
HEAD_BYTES = 256

ARCHIVE_HINT = "Unpack it, and send its files in a zip, or in an uncompressed tar (tar -cf)."
SAVE_HINT = "Save it as PNG or JPEG."
RAW_HINT = "Develop it, and send it as PNG, TIFF or JPEG."
ARRAY_HINT = "Send its images as an npy array or as image files."
FRAMES_HINT = "Send its frames as images."
REPEAT_HINT = 'Repeat the field for every file: -F "images=@a.png" -F "images=@b.png".'
BYTES_HINT = "Read, keep and send the file as bytes: open(path, 'rb') in Python, responseType 'arraybuffer' in axios."


class Kind(NamedTuple):
    """A kind of file, and what to do with one."""

    name: str
    hint: str


def _compile(*kinds: tuple[bytes, str, str]) -> tuple[tuple[re.Pattern[bytes], Kind], ...]:
    return tuple((re.compile(pattern, re.DOTALL), Kind(name, hint)) for pattern, name, hint in kinds)


ARCHIVES = _compile(
    (rb"\x1f\x8b", "compressed by gzip", ARCHIVE_HINT),
    (rb"BZh", "compressed by bzip2", ARCHIVE_HINT),
    (rb"\xfd7zXZ\0", "compressed by xz", ARCHIVE_HINT),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", ARCHIVE_HINT),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", ARCHIVE_HINT),
    (rb"Rar!\x1a\x07", "a rar archive", ARCHIVE_HINT),
    (rb"PK\x07\x08", "a part of a split zip", "Join its parts: zip -s 0 a.zip --out whole.zip."),
    (rb"PK(\x03\x04|\x05\x06)", "a zip", "Send it as application/zip, or as a file of a form."),
    (rb"\x93NUMPY", "an npy array", "Send it as application/x-npy, or as a file of a form."),
)
OTHERS = _compile(
    (rb"%PDF-", "a PDF", "Send its pages as images."),
    (rb"\x89HDF", "an HDF5 file", ARRAY_HINT),
    (rb"MATLAB [57]\.", "a MATLAB file", ARRAY_HINT),
    (rb"PAR1", "a Parquet file", ARRAY_HINT),
    (rb"ARROW1\0\0", "an Arrow file", ARRAY_HINT),
    (rb"SQLite format 3\0", "a SQLite database", ARRAY_HINT),
    (rb"\\\x01\0\0|\0\0\x01\\|n\+[12]\0", "a NIfTI file", ARRAY_HINT),
    (rb"NRRD000\d|NDims =|ObjectType = Image", "a medical image (NRRD, MetaImage)", ARRAY_HINT),
    (rb"ZISRAWFILE|\xda\xce\xbe\x0a|\x70\0{3}", "a microscope's file (CZI, ND2, LIF)", "Export it as TIFF."),
    (
        rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "a compound file (OIB, Office, Thumbs.db)",
        "Export its images as TIFF or PNG.",
    ),
    (rb"\x80[\x02-\x05][\x8a\x95c}\](]", "a pickle", ARRAY_HINT),
    (rb"SIMPLE  =", "a FITS file", ARRAY_HINT),
    (rb"\0\0[\x08-\x0e][\x01-\x04]", "an IDX file, as of MNIST", ARRAY_HINT),
    (rb".{128}DICM", "a DICOM file", "Send its pixels as an npy array, 16-bit PNG or TIFF."),
    (rb"(II\*\0|MM\0\*).{4}CR|II(RO|RS|U\0)|MMOR|FUJIFILMCCD-RAW|....ftypcrx ", "a camera's raw file", RAW_HINT),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", SAVE_HINT),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL", SAVE_HINT),
    (rb"II\xbc\x01", "JPEG XR", SAVE_HINT),
    (rb"icns", "an icon of macOS (ICNS)", SAVE_HINT),
    (rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "a PCX image", SAVE_HINT),
    (rb"\x01\xda[\0\x01][\x01\x02]", "an SGI image", SAVE_HINT),
    (rb"FLIF|BPG\xfb|BLP[12]", "an image of a rare format (FLIF, BPG, BLP)", SAVE_HINT),
    (rb"%!PS|\xc5\xd0\xd3\xc6|\x01\0{3}.{36} EMF|\xd7\xcd\xc6\x9a", "a drawing (PostScript, EMF, WMF)", SAVE_HINT),
    (rb"P[1-7fF]\s", "a PNM or PFM image", SAVE_HINT),
    (rb"\0\0[\x01\x02]\0[\x01-\xff]\0", "an icon or a cursor (ICO, CUR)", SAVE_HINT),
    (rb"\0\0[\x02\x03\x0a\x0b]\0{5}|\0\x01[\x01\x09]\0{2}[\0-\xff]{2}[\x0f\x10\x18\x20]", "a TGA image", SAVE_HINT),
    (rb"DDS ", "a DDS texture", SAVE_HINT),
    (rb"v/1\x01", "an OpenEXR image", "Save it as a TIFF of floats, or as PNG."),
    (rb"#\?R(ADIANCE|GBE)", "a Radiance HDR image", "Save it as a TIFF of floats, or as PNG."),
    (rb"8BPS", "a Photoshop document", SAVE_HINT),
    (rb"gimp xcf", "a GIMP document", SAVE_HINT),
    (rb"qoif", "a QOI image", SAVE_HINT),
    (
        rb"\x89PNG\r\n\x1a\n....CgBI",
        "a PNG in Apple's own form for apps",
        "Save it as PNG (pngcrush -revert-iphone-optimizations).",
    ),
    (
        rb"\0\x05\x16[\0\x07]\0[\x01\x02]\0\0",
        "what macOS keeps beside a file (AppleDouble)",
        "Leave files called ._NAME out.",
    ),
    (rb".{3}\0{5}\{\"", "a safetensors file", ARRAY_HINT),
    (rb"-{2,}[^\r\n]{1,200}\r\nContent-", "a form within the form, of several files in one field", REPEAT_HINT),
    (
        rb"\0{256}",
        "nothing but zeros at its beginning",
        "Copy it again: it was not written, or not downloaded to its end.",
    ),
    (rb"....ftyp(qt  |iso|mp4|avc1|M4V|3g|dash)|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]", "a film", FRAMES_HINT),
    (rb"RIFF....WAVE|ID3|OggS|fLaC", "a sound", "Send images."),
    (rb"MZ[\0-\xff]{58}|\x7fELF|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "a program", "Send images."),
)
OTHER_KINDS = (*ARCHIVES, *OTHERS)
# What nearly all images begin with that are read: those need no other look.
READ = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR|\xff\xd8\xff|GIF8|RIFF....WEBP|BM", re.DOTALL)
# The images that are read, for where an archive or an array was to come.
IMAGES = _compile(
    (rb"\x89PNG", "a PNG image", 'With curl send it as -F "images=@a.png".'),
    (rb"\xff\xd8\xff", "a JPEG image", 'With curl send it as -F "images=@a.jpg".'),
    (
        rb"GIF8|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|....ftyp",
        "an image",
        'With curl send it as -F "images=@a.tif".',
    ),
)
HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1")
TEXTS = _compile(
    (rb"\s*<", "a page or a drawing in XML", "A download may have failed, or have asked for a log-in."),
    (rb"(\xef\xbb\xbf)?\s*[{[]", "JSON", "Send it as application/json."),
)
# What PNG and JPEG begin with after a program has read them as text and written that again.
AS_TEXT = re.compile(rb"(\xef\xbf\xbd|\xc2\x89)PNG|(\xef\xbf\xbd){3}|\xc3\xbf\xc3\x98\xc3\xbf")
NEW_LINES = re.compile(rb"\x89PNG(\n|\r\r\n|\r|)\x1a")
IMAGE_WITHIN = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff[\xc0-\xfe]|GIF8[79]a")


def identify(content: bytes | memoryview) -> Kind | None:
    """Return what a file is, by its first bytes: an archive, an array, or an image or document that is not read."""
    if READ.match(bytes(content[:16])):
        return None
    return _match(content, OTHER_KINDS)


def identify_any(content: bytes | memoryview) -> Kind | None:
    """Return what a file is that is not the archive or the array that was to come."""
    return _match(content, (*OTHER_KINDS, *IMAGES, *TEXTS))


def begins_as_image(content: bytes | memoryview) -> bool:
    """Return whether a file begins as an image does that is read."""
    head = bytes(content[:12])
    return _match(head, IMAGES) is not None and (head[4:8] != b"ftyp" or head[8:] in HEIF_BRANDS)


def explain_damage(content: bytes | memoryview) -> Kind | None:
    """Return what has happened to an image file that no library recognises, and how to mend it; None if unknown."""
    head = bytes(content[:HEAD_BYTES])
    if AS_TEXT.match(head):
        return Kind("It was read as text and written again, which has changed its bytes.", BYTES_HINT)
    if NEW_LINES.match(head):
        return Kind(
            "Its line ends were changed, as by FTP's text mode or by curl -d.",
            "Copy it in binary mode, or --data-binary.",
        )
    marker, precision = _find_jpeg_frame(content)
    if marker == JPEG_LS or head[4:12] == b"\0 SPIFF\0":
        return Kind("It is JPEG-LS.", SAVE_HINT)
    if precision not in (0, 8):
        return Kind(
            f"It is a JPEG of {precision} bits a channel; those of 8 are read.", "Save it as 16-bit PNG or TIFF."
        )
    if _match(head, IMAGES) is None and (within := IMAGE_WITHIN.search(head)):
        return Kind(f"Something has written {within.start()} bytes before it.", "Send the image file's own bytes.")
    return None


def _find_jpeg_frame(content: bytes | memoryview) -> tuple[int, int]:
    """Return the marker of a JPEG's frame, which tells how it is coded, and the bits of its samples; 0 without one."""
    if content[:2] != b"\xff\xd8":
        return 0, 0
    at = 2
    while at + 4 < len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a frame, not a table
            return marker, content[at + 4]
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return 0, 0


def _match(content: bytes | memoryview, kinds: tuple[tuple[re.Pattern[bytes], Kind], ...]) -> Kind | None:
    head = bytes(content[:HEAD_BYTES])
    return next((kind for pattern, kind in kinds if pattern.match(head)), None)
