"""Reads `results.jsonl` for a report: what is broken is said with its place, and no run counts twice."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from flax_attnat.reporting.measures import KINDS, NORMS
from flax_attnat.reporting.results import NEEDED, ResultsError
from flax_attnat.reporting.tables import FIGURES, PART

TEXTS = ("dataset", "technique", "reading", "split", "family")
COMPARED = ("dataset", "technique", "split", "against", "figure", "n", "seeds")
TESTED = ("difference", "low", "high", "p_value", "p_holm", "effect", "p_value_seeds", "p_holm_seeds")
NUMBERS = ("epsilon", "lambda", "learning_rate", "weight_decay", "seed")
ADVICE = "finish a training there with launch.train or launch.ablate, or give the workdir of one that is finished."

Line = dict[str, Any]


class Read(NamedTuple):
    """What a `results.jsonl` holds.

    Attributes:
      lines: of the file, in its order.
      notes: sentences about what was left out.
    """

    lines: list[Line]
    notes: tuple[str, ...]


def read_results(path: epath.PathLike) -> Read:
    """The lines of a `results.jsonl`, each run, split and family once; empty lines are skipped.

    Args:
      path: of the file.

    Returns:
      The lines; and a note if the last one was cut mid-way and is left out.

    Raises:
      ResultsError: the file cannot be read or holds no whole line; or a line is not a result, or repeats another. The
        message names the file, the line and what to do.
    """
    path = epath.Path(path)
    notes: list[str] = []
    places: dict[tuple, int] = {}
    lines = []
    for number, value in _values(path, notes):
        where = f"{path}, line {number}"
        line = _checked(value, where, (*NEEDED, "n"))
        _check_figures(line, where)
        first = places.setdefault(_key(line), number)
        if first != number:
            raise ResultsError(f"{where} repeats line {first}: {_words(line)}. Give lines of one training only.")
        lines.append(line)
    if not lines:
        raise ResultsError(f"{path} holds {'no whole line' if notes else 'no results'}: {ADVICE}")
    return Read(lines, tuple(notes))


def read_comparisons(path: epath.PathLike) -> Read:
    """The lines of a `significance.jsonl`; none if there is no such file.

    Raises:
      ResultsError: the file cannot be read, or a line is no comparison.
    """
    path = epath.Path(path)
    if not path.exists():
        return Read([], ())
    notes: list[str] = []
    lines = []
    for number, value in _values(path, notes):
        line = _checked(value, f"{path}, line {number}", COMPARED)
        for name in TESTED:
            if name not in line or not _is_number(line[name]):
                raise ResultsError(
                    f"{path}, line {number}: {name} is no number: remove the file, and run launch.evaluate again."
                )
        lines.append(line)
    return Read(lines, tuple(notes))


def check_one_configuration(workdirs_lines: Mapping[str, Iterable[Line]], group: bool) -> None:
    """Makes sure that no run of a split and family is in two workdirs: they would be of two configurations.

    Args:
      workdirs_lines: lines by workdir.
      group: whether such workdirs are to be reported together nevertheless.

    Raises:
      ResultsError: several workdirs have the same run; the message names them all, and one such run.
    """
    if group:
        return
    holders: dict[tuple, dict[str, Line]] = {}
    for workdir, lines in workdirs_lines.items():
        for line in lines:
            holders.setdefault(_key(line), {})[workdir] = line
    shared = [of for of in holders.values() if len(of) > 1]
    if shared:
        workdirs = list(dict.fromkeys(workdir for of in shared for workdir in of))
        raise ResultsError(
            f"{', '.join(workdirs[:-1])} and {workdirs[-1]} are of different configurations: more than one has"
            f" {_words(next(iter(shared[0].values())))}. Give one of them, or --group to report them together."
        )


def _content(path: epath.Path) -> bytes:
    """The bytes of a file that must be there."""
    if not path.exists():
        raise ResultsError(f"{path} does not exist: {ADVICE}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror}): {ADVICE}") from error


def _values(path: epath.Path, notes: list[str]) -> Iterator[tuple[int, Any]]:
    """Number and value of each line that is not empty; a last one that was cut mid-way goes to the notes."""
    texts = _content(path).split(b"\n")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            # Every line is written with its end: one without it is where a copy stopped.
            if number == len(texts):
                notes.append(f"{where} is cut short and left out.")
                continue
            raise ResultsError(f"{where} is not JSON: give the file as it was written.") from error
        yield number, value


def _checked(value: Any, where: str, needed: Iterable[str]) -> Line:
    """A line whose run, split and family are named, by values of the right kind."""
    if not isinstance(value, dict):
        raise ResultsError(f"{where} is not an object: give the file as it was written.")
    if lacking := [name for name in needed if value.get(name) is None]:
        raise ResultsError(f"{where} has no {lacking[0]}: give the file as it was written.")
    for names, kind, title in ((TEXTS, str, "a text"), (NUMBERS, (int, float), "a number")):
        for name in names:
            if value.get(name) is not None and not isinstance(value[name], kind):
                raise ResultsError(f"{where}: {name} is not {title}: give the file as it was written.")
    return value


def _check_figures(line: Line, where: str) -> None:
    """Makes sure that what is averaged and drawn are numbers, or nothing, as many as there are radii."""

    def check(name: str, fine: bool, kind: str) -> None:
        """One field."""
        if not fine:
            raise ResultsError(f"{where}: {name} is not {kind}: give the file as it was written.")

    check("n", isinstance(line["n"], int), "a whole number")
    family = line.get("family") or "prediction"
    if family == "prediction":
        for name in (*FIGURES, *(name for name in line if name.startswith(PART))):
            check(name, _is_number(line.get(name)), "a number")
    if family == "robustness":
        check("clean_accuracy", _is_number(line.get("clean_accuracy")), "a number")
        check("deletion_accuracy", _are_numbers(line.get("deletion_accuracy")), "a list of numbers")
        for norm in NORMS:
            radii = line.get(f"radii_{norm}")
            check(f"radii_{norm}", _are_numbers(radii), "a list of numbers")
            for kind in KINDS:
                name, values = f"{kind}_{norm}", line.get(f"{kind}_{norm}")
                fine = values is None or (_are_numbers(values) and len(values) == len(radii or ()))
                check(name, fine, "a list of as many numbers as there are radii")


def _is_number(value: Any) -> bool:
    """Whether it is a number, "inf", or nothing."""
    return value is None or value == "inf" or (isinstance(value, int | float) and not isinstance(value, bool))


def _are_numbers(values: Any) -> bool:
    """Whether it is a list of numbers."""
    return isinstance(values, list) and all(_is_number(value) for value in values)


def _key(line: Line) -> tuple:
    """What names a line: its run, split and family; lines without a family say how well runs predict."""
    named = line | {"family": line.get("family") or "prediction"}
    return tuple(named.get(name) for name in (*TEXTS, *NUMBERS))


def _words(line: Line) -> str:
    """A line's run, split and family in words."""
    named = line | {"family": line.get("family") or "prediction"}
    texts = [named[name] for name in TEXTS if named.get(name) is not None]
    numbers = [f"{name.replace('_', ' ')} {_number(line[name])}" for name in NUMBERS if line.get(name) is not None]
    return " ".join([*texts, *numbers])


def _number(value: float) -> str:
    """A number in words; whole ones, such as seeds, to the last digit."""
    return str(value) if isinstance(value, int) else f"{value:g}"
