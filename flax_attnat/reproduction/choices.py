"""The section of the document on how far figures depend on choices that are not the paper's."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from flax_attnat.reproduction.cells import (
    TITLES,
    described,
    epsilon_cell,
    figure_cells,
    named,
    number,
    percent,
    seconds_cell,
    table,
    technique_name,
)
from flax_attnat.reproduction.claims import OPEN, OTHERS, Choose, Verdict, judge, verdicts
from flax_attnat.reproduction.courses import FEWEST, Course, relative_epsilons, sensitivity_verdicts
from flax_attnat.reproduction.dataset_tables import CONTROL_TITLES
from flax_attnat.reproduction.settings import (
    ORDER,
    READINGS,
    Index,
    Line,
    Name,
    Setting,
    chosen,
    control,
    curves_of,
    datasets_of,
    figure_of,
    index,
    main_figure,
    main_variant,
    mean,
    values,
)

KINDS = {
    "gradient": "attention constant, one-hot (as above)",
    "gradient_attached": "through attention, one-hot",
    "gradient_norm": "attention constant, L2 norm",
}
"""Kinds of gradient importance, as the lines name them, and their titles."""

AS_ABOVE = "as above"
"""The choice that the claims are judged by."""

VARIANTS = {"random": "random vectors", "scaled_dot": "scaled dot-product attention"}
"""Variants beside the main one, and their titles."""


SLACK = 0.001
"""Of a figure on dev, within which an epsilon counts as good as the best."""


def _by_main_figure(lines: Sequence[Line], dataset: str, variant: str) -> dict[Name, Setting]:
    """The settings that are best on dev by F1, or by accuracy of more classes."""
    return chosen(lines, dataset, variant, main_figure(lines, dataset))


NO_WORDS: tuple[Name, ...] = tuple(name for name in OTHERS if not name[0].startswith("word_"))
"""What is compared with without the techniques that normalise word vectors."""

CHOOSING: dict[str, Choose] = {
    "epsilon by dev F1": _by_main_figure,
    "smallest good epsilon": partial(chosen, slack=SLACK),
    "largest of a tie": partial(chosen, largest=True),
}
"""Other ways to choose epsilons on dev, and their titles."""


OTHERWISE = (
    "Without word techniques: not beside word_at and word_iat, which normalise word vectors besides.",
    "Last epoch: in place of the one that is best on dev.",
    f"Epsilon by dev F1: or accuracy. Smallest good epsilon: of those within {SLACK} of the best on dev. Largest of a"
    " tie: of those that are equally good on dev, where the smallest is taken above.",
    "Through attention, and L2 norm: other kinds of gradient importance. Above, attention is held constant and the"
    " gradient is of the one-hot words.",
    "Random vectors, and scaled dot-product attention: trained at the epsilons that are best in the tables above alone,"
    " which are enough here, and without epsilon 0, so that nothing can be won.",
    "Relative epsilons: over the range that those of all techniques have in common relative to what is perturbed, if it"
    f" holds {FEWEST} or more of each.",
)
"""How the claims are judged otherwise."""


def choices_section(lines: Sequence[Line]) -> Iterator[str]:
    """How far figures depend on choices that are not the paper's."""
    yield "## How far this depends on our choices"
    yield ""
    yield from _verdicts(lines)
    test = index(lines)
    for dataset in datasets_of(lines):
        best = chosen(lines, dataset, main_variant(dataset))
        measured = {name: best[name] for name in ORDER if name in best and best[name] in test}
        if measured:
            yield from _kinds(lines, test, dataset, measured)
            yield from _variants(lines, test, dataset)


