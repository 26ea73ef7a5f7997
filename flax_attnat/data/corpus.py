"""A dataset cut into words once, in parallel processes: columns of word numbers, and the file that keeps them."""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_attnat.data.source import Example, Notes, Table
from flax_attnat.data.workers import Pieces, cut_chunk, cut_in_processes

Progress = Callable[[str, int, int | None], None]
"""`progress(what, done, total)`; the total is None where it is not known."""

Cut = Callable[[str], tuple[str, ...]]
"""A dataset's text rules: the words of a text."""

# Below this many characters one process is done sooner than others have started.
_SERIAL_CHARACTERS = 2_000_000
_CHUNK_TEXTS = 1_000
# Raise it when the arrays of the file change their meaning.
FORMAT = 1


class Ragged(NamedTuple):
    """N rows of numbers, one after another.

    Attributes:
      values: `[total]` int32.
      ends: `[N]` int64, where each row ends.
    """

    values: np.ndarray
    ends: np.ndarray

    def lengths(self) -> np.ndarray:
        """Length of each row, `[N]`."""
        return np.diff(self.ends, prepend=0)

    def rows(self) -> list[np.ndarray]:
        """The rows as views."""
        starts = self.ends - self.lengths()
        return [self.values[start:end] for start, end in zip(starts.tolist(), self.ends.tolist(), strict=True)]

    def take(self, index: np.ndarray) -> "Ragged":
        """The rows `index`, in that order."""
        lengths = self.lengths()[index]
        ends = np.cumsum(lengths)
        shift = np.repeat(self.ends[index] - ends, lengths)
        return Ragged(self.values[np.arange(len(shift)) + shift], ends)

    def head(self, most: int) -> "Ragged":
        """The rows, none longer than `most`."""
        lengths = self.lengths()
        if lengths.max(initial=0) <= most:
            return self
        place = np.arange(len(self.values)) - np.repeat(self.ends - lengths, lengths)
        return Ragged(self.values[place < most], np.cumsum(np.minimum(lengths, most)))


class Part(NamedTuple):
    """One prepared split in columns; N examples.

    Attributes:
      text: word numbers of the texts.
      labels: `[N]` int32 class ids.
      query: word numbers of the queries; empty rows in single-sequence datasets.
      rationale: places that decide the label; empty rows where there are none.
      has_rationale: `[N]` bool, whether the source marks such places in this text.
      groups: N names, "" for none.
    """

    text: Ragged
    labels: np.ndarray
    query: Ragged
    rationale: Ragged
    has_rationale: np.ndarray
    groups: tuple[str, ...]

    def table(self) -> Table:
        """What splitting looks at."""
        return Table(self.text.lengths(), self.labels)

    def take(self, index: np.ndarray) -> "Part":
        """The examples `index`, in that order."""
        return Part(
            text=self.text.take(index),
            labels=self.labels[index],
            query=self.query.take(index),
            rationale=self.rationale.take(index),
            has_rationale=self.has_rationale[index],
            groups=tuple(self.groups[i] for i in index),
        )


class Corpus(NamedTuple):
    """All labelled splits of a dataset.

    Attributes:
      words: every different word, by number, in the order of first occurrence.
      labels: names of the classes, by id.
      parts: prepared split -> its columns.
      notes: what reading the raw file brought up, over all splits.
    """

    words: tuple[str, ...]
    labels: tuple[str, ...]
    parts: dict[str, Part]
    notes: Notes


def ragged(rows: Iterable[Sequence[int]]) -> Ragged:
    """Rows of numbers as one `Ragged`."""
    rows = list(rows)
    values = [value for row in rows for value in row]
    return Ragged(np.array(values, np.int32), np.cumsum([len(row) for row in rows], dtype=np.int64))


def join(parts: Sequence[Part]) -> Part:
    """The examples of several parts, one after another."""

    def columns(name: str) -> Ragged:
        """One ragged column of all parts."""
        found: list[Ragged] = [getattr(part, name) for part in parts]
        lengths = np.concatenate([column.lengths() for column in found])
        return Ragged(np.concatenate([column.values for column in found]), np.cumsum(lengths))

    return Part(
        text=columns("text"),
        labels=np.concatenate([part.labels for part in parts]),
        query=columns("query"),
        rationale=columns("rationale"),
        has_rationale=np.concatenate([part.has_rationale for part in parts]),
        groups=tuple(name for part in parts for name in part.groups),
    )


