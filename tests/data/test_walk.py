"""One pass over archives that may be hostile or damaged: whole and right, or refused with a sentence."""

import bz2
import gzip
import io
import itertools
import os
import stat
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from flax_attnat.data import members as module
from flax_attnat.data.archive import walk
from flax_attnat.data.errors import DataError

MEMBERS = {"top/b.txt": b"text " * 20, "top/a.txt": bytes(range(200)), "top/sub/" + "long" * 40 + ".txt": b"x"}
FEW = {"a/b": b"text " * 20, "a/c": b"more"}
GIB = 1 << 30


def everything(source: Path, limit: int = 1000, total: int = 10_000) -> list[tuple[str, bytes]]:
    """All members."""
    return list(walk(source, lambda _: True, limit=limit, total=total))


def make_zip(path: Path, members=MEMBERS.items(), **fields) -> Path:
    """A zip archive whose entries have the given fields."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.writestr(entry, data)
    return path


def make_tar(path: Path, members=MEMBERS.items(), mode: str = "w:gz", **fields) -> Path:
    """A tar archive whose entries have the given fields."""
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(data))
    return path


def make_folder(path: Path) -> Path:
    """The extracted folder."""
    for name, data in MEMBERS.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path / "top"


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The header of a tar entry."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def zeros(size: int) -> bytes:
    """Gzip streams of zeros, about a thousandth of `size`, made without packing them all."""
    block = 64 << 20
    one = gzip.compress(bytes(min(size, block)), 1)
    return one * (size // block) + (gzip.compress(bytes(size % block), 1) if size % block else b"")


def test_every_form_gives_the_same(tmp_path):
    """Archives in their order, also under "./"; a folder by name; folders are no members."""
    dotted = [("./" + name, data) for name, data in MEMBERS.items()]
    for source in (
        make_zip(tmp_path / "x.zip", [("top/", b""), *MEMBERS.items()]),
        make_tar(tmp_path / "x.tar.gz", dotted),
        make_tar(tmp_path / "x.tar", mode="w"),
        make_tar(tmp_path / "pax.tar.gz", pax_headers={"comment": "é" * 300}),
    ):
        assert everything(source) == list(MEMBERS.items())
    assert everything(make_folder(tmp_path)) == sorted(MEMBERS.items())
    inner = make_tar(tmp_path / "in.tgz", [("outer/" + name, data) for name, data in MEMBERS.items()])
    assert [name for name, _ in everything(inner)] == ["outer/" + name for name in MEMBERS]


def test_only_wanted_members_are_read(tmp_path):
    """Others may be larger than any limit, links or copies."""
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("big", bytes(5000)), ("good", b"1"), ("twice", b"2"), ("twice", b"3")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f"kind{kind!r}")
            entry.type, entry.linkname = kind, "/etc/hostname"
            archive.addfile(entry)
    assert list(walk(path, lambda name: name == "good", limit=1, total=1)) == [("good", b"1")]
    for name in ("big", "twice", "kindb'1'", "kindb'2'", "kindb'3'", "kindb'6'"):
        with pytest.raises(DataError, match=r"at most 1 are|twice, so|is a link or a device"):
            list(walk(path, lambda other, name=name: other == name, limit=1, total=9))


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "a\\b", "C:evil", "c:/evil"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    """One such entry condemns the archive, although nobody wants it; a zip archive before anything is read of it."""
    members = [("good", b"1"), (name, b"1")]
    archives = make_zip(tmp_path / "x.zip", members), make_tar(tmp_path / "x.tar.gz", members)
    for source in archives:
        with pytest.raises(DataError, match="leads out of the archive; the archive is refused"):
            list(walk(source, lambda other: other == "good", limit=9, total=9))
    with pytest.raises(DataError, match="leads out"):
        next(walk(archives[0], lambda other: other == "good", limit=9, total=9))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_archive(tmp_path, kind):
    """They are refused where they are wanted, else skipped."""
    path = make_zip(tmp_path / "x.zip", [("link", b"../secret")], external_attr=(kind | 0o777) << 16)
    with pytest.raises(DataError, match=r"x\.zip: link is a link or a device"):
        everything(path)
    assert list(walk(path, lambda _: False, limit=9, total=9)) == []


def test_links_in_a_folder(tmp_path):
    """A link inside the folder is its file; one that leads out, one to a folder, and a pipe are refused."""
    (tmp_path / "secret").write_text("secret")
    folder = make_folder(tmp_path)
    (folder / "inside").symlink_to(folder / "a.txt")
    assert dict(everything(folder))["top/inside"] == MEMBERS["top/a.txt"]
    (folder / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    for name, sentence in (("out", "top/out is a link that leads out of"), ("pipe", "top/pipe is a device or a pipe")):
        with pytest.raises(DataError, match=sentence):
            list(walk(folder, lambda other, name=name: other == "top/" + name, limit=1000, total=1000))
    assert list(walk(folder, lambda other: other == "top/b.txt", limit=1000, total=1000))
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(DataError, match="top/linked is a link to a folder"):
        list(walk(folder, lambda _: False, limit=1000, total=1000))


def test_limits(tmp_path):
    """One member beyond `limit`, or all beyond `total`, is refused before it is read; exactly as many are not."""
    members = [(str(number), bytes(100)) for number in range(10)]
    sources = [make_zip(tmp_path / "x.zip", members), make_tar(tmp_path / "x.tar.gz", members), tmp_path / "folder"]
    sources[2].mkdir()
    for name, data in members:
        (sources[2] / name).write_bytes(data)
    for source in sources:
        assert len(everything(source, limit=100, total=1000)) == 10
        with pytest.raises(DataError, match=r"0 has 100 bytes or more; at most 99 are expected"):
            everything(source, limit=99)
        found = walk(source, lambda _: True, limit=100, total=950)
        assert len(list(itertools.islice(found, 9))) == 9
        with pytest.raises(DataError, match=r"the members up to (folder/)?9 have more bytes than are expected of all"):
            next(found)


def test_number_of_members(tmp_path, monkeypatch):
    """Very many empty members are refused too."""
    monkeypatch.setattr(module, "_MOST_MEMBERS", 50)
    members = [(str(number), b"") for number in range(51)]
    for source in (make_zip(tmp_path / "x.zip", members), make_tar(tmp_path / "x.tar.gz", members)):
        with pytest.raises(DataError, match="more than 50 members"):
            everything(source)
    assert len(everything(make_zip(tmp_path / "y.zip", members[:50]))) == 50


def peak(source: Path, wanted: str, limit: int = 1000) -> tuple[int, str]:
    """The most memory that a walk takes, in bytes, and the sentence that ends it."""
    sentence = ""
    tracemalloc.start()
    try:
        list(walk(source, lambda name: name == wanted, limit=limit, total=limit))
    except DataError as error:
        sentence = str(error)
    finally:
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return top, sentence


@pytest.mark.parametrize("wanted", ["bomb", "other"])
def test_a_bomb_of_ten_gigabytes(tmp_path, wanted):
    """A member of 10 GiB in an archive of 11 MB is refused whether it is wanted or passed over, and never unpacked."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(header("bomb", 10 * GIB)) + zeros(10 * GIB))
    assert path.stat().st_size < 60_000_000
    memory, sentence = peak(path, wanted)
    assert memory < 5_000_000
    assert ("10,737,418,240 bytes or more" if wanted == "bomb" else "unpacks to more than") in sentence


