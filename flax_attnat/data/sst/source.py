"""The Stanford Sentiment Treebank: its raw file, and its trees as labelled sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from flax_attnat.data.archive import Official, read_member
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Notes, Source, official_splits
from flax_attnat.data.text import sst_words

OFFICIAL = Official(
    name="trainDevTestTrees_PTB.zip",
    folders=("trainDevTestTrees_PTB", "trees"),
    url="https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip",
    size=789_539,
    sha256="5c613a4f673fc74097d523a2c83f38e0cc462984d847b82c7aaf36b01cbbbfcc",
)
MEMBERS = {"train": "trees/train.txt", "dev": "trees/dev.txt", "test": "trees/test.txt"}
LABEL_NAMES = ("negative", "positive")
_LIMIT = 32 << 20  # bytes; the largest official member has 2.2 MB
_NEUTRAL = 2
_TOKEN = re.compile(r"[()]|[^ ()]+")  # only the space separates: the treebank has words with a no-break space in them
_GRADES = frozenset("01234")


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The sentences of one split whose grade is not the middle one, in the order of the file.

    Args:
      source: the official archive or its extracted folder.
      split: "train", "dev" or "test".
      notes: gets nothing.

    Raises:
      DataError: the source cannot be read or a line is no tree.
    """
    member = MEMBERS[split]
    place = f"{source}, {member}"
    sided = False
    for number, line in enumerate(read_member(source, member, _LIMIT).rstrip().split(b"\n"), 1):
        try:
            grade, leaves = parse_tree(line.decode("utf-8").removesuffix("\r"))
        except ValueError as error:  # UnicodeDecodeError is one
            raise DataError(f"{place}, line {number}: {error}; the line begins {line[:60]!r}.") from error
        if grade != _NEUTRAL:
            sided = True
            yield Example(" ".join(leaves), LABEL_NAMES[grade > _NEUTRAL])
    if not sided:
        raise DataError(f"{place} holds no sentence with a side.")


def parse_tree(line: str) -> tuple[int, list[str]]:
    """The grade at the root of a tree and its leaves.

    A node is `(GRADE WORD)` or `(GRADE NODE ... NODE)` with a grade from 0 to 4.

    Raises:
      ValueError: the line is not exactly one tree.

    >>> parse_tree("(3 (2 Good) (2 .))")
    (3, ['Good', '.'])
    """
    tokens = iter(_TOKEN.findall(line))
    root = ""
    leaves: list[str] = []
    open_nodes: list[str] = []  # what each open node holds so far: "", "word" or "nodes"
    for token in tokens:
        if root and not open_nodes:
            raise ValueError(f"{token!r} follows the end of the tree")
        if token == "(":
            grade = _open_node(tokens, open_nodes)
            root = root or grade
        elif not open_nodes:
            raise ValueError(f"{token!r} stands before the tree")
        elif token == ")":
            if not open_nodes.pop():
                raise ValueError("a node is empty")
        elif open_nodes[-1]:
            raise ValueError(f"the word {token!r} is not alone in its node")
        else:
            open_nodes[-1] = "word"
            leaves.append(token)
    if not root:
        raise ValueError("there is no tree")
    if open_nodes:
        raise ValueError(f"{len(open_nodes)} nodes are not closed")
    return int(root), leaves


def _open_node(tokens: Iterator[str], open_nodes: list[str]) -> str:
    """Opens a node inside the last open one; its grade."""
    if open_nodes and open_nodes[-1] == "word":
        raise ValueError("a node stands beside a word")
    if open_nodes:
        open_nodes[-1] = "nodes"
    grade = next(tokens, "nothing")
    if grade not in _GRADES:
        raise ValueError(f"a node begins with {grade!r} instead of a grade from 0 to 4")
    open_nodes.append("")
    return grade


SOURCE = Source(
    name="sst",
    official=OFFICIAL,
    homepage="https://nlp.stanford.edu/sentiment/",
    version="2.0.0",
    splits={"train": 6_920, "dev": 872, "test": 1_821},
    labels=LABEL_NAMES,
    pair=False,
    rationales=False,
    examples=examples,
    words=sst_words,
    arrange=official_splits,
    expected={"train": 6_356, "dev": 822, "test": 1_726},
)
