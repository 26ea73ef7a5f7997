"""Archives: what is read, and what is refused with a sentence."""

import hashlib
import io
import logging
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from flax_attnat.data.archive import Official, find_raw, read_member, sha256_of, warn_if_repacked
from flax_attnat.data.errors import DataError

LIMIT = 1000


def make_zip(path: Path, members: dict[str, bytes | str], mode: int = 0) -> Path:
    """A zip archive whose entries have the given Unix mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def make_tar(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    """A gzip tar archive whose entries are of the given kind."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def test_the_same_bytes_from_zip_tar_and_folder(tmp_path):
    """A member is the same from every form, and an extracted folder may be the member's own first part."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"text")
    sources = [
        make_zip(tmp_path / "x.zip", {"a/": b"", "a/b.txt": b"text"}),
        make_tar(tmp_path / "x.tar.gz", {"./a/c.txt": b"no", "./a/b.txt": b"text"}),
        tmp_path,
        tmp_path / "a",
    ]
    assert [read_member(source, "a/b.txt", LIMIT) for source in sources] == [b"text"] * 4
    assert read_member(sources[0], "a/b.txt", 4) == b"text"


def test_missing_member_is_named(tmp_path):
    """Another archive under the right name says which member it lacks."""
    (tmp_path / "folder").mkdir()
    for source in (
        make_zip(tmp_path / "x.zip", {"other": b"1"}),
        make_tar(tmp_path / "x.tar", {"other": b"1"}),
        tmp_path / "folder",
    ):
        with pytest.raises(DataError, match=r"(x\.zip|x\.tar|folder) has no member a/b\.txt"):
            read_member(source, "a/b.txt", LIMIT)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    """One entry that leads out condemns the archive, and such a name is never asked of a folder."""
    for source in (
        make_zip(tmp_path / "x.zip", {name: b"1", "good": b"1"}),
        make_tar(tmp_path / "x.tar.gz", {name: b"1", "good": b"1"}),
    ):
        with pytest.raises(DataError, match="leads out of the archive"):
            read_member(source, "good", LIMIT)
    with pytest.raises(DataError, match="leads out of the archive"):
        read_member(tmp_path, name, LIMIT)


def test_links_are_refused(tmp_path):
    """A link is no file, in a zip archive, in a tar archive (either kind) and out of an extracted folder."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "good").symlink_to(tmp_path / "secret")
    sources = [
        make_zip(tmp_path / "x.zip", {"good": b"../secret"}, mode=stat.S_IFLNK | 0o777),
        make_tar(tmp_path / "s.tar.gz", {"good": b""}, tarfile.SYMTYPE, "secret"),
        make_tar(tmp_path / "h.tar.gz", {"good": b""}, tarfile.LNKTYPE, "secret"),
        tmp_path / "folder",
    ]
    for source in sources:
        with pytest.raises(DataError, match="is a link"):
            read_member(source, "good", LIMIT)


def test_members_beyond_the_limit_are_refused(tmp_path):
    """A small archive that unpacks to a large member is refused by its declared size, a file by its own."""
    data = bytes(5_000_000)
    (tmp_path / "big").write_bytes(data)
    archive = make_zip(tmp_path / "x.zip", {"big": data})
    assert archive.stat().st_size < 10_000
    for source in (archive, make_tar(tmp_path / "x.tar.gz", {"big": data}), tmp_path):
        with pytest.raises(DataError, match=r"big has 5,000,000 bytes or more; at most 1,000 are expected"):
            read_member(source, "big", LIMIT)


def test_a_lying_size_does_not_get_past_the_limit(tmp_path):
    """A zip entry that declares 10 bytes and holds 5 million is refused without unpacking them all."""
    path = make_zip(tmp_path / "x.zip", {"big": bytes(5_000_000)})
    true, lie = (5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    data = path.read_bytes()
    assert data.count(true) == 2  # local header and central directory
    path.write_bytes(data.replace(true, lie))
    with pytest.raises(DataError, match=r"x\.zip cannot be read"):
        read_member(path, "big", LIMIT)


@pytest.mark.parametrize("keep", [0, 10, 200, 300])
def test_truncated_archives(tmp_path, keep):
    """A cut archive of either kind is no archive; the sentence has its path and size."""
    noise = hashlib.shake_256(b"noise").digest(900)  # incompressible
    for path in (make_zip(tmp_path / "x.zip", {"a": noise}), make_tar(tmp_path / "x.tar.gz", {"a": noise})):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(
            DataError, match=rf"{path.name} cannot be read .* it has {path.stat().st_size} bytes and is truncated"
        ):
            read_member(path, "a", LIMIT)


def test_a_flipped_byte_is_noticed(tmp_path):
    """The checksum inside a zip archive is verified."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"sentence")
    path.write_bytes(path.read_bytes().replace(b"sentence", b"sentense", 1))
    with pytest.raises(DataError, match="CRC"):
        read_member(path, "a", LIMIT)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>404</html>", b"\xef\xbb\xbf\n <HTML><body>moved</body>"])
def test_a_web_page_under_the_name_of_an_archive(tmp_path, page):
    """A saved web page is called one."""
    path = tmp_path / "x.zip"
    path.write_bytes(page)
    with pytest.raises(DataError, match="it is a web page, saved in place of the archive"):
        read_member(path, "a", LIMIT)


def test_find_raw(tmp_path):
    """The first name that exists; else a sentence with the folder and the names."""
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    assert find_raw(tmp_path, ("a", "b", "c")) == tmp_path / "b"
    with pytest.raises(DataError, match=r"holds none of x\.zip, x; put one"):
        find_raw(tmp_path, ("x.zip", "x"))
    with pytest.raises(DataError, match=r"config\.data\.raw_dir: .*nowhere is not a folder"):
        find_raw(tmp_path / "nowhere", ("x.zip",))


def test_warning(tmp_path, caplog):
    """SHA-256 of "abc" (FIPS 180-4); only another archive warns, and only where one is published."""
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path = tmp_path / "x.zip"
    path.write_bytes(b"abc")
    assert sha256_of(path) == abc
    official = Official("x.zip", (), "https://example.org/x.zip", 3, abc)
    with caplog.at_level(logging.WARNING):
        warn_if_repacked(path, abc, official)
        warn_if_repacked(tmp_path, "0", official)
        warn_if_repacked(path, "123", official._replace(sha256=None))
        assert not caplog.records
        warn_if_repacked(path, "123", official)
    assert len(caplog.records) == 1
    assert "SHA-256 123" in caplog.text
    assert "repacked" in caplog.text
