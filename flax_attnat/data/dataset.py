"""What a dataset is once it is read: words and ids, labels, rationales, and the vocabulary."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flax_attnat.data.vocabulary import Vocabulary

# Texts that a checksum copies at once.
ROWS_AT_ONCE = 4096


class Record(NamedTuple):
    """One labelled text, as a person reads it.

    Attributes:
      words: the text (passage, premise) after the dataset's text rules.
      label: class id.
      rationale: places in `words` that decide the label, or None where the source has none.
      query: the words of the question or hypothesis; empty in single-sequence datasets.
    """

    words: tuple[str, ...]
    label: int
    rationale: tuple[int, ...] | None = None
    query: tuple[str, ...] = ()


class Split(NamedTuple):
    """The N texts of one split.

    Attributes:
      records: N records in the order of the source.
      tokens: N int32 arrays of word ids, one per word.
      labels: `[N]` int32.
      queries: N int32 arrays of the queries' word ids; None in single-sequence datasets.
      groups: N names of parts that are also measured by themselves, "" for none; None where there are no parts.
    """

    records: Sequence[Record]
    tokens: list[np.ndarray]
    labels: np.ndarray
    queries: list[np.ndarray] | None = None
    groups: list[str] | None = None


class Dataset(NamedTuple):
    """A dataset, ready for batches.

    Attributes:
      name: its name in the configuration.
      splits: "train", "dev", "test".
      vocabulary: fitted on the training split before the length filter, on IMDB after it.
      label_names: names of the classes, by id.
      mark: "" for the official data, else "synthetic", "simulated" or "partial": shown beside every number.
      entity_classes: `[V]` int32 class id of a word that names a class, else -1; None where every class is possible
        whatever the text says.
      notes: what the user should know, each with how often.
    """

    name: str
    splits: dict[str, Split]
    vocabulary: Vocabulary
    label_names: tuple[str, ...]
    mark: str
    entity_classes: np.ndarray | None = None
    notes: tuple[tuple[str, int], ...] = ()


def checksum(split: Split) -> str:
    """CRC-32, hexadecimal, of the labels of a split, and of the lengths and word ids of its texts and queries.

    >>> checksum(Split([], [np.array([2, 3], np.int32)], np.array([1], np.int32)))
    'fe78ecc8'
    """
    found = zlib.crc32(np.asarray(split.labels, "<i4").tobytes())
    for rows in (split.tokens, split.queries or []):
        found = zlib.crc32(np.array([len(row) for row in rows], "<i4").tobytes(), found)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            found = zlib.crc32(np.concatenate(rows[first : first + ROWS_AT_ONCE]).astype("<i4", copy=False).data, found)
    return f"{found:08x}"
