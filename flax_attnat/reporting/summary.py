"""The tables of a report: one row per technique at the setting that is best on dev, the best of each column in bold."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax_attnat.reporting.export import Cell, Table
from flax_attnat.reporting.measures import NORMS, SOURCES, Measure, comparison_table, figure_of
from flax_attnat.reporting.results import table
from flax_attnat.reporting.rows import (
    Column,
    Group,
    Row,
    build_table,
    check_alike,
    data_named,
    figures,
    headline,
    mark_of,
    marks_explained,
    of_family,
    row_keys,
    technique_lines,
    technique_name,
)
from flax_attnat.reporting.tables import FIGURES, mean_sd, predictions, summarise

Line = Mapping[str, Any]


def prediction_table(groups: Sequence[Group]) -> Table:
    """How well each technique predicts on test, at its setting that is best on dev.

    Args:
      groups: at least one with a choice.

    Returns:
      A table whose title explains the marks: of what a comparison with another technique found, if any was made.
    """
    names = figures(groups)
    rows = []
    for group in groups:
        for choice, texts in zip(group.choices, table(group.choices), strict=True):
            keys = row_keys(group, choice, groups) | {"chosen by": texts["chosen by"]}
            found = []
            for name, (title, _, _) in names.items():
                mean = choice.test[name].mean if name in choice.test else None
                found.append((texts.get(title, "n/a"), mean, mark_of(group, choice, name)))
            rows.append(Row((group.title, choice.dataset), keys, found))
    columns = [Column(Measure(title, ()), 1) for title, _, _ in names.values()]
    title = f"Prediction on test{data_named(groups)}: mean ± sd over seeds, each at its setting that is best on dev."
    return build_table(title + marks_explained(groups), rows, columns)


def overview_table(groups: Sequence[Group]) -> Table | None:
    """One row per technique and one column per data set: F1, or accuracy where there are more classes.

    Returns:
      None where there is one data set only.
    """
    datasets = list(dict.fromkeys((group.title, choice.dataset) for group in groups for choice in group.choices))
    if len(datasets) < 2:
        return None
    names = list(dict.fromkeys(technique_name(choice) for group in groups for choice in group.choices))
    found: dict[str, list[tuple[str, float | None, str]]] = {name: [("", None, "")] * len(datasets) for name in names}
    titles = []
    for place, (title, dataset) in enumerate(datasets):
        group = next(group for group in groups if group.title == title)
        choices = [choice for choice in group.choices if choice.dataset == dataset]
        name = headline(choices)
        titles.append(" ".join(filter(None, (title, dataset, FIGURES[name][0]))))
        for choice in choices:
            figure = choice.test.get(name)
            text = mean_sd(figure.values if figure else (), *FIGURES[name][1:])
            found[technique_name(choice)][place] = (text, figure.mean if figure else None, mark_of(group, choice, name))
    rows = [Row((), {"technique": name}, cells) for name, cells in found.items()]
    title = "Techniques by data set: mean ± sd over seeds on test, each at its setting that is best on dev."
    return build_table(title + marks_explained(groups), rows, [Column(Measure(each, ()), 1) for each in titles])


def agreement_table(groups: Sequence[Group]) -> Table | None:
    """How far attention agrees with gradients and leave-one-out, and what other attention would do; None if unknown."""
    columns = [
        Column(Measure("Pearson", ("pearson_gradient", "mean")), 1),
        Column(Measure("Spearman", ("spearman_gradient", "mean")), 1),
        Column(Measure("Kendall tau", ("kendall_gradient", "mean")), 1),
        Column(Measure("share p <= .05", ("kendall_gradient", "significant")), 1),
        Column(Measure("top-k overlap", ("top_k_overlap_gradient", "mean")), 1),
        Column(Measure("tau, LOO", ("kendall_leave_one_out", "mean")), 1),
        Column(Measure("largest", ("largest_attention", "mean")), 0),
        Column(Measure("permuted", ("permutation", "median")), 0),
        Column(Measure("adv. JSD", ("adversarial_divergence", "mean")), 0),
        Column(Measure("seed JSD", ("seed_divergence", "mean")), 0),
    ]
    title = (
        "Attention on test, mean ± sd over seeds of the mean over texts: agreement with gradient importance (Pearson,"
        " Spearman, Kendall tau and the share of texts with p <= .05, top-k overlap) and with leave-one-out (tau, LOO);"
        " the largest weight; the change of the output under permuted attention (median over texts); how far attention"
        " can move with the same output (adv. JSD), and moves between seeds (seed JSD)."
    )
    return _suite_table(title, groups, "interpretability", lambda line: [("", columns)])


def faithfulness_table(groups: Sequence[Group]) -> Table | None:
    """What happens when the most important words are erased, and agreement with what people marked; None if unknown."""
    kinds = (
        ("comprehensiveness", "compr.", 1),
        ("sufficiency", "suff.", -1),
        ("auprc", "AUPRC", 1),
        ("token_f1", "token F1", 1),
        ("iou_f1", "IOU-F1", 1),
    )
    short = {"leave_one_out": "LOO"}

    def columns(line: Line) -> list[tuple[str, list[Column]]]:
        """The same for every line."""
        return [
            (
                "",
                [
                    Column(
                        Measure(f"{title}, {short.get(source, words)}", (f"{name}_{source}", "mean")),
                        better if source == "attention" else 0,
                    )
                    for name, title, better in kinds
                    for source, words in SOURCES.items()
                ],
            )
        ]

    title = (
        "Faithfulness on test: comprehensiveness (higher is better) and sufficiency (lower is better) as AOPC; AUPRC,"
        " token F1 and IOU-F1 against the words that people marked."
    )
    return _suite_table(title, groups, "faithfulness", columns)


def robustness_table(groups: Sequence[Group], norm: str) -> Table | None:
    """Accuracy under attacks on the scores and what is certified, by radius; None if unknown."""

    def columns(line: Line) -> list[tuple[str, list[Column]]]:
        """A row of what is attacked, and one of what is certified."""
        clean = Column(Measure("radius 0", ("clean_accuracy",), 100, 1), 1)
        radii = line[f"radii_{norm}"]
        return [
            (
                kind,
                [clean] + [Column(Measure(_radius(r), (f"{kind}_{norm}", n), 100, 1), 1) for n, r in enumerate(radii)],
            )
            for kind in ("attacked", "certified")
            if line.get(f"{kind}_{norm}") is not None
        ]

    title = (
        f"Accuracy (%) on test by {NORMS[norm]} radius of the perturbation of the scores: under attack, and certified"
        " where the model is of single texts."
    )
    return _suite_table(title, groups, "robustness", columns, kind="accuracy")


def deletion_table(groups: Sequence[Group]) -> Table | None:
    """Accuracy with words deleted, and how robust predictions are to any attention; None if unknown."""

    def columns(line: Line) -> list[tuple[str, list[Column]]]:
        """As many as words were deleted."""
        found = [Column(Measure("certified radius, median", ("certified_radius_median",)), 0)]
        found.append(Column(Measure("no attention changes", ("certified_at_infinity",), 100, 1), 0))
        for words in range(len(line["deletion_accuracy"])):
            found.append(Column(Measure(f"{words} deleted", ("deletion_accuracy", words), 100, 1), 1))
        return [("", found)]

    title = (
        "Predictions that withstand: the median certified Linf radius, the share (%) that no attention changes, and"
        " accuracy (%) with 0, 1, 2 ... words deleted greedily."
    )
    return _suite_table(title, groups, "robustness", columns)


def difference_table(groups: Sequence[Group]) -> Table | None:
    """Every comparison with another technique; None without any."""
    lines = [line for group in groups for line in group.comparisons if line["split"] == "test"]
    if not lines:
        return None
    against = ", ".join(dict.fromkeys(str(line["against"]) for line in lines))
    title = (
        f"Difference from {against} on test: paired bootstrap over texts and paired t-test over seeds, p values raw and"
        " corrected over data sets (Holm)."
    )
    rows: list[dict[str, str]] = []
    for group in groups:
        own = [line for line in group.comparisons if line["split"] == "test"]
        for line, row in zip(own, comparison_table(own), strict=True):
            first = {"workdir": group.title} if group.title else {}
            rows.append(first | ({"against": str(line["against"])} if "," in against else {}) | row)
    return Table(title, tuple(rows[0]), tuple(tuple(map(Cell, row.values())) for row in rows))


def settings_table(groups: Sequence[Group]) -> Table | None:
    """Every setting on test, over the runs that were not frozen; None where each technique has one only."""
    rows: list[dict[str, str]] = []
    frozen = 0
    for group in groups:
        for dataset in dict.fromkeys(line["dataset"] for line in group.lines):
            every = [of for of in predictions(group.lines) if of["dataset"] == dataset and of["split"] == "test"]
            lines = [line for line in every if line.get("frozen_step") is None]
            frozen += len(every) - len(lines)
            first = {"workdir": group.title} if group.title else {}
            rows += [first | {"data set": dataset} | _without(row, "split") for row in summarise(lines)]
    if len(rows) <= sum(choice.setting is not None for group in groups for choice in group.choices):
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = tuple(tuple(Cell(row.get(name, "n/a")) for name in names) for row in rows)
    left_out = f" Left out: {frozen} frozen run{'s' if frozen > 1 else ''}." if frozen else ""
    return Table(f"Every setting on test: mean ± sd over seeds.{left_out}", tuple(names), cells)


def _suite_table(
    title: str,
    groups: Sequence[Group],
    family: str,
    columns: Callable[[Line], list[tuple[str, list[Column]]]],
    kind: str = "",
) -> Table | None:
    """A table of a suite: rows of each choice by kind; columns without any figure are left out."""
    rows: list[tuple[Row, list[Column]]] = []
    alike: dict[tuple[str, str], Line] = {}
    for group in (of_family(group, family) for group in groups):
        for choice in group.choices:
            if not (lines := technique_lines(group, choice)):
                continue
            alike.setdefault((group.title, choice.dataset), lines[0])
            check_alike([alike[group.title, choice.dataset], *lines])
            for name, wanted in columns(lines[0]):
                keys = row_keys(group, choice, groups, seeds=len(lines)) | ({kind: name} if kind else {})
                cells = [_cell(lines, column.measure) for column in wanted]
                rows.append((Row((group.title, choice.dataset, name), keys, cells), wanted))
    every = list(dict.fromkeys(column for _, wanted in rows for column in wanted))
    titles = list(dict.fromkeys(column.measure.title for column in every))
    shown = []
    for row, wanted in rows:
        by_title = {column.measure.title: cell for column, cell in zip(wanted, row.cells, strict=True)}
        shown.append(row._replace(cells=[by_title.get(name, ("n/a", None, "")) for name in titles]))
    kept = [place for place in range(len(titles)) if any(row.cells[place][0] != "n/a" for row in shown)]
    if not kept:
        return None
    shown = [row._replace(cells=[row.cells[place] for place in kept]) for row in shown]
    first = {column.measure.title: column for column in reversed(every)}
    return build_table(f"{title} Bold: the best of a column.", shown, [first[titles[place]] for place in kept])


def _cell(lines: Sequence[Line], measure: Measure) -> tuple[str, float | None, str]:
    """The figure of a measure over runs: as text, and the mean of those that are defined."""
    values = [figure_of(line, measure.path) for line in lines]
    defined = [value for value in values if value is not None and not math.isnan(value)]
    mean = math.fsum(defined) / len(defined) if defined else None
    return mean_sd(values, measure.scale, measure.digits), mean, ""


def _radius(radius: float | str) -> str:
    """A radius as a title."""
    return radius if isinstance(radius, str) else f"{radius:g}"


def _without(row: Mapping[str, str], name: str) -> dict[str, str]:
    """A row without one of its columns."""
    return {key: value for key, value in row.items() if key != name}
