"""Natural language inference: pairs of sentences in the JSON lines of SNLI and MultiNLI."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax_attnat.data.archive import read_member
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Notes

LABEL_NAMES = ("contradiction", "entailment", "neutral")
NO_MAJORITY = "-"
REPEATED_NOTE = "pairs repeat the pairID of an earlier one"
DROPPED_NOTE = 'pairs were left out, because their annotators have no majority (gold_label "-")'
_LIMIT = 2 << 30  # bytes of one member; with its parses SNLI's training file has about half a billion


def read_pairs(source: Path, member: str, notes: Notes, group: str = "") -> Iterator[Example]:
    """The labelled pairs of one member, in the order of the file.

    Args:
      source: the official archive or its extracted folder.
      member: name inside the archive.
      notes: counts the pairs without a gold label, which are left out, and those that repeat an earlier `pairID`.
      group: what the examples belong to.

    Raises:
      DataError: the source cannot be read, a line is no pair, or there is no labelled pair.
    """
    place = f"{source}, {member}"
    seen: set[str] = set()
    labelled = False
    for number, line in enumerate(io.BytesIO(read_member(source, member, _LIMIT)), 1):
        if not line.strip():
            continue
        try:
            found = parse_pair(line)
        except ValueError as error:
            raise DataError(f"{place}, line {number}: {error}; the line begins {line[:60]!r}.") from error
        if (pair_id := found.get("pairID")) is not None:
            if pair_id in seen:
                notes[REPEATED_NOTE] += 1
            seen.add(pair_id)
        if found["gold_label"] == NO_MAJORITY:
            notes[DROPPED_NOTE] += 1
            continue
        labelled = True
        yield Example(found["sentence1"], found["gold_label"], found["sentence2"], group=group)
    if not labelled:
        raise DataError(f"{place} holds no pair with a label.")


def parse_pair(line: bytes) -> dict[str, str]:
    """The fields `gold_label`, `sentence1`, `sentence2` and, where it is there, `pairID` of one line.

    Raises:
      ValueError: the line is no JSON object, or a field is missing, no text, twice there, or no label.

    >>> parse_pair(b'{"gold_label": "neutral", "sentence1": "A man.", "sentence2": "A tall man.", "genre": "fiction"}')
    {'gold_label': 'neutral', 'sentence1': 'A man.', 'sentence2': 'A tall man.'}
    """
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is no JSON object of texts") from error
    if not isinstance(found, dict):
        raise ValueError("it is JSON, but no object")
    fields = {}
    for name in ("gold_label", "sentence1", "sentence2", "pairID"):
        if name in found:
            fields[name] = _text(name, found[name])
        elif name != "pairID":
            raise ValueError(f"the field {name} is missing")
    if fields["gold_label"] not in (*LABEL_NAMES, NO_MAJORITY):
        raise ValueError(f"the field gold_label is {fields['gold_label']!r}; it must be {', '.join(LABEL_NAMES)} or -")
    return fields


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless two of its members have the same name."""
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice} is there twice")
    return found


def _text(name: str, value: Any) -> str:
    """The value of a field, which must be a text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ValueError(f"the field {name} is no text but {json.dumps(value)[:60]}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the field {name} holds half a character ({error.reason})") from error
    return value
