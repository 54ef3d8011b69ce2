import zipfile
from io import BytesIO

import pytest
from random_images import random_image

from service.images.pictures import png, zip_writer


def test_zip_files_come_back_in_order_and_the_same_files_are_the_same_bytes():
    files = {"b.png": png.to_png(random_image()), "latents.json": b"{}" * 500, "ä.png": b"\x89PNG"}
    content = zip_writer.zip_files(files)
    assert zip_writer.zip_files(dict(files)) == content
    with zipfile.ZipFile(BytesIO(content)) as archive:  # no clock has a part in it
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == files
        assert archive.namelist() == list(files)
        methods = {info.filename: info.compress_type for info in archive.infolist()}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}
    assert methods == {"b.png": zipfile.ZIP_STORED, "latents.json": zipfile.ZIP_DEFLATED, "ä.png": zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    ("image_id", "stem"),
    [
        ("photo.PNG", "photo"),
        ("v1.5", "v1.5"),
        ("../../etc/passwd", "etc_passwd"),
        ("C:\\images\\a b.jpeg", "C_images_a_b"),
        (".hidden.png", "hidden"),
        ("Größe.tif", "Größe"),
        ("", "image"),
        ("..", "image"),
        ("\ud800\x00", "image"),
        ("x" * 500, "x" * 100),
    ],
)
def test_an_id_becomes_a_plain_file_name(image_id, stem):
    assert zip_writer.file_stem(image_id) == stem
    assert zip_writer.zip_files({zip_writer.file_stem(image_id): b""})