def _verdicts(lines: Sequence[Line]) -> Iterator[str]:
    """Every claim judged otherwise."""
    main = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    pearson = "pearson_gradient"
    judged = []
    for claim, figure, at_end, allowed in (("1", None, None, 1), ("2", pearson, "pearson", 0)):
        judged += [
            (claim, AS_ABOVE, verdicts(judge(lines, main, figure), allowed)),
            (claim, "without word techniques", verdicts(judge(lines, main, figure, beside=NO_WORDS), allowed)),
            (claim, "last epoch", verdicts(judge(lines, main, at_end, epoch="last"), allowed)),
        ]
        for title, choose in CHOOSING.items():
            judged.append((claim, title, verdicts(judge(lines, main, figure, choose=choose), allowed)))
    for kind, title in KINDS.items():
        if f"pearson_{kind}" != pearson:
            judged.append(("2", title, verdicts(judge(lines, main, f"pearson_{kind}"), 0)))
    for variant, title in VARIANTS.items():
        others = {dataset: variant for dataset in main if main[dataset] != variant}
        for claim, figure, allowed in (("1", None, 1), ("2", pearson, 0)):
            judged.append((claim, title, verdicts(judge(lines, others, figure, least=1), allowed)))
    judged += [
        ("3", AS_ABOVE, sensitivity_verdicts(lines, main)),
        ("3", "last epoch", sensitivity_verdicts(lines, main, epoch="last")),
        ("3", "relative epsilons", sensitivity_verdicts(lines, main, relative=True)),
    ]
    judged.sort(key=lambda row: row[0])
    yield (
        "The claims judged otherwise; in brackets the data sets where a claim is true by the means, where it is not,"
        " and that are undecided."
    )
    yield from ("", *(f"- {line}" for line in OTHERWISE), "")
    rows = [(claim, choice, *map(_cell, found)) for claim, choice, found in judged]
    yield from table(("claim", "choice", *READINGS), rows)
    yield from _turned(judged)
    for dataset, variant in main.items():
        yield from _relative(lines, dataset, variant)


def _turned(judged: Sequence[tuple[str, str, Sequence[Verdict]]]) -> Iterator[str]:
    """Which verdicts another choice turns, and where it makes a claim true or false of a data set that was not."""
    main = {claim: found for claim, choice, found in judged if choice == AS_ABOVE}
    said = []
    for claim, choice, found in judged:
        changed: dict[tuple[str, str], list[str]] = {}
        turned: dict[tuple[str, str], list[str]] = {}
        for was, now in zip(main[claim], found, strict=True):
            if now.verdict != was.verdict:
                changed.setdefault((_verdict(now), _verdict(was)), []).append(now.reading)
            for dataset in now.true:
                if dataset not in was.true:
                    turned.setdefault(("true", dataset), []).append(now.reading)
            for dataset in now.false:
                if dataset not in was.false:
                    turned.setdefault(("false", dataset), []).append(now.reading)
        parts = [f"{now} in place of {was} for {', '.join(names)}" for (now, was), names in changed.items()]
        parts += [f"{truth} of {dataset} for {', '.join(names)}" for (truth, dataset), names in turned.items()]
        said += [f"- claim {claim}, {choice}: {'; '.join(parts)}"] if parts else []
    if said:
        yield "What that turns, by the means:"
        yield ""
        yield from said
        yield ""


def _cell(of: Verdict) -> str:
    """A verdict and its counts."""
    return f"{_verdict(of)} ({', '.join(map(str, of.counts))})" if any(of.counts) else of.verdict


def _verdict(of: Verdict) -> str:
    """A verdict in words, also where what was tested is not enough for one."""
    return f"{of.verdict} on enough data sets" if of.verdict == OPEN and any(of.counts) else of.verdict


