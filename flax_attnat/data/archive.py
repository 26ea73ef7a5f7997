"""Raw files: finding, fetching and reading official archives without unpacking them to disk."""

import contextlib
import functools
import hashlib
import logging
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from flax_attnat.data.errors import DataError
from flax_attnat.data.members import is_safe, members, open_file

HEAD = 512  # bytes that tell a web page from an archive
# What the standard library raises on a damaged or oddly packed archive.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    struct.error,
    zlib.error,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
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


class NotInFolder(DataError):
    """A raw file that is not where it was looked for."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user wrote, with `~` for a home; where there is no such home it stays, and so is not found."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def find_raw(raw_dir: str | os.PathLike[str], names: Sequence[str]) -> Path:
    """The first of `names`, files or folders, that lies in `raw_dir`.

    Raises:
      NotInFolder: nothing of these names is in the folder.
      DataError: there is no such folder.
    """
    folder = user_path(raw_dir)
    if not folder.is_dir():
        raise DataError(f"config.data.raw_dir: {folder} is not a folder; give the folder that holds {names[0]}.")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise NotInFolder(f"{folder} holds none of {', '.join(names)}; put one of them there.")


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def warn_if_repacked(source: Path, sha256: str, official: Official) -> None:
    """Logs one sentence when an archive is not, byte for byte, the official one; its members still count."""
    if source.is_file() and official.sha256 is not None and sha256 != official.sha256:
        _log.warning(
            "%s is not the official file, byte for byte (SHA-256 %s, expected %s): it is read as a repacked one.",
            source,
            sha256,
            official.sha256,
        )


def read_member(source: Path, member: str, limit: int) -> bytes:
    """The bytes of one member of a zip or tar archive, or of the folder extracted from it.

    Nothing is written to disk. What `walk` refuses is refused; of an extracted folder only the one file is looked at.

    Args:
      source: the archive or the extracted folder.
      member: name inside the archive, with "/" between folders.
      limit: the most bytes that the member may have.

    Raises:
      DataError: `source` is damaged, is no archive, lacks the member, or was refused.
    """
    if not is_safe(member):
        raise DataError(f"{source}: the member name {member!r} leads out of the archive; it is refused.")
    name = PurePosixPath(member).as_posix()
    if source.is_dir():
        with _damage_told(source):
            return _read(source, member, functools.partial(open_file, *_in_folder(source, member)), limit)
    found = dict(walk(source, lambda other: other == name, limit=limit, total=limit))
    if not found:
        raise _missing(source, member)
    return found[name]


def walk(source: Path, wanted: Callable[[str], bool], *, limit: int, total: int) -> Iterator[tuple[str, bytes]]:
    """Every member whose name is wanted, with its bytes, in one pass over an archive or its extracted folder.

    Nothing is written to disk. Refused are: an archive with a name that leads out of it (zip slip, absolute, drive
    letter, backslash), whether or not that member is wanted; a wanted member that is a link or a device, has the name
    of another one, has not the size that it declares, is encrypted, or goes beyond the limits, of which no more than
    `limit` is ever unpacked; and an archive beyond the size of any official one. Links that are not wanted are skipped.

    Args:
      source: a zip or tar archive, or the extracted folder; names in a folder begin with the folder's own name.
      wanted: which names ("/" between folders, none before the first) to read.
      limit: the most bytes that one member may have.
      total: the most bytes that all wanted members may have together.

    Yields:
      Name and content; archives in their own order, folders sorted by name.

    Raises:
      DataError: `source` is damaged, is no archive, or was refused.
    """
    read, seen = 0, set()
    with _damage_told(source):
        for member in members(source, total=total):
            name = PurePosixPath(member.name).as_posix()
            if member.open is None or not wanted(name):
                continue
            if name in seen:
                raise DataError(f"{source} holds {name} twice, so what it means is unclear; the archive is refused.")
            seen.add(name)
            content = _read(source, name, member.open, limit, total - read)
            read += len(content)
            yield name, content


def _read(
    source: Path, name: str, opener: Callable[[], tuple[IO[bytes], int]], limit: int, left: int | None = None
) -> bytes:
    """The bytes of an accepted member, where they are as many as it declares and no more than are left to read."""
    file, size = opener()
    with file:
        if size > limit:
            raise DataError(
                f"{source}: {name} has {size:,} bytes or more; at most {limit:,} are expected, so it is refused."
            )
        if left is not None and size > left:
            raise DataError(f"{source}: the members up to {name} have more bytes than are expected of all; refused.")
        content = file.read(size + 1)
    if len(content) != size:
        raise DataError(f"{source}: {name} declares {size:,} bytes and has another number; the archive is damaged.")
    return content


@contextlib.contextmanager
def _damage_told(source: Path) -> Iterator[None]:
    """Turns what the standard library raises on a damaged archive into a sentence."""
    try:
        yield
    except DataError:
        raise
    except DAMAGE as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{source} cannot be read ({reason}): {describe(source)}.") from error


def describe(source: Path) -> str:
    """What a file that is no readable archive seems to be."""
    if source.is_dir():
        return "look at the files of this folder and their permissions"
    if not source.is_file():
        return "it is no file"
    try:
        start = head_of(source)
    except OSError:
        return "look at its permissions"
    if is_html(start):
        return "it is a web page, saved in place of the archive"
    return f"it has {source.stat().st_size:,} bytes and is truncated or no archive"


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def is_html(start: bytes) -> bool:
    """Whether a file that begins so is a web page.

    >>> is_html(b"\\n<!DOCTYPE html><html>"), is_html(b"PK")
    (True, False)
    """
    return (
        start.removeprefix(b"\xef\xbb\xbf")
        .lstrip()
        .lower()
        .startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))
    )


def _missing(source: Path, member: str) -> DataError:
    """The sentence for an archive that is another one than expected."""
    return DataError(f"{source} has no member {member}: it is another archive, or an incomplete one.")


def _in_folder(source: Path, member: str) -> tuple[Path, Path]:
    """The file of an extracted folder, which may itself be the member's first part, and the folder."""
    for base in (source, source.parent):
        path = base / member
        if path.exists() and (base is source or PurePosixPath(member).parts[0] == source.name):
            return path, source
    raise _missing(source, member)
