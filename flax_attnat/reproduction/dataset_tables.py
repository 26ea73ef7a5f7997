"""The section of the document on one data set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax_attnat.reproduction.cells import (
    TITLES,
    certified_cell,
    described,
    epsilon_cell,
    mark_of,
    number,
    percent,
    seconds_cell,
    table,
    technique_name,
)
from flax_attnat.reproduction.published import BESIDE, PUBLISHED, SOURCE
from flax_attnat.reproduction.settings import (
    ORDER,
    Index,
    Line,
    Name,
    Setting,
    chosen,
    control,
    curves_of,
    early,
    figure_of,
    index,
    main_figure,
    main_variant,
    perturbed,
    runs_of,
)

CONTROL_TITLES = {"attention_at": "epsilon 0", "word_at": "normalised words"}
"""The controls that a technique without its perturbation is: the loss counted twice; word vectors normalised too."""


def dataset_section(lines: Sequence[Line], dataset: str, place: str) -> Iterator[str]:
    """The section of one data set."""
    test, variant, figure = index(lines), main_variant(dataset), main_figure(lines, dataset)
    yield f"## {dataset}"
    yield ""
    yield described(lines, dataset) + "."
    yield ""
    best = chosen(lines, dataset, variant)
    shown = [
        (technique_name(name), epsilon_cell(best[name].epsilon), test[best[name]])
        for name in ORDER
        if name in best and best[name] in test
    ]
    for technique, title in CONTROL_TITLES.items():
        if runs := test.get(control(dataset, variant, technique)):
            shown.append((title, "0", runs))
    selection = next(line["selection"] for line in lines if line["dataset"] == dataset)
    yield f"Test figures at the epsilon that is best by dev {selection}:"
    yield ""
    figures = [TITLES[name] for name in _prediction(figure)]
    yield from table(
        ("technique", "epsilon", *figures, "best epoch", "seeds", "seconds a run"),
        [(*of, *_main_figures(runs)) for *of, runs in shown],
    )
    yield from _still_rising(test, dataset, variant)
    yield "Attention and gradient importance (Jain & Wallace: attention held constant), means over texts, then seeds:"
    yield ""
    yield from table(
        (
            *("technique", "epsilon", "Pearson", "tau", "tau with p <= .05, %"),
            *("texts where undefined", "largest weight", "certified at 0.5"),
        ),
        [(*of, *_agreement(runs)) for *of, runs in shown],
    )
    yield from _beside(test, best, dataset, mark_of(lines, dataset))
    yield from _curve_table(test, dataset, variant, figure)
    if drawn_lines(lines, dataset):
        yield f"![{TITLES[figure]} on test against epsilon]({place}/{dataset}_epsilon.svg)"
        yield ""


def _prediction(figure: str) -> list[str]:
    """The figures of prediction, the main one of the data set first."""
    return list(dict.fromkeys((figure, "accuracy", "auc")))


def _main_figures(runs: Mapping[int, Line]) -> tuple[str, ...]:
    """Prediction figures of a setting, and what they cost."""
    epochs = sorted(line["best_epoch"] for line in runs.values())
    return (
        *(percent(runs, name) for name in _prediction(figure_of(runs))),
        *(", ".join(map(str, epochs)), str(len(runs)), seconds_cell(runs)),
    )


def _still_rising(test: Index, dataset: str, variant: str) -> Iterator[str]:
    """How many runs are best early, little trained by perturbations, and how many in their last epoch."""
    runs = runs_of(test, dataset, variant)
    last, quick = sum(line["best_epoch"] == line["epochs"] for line in runs), early(perturbed(runs))
    few = f" ({quick} of them perturbed, for no longer than that)" if quick else ""
    then = "; more epochs might be better there" if last else ""
    yield (
        f"Of {len(runs)} runs of all epsilons {early(runs)} are best after one or two epochs{few}; the last epoch is"
        f" the best in {last}{then}. Seconds are a run's share of what trained at once, on a machine that may have had"
        " other work: rows are not to be compared by them."
    )
    yield ""


def _agreement(runs: Mapping[int, Line]) -> tuple[str, ...]:
    """Figures of agreement of a setting."""
    undefined = sorted({line["undefined_gradient"] for line in runs.values()})
    return (
        *(
            number(runs, "pearson_gradient"),
            number(runs, "kendall_gradient"),
            percent(runs, "significant_gradient", 0),
        ),
        *(
            " to ".join(map(str, sorted({undefined[0], undefined[-1]}))),
            number(runs, "largest_attention"),
            certified_cell(runs),
        ),
    )


def _beside(test: Index, best: Mapping[Name, Setting], dataset: str, mark: str | None) -> Iterator[str]:
    """The published vanilla beside ours."""
    published, vanilla = PUBLISHED.get(dataset), best.get(("vanilla", None))
    if published is None or vanilla is None or vanilla not in test:
        return
    runs = test[vanilla]
    theirs = [published.accuracy, published.f1, published.auc]
    said = ["n/a" if value is None else f"{100 * value:.1f}" for value in theirs]
    rows = [
        (SOURCE, *said, f"{published.tau:.3f}", f"{100 * published.significant:.0f}"),
        (
            f"vanilla here{f' ({mark})' if mark else ''}",
            *(percent(runs, name) for name in ("accuracy", "f1", "auc")),
            number(runs, "kendall_gradient"),
            percent(runs, "significant_gradient", 0),
        ),
    ]
    yield from table(("vanilla", "accuracy", "F1", "AUC", "tau", "tau with p <= .05, %"), rows)
    differs = ["other word vectors"] if main_variant(dataset) == "pretrained" else []
    differs += [BESIDE[dataset]] if dataset in BESIDE else []
    if differs:
        yield f"The two are not the same experiment; theirs has {', and '.join(differs)}."
        yield ""


def _curve_table(test: Index, dataset: str, variant: str, figure: str) -> Iterator[str]:
    """The figure of every technique at every epsilon."""
    curves = curves_of(test, dataset, variant)
    epsilons = sorted({epsilon for points in curves.values() for epsilon in points})
    if len(epsilons) < 2:
        return
    yield f"{TITLES[figure]} on test by epsilon:"
    yield ""
    rows = [
        (technique_name(name), *(percent(curves[name][e], figure) if e in curves[name] else "-" for e in epsilons))
        for name in ORDER
        if name in curves
    ]
    yield from table(("technique", *(f"{epsilon:g}" for epsilon in epsilons)), rows)


def drawn_lines(lines: Sequence[Line], dataset: str) -> list[dict[str, Any]]:
    """The lines of a data set's figure; empty where one epsilon alone was measured."""
    found = [
        dict(line)
        for line in lines
        if (line["dataset"], line["variant"]) == (dataset, main_variant(dataset)) and line["epoch"] == "best"
    ]
    return found if len({line["epsilon"] for line in found if line["epsilon"]}) > 1 else []
