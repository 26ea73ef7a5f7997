"""From a configuration to a dataset, ready for batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import overload

import numpy as np

from flax_attnat.config import Config
from flax_attnat.data import corpora
from flax_attnat.data.corpus import Part, Progress, Ragged, join
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Notes, Rows
from flax_attnat.data.vectors import Vectors, find_vectors, read_vectors
from flax_attnat.data.vocabulary import Vocabulary, fit_numbers


def load(config: Config, progress: Progress = lambda what, done, total: None) -> Dataset:
    """The dataset that `config.dataset` names, prepared first if need be.

    The vocabulary is fitted on the whole training split, texts and queries, before the length filter
    (on IMDB after it, as there the filter comes before the split).

    Args:
      config: dataset, places of files, length filter, least frequency, truncation.
      progress: told what is being prepared, how much of it is done, and how much there is.

    Raises:
      DataError: a raw or prepared file cannot be used, or the length filter leaves a split without texts.
    """
    found = corpora.find(config, progress)
    corpus, notes = found.corpus, Notes(found.corpus.notes)
    rows = found.arrange({name: part.table() for name, part in corpus.parts.items()}, _keep(config), notes)
    parts = {name: _gather(corpus.parts, taken) for name, taken in rows.items()}
    columns = parts["train"].text, parts["train"].query
    values, lengths = (np.concatenate(part) for part in zip(*((c.values, c.lengths()) for c in columns), strict=True))
    named = corpus.labels if found.entity_prefix else ()
    vocabulary, ids = fit_numbers(corpus.words, values, lengths, config.data.min_df, named)
    classes = name_classes(vocabulary, corpus.labels) if found.entity_prefix else None
    splits = {}
    for name, part in parts.items():
        kept = _fit(config, name, part, notes)
        if classes is not None:
            kept = _answerable(config, name, kept, ids, classes, notes)
        splits[name] = _split(kept, corpus.words, ids, pair=found.pair)
    return Dataset(config.dataset, splits, vocabulary, corpus.labels, found.mark, classes, tuple(sorted(notes.items())))


def load_vectors(config: Config, vocabulary: Vocabulary, progress: Progress = lambda *_: None) -> Vectors | None:
    """The pretrained vectors of the vocabulary's words from `config.data.vectors`, or None where it is empty.

    Raises:
      DataError: the file cannot be used, or its vectors are not of `config.model.embedding_size`.
    """
    if not config.data.vectors:
        return None
    path = find_vectors(
        config.data.vectors,
        config.data.raw_dir,
        config.data.data_dir,
        progress=lambda done, total: progress("downloading bytes", done, total),
    )
    return read_vectors(path, vocabulary.words, config.model.embedding_size)


class Records(Sequence[Record]):
    """The records of a split, each put into words when it is asked for.

    Args:
      part: the split's columns.
      words: the words by number.
    """

    def __init__(self, part: Part, words: tuple[str, ...]) -> None:
        self._part, self._words = part, words
        self._text, self._query = part.text.rows(), part.query.rows()
        self._rationale = part.rationale.rows()

    def __len__(self) -> int:
        return len(self._part.labels)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        known = bool(self._part.has_rationale[place])
        return Record(
            words=tuple(self._words[number] for number in self._text[place]),
            label=int(self._part.labels[place]),
            rationale=tuple(self._rationale[place].tolist()) if known else None,
            query=tuple(self._words[number] for number in self._query[place]),
        )


def _keep(config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """The configured length filter: `min_length < n < max_length`."""
    low, high = config.data.min_length, config.data.max_length
    return lambda lengths: (lengths > low) & ((high == -1) | (lengths < high))


def _gather(parts: Mapping[str, Part], rows: Rows) -> Part:
    """The given rows of the prepared splits, one after another."""
    return join([parts[name].take(index) for name, index in rows])


def _fit(config: Config, name: str, part: Part, notes: Notes) -> Part:
    """The texts that pass the length filter, none longer than `config.data.truncate`."""
    index = np.flatnonzero(_keep(config)(part.text.lengths()))
    if not index.size:
        raise DataError(
            f"{config.dataset}: none of the {len(part.labels):,} texts of the split {name} has more than"
            f" config.data.min_length={config.data.min_length} and fewer than"
            f" config.data.max_length={config.data.max_length} words; widen these bounds."
        )
    part, most = part.take(index), config.data.truncate
    _count(notes, "texts are empty", int(np.sum(part.text.lengths() == 0)))
    if len(part.query.values):
        _count(notes, "queries are empty", int(np.sum(part.query.lengths() == 0)))
    for what, column in (("texts", part.text), ("queries", part.query)):
        sentence = f"{what} were cut off at {most:,} words (config.data.truncate)"
        _count(notes, sentence, int(np.sum(column.lengths() > most)))
    inside = part.rationale.values < most
    row = np.repeat(np.arange(len(part.labels)), part.rationale.lengths())
    lengths = np.bincount(row[inside], minlength=len(part.labels))
    rationale = Ragged(part.rationale.values[inside], np.cumsum(lengths))
    return part._replace(text=part.text.head(most), query=part.query.head(most), rationale=rationale)


def _answerable(config: Config, name: str, part: Part, ids: np.ndarray, classes: np.ndarray, notes: Notes) -> Part:
    """The texts that still hold the word which names their class."""
    rows = part.text.rows()
    holds = [label in classes[ids[row]] for row, label in zip(rows, part.labels, strict=True)]
    if not any(holds):
        raise DataError(
            f"{config.dataset}: none of the {len(holds):,} texts of the split {name} holds its answer in the first"
            f" {config.data.truncate:,} words; raise config.data.truncate."
        )
    _count(notes, "texts do not hold their answer and were dropped", len(holds) - sum(holds))
    return part.take(np.flatnonzero(holds))


def _count(notes: Notes, sentence: str, times: int) -> None:
    """Adds to a note, unless nothing happened."""
    if times:
        notes[sentence] += times


def name_classes(vocabulary: Vocabulary, labels: Iterable[str]) -> np.ndarray:
    """For each word of the vocabulary the class that it names, or -1, `[V]` int32.

    >>> name_classes(Vocabulary(("<pad>", "<unk>", "met", "@entity1"), np.zeros(4)), ["@entity0", "@entity1"]).tolist()
    [-1, -1, -1, 1]
    """
    numbers = {label: number for number, label in enumerate(labels)}
    return np.array([numbers.get(word, -1) for word in vocabulary.words], np.int32)


def _split(part: Part, words: tuple[str, ...], ids: np.ndarray, *, pair: bool) -> Split:
    """A split with the vocabulary's ids."""
    return Split(
        records=Records(part, words),
        tokens=Ragged(ids[part.text.values], part.text.ends).rows(),
        labels=part.labels,
        queries=Ragged(ids[part.query.values], part.query.ends).rows() if pair else None,
        groups=list(part.groups) if any(part.groups) else None,
    )
