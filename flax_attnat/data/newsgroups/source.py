"""20 Newsgroups, baseball against hockey: posts in the order of scikit-learn, stripped by its rules."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_attnat.data.archive import Official, walk
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Keep, Notes, Rows, Source, Table, hold_out
from flax_attnat.data.text import newsgroups_words

OFFICIAL = Official(
    name="20news-bydate.tar.gz",
    folders=("20news-bydate",),  # a folder that holds 20news-bydate-train and 20news-bydate-test
    url="https://ndownloader.figshare.com/files/5975967",
    size=14_464_277,
    sha256="8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
    mirrors=("http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz",),
)
SPLIT = "posts"  # "all" is a word of TensorFlow Datasets' own
GROUPS = {"rec.sport.baseball": "baseball", "rec.sport.hockey": "hockey"}
_PARTS = ("20news-bydate-train", "20news-bydate-test")
_ALL_GROUPS = 20
_POST = re.compile(r"(?:20news-bydate/)?(20news-bydate-(?:train|test))/([a-z.-]+)/(\d+)")
_LIMIT = 4 << 20  # bytes of one post; the longest official one has 160,616
_TOTAL = 256 << 20  # bytes of all posts; officially 35.9 million
_PART_SEED, _SEED = 0, 42
_HELD_OUT, _HOLD_OUT_SEED = 0.2, 13478


class _Post(NamedTuple):
    """Where a post stands; the fields in the order by which scikit-learn sorts.

    Attributes:
      part: top folder.
      group: newsgroup.
      name: file name, sorted as a string.
    """

    part: str
    group: str
    name: str


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The posts on baseball, then on hockey, without headers, signatures and quotations; some are empty then.

    Args:
      source: the official archive, or a folder that holds the two folders extracted from it.
      split: "posts"; the source is not split.
      notes: gets the posts that are not UTF-8, and newsgroups that are absent.

    Raises:
      DataError: the source cannot be read or holds no post of a group.
    """
    posts: dict[_Post, bytes] = {}
    for member, content in walk(source, lambda member: bool(_POST.fullmatch(member)), limit=_LIMIT, total=_TOTAL):
        post = _Post(*_POST.fullmatch(member).groups())  # type: ignore[union-attr]
        posts[post] = content if post.group in GROUPS else b""  # of the other groups only the names count
    if missing := _ALL_GROUPS - len({post.group for post in posts}):
        notes["newsgroups of 20 are absent; the order of the posts is not scikit-learn's"] += missing
    order = shuffled(list(posts))
    for group, label in GROUPS.items():
        found = [posts[post] for post in order if post.group == group]
        if not found:
            raise DataError(f"{source} holds no post of {group}: it is another archive, or an incomplete one.")
        for content in found:
            if not _is_utf8(content):
                notes["posts are not UTF-8; read as Latin-1"] += 1
            yield Example(strip(content.decode("latin-1")), label)


def shuffled(posts: list[_Post]) -> list[_Post]:
    """The posts in the order of scikit-learn's `fetch_20newsgroups(subset="all")`.

    It sorts and shuffles each part when it loads the files, and both parts together when it returns them.
    """
    order: list[_Post] = []
    for part in _PARTS:
        order += _shuffle(sorted(post for post in posts if post.part == part), _PART_SEED)
    return _shuffle(order, _SEED)


def _shuffle(posts: list[_Post], seed: int) -> list[_Post]:
    """The posts as NumPy's legacy generator shuffles their numbers."""
    order = np.arange(len(posts))
    np.random.RandomState(seed).shuffle(order)
    return [posts[place] for place in order]


def _is_utf8(content: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def strip(post: str) -> str:
    """The text of a post without its header, its signature and its quotations, in this order.

    >>> strip("From: me\\nSubject: cup\\n\\nYou wrote:\\n> who won?\\nWe did.\\n\\n-- \\nme")
    'We did.\\n'
    """
    # The rules are scikit-learn's own: no public function applies them to a text of one's own.
    from sklearn.datasets import _twenty_newsgroups as rules

    text = rules.strip_newsgroup_footer(rules.strip_newsgroup_header(post))
    return str(rules.strip_newsgroup_quoting(text))


def arrange(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """A fifth of the posts that have a word becomes the test split, a fifth of the rest the development split."""
    lengths, labels = tables[SPLIT]
    rows = lengths.nonzero()[0]
    if empty := len(lengths) - len(rows):
        notes["empty texts were dropped"] += empty
    rows, test = hold_out(rows, labels[rows], _HELD_OUT, _HOLD_OUT_SEED, stratify=True)
    train, dev = hold_out(rows, labels[rows], _HELD_OUT, _HOLD_OUT_SEED, stratify=True)
    return {"train": [(SPLIT, train)], "dev": [(SPLIT, dev)], "test": [(SPLIT, test)]}


SOURCE = Source(
    name="newsgroups",
    official=OFFICIAL,
    homepage="http://qwone.com/~jason/20Newsgroups/",
    version="1.0.0",
    splits={SPLIT: 1_993},
    labels=tuple(GROUPS.values()),
    pair=False,
    rationales=False,
    examples=examples,
    words=newsgroups_words,
    arrange=arrange,
    expected={"train": 1_145, "dev": 278, "test": 357},
)
