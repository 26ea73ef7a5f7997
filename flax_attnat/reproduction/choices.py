"""The section of the document on how far figures depend on choices that are not the paper's."""

from collections.abc import Iterator, Sequence

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
    chosen,
    datasets_of,
    figure_of,
    index,
    main_figure,
    main_variant,
    mean,
)


def choices_section(lines: Sequence[Line]) -> Iterator[str]:
    """How far figures depend on choices that are not the paper's."""
    yield "## How far this depends on our choices"
    yield ""
    kinds = {
        "gradient": "attention constant, one-hot (as above)",
        "gradient_attached": "through attention, one-hot",
        "gradient_norm": "attention constant, L2 norm",
    }
    test = index(lines)
    last = index(lines, epoch="last")
    for dataset in datasets_of(lines):
        best = chosen(lines, dataset, main_variant(dataset))
        names = [name for name in ORDER if name in best and best[name] in test]
        if not names:
            continue
        yield (
            f"**{named(lines, dataset)}**: Pearson by kind of gradient importance, and"
            f" {TITLES[main_figure(lines, dataset)]} of the last epoch in place of the best one on dev."
        )
        yield ""
        rows = []
        for name in names:
            runs, end = test[best[name]], last.get(best[name], {})
            figure = figure_of(runs)
            rows.append(
                (
                    technique_name(name),
                    epsilon_cell(best[name].epsilon),
                    *(number(runs, f"pearson_{kind}") for kind in kinds),
                    percent(runs, figure),
                    percent(end, figure) if end else "-",
                )
            )
        yield from table(("technique", "epsilon", *kinds.values(), "best epoch", "last epoch"), rows)
        rankings = [
            max(names, key=lambda name, kind=kind: mean(test[best[name]], f"pearson_{kind}"))  # type: ignore[misc]
            for kind in kinds
        ]
        largest = zip(kinds.values(), map(technique_name, rankings), strict=True)
        yield f"Largest Pearson: {'; '.join(f'{title}: {name}' for title, name in largest)}."
        yield ""
        yield from _variants(lines, test, dataset)


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
