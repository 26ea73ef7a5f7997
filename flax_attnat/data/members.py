"""The members of an archive or folder, one after another, with the checks that an untrusted file needs."""

import functools
import gzip
import operator
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from flax_attnat.data.errors import DataError

_BLOCK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_MEMBERS = 2_000_000  # CNN, the largest official archive, has 387,000
# A member of a packed tar archive is passed over by unpacking it; CNN unpacks to 1.5 GB in all.
_MOST_SKIPPED = 8 << 30
_MOST_HEADER = 1 << 20  # bytes of one entry's headers in a tar archive: names, extended attributes, maps of holes
_END_MAGIC, _END_SIZE = b"PK\x05\x06", 22  # the last record of a zip archive
# bzip2 and LZMA give gigabytes for one small block, and no way to ask for less.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Member(NamedTuple):
    """One entry.

    Attributes:
      name: as the archive has it; it does not lead out of the archive.
      open: opens its bytes and says how many it declares; refuses links and devices. None for a folder.
    """

    name: str
    open: Callable[[], tuple[IO[bytes], int]] | None


def members(source: Path, *, total: int) -> Iterator[Member]:
    """The entries of a zip, tar or tar.gz archive in its order, or of a folder sorted by name.

    Each must be read before the next is asked for, and no more than its declared size is ever read of it.

    Args:
      source: the archive, or the folder extracted from it; names in a folder begin with the folder's own name.
      total: the most bytes that are read of all members together.

    Raises:
      DataError: a name leads out of the archive, or the archive would unpack to more than any official one.
    """
    if source.is_dir():
        found = _in_folder(source)
    elif zipfile.is_zipfile(source):
        found = _in_zip(source)
    else:
        found = _in_tar(source, total)
    for number, member in enumerate(found):
        if number == _MOST_MEMBERS:
            raise DataError(f"{source} has more than {_MOST_MEMBERS:,} members; it is refused.")
        yield member


def is_safe(name: str) -> bool:
    """Whether a member name stays inside the archive, on every operating system.

    >>> [is_safe(name) for name in ("a/b", "../a", "/a", "C:a", "a\\\\b")]
    [True, False, False, False, False]
    """
    return not (name.startswith("/") or name[1:2] == ":" or "\\" in name or ".." in name.split("/"))


def listing(folder: Path) -> list[tuple[str, "os.DirEntry[str]"]]:
    """Everything under `folder` that is no folder: relative name ("/" between folders) and entry, sorted by name.

    Raises:
      DataError: a folder in it is a link: what it leads to is not searched.
    """
    found, waiting = [], [("", os.fspath(folder))]
    while waiting:
        prefix, place = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_dir():
                    raise DataError(f"{entry.path} is a link to a folder; put the folder itself there.")
                else:
                    found.append((prefix + entry.name, entry))
    return sorted(found, key=operator.itemgetter(0))


