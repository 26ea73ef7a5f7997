"""The section of the document on how far figures depend on choices that are not the paper's."""

from collections.abc import Iterator, Mapping, Sequence

from flax_attnat.reproduction.cells import (
    TITLES,
    epsilon_cell,
    figure_cells,
    named,
    number,
    percent,
    table,
    technique_name,
)
from flax_attnat.reproduction.settings import (
    ORDER,
    RANDOM,
    Index,
    Line,
    Name,
    Setting,
    chosen,
    datasets_of,
    figure_of,
    index,
    main_figure,
    main_variant,
    mean,
)

KINDS = {
    "gradient": "attention constant, one-hot (as above)",
    "gradient_attached": "through attention, one-hot",
    "gradient_norm": "attention constant, L2 norm",
}
"""Kinds of gradient importance, as the lines name them, and their titles."""


def choices_section(lines: Sequence[Line]) -> Iterator[str]:
    """How far figures depend on choices that are not the paper's."""
    yield "## How far this depends on our choices"
    yield ""
    test = index(lines)
    for dataset in datasets_of(lines):
        best = chosen(lines, dataset, main_variant(dataset))
        measured = {name: best[name] for name in ORDER if name in best and best[name] in test}
        if measured:
            yield from _kinds(lines, test, dataset, measured)
            yield from _variants(lines, test, dataset)


def _kinds(lines: Sequence[Line], test: Index, dataset: str, best: Mapping[Name, Setting]) -> Iterator[str]:
    """Pearson of a data set by kind of gradient importance, and its main figure by epoch."""
    yield (
        f"**{named(lines, dataset)}**: Pearson by kind of gradient importance, and"
        f" {TITLES[main_figure(lines, dataset)]} of the last epoch in place of the best one on dev."
    )
    yield ""
    last = index(lines, epoch="last")
    rows = []
    for name, setting in best.items():
        runs, end = test[setting], last.get(setting, {})
        figure = figure_of(runs)
        kinds = [number(runs, f"pearson_{kind}") for kind in KINDS]
        at_end = percent(end, figure) if end else "-"
        rows.append((technique_name(name), epsilon_cell(setting.epsilon), *kinds, percent(runs, figure), at_end))
    yield from table(("technique", "epsilon", *KINDS.values(), "best epoch", "last epoch"), rows)
    largest = []
    for kind, title in KINDS.items():
        pearson = {name: mean(test[setting], f"pearson_{kind}") for name, setting in best.items()}
        largest.append(f"{title}: {technique_name(max(pearson, key=lambda name: pearson[name]))}")
    yield f"Largest Pearson: {'; '.join(largest)}."
    yield ""


def _variants(lines: Sequence[Line], test: Index, dataset: str) -> Iterator[str]:
    """With random vectors, and with the scaled dot product."""
    rows = []
    for of, runs in test.items():
        if of.dataset == dataset and of.variant != main_variant(dataset):
            rows.append(
                (
                    of.variant.replace("_", " "),
                    technique_name((of.technique, of.reading)),
                    epsilon_cell(of.epsilon),
                    *figure_cells(runs),
                )
            )
    if rows:
        rows.sort(key=lambda row: (row[0], [technique_name(name) for name in ORDER].index(row[1])))
        figure = TITLES[main_figure(lines, dataset)]
        yield "Vectors that start at random, and scaled dot-product attention, at the epsilons above:"
        yield ""
        yield from table(
            (
                "variant",
                "technique",
                "epsilon",
                figure,
                *("AUC", "Pearson", "tau", "largest weight", "certified", "seeds"),
            ),
            rows,
        )
    else:
        yield (
            "Random vectors and scaled dot-product attention: not tested."
            if dataset not in RANDOM
            else "Scaled dot-product attention: not tested."
        )
        yield ""
