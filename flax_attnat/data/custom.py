"""A user's own CSV, TSV or JSONL file as labelled examples, and what is wrong with its rows."""

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax_attnat.data.archive import user_path
from flax_attnat.data.errors import DataError
from flax_attnat.data.forms import RATIONALE, Form, recognise
from flax_attnat.data.records import Record, first, is_table, json_kind, long_fields, open_records, quote, string
from flax_attnat.data.source import Example, Notes
from flax_attnat.data.text import clean, natural

EMPTY = "empty texts"
"""The note on them."""

_SEPARATOR = "|"  # between the pieces of a rationale in a table


class Problem(NamedTuple):
    """One reason why a row cannot be used.

    Attributes:
      row: the row, counted from 1 without the header and blank lines.
      line: physical line of the file where the row starts, from 1.
      field: the field; "" where the row as a whole is meant.
      text: what is wrong.
    """

    row: int
    line: int
    field: str
    text: str

    def sentence(self) -> str:
        """The problem and its place.

        >>> Problem(2, 3, "label", "is empty").sentence()
        'row 2 (line 3): label is empty'
        """
        return " ".join(filter(None, (f"row {self.row} (line {self.line}):", self.field, self.text)))


class Report(NamedTuple):
    """What a file holds.

    Attributes:
      rows: data rows, with the bad ones.
      form: "text", "premise" or "passage".
      labels: label -> number of good rows that have it, in natural order.
      problems: everything wrong, in the order of the rows.
      notes: what to know of the good rows.
    """

    rows: int
    form: str
    labels: dict[str, int]
    problems: list[Problem]
    notes: Notes


def read(path: str | os.PathLike[str], notes: Notes) -> list[Example]:
    """All examples of a file, in its order.

    Args:
      path: a file of suffix csv, tsv, jsonl or ndjson, UTF-8, with the fields `text,label` or
        `premise,hypothesis,label` or `passage,question,answer`, and perhaps `rationale`.
      notes: gets ignored fields, empty texts and repeated texts.

    Raises:
      DataError: the file cannot be read, or a row of it is bad.
    """
    examples: list[Example] = []
    bad: list[Problem] = []
    with long_fields():
        for item in _scan(user_path(path), notes)[1]:
            if isinstance(item, Example):
                examples.append(item)
            else:
                bad.append(item[0])
    if bad:
        raise DataError(
            f"{path}: {len(bad):,} of {len(examples) + len(bad):,} rows cannot be used:"
            f" {'; '.join(problem.sentence() for problem in bad[:3])}{'; and others' * (len(bad) > 3)}."
            f" Correct the file; `python -m launch.prepare --check {shlex.quote(os.fspath(path))}` shows all."
        )
    return examples


def check(path: str | os.PathLike[str]) -> Report:
    """Reads a file as `read` does and reports on all of it, however many rows are bad.

    Args:
      path: as in `read`.

    Raises:
      DataError: the file as a whole cannot be read.
    """
    notes, problems, labels, rows = Notes(), list[Problem](), Counter[str](), 0
    with long_fields():
        form, items = _scan(user_path(path), notes)
        for item in items:
            rows += 1
            if isinstance(item, Example):
                labels[item.label] += 1
            else:
                problems += item
    return Report(rows, form.text, {name: labels[name] for name in natural(labels)}, problems, notes)


def label_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """The classes of some examples, in natural order.

    >>> label_names([Example("a", "10"), Example("b", "2"), Example("c", "10")])
    ('2', '10')
    """
    return natural({example.label for example in examples})