def open_file(path: Path, folder: Path) -> tuple[IO[bytes], int]:
    """Opens a file of an extracted folder, and its size.

    Raises:
      DataError: it is a link that leads out of `folder`, or no regular file.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path} is a link that leads out of {folder}; put the file itself there.")
    return _open_regular(path)


def _open_regular(path: Path) -> tuple[IO[bytes], int]:
    """Opens a file that is no device, and its size."""
    if not stat.S_ISREG((status := path.stat()).st_mode):  # opening a pipe would wait for ever
        raise DataError(f"{path} is a device or a pipe, not a file; put the file itself there.")
    return path.open("rb"), status.st_size


def _in_folder(source: Path) -> Iterator[Member]:
    """The files of an extracted folder."""
    own = source.absolute().name
    for name, entry in listing(source):
        opener = (  # in folders that are no links themselves, only a link can lead out; to resolve all takes long
            functools.partial(open_file, Path(entry.path), source)
            if entry.is_symlink()
            else functools.partial(_open_regular, Path(entry.path))
        )
        yield Member(f"{own}/{name}", opener)


def _in_zip(source: Path) -> Iterator[Member]:
    """The entries of a zip archive; every name is checked before the first is given."""
    with zipfile.ZipFile(source) as archive:
        _check_count(source, archive)
        for entry in archive.infolist():
            _check_name(source, entry.filename)
            if entry.is_dir() and entry.file_size:
                raise zipfile.BadZipFile(f"the folder {entry.filename} has bytes of its own")
        for entry in archive.infolist():
            opener = None if entry.is_dir() else functools.partial(_open_zip, source, archive, entry)
            yield Member(entry.filename, opener)


def _check_count(source: Path, archive: zipfile.ZipFile) -> None:
    """Refuses a directory whose last record counts other entries: the standard reader passes over damaged ones."""
    with source.open("rb") as file:
        file.seek(-_END_SIZE - len(archive.comment), os.SEEK_END)
        end = file.read(_END_SIZE)
    count = int.from_bytes(end[10:12], "little")  # modulo 65,536, or 65,535 where a longer record stands before it
    if end.startswith(_END_MAGIC) and count not in (0xFFFF, len(archive.infolist()) & 0xFFFF):
        raise zipfile.BadZipFile(f"its directory has {len(archive.infolist()):,} entries where {count:,} are promised")


def _open_zip(source: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[IO[bytes], int]:
    """The bytes of a zip entry, once its kind is accepted, and their declared number."""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise _refused_link(source, entry.filename)
    if entry.flag_bits & 1:
        raise DataError(f"{source}: {entry.filename} is encrypted; fetch an archive that is not.")
    if entry.compress_type not in _METHODS:
        raise DataError(
            f"{source}: {entry.filename} is packed by method {entry.compress_type}; only deflate (method 8) is read,"
            " so pack it again or give the extracted folder."
        )
    return archive.open(entry), entry.file_size


def _in_tar(source: Path, total: int) -> Iterator[Member]:
    """The entries of a tar archive, plain or packed with gzip; its end and its checksum are verified."""
    with source.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        unpacked: IO[bytes] = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
        stream = _Forward(source, unpacked, total + _MOST_SKIPPED)
        with tarfile.TarFile(fileobj=stream, encoding="utf-8") as tar:  # type: ignore[arg-type]
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all, and so the next
                tar.pax_headers = {}
                _check_name(source, entry.name)
                opener = None if entry.isdir() else functools.partial(_open_tar, source, stream, tar, entry)
                yield Member(entry.name, opener)
                stream.allow(_MOST_HEADER)
            stream.finish()


def _open_tar(source: Path, stream: "_Forward", tar: tarfile.TarFile, entry: tarfile.TarInfo) -> tuple[IO[bytes], int]:
    """The bytes of a tar entry, once its kind is accepted, and their declared number."""
    content = tar.extractfile(entry) if entry.isreg() and entry.size >= 0 else None
    if content is None:
        raise _refused_link(source, entry.name)
    stream.allow(entry.size)
    return content, entry.size


def _check_name(source: Path, name: str) -> None:
    """Refuses an archive with a name that leads out of it."""
    if not is_safe(name):
        raise DataError(f"{source}: the entry {name!r} leads out of the archive; the archive is refused.")


def _refused_link(source: Path, name: str) -> DataError:
    """The refusal of a wanted member that is no file."""
    return DataError(f"{source}: {name} is a link or a device, not a file; the archive is refused.")


class _Forward:
    """The unpacked bytes of a tar archive, read once and in order, and no more of them than is allowed.

    The standard reader takes as many bytes for a header as the header says, and goes back where a size is negative.
    """

    def __init__(self, source: Path, file: IO[bytes], most: int) -> None:
        """Reads and passes over at most `most` bytes of `file`."""
        self._source, self._file, self._most = source, file, most
        self._allowed = _MOST_HEADER
        self._position = 0  # of the file
        self._target = 0  # of the reader; the file follows when it reads
        self._block = b""  # that was read last

    def allow(self, size: int) -> None:
        """From here on, `size` bytes may be read."""
        self._allowed = size

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._target

    def seek(self, position: int) -> None:
        """Moves forward, or one byte back, as the standard reader does after each member."""
        if position < self._position - 1:
            raise tarfile.ReadError("an entry leads back into the archive")
        self._check_end(position)
        self._target = position

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        if not 0 <= size <= self._allowed:
            raise DataError(f"{self._source} has a header of more than {_MOST_HEADER:,} bytes; it is refused.")
        self._allowed -= size
        head = self._block[-1:] if self._target < self._position else b""
        while self._position < self._target and self._advance(min(self._target - self._position, _BLOCK)):
            pass
        self._block = data = head[:size] + (self._advance(size - len(head)) if size > len(head) else b"")
        self._target += len(data)
        return data

    def _advance(self, size: int) -> bytes:
        """Reads on."""
        self._check_end(self._position + size)
        data = self._file.read(size)
        self._position += len(data)
        return data

    def _check_end(self, position: int) -> None:
        """Refuses to go beyond `most`."""
        if position > self._most:
            raise DataError(f"{self._source} unpacks to more than {self._most:,} bytes; it is refused.")

    def finish(self) -> None:
        """Verifies that the archive ended in zeros and not at a damaged header, and reads on for gzip's checksum."""
        if self._block != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no header and no end mark before byte {self._position:,}")
        while self._advance(_BLOCK):
            pass
