"""Small archives that once took seconds to minutes to list: each is answered, or refused with what is wrong with it.

A test that comes back to the old cost takes far longer than its neighbours.
"""

import io
import struct
import tarfile
import zipfile

import bodies
import pytest

from service.errors import InvalidInput, UndecodableImage
from service.images.archive_links import Links
from service.images.archives import MOST_ZIPS, read_archive

BLOCK = 512


def header(name: bytes, size: int = 0, kind: bytes = b"0", fields: dict[int, bytes] | None = None) -> bytes:
    """A header of a tar; `fields` overwrite it at their places."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size if size >= 0 else size.to_bytes(12, "big", signed=True)
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for at, field in (fields or {}).items():
        block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def with_payload(content: bytes, kind: bytes) -> bytes:
    return header(b"x", len(content), kind) + padded(content)


def record(text: bytes) -> bytes:
    """A record of an extended header, in front of its length."""
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


END = bytes(2 * BLOCK)


@pytest.mark.parametrize(
    ("extended", "kind", "reason"),
    [
        (b"1" * 1_000_000, b"x", "hundreds of digits"),
        (b"2 " * 200_000 + b"=", b"x", "damaged"),
        (b"9 path=a\n", b"x", None),
        (b"11 path=a\n", b"x", "damaged"),
        (b"8 path=a\n", b"x", "damaged"),
        (b"7 patha\n", b"x", "damaged"),
        (b"".join(record(b"%05x=" % number) for number in range(50_000)), b"g", "50000 records"),
        (b"".join(record(b"%05x=" % number) for number in range(200)), b"g", "global records"),
        (record(b"comment=6b1f"), b"g", None),
    ],
)
def test_extended_headers_of_a_tar(extended, kind, reason):
    content = with_payload(extended, kind) + header(b"a") + END
    if reason is None:
        assert len(read_archive(content, 100, 10**6).members) == 1
    else:
        with pytest.raises(InvalidInput, match=f"not a complete tar: .*{reason}"):
            read_archive(content, 100, 10**6)


def test_extended_headers_of_python_are_read():
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all"}
    ) as archive:
        for name in ("日本/" + "長い" * 80 + ".png", "b.png"):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 1, {"LIBARCHIVE.xattr.x": "= 1 2 3\n4"}
            archive.addfile(info, io.BytesIO(b"x"))
    names = [member.name for member in read_archive(buffer.getvalue(), 100, 10**6).members]
    assert names == ["日本/" + "長い" * 80 + ".png", "b.png"]


def test_a_sparse_file_that_leads_back_to_its_own_header():
    parts = (b"00000000000\0" * 2) * 4
    fields = {386: parts, 482: b"\1", 483: b"00000000012\0"}
    following = [padded(parts * 5)[:504] + (b"\1" if more else b"\0") + bytes(7) for more in range(99, -1, -1)]
    content = header(b"a.png", -BLOCK * 101, b"S", fields) + b"".join(following) + END
    with pytest.raises(InvalidInput, match="the size at byte 0 is negative"):
        read_archive(content, 100, 10**6)


@pytest.mark.parametrize("part", [b"1\n1\n", b"999999\n1\n", b"-1\n1\n", b"0\n-1\n"])
def test_a_sparse_map_that_leaves_the_file(part):
    many = 4000
    data = padded(b"%d\n" % many + part * many) + bytes(10)
    fields = (b"major=1", b"minor=0", b"name=a.png", b"realsize=60000")
    extended = b"".join(record(b"GNU.sparse." + field) for field in fields)
    content = with_payload(extended, b"x") + header(b"GNUSparseFile.0/a.png", len(data)) + padded(data) + END
    (member,) = read_archive(content, 100, 10**6).members
    with pytest.raises(UndecodableImage, match=r"'a\.png' is sparse, and its map is damaged"):
        member.read()


def test_names_of_very_many_folders():
    deep = "/".join(["a"] * 30_000)
    files = {f"{deep}/{number}.png": b"x" for number in range(8)}
    assert len(read_archive(bodies.zipped(files), 100, 10**6).members) == 8
    name = deep.encode() + b"/b.png\0"
    content = header(b"././@LongLink", len(name), b"L") + padded(name) + header(b"b") + END
    assert read_archive(content, 100, 10**6).members[0].name == f"{deep}/b.png"


def zip_with_links(links: dict[str, str], files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, target in links.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr, info.compress_type = 3, 0o120777 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, target)
    return buffer.getvalue()


def test_links_through_links_through_very_many_folders():
    links = {f"L{number}": f"L{number + 1}" for number in range(30)} | {"L30": "real"}
    links |= {f"good{number}.png": "L0/a/b.png" for number in range(1000)}
    links |= {f"bad{number}.png": "/".join(["a"] * 2000) for number in range(1000)}
    archive = read_archive(zip_with_links(links, {"real/a/b.png": b"x"}), 10_000, 10**6)
    members = {member.name: member for member in archive.members}
    assert bytes(members["good999.png"].read()) == b"x"
    with pytest.raises(UndecodableImage, match="no file of the archive"):
        members["bad999.png"].read()
    assert set(archive.left_out) == {f"L{number}" for number in range(31)}


def test_links_are_followed_as_by_the_system(tmp_path):
    """Beside what the file system says of the same links."""
    files = ("a/x.png", "a/b/y.png", "z.png")
    links = {"l": "a", "a/up": "../z.png", "m": "l/b", "m.png": "m/y.png", "self": "self", "t": "self/x", "out": "/x"}
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    within = {name: target if name != "a/up" else "z.png" for name, target in links.items()}
    found = Links(within, files, ())
    for name in links:
        try:
            path = (tmp_path / name).resolve(strict=True)
            expected = str(path.relative_to(tmp_path))
        except (OSError, RuntimeError):
            expected = None
        end = found.follow(name)
        assert (end if end in files or (end and found.is_folder(end)) else None) == expected, name


@pytest.mark.parametrize("mode", [0o100644, 0o120777])
def test_files_of_a_zip_that_lie_on_one_another(mode):
    data, count = b"\0\0\0\xff\xff" * 1000 + b"\3\0", 50  # deflate's empty blocks: nothing comes out of them
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(data), 9, 1, 0) + b"a" + data
    sizes = (0, 0, 0, len(data), 9, 1, 0, 0, 0, 0, mode << 16, 0)
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 8, *sizes) + b"a"
    directory = entry * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(local), 0)
    with pytest.raises(InvalidInput, match="lie on one another"):
        read_archive(local + directory + end, 100, 10**6)


def test_zips_behind_one_another_are_all_read():
    first, second = bodies.zipped({"a.png": b"a"}), bodies.zipped({"b.png": b"b", "c/d.png": b"d"})
    archive = read_archive(first + second + first, 100, 10**6)
    assert [(member.name, bytes(member.read())) for member in archive.members] == [
        ("a.png", b"a"),
        ("b.png", b"b"),
        ("c/d.png", b"d"),
        ("a.png", b"a"),
    ]
    with pytest.raises(InvalidInput, match=f"More than {MOST_ZIPS} zips"):
        read_archive(first * (MOST_ZIPS + 1), 100, 10**6)
    # What stands in front of a zip and is none itself means nothing, as in an archive that unpacks itself.
    (member,) = read_archive(b"PK\3\4 was an entry" + first, 100, 10**6).members
    assert bytes(member.read()) == b"a"


def test_tars_behind_one_another_that_have_no_files():
    content = (with_payload(record(b"a=b"), b"g") + header(b"f/", kind=b"5") + END) * 300
    assert read_archive(content + bodies.tarred({"a.png": b"x"}), 1000, 10**6).members[0].name == "a.png"
