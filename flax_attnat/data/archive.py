"""Raw files: finding, fetching and reading official archives without unpacking them to disk."""

import contextlib
import hashlib
import logging
import lzma
import os
import stat
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from flax_attnat.data.errors import DataError

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60
# What the standard library raises on a damaged, encrypted or oddly compressed archive.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, RuntimeError)
_log = logging.getLogger(__name__)


class Official(NamedTuple):
    """An official archive: what it is called, where it lies and what it must be.

    Attributes:
      name: its file name.
      folders: names that its extracted folder may have.
      url: its official address.
      size: bytes; None where no publisher states them.
      sha256: hexadecimal SHA-256; None likewise.
      mirrors: further addresses of the same file, tried in this order.
    """

    name: str
    folders: tuple[str, ...]
    url: str
    size: int | None
    sha256: str | None
    mirrors: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Where to get the archive and how to know it."""
        size = f"{self.size:,} bytes" if self.size is not None else "size not published"
        sha256 = f"SHA-256 {self.sha256}" if self.sha256 is not None else "SHA-256 not published"
        return f"The official file is {self.name}, {size}, {sha256}, from {self.url} ."


def find_raw(raw_dir: str | os.PathLike[str], names: Sequence[str]) -> Path:
    """The first of `names`, files or folders, that lies in `raw_dir`.

    Raises:
      DataError: there is no such folder, or nothing of these names in it.
    """
    folder = Path(raw_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"config.data.raw_dir: {folder} is not a folder; give the folder that holds {names[0]}.")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder} holds none of {', '.join(names)}; put one of them there.")


def sha256_of(source: Path, members: Sequence[str]) -> str:
    """The SHA-256 that identifies a raw file: of the archive, or of the given members of an extracted folder."""
    digest = hashlib.sha256()
    for path in [source] if source.is_file() else [_in_folder(source, member) for member in members]:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def warn_if_repacked(source: Path, sha256: str, official: Official) -> None:
    """Logs one sentence when an archive is not, byte for byte, the official one; its members still count."""
    if source.is_file() and sha256 != official.sha256:
        _log.warning(
            "%s is not the official file, byte for byte (SHA-256 %s, expected %s): it is read as a repacked one.",
            source,
            sha256,
            official.sha256,
        )


def read_member(source: Path, member: str, limit: int) -> bytes:
    """The bytes of one member of a zip or tar archive, or of the folder extracted from it.

    Nothing is written to disk. Names that lead out of the archive, links, and members beyond `limit` are refused.

    Args:
      source: the archive or the extracted folder.
      member: name inside the archive, with "/" between folders.
      limit: the most bytes that the member may have.

    Raises:
      DataError: `source` is damaged, is no archive, lacks the member, or was refused.
    """
    if not _is_safe(member):
        raise DataError(f"{source}: the member name {member!r} leads out of the archive; it is refused.")
    try:
        with _open(source, member, limit) as file:
            data = file.read(limit + 1)
    except DataError:
        raise
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{source} cannot be read ({reason}): {describe(source)}.") from error
    if len(data) > limit:
        raise _too_large(source, member, len(data), limit)
    return data


def walk(source: Path, wanted: Callable[[str], bool], *, limit: int, total: int) -> Iterator[tuple[str, bytes]]:
    """Every member whose name is wanted, with its bytes, in one pass over an archive or its extracted folder.

    Nothing is written to disk. Archives with names that lead out of them, wanted members that are links, and members or
    totals beyond the limits are refused.

    Args:
      source: a zip or tar archive, or the extracted folder; names in a folder begin with the folder's own name.
      wanted: which names ("/" between folders) to read.
      limit: the most bytes that one member may have.
      total: the most bytes that all wanted members may have together.

    Yields:
      Name and content; archives in their own order, folders sorted by name.

    Raises:
      DataError: `source` is damaged, is no archive, or was refused.
    """
    read = 0
    for name, size, content in _members(source, wanted):
        read += size
        if size > limit or read > total:
            raise _too_large(source, name, max(size, read), limit if size > limit else total)
        yield name, content()


def _members(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Name, size and a reader of every wanted member."""
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            name = f"{source.name}/{path.relative_to(source).as_posix()}"
            if wanted(name):
                yield name, path.stat().st_size, path.read_bytes
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and wanted(entry.filename):
                    yield entry.filename, entry.file_size, lambda entry=entry: archive.read(entry)
    else:
        with tarfile.open(source, "r:*") as tar:
            for member in tar:
                if member.isreg() and wanted(member.name):
                    yield member.name, member.size, lambda member=member: tar.extractfile(member).read()  # type: ignore


def describe(source: Path) -> str:
    """What a file that is no readable archive seems to be."""
    if not source.is_file():
        return "it is no file"
    with source.open("rb") as file:
        start = file.read(512)
    if _is_html(start):
        return "it is a web page, saved in place of the archive"
    return f"it has {source.stat().st_size:,} bytes and is truncated or no archive"


