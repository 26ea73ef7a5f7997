"""The lines of finished runs: one compressed file for each setting, by its name."""

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from etils import epath

from flax_attnat.reporting.results import ResultsError
from flax_attnat.reproduction.settings import ORDER
from flax_attnat.training.workdir import write_atomically

# Of a file, when unpacked: a record is a few kilobytes.
MOST_BYTES = 50_000_000
NEEDED = (
    "dataset",
    "variant",
    "technique",
    "seed",
    "split",
    "epoch",
    "n",
    "classes",
    "config_hash",
    "seconds",
    "device",
    "population",
    "selection",
    "attention",
    "epochs",
    "train_n",
)
NULLABLE = ("reading", "epsilon", "frozen_step", "mark", "vectors", "vocabulary")
"""Fields that are there, but may be null."""
# What all runs of a data set have in common, and what all of one of its variants have besides.
SAME_DATA = ("train_n", "vocabulary", "mark", "classes")
SAME_VARIANT = ("vectors", "epochs", "attention", "selection")


class Done(NamedTuple):
    """A run that is finished.

    Attributes:
      dataset: its name.
      variant: of the grid.
      technique: its name.
      reading: of attention_iat; None for the others.
      epsilon: None for vanilla.
      seed: its number.
    """

    dataset: str
    variant: str
    technique: str
    reading: str | None
    epsilon: float | str | None
    seed: int


class Records(NamedTuple):
    """What is finished.

    Attributes:
      lines: of all files, by their names.
      runs: what they are of.
    """

    lines: list[dict[str, Any]]
    runs: frozenset[Done]


def part_name(part: Any) -> str:
    """A name for files: `sst-pretrained-attention_iat-span-1-seeds0.1.2`."""
    names = [part.dataset, part.variant, part.technique, *([part.reading] if part.reading else [])]
    if part.epsilon is not None:
        names.append(f"{part.epsilon:g}" if isinstance(part.epsilon, float) else str(part.epsilon))
    return "-".join([*names, "seeds" + ".".join(map(str, part.seeds))])


def write_record(folder: epath.PathLike, part: Any, lines: Iterable[Mapping[str, Any]]) -> epath.Path:
    """Writes the lines of a part, compressed; the same lines give the same bytes."""
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    path = epath.Path(folder) / f"{part_name(part)}.jsonl.gz"
    write_atomically(path, gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return path


def read_records(folder: epath.PathLike) -> Records:
    """The lines of every record of a folder, which may be empty or not there.

    Raises:
      ResultsError: a file is damaged, a line is not one of a run, a run is there twice, or runs of one data set and
        variant differ in their data, or in SAME_VARIANT; the message names the file.
    """
    lines: list[dict[str, Any]] = []
    places: dict[tuple, str] = {}
    common: dict[tuple, tuple[str, Any]] = {}
    for file in sorted(epath.Path(folder).glob("*.jsonl.gz"), key=lambda path: path.name):
        for number, line in enumerate(_content(file), 1):
            where = f"{file}, line {number}"
            if flaw := _flaw(line):
                raise ResultsError(f"{where} {flaw}: give the file as launch.reproduce wrote it.")
            key = (*_done(line), line["split"], line["epoch"])
            if key in places:
                raise ResultsError(f"{where} repeats {places[key]}: keep one of the two files.")
            places[key] = where
            data: dict[tuple, Any] = {("n", line["dataset"], line["split"]): line["n"]}
            data |= {(name, line["dataset"]): line.get(name) for name in SAME_DATA}
            data |= {(name, line["dataset"], line["variant"]): line.get(name) for name in SAME_VARIANT}
            for of, value in data.items():
                first, before = common.setdefault(of, (where, value))
                if value != before:
                    raise ResultsError(
                        f"{where} has {of[0]} {value!r}, where {first} has {before!r}: runs that are compared are of"
                        " the same data; remove the files of one kind."
                    )
            lines.append(line)
    return Records(lines, frozenset(_done(line) for line in lines))


def _flaw(line: Any) -> str:
    """Why a value is not a line of a run of the grid; empty if it is."""
    if not isinstance(line, dict):
        return "is not an object"
    lacking = [name for name in NEEDED if line.get(name) is None] + [name for name in NULLABLE if name not in line]
    if lacking:
        return f"has no {lacking[0]}"
    if (line["technique"], line["reading"]) not in ORDER:
        return f"is of the technique {line['technique']!r}, reading {line['reading']!r}, which is not of the grid"
    return ""


def _content(file: epath.Path) -> list[Any]:
    """The values of a file's lines."""
    try:
        with file.open("rb") as raw, gzip.open(raw) as opened:
            data = opened.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError("larger than a record is")
        return [json.loads(text) for text in data.decode().splitlines() if text.strip()]
    except (OSError, EOFError, ValueError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ResultsError(f"{file} cannot be read ({reason}): remove it, and its runs are trained again.") from error


def _done(line: Mapping[str, Any]) -> Done:
    """The run of a line."""
    return Done(*(line.get(name) for name in Done._fields))  # type: ignore[arg-type]