def _relative(lines: Sequence[Line], dataset: str, variant: str) -> Iterator[str]:
    """How far epsilons in units of what is perturbed differ and overlap between Attention AT and Word AT."""
    test = index(lines)
    curves = curves_of(test, dataset, variant)
    names: list[Name] = [("attention_at", None), ("word_at", None)]
    epsilons = [sorted(epsilon for epsilon in curves.get(name, {}) if epsilon) for name in names]
    if not all(epsilons):
        return
    both = [Course(name, tuple(of), math.nan, math.nan) for name, of in zip(names, epsilons, strict=True)]
    ours, words = (relative_epsilons(test, dataset, variant, of) for of in both)
    if not ours or not words:
        return
    low, high = max(ours[0], words[0]), min(ours[-1], words[-1])
    inside = [sum(low <= epsilon <= high for epsilon in of) for of in (ours, words)]
    shared = f"{inside[0]} of the former and {inside[1]} of the latter lie in the range of both"
    times = ours[0] / epsilons[0][0] / (words[0] / epsilons[1][0])
    norms = values(test[Setting(dataset, variant, "vanilla", None, None)], "score_norm")
    yield (
        f"Epsilons relative to what is perturbed, {named(lines, dataset)}: of attention_at {ours[0]:.2g} to"
        f" {ours[-1]:.2g} of the scores (vanilla's norm is {min(norms):.2g} to {max(norms):.2g} by seed), of word_at"
        f" {words[0]:.2g} to {words[-1]:.2g} of the word vectors; equal epsilons are {times:.2g} times as large for the"
        f" scores, and {shared if low <= high else 'no epsilon lies in the range of both'}."
    )
    yield ""


def _kinds(lines: Sequence[Line], test: Index, dataset: str, best: Mapping[Name, Setting]) -> Iterator[str]:
    """Pearson of a data set by kind of gradient importance, and its main figure by epoch."""
    yield (
        f"**{named(lines, dataset)}**: Pearson by kind of gradient importance, and"
        f" {TITLES[main_figure(lines, dataset)]} of the last epoch in place of the best one on dev."
    )
    yield ""
    last = index(lines, epoch="last")
    settings = {technique_name(name): setting for name, setting in best.items()}
    controls = {title: control(dataset, main_variant(dataset), of) for of, title in CONTROL_TITLES.items()}
    settings |= {title: of for title, of in controls.items() if of in test}
    shown = {title: test[of] for title, of in settings.items()}
    rows = []
    for title, runs in shown.items():
        end, figure = last.get(settings[title], {}), figure_of(runs)
        at_end = percent(end, figure) if end else "-"
        kinds = [number(runs, f"pearson_{kind}") for kind in KINDS]
        epsilon = epsilon_cell(settings[title].epsilon)
        rows.append((title, epsilon, *kinds, percent(runs, figure), at_end, str(len(runs))))
    yield from table(("technique", "epsilon", *KINDS.values(), "best epoch", "last epoch", "seeds"), rows)
    largest = []
    for kind, title in KINDS.items():
        pearson = {of: mean(runs, f"pearson_{kind}") for of, runs in shown.items() if values(runs, f"pearson_{kind}")}
        if len(pearson) > 1:
            first, second = sorted(pearson, key=lambda of: -pearson[of])[:2]
            largest.append(f"{title}: {first} {pearson[first]:.3f}, then {second} {pearson[second]:.3f}")
    if largest:
        yield f"Largest Pearson, by the means: {'; '.join(largest)}."
        yield ""


def _variants(lines: Sequence[Line], test: Index, dataset: str) -> Iterator[str]:
    """With random vectors, and with the scaled dot product."""
    order = [technique_name(name) for name in ORDER]
    missing = []
    for variant, title in VARIANTS.items():
        if variant == main_variant(dataset):
            continue
        rows = [
            (
                technique_name((of.technique, of.reading)),
                epsilon_cell(of.epsilon),
                *figure_cells(runs),
                seconds_cell(runs),
            )
            for of, runs in test.items()
            if (of.dataset, of.variant) == (dataset, variant)
        ]
        if not rows:
            missing.append(title)
            continue
        rows.sort(key=lambda row: order.index(row[0]))
        facts = described(lines, dataset, variant)
        yield f"With {title}, at the epsilon that was best on dev in the tables above: {facts}."
        yield ""
        figures = (TITLES[main_figure(lines, dataset)], "AUC", "Pearson", "tau", "largest weight", "certified")
        yield from table(("technique", "epsilon", *figures, "seeds", "seconds a run"), rows)
    if missing:
        yield f"Not tested: {', '.join(missing)}."
        yield ""