def check_forms(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Makes sure that the files of one data set have the same form: without it, pairs would be read as single texts.

    Args:
      paths: the training file, then the others.

    Raises:
      DataError: a file has another form than the first, or cannot be read.
    """
    with long_fields():
        forms = [recognise(path, open_records(path)[0]) for path in map(user_path, paths)]
    for path, form in zip(paths, forms, strict=True):
        if form != forms[0]:
            raise DataError(
                f"{path} has the fields {','.join(form.fields())}, but the training file {paths[0]} has"
                f" {','.join(forms[0].fields())}; give files of one form."
            )


def check_labels(path: str | os.PathLike[str], examples: Sequence[Example], names: Collection[str]) -> None:
    """Makes sure that a dev or test file has no label that the training file does not have.

    Args:
      path: the file, for the message.
      examples: all its rows, as `read` gives them.
      names: the classes of the training file.

    Raises:
      DataError: there is such a label; the message has the rows.
    """
    known = frozenset(names)
    rows: dict[str, list[int]] = {}
    for row, example in enumerate(examples, 1):
        if example.label not in known:
            rows.setdefault(example.label, []).append(row)
    if rows:
        found = [f"{quote(label)} (row{'s' * (len(at) > 1)} {first(at, 10)})" for label, at in rows.items()]
        raise DataError(
            f"{path}: the training file has no label {first(found, 5)}; its labels are"
            f" {first(map(quote, names), 10)}. Correct the file, or add texts of these labels to the training file."
        )


def _scan(path: Path, notes: Notes) -> tuple[Form, Iterator[Example | list[Problem]]]:
    """The form of a file, and for each row its example or its problems."""
    names, records = open_records(path)
    form = recognise(path, names)
    return form, _judge(path, _split_rationales(records) if is_table(path) else records, form, notes)


def _split_rationales(records: Iterable[Record]) -> Iterator[Record]:
    """The records of a table with the rationale as a list."""
    for record in records:
        if RATIONALE in record.fields:
            record.fields[RATIONALE] = record.fields[RATIONALE].split(_SEPARATOR)
        yield record


def _judge(path: Path, records: Iterable[Record], form: Form, notes: Notes) -> Iterator[Example | list[Problem]]:
    """For each record its example or its problems; what to know of the good ones goes to `notes`."""
    row, ignored, read_names = 0, set[str](), {*form.fields(), RATIONALE}
    seen: dict[bytes, tuple[str, ...]] = {}
    for row, record in enumerate(records, 1):
        found = [("", flaw) for flaw in record.flaws]
        example = None if found else _example(record.fields, form, found)
        if example is None:
            yield [Problem(row, record.line, field, text) for field, text in found]
            continue
        ignored |= record.fields.keys() - read_names
        _remark(example, seen, notes)
        if path.suffix.lower() == ".tsv" and "\t" in example.text and "\n" in example.text:
            notes["texts hold a tab and a line end: where a quote was meant as a character, double it"] += 1
        yield example
    if not row:
        raise DataError(f"{path} is empty below its header; it needs at least one row.")
    notes.update(f"field {quote(name)} was ignored" for name in sorted(ignored))


def _example(fields: Mapping[str, Any], form: Form, found: list[tuple[str, str]]) -> Example | None:
    """The example in a record; None if a field cannot be used, and then `found` gets the field and why."""
    values, rationale = {"": ""}, None
    for name in form.fields():
        try:
            values[name] = (_label if name == form.label else string)(fields.get(name, ...))
        except ValueError as error:
            found.append((name, str(error)))
    if form.text in values:
        try:
            rationale = _places(fields.get(RATIONALE), values[form.text])
        except ValueError as error:
            found.append((RATIONALE, str(error)))
    return None if found else Example(values[form.text], values[form.label], values[form.query], rationale)


def _label(value: object) -> str:
    """A label as text; raises ValueError with what is wrong."""
    if isinstance(value, int):
        return str(value).lower()  # true and false are of this type too
    label = string(value).strip()
    if not label:
        raise ValueError("is empty")
    if "\n" in label or "\r" in label:
        raise ValueError(f"holds a line end: {quote(label)}")
    return label


def _places(value: object, text: str) -> tuple[int, ...] | None:
    """Places of the words of `text` that are marked, sorted; raises ValueError with what is wrong."""
    if isinstance(value, str):
        value = [value]
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"is {json_kind(value)} where a string or a list of strings is expected")
    runs = [(piece, run) for piece in value if (run := clean(string(piece)))]
    words = clean(text) if runs else ()
    places: set[int] = set()
    for piece, run in runs:
        starts = [at for at, word in enumerate(words) if word == run[0] and words[at : at + len(run)] == run]
        if not starts:
            raise ValueError(f"{quote(piece)} is not found in the text; copy it from there, in whole words")
        places.update(at + step for at in starts for step in range(len(run)))
    return tuple(sorted(places)) or None


def _remark(example: Example, seen: dict[bytes, tuple[str, ...]], notes: Notes) -> None:
    """Notes an empty text, and a text that came before; `seen` has the labels of each text so far."""
    if not example.text.strip():
        notes[EMPTY] += 1
    both = f"{example.text}\0{example.query}".encode()
    key = hashlib.blake2b(both, digest_size=16).digest()
    labels = seen.get(key, ())
    if example.label in labels:
        notes["rows repeat an earlier one"] += 1
        return
    seen[key] = (*labels, example.label)
    if len(labels) == 1:
        notes["texts occur more than once with different labels"] += 1