def _is_html(start: bytes) -> bool:
    """Whether a file that begins so is a web page."""
    return (
        start.removeprefix(b"\xef\xbb\xbf")
        .lstrip()
        .lower()
        .startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))
    )


def _is_safe(name: str) -> bool:
    """Whether a member name stays inside the archive, on every operating system."""
    path = PureWindowsPath(name)  # knows "/", "\\" and drives
    return not path.anchor and ".." not in path.parts


def _too_large(source: Path, member: str, size: int, limit: int) -> DataError:
    """The refusal of a member that would fill the memory."""
    return DataError(
        f"{source}: {member} has {size:,} bytes or more; at most {limit:,} are expected, so it is refused."
    )


def _missing(source: Path, member: str) -> DataError:
    """The sentence for an archive that is another one than expected."""
    return DataError(f"{source} has no member {member}: it is another archive, or an incomplete one.")


@contextlib.contextmanager
def _open(source: Path, member: str, limit: int) -> Iterator[IO[bytes]]:
    """Opens a member of an archive of any kind, or a file of an extracted folder, after the checks on its entry."""
    if source.is_dir():
        path = _in_folder(source, member)
        if (size := path.stat().st_size) > limit:
            raise _too_large(source, member, size, limit)
        with path.open("rb") as file:
            yield file
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive, archive.open(_zip_entry(source, archive, member, limit)) as file:
            yield file
    else:
        with tarfile.open(source, "r:*") as tar:
            content = tar.extractfile(_tar_entry(source, tar, member, limit))
            if content is None:
                raise _missing(source, member)
            with content as file:
                yield file


def _in_folder(source: Path, member: str) -> Path:
    """The file of an extracted folder, which may itself be the member's first part."""
    for base in (source, source.parent):
        path = base / member
        if path.is_file() and (base is source or PurePosixPath(member).parts[0] == source.name):
            if not path.resolve().is_relative_to(source.resolve()):
                raise DataError(f"{path} is a link that leads out of {source}; put the file itself there.")
            return path
    raise _missing(source, member)


def _zip_entry(source: Path, archive: zipfile.ZipFile, member: str, limit: int) -> zipfile.ZipInfo:
    """The entry of `member`, once the archive's names and the entry's kind and size are accepted."""
    for name in archive.namelist():
        if not _is_safe(name):
            raise DataError(f"{source}: the entry {name!r} leads out of the archive; the archive is refused.")
    try:
        entry = archive.getinfo(member)
    except KeyError:
        raise _missing(source, member) from None
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise DataError(f"{source}: {member} is a link, not a file; the archive is refused.")
    if entry.file_size > limit:
        raise _too_large(source, member, entry.file_size, limit)
    return entry


def _tar_entry(source: Path, archive: tarfile.TarFile, member: str, limit: int) -> tarfile.TarInfo:
    """The entry of `member`, once the names up to it and the entry's kind and size are accepted."""
    for entry in archive:
        if not _is_safe(entry.name):
            raise DataError(f"{source}: the entry {entry.name!r} leads out of the archive; the archive is refused.")
        if PurePosixPath(entry.name) != PurePosixPath(member):
            continue
        if not entry.isreg():
            raise DataError(f"{source}: {member} is a link or a device, not a file; the archive is refused.")
        if entry.size > limit:
            raise _too_large(source, member, entry.size, limit)
        return entry
    raise _missing(source, member)


def download(url: str, size: int, sha256: str, target: Path) -> None:
    """Fetches a file of known size and SHA-256; `target` appears only when both are right.

    Raises:
      DataError: the server cannot be reached or sent something else; the message says how to get the file by hand.
    """
    part = target.with_name(target.name + ".part")
    by_hand = (
        f"Fetch {url} by hand ({size:,} bytes, SHA-256 {sha256}), put it in {target.parent} as {target.name},"
        " or name the folder that holds it with config.data.raw_dir."
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _log.info("Downloading %s (%s bytes) to %s.", url, f"{size:,}", target)
        fault = _fetch(url, size, sha256, part)
        if fault is None:
            part.replace(target)
            return
    except (OSError, HTTPException) as error:
        fault = f"failed: {error}"
    finally:
        part.unlink(missing_ok=True)
    raise DataError(f"The download of {url} {fault}. {by_hand}")


def _fetch(url: str, size: int, sha256: str, part: Path) -> str | None:
    """Streams `url` to `part`; what is wrong with what came, or None."""
    digest, received, start = hashlib.sha256(), 0, b""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, part.open("wb") as file:
        while received <= size and (block := response.read(_BLOCK)):
            start = start or block[:512]
            received += len(block)
            digest.update(block)
            file.write(block)
    if _is_html(start):
        return "brought a web page in place of the file"
    if received != size:
        amount = f"more than {size:,}" if received > size else f"{received:,}"
        return f"brought {amount} bytes where {size:,} are expected"
    if digest.hexdigest() != sha256:
        return f"brought a file with SHA-256 {digest.hexdigest()} where {sha256} is expected"
    return None
