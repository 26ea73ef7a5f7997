"""From a configuration to a dataset, ready for batches."""

from collections.abc import Sequence

import numpy as np

from flax_attnat.config import Config
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.errors import DataError
from flax_attnat.data.text import sst_words
from flax_attnat.data.vectors import Vectors, read_vectors
from flax_attnat.data.vocabulary import Vocabulary, encode, fit_vocabulary


def load(config: Config) -> Dataset:
    """The dataset that `config.dataset` names, prepared first if need be.

    The vocabulary is fitted on the whole training split, before the length filter.

    Raises:
      DataError: a raw or prepared file cannot be used, or the length filter leaves a split without texts.
    """
    readers = {"planted": _planted, "sst": _sst}
    if config.dataset not in readers:
        raise DataError(
            f"config.dataset: there is no loader for {config.dataset!r}; it must be one of {', '.join(readers)}."
        )
    records, label_names, mark = readers[config.dataset](config)
    vocabulary = fit_vocabulary((record.words for record in records["train"]), config.data.min_df)
    splits = {name: _split(name, found, vocabulary, config) for name, found in records.items()}
    return Dataset(config.dataset, splits, vocabulary, label_names, mark)


def load_vectors(config: Config, vocabulary: Vocabulary) -> Vectors | None:
    """The pretrained vectors of the vocabulary's words from `config.data.vectors`, or None where it is empty.

    Raises:
      DataError: the file cannot be used, or its vectors are not of `config.model.embedding_size`.
    """
    if not config.data.vectors:
        return None
    return read_vectors(config.data.vectors, vocabulary.words, config.model.embedding_size)


_Found = tuple[dict[str, list[Record]], tuple[str, ...], str]
"""Records by split, label names, mark."""


def _planted(config: Config) -> _Found:
    """The synthetic texts."""
    from flax_attnat.data.planted import generate

    return generate(), ("negative", "positive"), "synthetic"


def _sst(config: Config) -> _Found:
    """The Stanford Sentiment Treebank through its builder."""
    from flax_attnat.data.prepared import read_prepared
    from flax_attnat.data.sst.source import LABEL_NAMES, MEMBERS, OFFICIAL, OFFICIAL_SIZES
    from flax_attnat.data.sst.sst_dataset_builder import Builder

    prepared = read_prepared(Builder, OFFICIAL, MEMBERS.values(), config.data.raw_dir, config.data.data_dir)
    records: dict[str, list[Record]] = {}
    for split in MEMBERS:
        texts = [(row["text"].decode("utf-8"), int(row["label"])) for row in prepared[split]]
        records[split] = [Record(text, sst_words(text), label) for text, label in texts]
    official = {split: len(found) for split, found in records.items()} == OFFICIAL_SIZES
    return records, LABEL_NAMES, "" if official else "partial"


def _split(name: str, records: Sequence[Record], vocabulary: Vocabulary, config: Config) -> Split:
    """The records that pass the length filter, with their ids and labels."""
    low, high = config.data.min_length, config.data.max_length
    kept = [record for record in records if len(record.words) > low and (high == -1 or len(record.words) < high)]
    if not kept:
        raise DataError(
            f"{config.dataset}: none of the {len(records):,} texts of the split {name} has more than"
            f" config.data.min_length={low} and fewer than config.data.max_length={high} words; widen these bounds."
        )
    tokens = [encode(vocabulary, record.words) for record in kept]
    return Split(kept, tokens, np.array([record.label for record in kept], np.int32))
