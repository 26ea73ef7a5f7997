"""Records of a CSV, TSV or JSONL file, each with its place and what is wrong with it as a whole."""

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flax_attnat.data.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_DELIMITERS, ".jsonl", ".ndjson")
_QUOTED = 60  # characters of a value that a message shows
_FIELD_LIMIT = (
    1 << 24
)  # characters; far above a text of 100,000 words, and small enough for an unclosed quote to be cheap
_CSV_FLAWS = {
    "unexpected end": "a quote opens here and is never closed: the rest of the file was read as one field",
    "expected after": "text follows a closing quote: double each quote inside a quoted field, and close every quote",
    "new-line": "a CR without LF stands outside quotes: end lines with LF or CRLF",
    "field larger": f"a field has more than {_FIELD_LIMIT:,} characters: a quote may not be closed",
}


class Record(NamedTuple):
    """One data row.

    Attributes:
      line: physical line of the file where it starts, from 1.
      fields: name -> value; a string in a table, any JSON value in JSONL.
      flaws: what is wrong with the row as a whole; the fields count only where nothing is.
    """

    line: int
    fields: dict[str, Any]
    flaws: list[str]


class _Cells(NamedTuple):
    """One row of a table before its fields have names.

    Attributes:
      line: physical line of the file where it starts, from 1.
      cells: its fields.
      flaws: as in `Record`.
    """

    line: int
    cells: list[str]
    flaws: list[str]


def is_table(path: Path) -> bool:
    """Whether a file has columns instead of objects, by its suffix."""
    return path.suffix.lower() in _DELIMITERS


@contextlib.contextmanager
def long_fields() -> Iterator[None]:
    """Lets the csv module read long texts; its limit holds for the whole process and is put back afterwards."""
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def open_records(path: Path) -> tuple[Iterator[Collection[str]], Iterator[Record]]:
    """The names of fields that a file has, and its records; both are read as they are asked for.

    The names are those of the header, or of each object in turn. Blank lines are no records.

    Args:
      path: a file of suffix csv, tsv, jsonl or ndjson in UTF-8.

    Raises:
      DataError: the file cannot be read, is empty, of another kind or in UTF-16, or its header is bad.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a {', '.join(_SUFFIXES)} file.") from error
    suffix = path.suffix.lower()
    if suffix == ".json":
        raise DataError(f"{path}: a JSON list is not read; write one object per line, in a file that ends in .jsonl.")
    if suffix not in _SUFFIXES:
        raise DataError(f"{path}: the suffix {suffix!r} is not known; it must be one of {', '.join(_SUFFIXES)}.")
    if start in (b"", b"\xef\xbb\xbf"):
        raise DataError(f"{path} is empty; it needs at least one row.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16; save it as UTF-8.")
    if not is_table(path):
        return (record.fields for record in _objects(path) if not record.flaws), _objects(path)
    rows = _rows(path, _DELIMITERS[suffix])
    header = _header(path, rows)
    return iter([header]), _named(rows, header)


def _lines(path: Path, flaws: list[str]) -> Iterator[str]:
    """The lines of a file with their ends; what is wrong with its bytes is added to `flaws` before a line comes."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode()
            except UnicodeDecodeError as error:
                place = f"byte {error.start + 1} of line {number}"
                flaws.append(f"not UTF-8 ({place} is 0x{raw[error.start]:02x}): save the file as UTF-8")
                line = raw.decode(errors="replace")
            if b"\0" in raw:
                flaws.append(
                    f"holds NUL (byte {raw.index(0) + 1} of line {number}): take it out, or save a UTF-16 file as UTF-8"
                )
            yield line.removeprefix("\ufeff") if number == 1 else line


def _rows(path: Path, delimiter: str) -> Iterator[_Cells]:
    """The rows of a table, its header too; blank lines are left out."""
    flaws: list[str] = []
    reader = csv.reader(_lines(path, flaws), delimiter=delimiter, strict=True)
    while True:
        line, cells = reader.line_num + 1, list[str]()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            flaws.append(next((flaw for part, flaw in _CSV_FLAWS.items() if part in str(error)), str(error)))
        if cells or flaws:
            yield _Cells(line, cells, flaws.copy())
            flaws.clear()


def _header(path: Path, rows: Iterator[_Cells]) -> list[str]:
    """The names in the first row of a table."""
    line, header, flaws = next(rows, _Cells(1, [], ["empty: it needs a header and at least one row"]))
    # Spreadsheets write columns without a name; these are ignored, so they may be many.
    flaws += [
        f"the name {quote(name)} stands there twice" for name, times in Counter(header).items() if name and times > 1
    ]
    if flaws:
        raise DataError(f"{path}, header (line {line}): {flaws[0]}.")
    return header


def _named(rows: Iterable[_Cells], header: list[str]) -> Iterator[Record]:
    """The rows below the header as records."""
    for line, cells, flaws in rows:
        if not flaws and len(cells) != len(header):
            flaws.append(
                f"has {len(cells)} fields where the header has {len(header)}: quote fields that hold a separator"
            )
        yield Record(line, dict(zip(header, cells, strict=False)), flaws)


def _objects(path: Path) -> Iterator[Record]:
    """The lines of a JSONL file as records."""
    flaws: list[str] = []
    for line, text in enumerate(_lines(path, flaws), 1):
        if flaws:
            yield Record(line, {}, flaws.copy())
            flaws.clear()
        elif text.strip():
            fields, flaw = _parse(text.rstrip())
            yield Record(line, fields, [flaw] if flaw else [])


def _parse(text: str) -> tuple[dict[str, Any], str]:
    """The JSON object in a line, and what is wrong with it."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return {}, f"broken JSON at column {error.colno}: {error.msg}"
    except RecursionError:
        return {}, "JSON that is nested too deeply"
    except ValueError as error:
        return {}, f"JSON that cannot be used: {error}"
    return (value, "") if isinstance(value, dict) else ({}, f"{json_kind(value)} where a JSON object is expected")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; refuses a name that occurs twice, of which `json` would silently keep the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {quote(name)} stands twice in one object")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_members)


def json_kind(value: object) -> str:
    """What a JSON value is called.

    >>> json_kind(1.5)
    'a number'
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    kinds: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def string(value: object) -> str:
    """A field that must be a string; raises ValueError with what is wrong."""
    if value is ...:
        raise ValueError("is missing")
    if not isinstance(value, str):
        raise ValueError(f"is {json_kind(value)} where a string is expected")
    if "\0" in value:
        raise ValueError(f"holds NUL (character {value.index(chr(0)) + 1}): take it out")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise ValueError(f"holds a lone surrogate ({half}, character {error.start + 1}): half of a character") from None
    return value


def quote(value: str) -> str:
    """A value in quotes, its beginning if it is long."""
    return repr(value) if len(value) <= _QUOTED else f"{value[:_QUOTED]!r}..."


def first(items: Iterable[object], most: int) -> str:
    """The first items, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
