"""Pretrained word vectors from word2vec and GloVe text files."""

import contextlib
import gzip
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from flax_attnat.data.archive import DAMAGE, Official, find_raw, user_path
from flax_attnat.data.download import Progress, download, no_progress
from flax_attnat.data.errors import DataError
from flax_attnat.data.members import members
from flax_attnat.data.prepared import downloads
from flax_attnat.data.vocabulary import RESERVED

_MAX_LINE = 1 << 20  # bytes; a vector of 300 numbers takes about 3 kB
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_BUFFER = 1 << 20

NAMED = {
    "fasttext-simple": Official(
        name="wiki.simple.vec",
        folders=(),
        url="https://dl.fbaipublicfiles.com/fasttext/vectors-wiki/wiki.simple.vec",
        size=None,
        sha256=None,
    ),
    "glove-840b": Official(
        name="glove.840B.300d.zip",
        folders=("glove.840B.300d.txt",),
        url="https://nlp.stanford.edu/data/glove.840B.300d.zip",
        size=2_176_768_927,
        sha256="c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
        mirrors=("https://huggingface.co/stanfordnlp/glove/resolve/main/glove.840B.300d.zip",),
    ),
}
"""Vectors that are fetched by name; both have 300 numbers a word."""


class Vectors(NamedTuple):
    """Pretrained vectors of V words.

    Attributes:
      table: `[V, E]` float32; zero for a word that the file does not hold.
      found: `[V]` bool, whether the file holds the word.
    """

    table: np.ndarray
    found: np.ndarray


def find_vectors(name_or_path: str, raw_dir: str, data_dir: str, *, progress: Progress = no_progress) -> Path:
    """The file of pretrained vectors.

    Args:
      name_or_path: a name of `NAMED`, or the path of a file.
      raw_dir: folder in which a named file is looked for first, or "".
      data_dir: a named file that is not there is downloaded into `data_dir/downloads`; "" for `~/tensorflow_datasets`.
      progress: told how much has been downloaded, in bytes.

    Raises:
      DataError: it is neither a name nor a file, or cannot be downloaded.
    """
    if (official := NAMED.get(name_or_path)) is not None:
        if raw_dir:
            with contextlib.suppress(DataError):  # where it is not, it is downloaded
                return find_raw(raw_dir, (official.name, *official.folders))
        return download(official, downloads(data_dir), progress=progress)
    path = user_path(name_or_path)
    if not path.is_file():
        raise DataError(
            f"config.data.vectors: {path} is not a file; give a word2vec or GloVe text file, or one of"
            f" {', '.join(NAMED)}, which are downloaded."
        )
    return path


def read_vectors(path: str | os.PathLike[str], words: Sequence[str], size: int) -> Vectors:
    """Reads the vectors of `words` from a text file, one line at a time.

    Each line is a word and its numbers, separated by single spaces; a first line "COUNT SIZE" (word2vec, fastText) may
    stand before them; words may hold spaces (GloVe). The first line of a word wins. Numbers are read for `words` only.

    Args:
      path: the file, plain, gzip, or a zip archive that holds nothing else.
      words: V words; "<pad>" and "<unk>" are never looked up.
      size: E, `config.model.embedding_size`.

    Raises:
      DataError: the file is missing, truncated or not of this form, with the line where it shows.
    """
    path = user_path(path)
    index = {word: i for i, word in enumerate(words) if word not in RESERVED}
    table, found = np.zeros((len(words), size), np.float32), np.zeros(len(words), bool)
    promised, rows, number = None, 0, 0
    for number, line in _lines(path):
        if number == 1 and (promised := _header(path, line, size)) is not None:
            continue
        if number <= 2 and rows == 0:
            _check_size(path, number, line, size)
        word, numbers = _cut(path, number, line, size)
        rows += 1
        if (row := index.get(word)) is not None and not found[row]:
            table[row], found[row] = _parse(path, number, word, numbers), True
    if not rows:
        raise DataError(f"{path} holds no vector; give a word2vec or GloVe text file with config.data.vectors.")
    if promised is not None and rows < promised:
        raise DataError(
            f"{path}, line 1 promises {promised:,} vectors, but the file ends after {rows:,} (line {number});"
            " it is truncated: fetch it again."
        )
    return Vectors(table, found)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines, without the white space at their end."""
    if not path.is_file():
        raise DataError(f"config.data.vectors: {path} is not a file; give a word2vec or GloVe text file.")
    number = 0
    try:
        with contextlib.closing(_open(path)) as file:
            while raw := file.readline(_MAX_LINE):
                number += 1
                if len(raw) == _MAX_LINE:
                    raise DataError(
                        f"{path}, line {number} has more than {_MAX_LINE:,} bytes: this is no text of vectors."
                    )
                yield number, raw.decode("utf-8").rstrip(" \t\r\n")
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number} is not UTF-8 ({error.reason} at byte {error.start}); give the vectors as UTF-8"
            " text, not in a binary form."
        ) from error
    except DAMAGE as error:
        raise DataError(
            f"{path} cannot be read after line {number} ({error}): it is truncated or damaged; fetch it again."
        ) from error


def _open(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if they are packed."""
    with path.open("rb") as file:
        start = file.read(len(_ZIP_MAGIC))
    if start.startswith(_GZIP_MAGIC):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return _open_zip(path) if start == _ZIP_MAGIC else path.open("rb")


