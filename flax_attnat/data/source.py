"""What a dataset's `source.py` says of it: the raw file, how its examples are read, cut into words and split."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_attnat.data.archive import Official
from flax_attnat.data.errors import DataError


class Example(NamedTuple):
    """One labelled text as the raw file has it.

    Attributes:
      text: the text, passage or premise.
      label: name of its class or its answer; "" where the source has none (IMDB's `unsup`).
      query: the question or hypothesis of a pair dataset, else "".
      rationale: places that decide the label, counted in `Source.words(text)`; None where the source has none.
      group: part of its split that is also measured by itself ("matched"), else "".
    """

    text: str
    label: str
    query: str = ""
    rationale: tuple[int, ...] | None = None
    group: str = ""


Notes = Counter[str]
"""What the user should know of a raw file, with how often: `notes["posts are not UTF-8; read as Latin-1"] += 1`."""


class Table(NamedTuple):
    """What splitting looks at: the N examples of one prepared split.

    Attributes:
      lengths: `[N]` words of each text.
      labels: `[N]` class ids.
    """

    lengths: np.ndarray
    labels: np.ndarray


Rows = list[tuple[str, np.ndarray]]
"""Prepared split and the rows taken from it, in this order; one after another where there are several."""

Keep = Callable[[np.ndarray], np.ndarray]
"""`keep(lengths [N]) -> bool [N]`: whether texts of these lengths pass the configured length filter."""

Arrange = Callable[[Mapping[str, Table], Keep, Notes], dict[str, Rows]]
"""`arrange(tables, keep, notes)` -> rows of "train", "dev" and "test". The vocabulary is fitted on all rows of "train"
that it gives, and the length filter is applied after it; it calls `keep` itself only where the filter comes first."""


class Source(NamedTuple):
    """One dataset.

    Attributes:
      name: its name in the configuration and of its builder.
      official: its official archive.
      homepage: its home page.
      version: version of the prepared records; raise it when `examples` gives others.
      splits: splits of the prepared records, with the number of examples in the official file.
      labels: names of the classes by id; None: every answer of the prepared splits, in natural order.
      pair: whether each text comes with a query.
      rationales: whether the source marks the words that decide.
      examples: `examples(path, split, notes)` reads one split from the archive or its extracted folder, in order.
      words: the words of a text (and of a query), by the dataset's text rules.
      arrange: rows of the splits that are trained on and measured.
      expected: examples of "train", "dev" and "test" from the official file, after the rules of `configs/`.
      entity_prefix: where it is not "", only classes whose name is a word of the text are possible (CNN's "@entity").
    """

    name: str
    official: Official
    homepage: str
    version: str
    splits: Mapping[str, int]
    labels: tuple[str, ...] | None
    pair: bool
    rationales: bool
    examples: Callable[[Path, str, Notes], Iterator[Example]]
    words: Callable[[str], tuple[str, ...]]
    arrange: Arrange
    expected: Mapping[str, int]
    entity_prefix: str = ""


def whole(tables: Mapping[str, Table], names: Mapping[str, str]) -> dict[str, Rows]:
    """All rows of the prepared splits `names[final]`, under their final names."""
    return {final: [(name, np.arange(len(tables[name].labels)))] for final, name in names.items()}


def official_splits(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """The splits as the source has them."""
    return whole(tables, {name: name for name in ("train", "dev", "test")})


def hold_out(
    rows: np.ndarray, labels: np.ndarray, share: float | int, seed: int, *, stratify: bool
) -> tuple[np.ndarray, ...]:
    """Splits `rows` `[N]` in two as scikit-learn's `train_test_split` does: what stays, and `share` of them held out.

    Args:
      rows: row numbers.
      labels: `[N]` their classes; read only if `stratify`.
      share: held out: a share between 0 and 1, or a whole number of rows.
      seed: its `random_state`.
      stratify: whether both parts have the classes in the same proportions.

    Raises:
      DataError: there are too few rows to split.
    """
    from sklearn.model_selection import train_test_split

    try:
        return tuple(train_test_split(rows, test_size=share, random_state=seed, stratify=labels if stratify else None))
    except ValueError as error:
        raise DataError(
            f"{share} of {len(rows):,} texts cannot be held out ({str(error).rstrip('.')}). Check the raw file and the"
            " length filter (config.data.min_length, max_length)."
        ) from error


def story_words(text: str) -> tuple[str, ...]:
    """The words of a story or question that somebody typed, as bAbI's texts have them: the last full stop is no word.

    >>> story_words("Mary moved to the bathroom. John left."), story_words("Where is Mary?")
    (('Mary', 'moved', 'to', 'the', 'bathroom', '.', 'John', 'left'), ('Where', 'is', 'Mary'))
    """
    words = re.sub(r"[.?!](?=\s|$)", r" \g<0> ", text).split()
    while words and words[-1] in (".", "?", "!"):
        words.pop()
    return tuple(words)


def spaced_words(text: str) -> tuple[str, ...]:
    """The words between white space, for texts that are cut into words already.

    >>> spaced_words("Mary moved to the bathroom . John left")
    ('Mary', 'moved', 'to', 'the', 'bathroom', '.', 'John', 'left')
    """
    return tuple(text.split())