def test_a_large_unwanted_member_is_passed_over_in_little_memory(tmp_path):
    """100 MiB are skipped; the member behind them is read."""
    path = tmp_path / "x.tar.gz"
    size = 100 << 20
    end = bytes(2 * tarfile.BLOCKSIZE)
    path.write_bytes(gzip.compress(header("big", size)) + zeros(size) + gzip.compress(header("small", 0) + end))
    memory, sentence = peak(path, "small")
    assert (memory < 5_000_000, sentence) == (True, "")
    assert list(walk(path, lambda name: name == "small", limit=9, total=9)) == [("small", b"")]


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_that_is_a_bomb(tmp_path, kind):
    """The long name or the attributes of an entry may not take 3 GiB."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(header("long", 3 * GIB, kind)) + zeros(64 << 20))
    memory, sentence = peak(path, "bomb")
    assert memory < 5_000_000
    assert "has a header of more than 1,048,576 bytes" in sentence


def test_endless_headers(tmp_path):
    """A size below zero, which leads the standard reader back to where it was, ends."""
    entry = bytearray(header("a", 0))
    entry[124:136] = (-512).to_bytes(12, "big", signed=True)
    entry[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(entry))[0]
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(entry) * 3)
    for wanted in (True, False):
        with pytest.raises(DataError):
            list(walk(path, lambda _, wanted=wanted: wanted, limit=9, total=9))


def test_zip_sizes_that_lie(tmp_path):
    """An entry that declares fewer or more bytes than it holds is refused; no more than `limit` are unpacked."""
    size = 5_000_000
    path = make_zip(tmp_path / "x.zip", [("big", bytes(size))])
    data = path.read_bytes()
    for lie, sentence in ((10, "CRC"), (size + 10, "declares 5,000,010 bytes and has another number")):
        path.write_bytes(data.replace(size.to_bytes(4, "little"), lie.to_bytes(4, "little")))
        with pytest.raises(DataError, match=sentence):
            everything(path, limit=size * 2, total=size * 2)
    path.write_bytes(data.replace(size.to_bytes(4, "little"), (10).to_bytes(4, "little")))
    memory, sentence = peak(path, "big")
    assert memory < 1_000_000
    assert "cannot be read" in sentence


def test_zip_entries_that_cannot_be_read_safely(tmp_path):
    """Encrypted entries, and methods that unpack gigabytes at once, are named."""
    path = make_zip(tmp_path / "x.zip", [("a", b"text")])
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip: a is encrypted"):
        everything(path)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a", b"text")
        with pytest.raises(DataError, match=f"a is packed by method {method}; only deflate"):
            everything(path)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_the_same_name_twice(tmp_path, make):
    """Which of the two is meant is unclear; "./a" is the same name."""
    with pytest.warns(UserWarning, match="Duplicate") if make is make_zip else pytest.MonkeyPatch.context():
        path = make(tmp_path / "x.bin", [("a", b"1"), ("a", b"2")])
    with pytest.raises(DataError, match="holds a twice"):
        everything(path)
    with pytest.raises(DataError, match="holds a twice"):
        everything(make(tmp_path / "y.bin", [("a", b"1"), ("./a", b"2")]))


def test_no_cut_archive_is_taken_for_a_whole_one(tmp_path):
    """Of all beginnings of a small archive none is read to its end, whatever of it is wanted (tar.gz)."""
    for path, wanted in (
        (make_zip(tmp_path / "x.zip", FEW.items()), True),
        (make_tar(tmp_path / "x.tar.gz", FEW.items()), False),
    ):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(DataError, match=rf"{path.name} cannot be read .*: it has {length:,} bytes"):
                list(walk(path, lambda _, wanted=wanted: wanted, limit=1000, total=1000))


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_damaged_byte_is_noticed_or_changes_nothing(tmp_path, make):
    """For every byte of a small archive and several wrong values."""
    path = make(tmp_path / "x.bin", FEW.items())
    data = path.read_bytes()
    refused = 0
    for place, wrong in itertools.product(range(len(data)), (ord("/"), None)):
        spoiled = bytearray(data)
        spoiled[place] = data[place] ^ 1 if wrong is None else wrong
        path.write_bytes(spoiled)
        try:
            assert everything(path) == list(FEW.items()), place
        except DataError:
            refused += 1
    assert refused > len(data) / 2


def test_what_is_no_archive(tmp_path):
    """Packed text, bzip2 and nothing at all are no tar archives; a path to nothing is none either."""
    path = tmp_path / "x.tar.gz"
    for content in (b"", b"text", gzip.compress(b"text" * 500), bz2.compress(b"text"), zlib.compress(b"text")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.tar\.gz cannot be read .* is truncated or no archive"):
            everything(path)
    with pytest.raises(DataError, match=r"cannot be read .*: it is no file"):
        everything(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("tasks_1-20_v1-2.tar.gz", 81, 33_197_444),
        ("snli_1.0_partial.zip", 4, 6_278_380),
    ],
)
def test_real_archives(shared, name, count, size):
    """Number of files and bytes as the standard tools count them (tar -tvzf, unzip -l)."""
    found = everything(shared / name, limit=GIB, total=GIB)
    assert (len(found), sum(len(data) for _, data in found)) == (count, size)
