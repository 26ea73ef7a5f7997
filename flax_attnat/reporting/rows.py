"""Rows of a report's tables: what names them, what they compete with, and the marks of significance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flax_attnat.reporting.export import Cell, Table
from flax_attnat.reporting.measures import Measure
from flax_attnat.reporting.results import Choice, ResultsError
from flax_attnat.reporting.tables import FIGURES

Line = Mapping[str, Any]

LEVEL = 0.05
RUN = ("learning_rate", "weight_decay")
MEASURED_BY = ("radii_linf", "radii_l2", "steps", "restarts", "shares", "top_k", "measures_version")
MARKS = {"p_holm": "*", "p_holm_seeds": "†"}
COMPARED = {"f1": "F1", "accuracy": "accuracy", "pearson": "Pearson"}


class Group(NamedTuple):
    """Runs that are compared with each other.

    Attributes:
      title: "" where there is one group only, else the name of its workdir.
      lines: of `results.jsonl`.
      choices: what `results.best` chose among them.
      comparisons: lines of `significance.jsonl`.
    """

    title: str
    lines: Sequence[Line]
    choices: Sequence[Choice]
    comparisons: Sequence[Line]


class Column(NamedTuple):
    """A column of figures.

    Attributes:
      measure: title and place of its figure.
      better: 1 if larger is better, -1 if smaller is, 0 if neither.
    """

    measure: Measure
    better: int


class Row(NamedTuple):
    """A row before its best figures are known.

    Attributes:
      rivals: what it competes with: rows of the same rivals, data set say.
      keys: texts of the first columns, by title.
      cells: for each column the text, the mean (None if undefined), and the mark.
    """

    rivals: tuple[str, ...]
    keys: dict[str, str]
    cells: list[tuple[str, float | None, str]]


def build_table(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    """Rows as cells, the best of each column among rivals in bold where there are several."""
    keys = list(dict.fromkeys(name for row in rows for name in row.keys))
    best: dict[tuple[tuple[str, ...], int], float] = {}
    rivals: dict[tuple[tuple[str, ...], int], int] = {}
    for row in rows:
        for place, (_, mean, _) in enumerate(row.cells):
            if mean is not None and columns[place].better:
                of = (row.rivals, place)
                rivals[of] = rivals.get(of, 0) + 1
                best[of] = max(best.get(of, -math.inf), mean * columns[place].better)
    found = []
    for row in rows:
        cells = [Cell(row.keys.get(name, "")) for name in keys]
        for place, (text, mean, mark) in enumerate(row.cells):
            of = (row.rivals, place)
            bold = mean is not None and rivals.get(of, 0) > 1 and mean * columns[place].better == best[of]
            cells.append(Cell(text, bold, mark))
        found.append(tuple(cells))
    return Table(title, (*keys, *(column.measure.title for column in columns)), tuple(found))


def row_keys(group: Group, choice: Choice, groups: Sequence[Group], seeds: int | None = None) -> dict[str, str]:
    """The first columns of a row: what was run, at which setting, over how many seeds."""
    datasets = {each.dataset for of in groups for each in of.choices}
    found = {"workdir": group.title} if group.title else {}
    if len(datasets) > 1 or choice.mark:
        found["data set"] = f"{choice.dataset} ({choice.mark})" if choice.mark else choice.dataset
    found["technique"] = technique_name(choice)
    setting = choice.setting
    found["epsilon"] = "n/a" if setting is None else "-" if setting.epsilon is None else f"{setting.epsilon:g}"
    every = [each.setting for of in groups for each in of.choices if each.setting]
    for name in RUN:
        if len({getattr(each, name) for each in every}) > 1:
            value = getattr(setting, name) if setting else None
            found[name.replace("_", " ")] = "-" if value is None else f"{value:g}"
    return found | {"seeds": str(len(choice.seeds) if seeds is None else seeds)}


def technique_name(choice: Choice) -> str:
    """Technique, reading, and lambda where it is not 1."""
    name = f"{choice.technique} ({choice.reading})" if choice.reading else choice.technique
    weight = choice.setting.adversarial_weight if choice.setting else None
    return name if weight in (None, 1) else f"{name} lambda {weight:g}"


def figures(groups: Sequence[Group]) -> dict[str, tuple[str, int, int]]:
    """The figures that any choice has, in the order of the tables."""
    known = {name for of in groups for c in of.choices for name, figure in c.test.items() if figure.mean is not None}
    parts = {name: (name.removeprefix("accuracy_"), 100, 1) for name in sorted(known) if name.startswith("accuracy_")}
    return {name: form for name, form in FIGURES.items() if name in known or name == "accuracy"} | parts


def headline(choices: Iterable[Choice]) -> str:
    """F1 where any choice has it, else accuracy."""
    return "f1" if any(c.test["f1"].mean is not None for c in choices if "f1" in c.test) else "accuracy"


def mark_of(group: Group, choice: Choice, figure: str) -> str:
    """The marks of a choice's difference from the technique that others were compared with.

    The comparison must be of the same runs: the same setting, and as many seeds as both techniques have.
    """
    if choice.setting is None or figure not in COMPARED:
        return ""
    reference = [of for of in group.choices if (of.dataset, of.technique) == (choice.dataset, against(group))]
    wanted: dict[str, Any] = {"dataset": choice.dataset, "technique": choice.technique, "reading": choice.reading}
    wanted |= {"epsilon": choice.setting.epsilon, "lambda": choice.setting.adversarial_weight, "figure": figure}
    wanted |= {name: getattr(choice.setting, name) for name in RUN} | {"split": "test", "against": against(group)}
    for line in group.comparisons:
        common = [len({*choice.seeds} & {*of.seeds}) for of in reference]
        # Lines of older versions do not name the optimiser's values.
        if all(line.get(name, value) == value for name, value in wanted.items()) and line["seeds"] in common:
            return "".join(mark for name, mark in MARKS.items() if (p := line.get(name)) is not None and p <= LEVEL)
    return ""


def against(group: Group) -> str | None:
    """The technique whose comparisons are marked: vanilla if it is among them."""
    names = list(dict.fromkeys(line["against"] for line in group.comparisons if line["split"] == "test"))
    return "vanilla" if "vanilla" in names else names[0] if names else None


def marks_explained(groups: Sequence[Group]) -> str:
    """What the marks mean, or that nothing was tested."""
    names = list(dict.fromkeys(name for group in groups if (name := against(group))))
    if not names:
        return " Bold: the best mean. Differences were not tested."
    return (
        f" Bold: the best mean. Differs from {', '.join(names)} at p <= .05 (Holm): * over texts (paired bootstrap),"
        " † over seeds (paired t-test)."
    )


def data_named(groups: Sequence[Group]) -> str:
    """The data set and its number of texts where there is one only."""
    found = {
        (line["dataset"], line.get("n"), line.get("mark") or "")
        for group in groups
        for line in group.lines
        if line["split"] == "test"
    }
    if len(found) != 1:
        return ""
    ((dataset, n, mark),) = found
    return f" of {dataset} ({f'{mark}, ' if mark else ''}{n:,} texts)" if n else f" of {dataset}"


def of_family(group: Group, family: str) -> Group:
    """A group with the lines of one suite on test only."""
    lines = [line for line in group.lines if line.get("family") == family and line["split"] == "test"]
    return group._replace(lines=lines)


def check_alike(lines: Sequence[Line]) -> None:
    """Makes sure that lines of a suite on one data set were measured alike.

    Raises:
      ResultsError: they differ in radii, steps, restarts, shares or k.
    """
    for line in lines:
        for name in MEASURED_BY:
            if line.get(name) != lines[0].get(name):
                raise ResultsError(
                    f"{line['dataset']}: {line['family']} was not measured alike: {name} is {lines[0].get(name)} for"
                    f" {lines[0]['technique']}, seed {lines[0]['seed']}, and {line.get(name)} for {line['technique']},"
                    f" seed {line['seed']}. Run launch.evaluate on all with the same flags, or give --group."
                )


def technique_lines(group: Group, choice: Choice) -> list[Line]:
    """The lines of a group that are of a choice's runs and were not frozen."""
    if choice.setting is None:
        return []
    wanted: dict[str, Any] = {"dataset": choice.dataset, "technique": choice.technique, "reading": choice.reading}
    wanted |= {"epsilon": choice.setting.epsilon, "lambda": choice.setting.adversarial_weight}
    wanted |= {name: getattr(choice.setting, name) for name in RUN}
    found = [line for line in group.lines if all(line.get(name) == value for name, value in wanted.items())]
    return [line for line in found if line["seed"] in choice.seeds and line.get("frozen_step") is None]
