"""What a dataset is once it is read: texts, their words and ids, labels, rationales, and the vocabulary."""

from typing import NamedTuple

import numpy as np

from flax_attnat.data.vocabulary import Vocabulary


class Record(NamedTuple):
    """One labelled text as a builder or a generator gives it.

    Attributes:
      text: the text as in the source.
      words: the text after the dataset's text rules.
      label: class id.
      rationale: positions in `words` that decide the label, or None where the source has none.
    """

    text: str
    words: tuple[str, ...]
    label: int
    rationale: tuple[int, ...] | None = None


class Split(NamedTuple):
    """The N texts of one split.

    Attributes:
      records: N records in the order of the source.
      tokens: N int32 arrays of word ids, one per word.
      labels: `[N]` int32.
    """

    records: list[Record]
    tokens: list[np.ndarray]
    labels: np.ndarray


class Dataset(NamedTuple):
    """A dataset, ready for batches.

    Attributes:
      name: its name in the configuration.
      splits: "train", "dev", "test".
      vocabulary: fitted on the training split before any length filter.
      label_names: names of the classes, by id.
      mark: "" for the official data, else "synthetic" or "partial": shown beside every number.
    """

    name: str
    splits: dict[str, Split]
    vocabulary: Vocabulary
    label_names: tuple[str, ...]
    mark: str