def _open_zip(path: Path) -> IO[bytes]:
    """The bytes of the one file in a zip archive, unpacked as they are read."""
    found: IO[bytes] | None = None
    for member in members(path, total=0):
        if member.open is not None and found is not None:
            found.close()
            raise DataError(f"{path} holds more than one file; a zip archive of vectors holds one.")
        if member.open is not None:
            found, _ = member.open()  # it stays open when the archive is closed after its last member
    if found is None:
        raise DataError(f"{path} holds no file; a zip archive of vectors holds one.")
    return io.BufferedReader(found, _BUFFER)  # type: ignore[type-var]


def _header(path: Path, line: str, size: int) -> int | None:
    """The number of vectors that a first line "COUNT SIZE" promises, or None if it is a vector already."""
    fields = line.split(" ")
    if len(fields) != 2 or not all(field.isascii() and field.isdigit() for field in fields):
        return None
    if int(fields[1]) != size:
        raise _wrong_size(path, 1, int(fields[1]), size)
    return int(fields[0])


def _check_size(path: Path, number: int, line: str, size: int) -> None:
    """Refuses a file whose first vector has not `size` numbers."""
    fields = line.split(" ")
    length = 0
    while length < len(fields) - 1 and _is_number(fields[-1 - length]):
        length += 1
    if length != size:
        raise _wrong_size(path, number, length, size)


def _wrong_size(path: Path, number: int, length: int, size: int) -> DataError:
    """The sentence for vectors of another size than the model's."""
    return DataError(
        f"{path}, line {number}: the file's vectors have {length} numbers, but config.model.embedding_size is {size};"
        " the two must agree."
    )


def _cut(path: Path, number: int, line: str, size: int) -> tuple[str, str]:
    """The word of a line and the text of its `size` numbers, counted but not read."""
    spaces = line.count(" ")
    if spaces == size:
        word, _, numbers = line.partition(" ")
        return word, numbers
    if spaces > size:  # the word itself holds spaces, unless the rest of it is numbers
        word, *fields = line.rsplit(" ", size)
        if not all(_is_number(part) for part in word.split(" ")[1:]):
            return word, " ".join(fields)
    raise DataError(
        f"{path}, line {number} has {spaces} fields after the word {line.split(' ', 1)[0]!r} where {size} numbers are"
        " expected: the row is ragged; repair the line or fetch the file again."
    )


def _is_number(field: str) -> bool:
    """Whether a field reads as a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def _parse(path: Path, number: int, word: str, numbers: str) -> list[float]:
    """The numbers of a line, finite in float32."""
    try:
        values = [float(field) for field in numbers.split(" ")]
    except ValueError as error:
        raise DataError(
            f"{path}, line {number}: the vector of {word!r} is not all numbers ({error}); repair the line."
        ) from error
    largest = float(np.finfo(np.float32).max)
    if not all(math.isfinite(value) and abs(value) <= largest for value in values):
        raise DataError(
            f"{path}, line {number}: the vector of {word!r} has a number that is not finite; repair the line."
        )
    return values
