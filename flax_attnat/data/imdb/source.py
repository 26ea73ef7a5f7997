"""The Large Movie Review Dataset (IMDB): its raw file as labelled and unlabelled reviews."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from flax_attnat.data.archive import Official, walk
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Keep, Notes, Rows, Source, Table, hold_out
from flax_attnat.data.text import clean

OFFICIAL = Official(
    name="aclImdb_v1.tar.gz",
    folders=("aclImdb",),
    url="http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    size=84_125_825,
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
LABEL_NAMES = ("negative", "positive")
# Prepared split -> the folders that hold it, in this order, each with its label.
_FOLDERS = {
    "train": {"train/neg": "negative", "train/pos": "positive"},
    "test": {"test/neg": "negative", "test/pos": "positive"},
    "unsup": {"train/unsup": ""},
}
_REVIEW = re.compile(r"aclImdb/(\w+/\w+)/\d+_\d+\.txt")
_LIMIT = 1 << 20  # bytes of one review; the longest official one has 14,282
_TOTAL = 256 << 20  # bytes of one split; the largest has 66.5 million
_DEV_SHARE, _DEV_SEED = 0.2, 1378


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The reviews of one split: negative, then positive, each by file name as a string.

    Args:
      source: the official archive or its extracted folder.
      split: "train", "test" or "unsup", whose reviews have the label "".
      notes: gets nothing.

    Raises:
      DataError: the source cannot be read, lacks one of the split's folders, or a review is not UTF-8.
    """
    folders = _FOLDERS[split]
    reviews: dict[str, dict[str, bytes]] = {folder: {} for folder in folders}
    for member, content in walk(source, lambda member: _folder(member) in folders, limit=_LIMIT, total=_TOTAL):
        reviews[_folder(member)][member.rpartition("/")[2]] = content
    for folder, label in folders.items():
        if not reviews[folder]:
            raise DataError(
                f"{source} holds no review in aclImdb/{folder}: it is another archive, or an incomplete one."
            )
        for name in sorted(reviews[folder]):
            yield Example(_decode(reviews[folder][name], f"{source}, aclImdb/{folder}/{name}"), label)


def _folder(member: str) -> str:
    """The folder of a review below aclImdb, or "" for a member that is none."""
    review = _REVIEW.fullmatch(member)
    return review[1] if review else ""


def _decode(content: bytes, place: str) -> str:
    """The text of a review."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 ({error.reason} at byte {error.start}).") from error


def words(text: str) -> tuple[str, ...]:
    """The words of a review: a line break "<br />" is white space, then `clean`.

    >>> words("Bad.<br /><br />Really")
    ('bad', '.', 'really')
    """
    return clean(text.replace("<br />", " "))


def arrange(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """Reviews of the right length; a fifth of those of the training split becomes the development split."""
    train, test = (keep(tables[name].lengths).nonzero()[0] for name in ("train", "test"))
    train, dev = hold_out(train, tables["train"].labels[train], _DEV_SHARE, _DEV_SEED, stratify=False)
    return {"train": [("train", train)], "dev": [("train", dev)], "test": [("test", test)]}


SOURCE = Source(
    name="imdb",
    official=OFFICIAL,
    homepage="http://ai.stanford.edu/~amaas/data/sentiment/",
    version="1.0.0",
    splits={"train": 25_000, "test": 25_000, "unsup": 50_000},
    labels=LABEL_NAMES,
    pair=False,
    rationales=False,
    examples=examples,
    words=words,
    arrange=arrange,
    expected={"train": 16_415, "dev": 4_104, "test": 20_762},
)
