"""AG News, world against business: its raw file as labelled descriptions."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from flax_attnat.data.archive import Official, read_member
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Keep, Notes, Rows, Source, Table, hold_out, whole
from flax_attnat.data.text import clean

OFFICIAL = Official(
    name="ag_news_csv.tar.gz",
    folders=("ag_news_csv",),
    url="https://drive.google.com/uc?export=download&id=0Bz8a_Dbh9QhbUDNpeUdjb0wxRms",
    size=11_784_327,
    sha256="4e2fc37d369e6e317a8b62d0d2f11d379f8c3dde60c07c35a46b069a246498ad",
)
_CLASSES = {"1": "world", "2": None, "3": "business", "4": None}  # sports and science are left out
_FIELDS = 3  # class, title, description
_LINE_BREAK = "\\"  # the file escapes line breaks; left in place it joins the words around it
_LIMIT = 256 << 20  # bytes; the larger official member has about 29.5 million
_DEV_SHARE, _DEV_SEED = 0.15, 16377


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The descriptions of the two classes, in the order of the file, escaped line breaks as white space.

    Args:
      source: the official archive or its extracted folder.
      split: "train" or "test".
      notes: gets nothing.

    Raises:
      DataError: the source cannot be read, or a row is not a class, a title and a description.
    """
    member = f"ag_news_csv/{split}.csv"
    place = f"{source}, {member}"
    empty = True
    for line, row in _rows(_decode(read_member(source, member, _LIMIT), place), place):
        if len(row) != _FIELDS:
            raise DataError(
                f"{place}: the row that ends in line {line} has {len(row)} fields instead of {_FIELDS} (class, title,"
                f" description); it begins {','.join(row)[:60]!r}."
            )
        if row[0] not in _CLASSES:
            raise DataError(
                f"{place}: the row that ends in line {line} has the class {row[0]!r} instead of 1, 2, 3 or 4."
            )
        if label := _CLASSES[row[0]]:
            empty = False
            yield Example(row[2].replace(_LINE_BREAK, " "), label)
    if empty:
        raise DataError(f"{place} holds no row of the classes 1 (world) and 3 (business).")


def _decode(content: bytes, place: str) -> str:
    """The text of a file of rows, once it ends where a row does."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{place}, line {line} is not UTF-8 ({error.reason} at byte {error.start}).") from error
    if text and not text.endswith(("\n", '"')):
        raise DataError(f"{place} ends inside a row, at {text[-30:]!r}: it is truncated.")
    return text


def _rows(text: str, place: str) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the number of its last line."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{place}, line {reader.line_num} is no row of comma-separated values ({error}).") from error


def arrange(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """The official test split; 15 % of the training split becomes the development split."""
    labels = tables["train"].labels
    train, dev = hold_out(np.arange(len(labels)), labels, _DEV_SHARE, _DEV_SEED, stratify=False)
    return {"train": [("train", train)], "dev": [("train", dev)], **whole(tables, {"test": "test"})}


SOURCE = Source(
    name="ag_news",
    official=OFFICIAL,
    homepage="http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html",
    version="1.1.0",
    splits={"train": 60_000, "test": 3_800},
    labels=("world", "business"),
    pair=False,
    rationales=False,
    examples=examples,
    words=clean,
    arrange=arrange,
    expected={"train": 51_000, "dev": 9_000, "test": 3_800},
)
