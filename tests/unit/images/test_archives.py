"""Archives as people make them: links, old tars, names in any encoding, and what lies beside the images."""

import io
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib

import bodies
import pytest

from service.errors import InvalidInput, UndecodableImage
from service.images.archive_names import (
    UNIX_ENCODINGS,
    ZIP_ENCODINGS,
    decode_names,
    is_no_image,
    is_system_file,
    normalise,
)
from service.images.archives import read_archive
from service.images.tar_headers import is_tar

FILES = {"a.png": b"image a", "folder/b.png": b"image b"}


def members_of(content: bytes) -> dict[str, bytes]:
    return {member.name: bytes(member.read()) for member in read_archive(content, 100, 10**6).members}


def tar_of(*entries: tuple[str, bytes | str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of (name, content or the target of a link, kind)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content, kind in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(content, str):
                info.linkname, content = content, b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# ---- Links --------------------------------------------------------------------------------------

REGULAR, HARD, SYMBOLIC = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def test_links_of_a_tar_are_followed_within_it():
    content = tar_of(
        ("a/x.png", b"x", REGULAR),
        ("hard.png", "a/x.png", HARD),
        ("b/soft.png", "../a/x.png", SYMBOLIC),
        ("b/chain.png", "./soft.png", SYMBOLIC),
        ("early.png", "late.png", SYMBOLIC),
        ("late.png", b"late", REGULAR),
        ("folder", "a", SYMBOLIC),
    )
    assert members_of(content) == {
        "a/x.png": b"x",
        "hard.png": b"x",
        "b/soft.png": b"x",
        "b/chain.png": b"x",
        "early.png": b"late",
        "late.png": b"late",
    }
    assert read_archive(content, 100, 10**6).left_out == ["folder"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x.png", "missing.png", "self.png", "two.png"])
def test_a_link_to_nothing_in_the_archive_fails_alone(target):
    links = [("self.png", target, SYMBOLIC), ("two.png", "self.png", SYMBOLIC)]
    content = tar_of(("x.png", b"x", REGULAR), *links, ("f", "", tarfile.FIFOTYPE))
    archive = read_archive(content, 100, 10**6)
    assert archive.left_out == ["f"]
    first, link, _ = archive.members
    assert bytes(first.read()) == b"x"
    with pytest.raises(UndecodableImage, match=r"'self\.png' is a link to .* which is no file of the archive"):
        link.read()


def test_links_count_as_often_as_they_are_read():
    links = [(f"{number}.png", "x.png", HARD) for number in range(20)]
    with pytest.raises(InvalidInput, match="unpacks to 2100 bytes"):
        read_archive(tar_of(("x.png", bytes(100), REGULAR), *links), 100, 2000)


def test_symbolic_links_of_a_zip_are_followed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/x.png", b"x")
        for name, target in (("b/soft.png", "../a/x.png"), ("out.png", "/etc/passwd")):
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, 0o120777 << 16
            archive.writestr(link, target)
    first, link, out = read_archive(buffer.getvalue(), 100, 10**6).members
    assert (bytes(first.read()), bytes(link.read())) == (b"x", b"x")
    with pytest.raises(UndecodableImage, match="is a link to '/etc/passwd'"):
        out.read()


# ---- Kinds of tars ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_tars_of_every_age_are_read(tmp_path, form):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = ["tar", "--format", form, "-C", tmp_path, "-cf", "-", "./a.png", "folder"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    assert is_tar(content)
    assert members_of(content) == FILES


def test_sparse_files_are_whole(tmp_path):
    with (tmp_path / "sparse.bmp").open("wb") as file:
        file.write(b"head")
        file.seek(200_000)
        file.write(b"tail")
        file.truncate(300_000)
    for form in ("gnu", "posix"):
        command = ["tar", "--format", form, "--sparse", "-C", tmp_path, "-cf", "-", "sparse.bmp"]
        content = subprocess.run(command, capture_output=True, check=True).stdout
        assert len(content) < 100_000
        (member,) = read_archive(content, 100, 10**6).members
        assert bytes(member.read()) == (tmp_path / "sparse.bmp").read_bytes()
        assert bytes(member.head(4)) == b"head"


def test_tars_that_follow_one_another_are_all_read():
    first, second = bodies.tarred({"a.png": b"a"}), bodies.tarred({"b.png": b"b", "c.png": b"c"})
    expected = {"a.png": b"a", "b.png": b"b", "c.png": b"c"}
    assert members_of(first + second) == members_of(first + bytes(512) + second + b"not a tar") == expected


@pytest.mark.parametrize("magic", [b"ustar", b"xstar"])
@pytest.mark.parametrize("before", [b"", bodies.tarred({"0.png": b"0"})])
def test_a_tar_that_is_damaged_in_its_middle_is_refused(magic, before):
    good = bodies.tarred({"a.png": b"a", "b.png": b"b", "c.png": b"c"})
    second = good.index(b"b.png")
    damaged = bytearray(good)
    damaged[second : second + 262] = bytes(damaged[second : second + 257]).replace(b"b.png", b"B.png") + magic
    with pytest.raises(InvalidInput, match=f"header at byte {len(before) + second} is damaged"):
        members_of(before + damaged)


def test_a_size_that_leads_backwards_is_refused():
    good = bytearray(bodies.tarred({"a.png": b"a", "b.png": b"b"}))
    header = good.index(b"b.png")
    good[header + 124 : header + 136] = (-2048).to_bytes(12, "big", signed=True)
    good[header + 148 : header + 156] = b" " * 8
    good[header + 148 : header + 156] = b"%06o\0 " % sum(good[header : header + 512])
    with pytest.raises(InvalidInput, match="negative"):
        members_of(bytes(good))


def test_a_tar_without_files_is_one():
    assert is_tar(bytes(10240))
    assert members_of(bytes(10240)) == {}
    assert not is_tar(b"")
    assert not is_tar(bytes(600))
    assert not is_tar(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)


# ---- Names --------------------------------------------------------------------------------------


def zip_of_raw_names(*names: bytes, extra: bytes = b"") -> bytes:
    """A zip whose names are these bytes, without the flag that would say that they are UTF-8."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(chr(ord("A") + number) * len(name))
            info.extra = extra
            archive.writestr(info, b"x")
    content = buffer.getvalue()
    for number, name in enumerate(names):
        content = content.replace(chr(ord("A") + number).encode() * len(name), name)
    return content


def test_a_link_through_a_linked_folder_is_followed():
    links = [("latest", "runs/2", SYMBOLIC), ("best.png", "latest/x.png", SYMBOLIC), ("loop", "loop/a", SYMBOLIC)]
    content = tar_of(("runs/2/x.png", b"x", REGULAR), *links, ("endless.png", "loop/x.png", SYMBOLIC))
    members = {member.name: member for member in read_archive(content, 100, 10**6).members}
    assert bytes(members["best.png"].read()) == b"x"
    with pytest.raises(UndecodableImage, match="no file of the archive"):
        members["endless.png"].read()


def test_a_zip_in_memory_is_not_copied():
    file, size = io.BytesIO(), 8 << 20
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.png", bytes([number]) * size)
    content = memoryview(file.getvalue())
    tracemalloc.start()
    try:
        members = read_archive(content, 10, 1 << 30).members
        assert [bytes(member.head(2)) for member in members] == [bytes([number]) * 2 for number in range(3)]
        assert tracemalloc.get_traced_memory()[1] < size // 8
    finally:
        tracemalloc.stop()
    assert all(member.read() == bytes([number]) * size for number, member in enumerate(members))


def test_an_empty_archive_says_so():
    with pytest.raises(InvalidInput, match="has 0 bytes"):
        read_archive(b"", 100, 10**6)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("utf-8", ["éè_00.png", "画像.png", "naïve.png"]),
        ("cp932", ["画像_01.png", "ソース.png", "犬.png", "テスト/ねこ.png", "ascii.png"]),
        ("cp932", ["写真.png"]),
        ("gbk", ["新建文件夹/截图001.png", "图片.png"]),
        ("gbk", ["正常.jpg", "异常.jpg"]),
        ("gbk", ["图片.png"]),
        ("utf-8", ["été à Größe.png"]),
        ("utf-8", ["кошка.png", "Ångström µm.png", "Αθήνα-é.png", "תמונה.png"]),
        ("big5", ["圖片.png", "瑕疵/刮痕.png"]),
        ("cp949", ["새 폴더/이미지1.jpg", "정상.jpg"]),
        ("cp949", ["사진.png"]),
        ("cp866", ["Новая папка/изображение1.png", "кошка.png"]),
        ("cp852", ["Łódź.jpg", "zdjęcie.png", "příliš.png"]),
        ("cp850", ["São Paulo.jpg", "coração.jpg", "Øresund.jpg"]),
        ("cp437", ["café.png", "größe.png", "Müller.png", "fördern.png", "niño.png", "naïve été.png"]),
        ("cp437", ["Müller.png"]),
        ("cp437", ["crème brûlée.jpg"]),
    ],
)
def test_names_of_a_zip_without_the_flag(encoding, names):
    raw = [name.encode(encoding) for name in names]
    assert list(members_of(zip_of_raw_names(*raw))) == names


def test_the_unicode_path_field_of_a_zip_wins_where_it_belongs_to_the_name():
    raw, name = b"?????? name.png", "画像 name.png"
    for checksum, expected in ((zlib.crc32(raw), name), (1, raw.decode())):
        field = struct.pack("<BL", 1, checksum) + name.encode()
        extra = struct.pack("<HH", 0x5455, 1) + b"\0" + struct.pack("<HH", 0x7075, len(field)) + field
        assert list(members_of(zip_of_raw_names(raw, extra=extra))) == [expected]


def test_names_that_differ_stay_different():
    names = [bytes([byte]) + b".png" for byte in range(128, 256)]
    for encodings in (ZIP_ENCODINGS, UNIX_ENCODINGS):
        assert len(set(decode_names(names, encodings))) == len(names)


@pytest.mark.parametrize("name", ["été.png", "Müller.png", "éè.png", "ß.png", "naïve façade.png", "Ålesund.jpg"])
def test_western_names_outside_zips(name):
    assert decode_names([name.encode("latin-1")], UNIX_ENCODINGS) == [name]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a\\b\\c.png", "a/b/c.png"),
        ("./a.png", "a.png"),
        ("a//./b.png", "a/b.png"),
        ("C:\\Users\\x.png", "C:/Users/x.png"),
        ("a.png\0.exe", "a.png"),
        ("./", ""),
        ("", ""),
    ],
)
def test_paths_are_written_alike(name, path):
    assert normalise(name) == path


def test_folders_written_by_windows_are_folders():
    assert list(members_of(bodies.zipped({"imgs\\": b"", "imgs\\a.png": b"a"}))) == ["imgs/a.png"]


# ---- Beside the images --------------------------------------------------------------------------


NO_IMAGES = """labels.csv a/README README.txt readme.md 000001.cls a.aae a.tfw labels.cache model.pt
Thumbs.db desktop.ini x.json x.XML x.pdf a.mp4 data.yaml LICENSE
sums.sha256 a.png:Zone.Identifier a.png~ cache.lock _SUCCESS Thumbs.db:encryptable a.docx run.log a.html x.tsv"""
IMAGES = "a.png 1 photo README.png license.webp x.heic x.jfif a.dat x.bin a.b.001 x.npy"
SYSTEM = "__MACOSX/._a.png .DS_Store a/.hidden.png @eaDir/a.png $RECYCLE.BIN/a.png"


@pytest.mark.parametrize("name", [*NO_IMAGES.split(), "Icon\r"])
def test_what_is_no_image_by_its_name(name):
    assert is_no_image(name)


@pytest.mark.parametrize("name", [*IMAGES.split(), ""])
def test_what_may_be_an_image_by_its_name(name):
    assert not is_no_image(name)
    assert not is_system_file(name)


@pytest.mark.parametrize("name", SYSTEM.split())
def test_what_systems_keep_for_themselves(name):
    assert is_system_file(name)


def test_only_files_that_a_person_would_miss_are_told():
    files = {"a.png": b"a", "__MACOSX/._a.png": b"x", ".DS_Store": b"x", "b/._c.png": b"x", ".hidden.png": b"x"}
    archive = read_archive(bodies.zipped(files), 100, 10**6)
    assert [member.name for member in archive.members] == ["a.png"]
    assert archive.left_out == [".hidden.png"]