def build_corpus(
    examples: Mapping[str, Sequence[Example]],
    cut: Cut,
    label_names: Callable[[set[str], Iterable[str]], tuple[str, ...]],
    notes: Notes,
    progress: Progress,
) -> Corpus:
    """Cuts all texts and queries into words.

    Args:
      examples: prepared split -> its examples.
      cut: the text rules.
      label_names: `label_names(answers, words)` gives the classes by id.
      notes: kept with the corpus.
      progress: told how many texts are cut.
    """
    words: dict[str, int] = {}
    texts = [text for found in examples.values() for example in found for text in (example.text, example.query)]
    cuts = _cut_all(texts, cut, words, progress)
    answers = {example.label for found in examples.values() for example in found}
    names = label_names(answers, words)
    ids = {name: number for number, name in enumerate(names)}
    parts, place = {}, 0
    for split, found in examples.items():
        size = 2 * len(found)
        here = np.arange(place, place + size)
        parts[split] = Part(
            text=cuts.take(here[0::2]),
            labels=np.array([ids[example.label] for example in found], np.int32),
            query=cuts.take(here[1::2]),
            rationale=ragged(example.rationale or () for example in found),
            has_rationale=np.array([example.rationale is not None for example in found], bool),
            groups=tuple(example.group for example in found),
        )
        place += size
    return Corpus(tuple(words), names, parts, notes)


def _cut_all(texts: Sequence[str], cut: Cut, words: dict[str, int], progress: Progress) -> Ragged:
    """Word numbers of all texts; new words are added to `words` in the order of first occurrence."""
    chunks = [texts[start : start + _CHUNK_TEXTS] for start in range(0, len(texts), _CHUNK_TEXTS)]
    values, lengths, done = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
    for pieces in _cut_chunks(chunks, cut, sum(map(len, texts))):
        numbers = np.array([words.setdefault(word, len(words)) for word in pieces.words], np.int32)
        values.append(numbers[np.array(pieces.values, np.int64)])
        lengths.append(np.array(pieces.lengths, np.int64))
        done += len(pieces.lengths)
        progress("cutting texts into words", done // 2, len(texts) // 2)  # each example has a text and a query
    return Ragged(np.concatenate(values), np.cumsum(np.concatenate(lengths)))


def _cut_chunks(chunks: Sequence[Sequence[str]], cut: Cut, characters: int) -> Iterable[Pieces]:
    """`cut_chunk` of every chunk, in order; in as many processes as there are cores for us, where that pays."""
    if characters < _SERIAL_CHARACTERS:
        return (cut_chunk(chunk, cut) for chunk in chunks)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cut_in_processes(chunks, cut, min(cores, len(chunks)))


def save(path: Path, corpus: Corpus) -> None:
    """Writes a corpus to one file of plain arrays, under a temporary name until it is whole."""
    arrays = {
        "words": _pack(corpus.words),
        "labels": _pack(corpus.labels),
        "splits": _pack(corpus.parts),
        "notes": _pack(corpus.notes),
        "note_counts": np.array(list(corpus.notes.values()), np.int64),
    }
    for number, part in enumerate(corpus.parts.values()):
        for name in ("text", "query", "rationale"):
            column = getattr(part, name)
            arrays |= {f"{number}_{name}": column.values, f"{number}_{name}_ends": column.ends}
        arrays |= {f"{number}_labels": part.labels, f"{number}_has_rationale": part.has_rationale}
        arrays[f"{number}_groups"] = _pack(part.groups)
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part_path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part_path.replace(path)
    finally:
        part_path.unlink(missing_ok=True)


def read(path: Path) -> Corpus | None:
    """The corpus that `save` wrote; None if the file is missing or damaged: it is then made anew."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file)
        notes = Notes(dict(zip(_unpack(arrays["notes"]), arrays["note_counts"].tolist(), strict=True)))
        parts = {}
        for number, split in enumerate(_unpack(arrays["splits"])):
            columns = [
                Ragged(arrays[f"{number}_{name}"], arrays[f"{number}_{name}_ends"])
                for name in ("text", "query", "rationale")
            ]
            parts[split] = Part(
                text=columns[0],
                labels=arrays[f"{number}_labels"],
                query=columns[1],
                rationale=columns[2],
                has_rationale=arrays[f"{number}_has_rationale"],
                groups=_unpack(arrays[f"{number}_groups"]),
            )
        return Corpus(_unpack(arrays["words"]), _unpack(arrays["labels"]), parts, notes)
    return None


def _pack(names: Iterable[str]) -> np.ndarray:
    """Strings without line ends as bytes, each with a line end."""
    return np.frombuffer("".join(f"{name}\n" for name in names).encode("utf-8", "surrogatepass"), np.uint8)


def _unpack(packed: np.ndarray) -> tuple[str, ...]:
    """The strings that `_pack` took."""
    return tuple(packed.tobytes().decode("utf-8", "surrogatepass").split("\n")[:-1])
