"""The section of the document on one claim: verdicts, and the figures behind them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from scipy import stats

from flax_attnat.reproduction.cells import epsilon_cell, named, number, percent, table, technique_name
from flax_attnat.reproduction.claims import LEAST_EPSILONS, ZERO, Judged, Verdict, at_ceiling, comparisons, judge
from flax_attnat.reproduction.courses import FEWEST, WITHIN, Course, chance_cell, judged_courses, relative_epsilons
from flax_attnat.reproduction.differences import CLEAR, Difference, difference_cell, difference_p, p_cell
from flax_attnat.reproduction.settings import (
    ORDER,
    Index,
    Line,
    Setting,
    chosen,
    control,
    datasets_of,
    figure_of,
    index,
    main_variant,
)

COMPARED = (
    "Difference: of the means over the seeds that both have, each technique at its own epsilon. In brackets: p of a"
    " paired t test over seeds; the same corrected over readings and data sets, within its column (Holm). n/a: not"
    f" trained, equal differences, or, corrected, trained at fewer than {LEAST_EPSILONS} epsilons and so not judged.",
    "Controls: random perturbation (attention_rp), and epsilon 0, which trains on twice the clean loss.",
    "Best on a data set: above all of the others by the means, however little. Significantly the best: above both"
    f" controls with a corrected p of at most {CLEAR} in their columns. Significantly below, of whichever of the"
    " others: corrected over all columns at once.",
    "By the means claim 1, of nine of ten tasks, fails when a reading is not the best on two data sets, and claim 2,"
    " of all tasks, on one. To hold, it must be significantly the best on nine (on all ten), which is a condition of"
    " ours.",
    "Epsilon: the one that is best on dev; in brackets how many were tried, how many of them are tied on dev (the"
    " smallest is taken; what the largest would change is said at the end), or else whether it is the smallest or"
    " largest tried, so that a better one may lie beyond. Where techniques were trained at different numbers of"
    " epsilons, more to choose from is a small advantage.",
)
"""How the table of claims 1 and 2 is read."""

RANGES = (
    "The abstract does not say less than what; we read: than Word AT and Word iAT. Then the claim is true of a data set"
    " where both attention techniques, Attention AT and this iAT, have a smaller range than both word techniques, and"
    f" no narrower a width, over the {FEWEST} or more epsilons that all below have. So Attention AT alone can decide"
    " against every reading.",
    "As a condition of ours the claim fails by one data set where it is not so; to hold, the ranges of the word"
    " techniques must also be significant on all ten. Significant: the range that decides has a corrected p of at most"
    f" {CLEAR}; a loss by the widths alone is not.",
    "Best mean: the largest over these epsilons; a technique that is as bad at all of them has a small range too.",
    "Range: largest minus smallest mean over seeds on test, over the epsilons that all techniques below have (one"
    f" trained at fewer than {FEWEST} is left out where another has {FEWEST}). Without a seed: the smallest and the"
    " largest range that is left without one of the seeds; where these are far apart one run makes the range.",
    "By chance: the range that differences between seeds alone would give in the mean; in brackets the probability p"
    f" that they give this one or a larger, and, of {FEWEST} epsilons or more, p corrected over techniques and data"
    " sets (Holm). It is Tukey's test, which assumes equal variances, with what is left as error when each seed and"
    " each epsilon has its own mean (k epsilons, n seeds: (k - 1)(n - 1) degrees of freedom); with p above"
    f" {CLEAR} a range does not show a dependence.",
    f"Width: octaves of epsilon around the best one within {WITHIN} of it, at most to the ends of what was measured.",
    "Relative: the epsilons, the same numbers for all, over the norm of what is perturbed, before it is trained to"
    " resist: vanilla's scores less their mean; the word vectors of a text at the technique's smallest epsilon. Where"
    " these differ, equal numbers are not equal perturbations; over equal relative ones, where enough of them overlap,"
    " the claim is judged under [our choices](#how-far-this-depends-on-our-choices).",
)
"""How the table of claim 3 is read."""


def claim_section(place: int, claim: str, said: Sequence[Verdict], lines: Sequence[Line]) -> Iterator[str]:
    """A claim: verdicts, and the comparison with the controls or the curves behind them."""
    yield f"## Claim {place}: {claim}"
    yield ""
    yield from table(
        ("reading", "verdict", "so far", "figures"),
        [(of.reading, of.verdict, of.so_far or "not trained", of.reason) for of in said],
    )
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    if place == 3:
        yield from _dependence(lines, variants)
    else:
        yield from _comparison(lines, variants, None if place == 1 else "pearson_gradient")


def _dependence(lines: Sequence[Line], variants: Mapping[str, str]) -> Iterator[str]:
    """How techniques depend on epsilon, for claim 3."""
    yield from (*(f"- {line}" for line in RANGES), "")
    columns = (
        "data",
        "technique",
        "epsilons",
        "relative",
        "best mean",
        "range",
        "without a seed",
        "by chance (p; corrected)",
        "width, octaves",
        "seeds",
    )
    every, test = judged_courses(lines, variants), index(lines)
    rows = [row for dataset, found in every.items() for row in _courses(lines, test, dataset, found)]
    yield from table(columns, rows)
    if said := [of for dataset, found in every.items() if (of := _alone(named(lines, dataset), found))]:
        yield f"Which ranges, each by itself, are below those of the word techniques, by the means: {'; '.join(said)}."
        yield ""


def _alone(title: str, found: Sequence[Course]) -> str:
    """Which ranges of a data set are below those of the word techniques; nothing where they are not comparable."""
    ordered = sorted(found, key=lambda of: ORDER.index(of.name))
    ours = [of for of in ordered if not of.name[0].startswith("word_")]
    words = [of for of in ordered if of.name[0].startswith("word_")]
    if not ours or not words or len(words[0].epsilons) < FEWEST:
        return ""
    said = []
    for other in words:
        names = ", ".join(technique_name(of.name) for of in ours if of.range < other.range)
        said.append(f"{names or 'none'} below {technique_name(other.name)}")
    return f"{title}: {', and '.join(said)}"


def _comparison(lines: Sequence[Line], variants: Mapping[str, str], figure: str | None) -> Iterator[str]:
    """Each reading against the others and its controls, for claims 1 (no figure: the main one) and 2."""
    if not (judged := judge(lines, variants, figure)):
        return
    if figure is None:
        yield from (*(f"- {line}" for line in COMPARED), "")
    else:
        yield from ("Read as the table of claim 1; differences of Pearson over texts.", "")
    yield from _significant(judged)
    yield from _least_significant(judged, 1 if figure else 100)
    for dataset, full in at_ceiling(judged).items():
        yield f"On {dataset} nothing can be above {' or '.join(full)}: with every seed 100 % are right."
        yield ""
    heads = ("data", "reading", "epsilon", *(f"minus {of.name}" for of in judged[0].differences), "seeds")
    yield from table(heads, [_compared(of) for of in judged])
    if found := [of for dataset in variants if (of := _normalised(lines, dataset, figure))]:
        why = (
            "The word techniques normalise the word vectors by word frequency, which is a change of its own, not an"
            " adversarial perturbation. What it does"
        )
        yield (
            f"{why if figure is None else 'What normalised word vectors do'} without a perturbation (word_at at epsilon"
            " 0), beside epsilon 0 of attention_at, which has twice the clean loss too, and what perturbing adds (in"
            " brackets p of a paired t test over seeds, not corrected):"
        )
        yield ""
        heads = ("data", ZERO, "normalised words", f"minus {ZERO}", "word_at", "epsilon", "minus normalised words")
        yield from table(heads, found)


def _least_significant(judged: Sequence[Judged], unit: float) -> Iterator[str]:
    """How large a difference would have to be to be significant, by data set; nothing without p values."""
    tests, digits = Counter(other.name for other in comparisons(judged)), 2 if unit == 100 else 3
    rows, found_whole, found_half = [], list[float](), list[float]()
    for dataset in dict.fromkeys(of.dataset for of in judged):
        of_one = [d for of in judged if of.dataset == dataset for d in of.differences if of.judges(d)]
        found = [(value, other) for other in of_one if not math.isnan(value := _least(other, tests[other.name]))]
        if not found:
            continue
        least = [unit * value for value, _ in found]
        unseen = sum(other.level is not None and value > 1 - other.level for value, other in found)
        middle = "out of reach" if 2 * unseen > len(found) else f"{median(least):.{digits}f}"
        ends = f"{min(least):.{digits}f} to {max(least):.{digits}f}"
        rows.append((dataset, str(len(found)), middle, ends, str(unseen)))
        found_whole += [_found(other.seeds, tests[other.name], 1.0) for _, other in found]
        found_half += [_found(other.seeds, tests[other.name], 0.5) for _, other in found]
    if not rows:
        return
    yield (
        "What these seeds can show: the smallest difference that would be significant as the first of its column, the"
        " strictest step of the correction, with the spread over seeds that a comparison has; in"
        f" {'per cent' if unit == 100 else 'units of Pearson'}, over the comparisons of a data set. Out of reach: it is"
        f" more than can be gained over the other, which ends at {unit:g}. A true difference of this size is found in"
        f" {_ends(found_whole)} % of such trainings, one of half the size in {_ends(found_half)} %: a mean that is not"
        " above another is no proof of the contrary."
    )
    yield ""
    yield from table(("data", "comparisons", "median", "smallest to largest", "out of reach"), rows)


def _ends(shares: Sequence[float]) -> str:
    """The smallest and the largest of some shares, in per cent."""
    return " to ".join(dict.fromkeys(f"{100 * of:.0f}" for of in (min(shares), max(shares))))


def _significant(judged: Sequence[Judged]) -> Iterator[str]:
    """How many comparisons are significant by both corrections, and which."""
    if not (every := comparisons(judged)):
        return
    clear, above, significant = (sum(getattr(of, name) for of in every) for name in ("clear", "above", "significant"))
    said = []
    for of in judged:
        sides = {
            side: [other.name for other in of.differences if other.clear and other.above == (side == "above")]
            for side in ("above", "below")
        }
        parts = [f"{side} {', '.join(names)}" for side, names in sides.items() if names]
        said += [f"{of.dataset} {of.reading} {' and '.join(parts)}"] if parts else []
    which = f" ({'; '.join(said)})" if said else ""
    yield (
        f"Of {len(every)} comparisons {clear} {'is' if clear == 1 else 'are'} significant when corrected within their"
        f" column{which}, {above} of them in favour of iAT, and {significant} when corrected over all columns."
    )
    yield ""


def _least(of: Difference, tests: int) -> float:
    """The smallest difference, with the spread over seeds of this one, that is significant as the first of `tests`."""
    if not of.p_value or not of.difference or of.seeds < 2:
        return math.nan
    t_needed, t_found = (float(stats.t.isf(p / 2, of.seeds - 1)) for p in (CLEAR / tests, of.p_value))
    return abs(of.difference) * t_needed / t_found


def _found(seeds: int, tests: int, share: float) -> float:
    """With which probability a true difference is significant that is `share` of the least significant one."""
    least = float(stats.t.isf(CLEAR / tests / 2, seeds - 1))
    return float(stats.nct.sf(least, seeds - 1, share * least))


def _normalised(lines: Sequence[Line], dataset: str, figure: str | None) -> tuple[str, ...]:
    """A row of what normalised word vectors do without a perturbation; empty where a figure of it is not there."""
    variant = main_variant(dataset)
    test, trained = index(lines), chosen(lines, dataset, variant).get(("word_at", None))
    settings = (control(dataset, variant, "word_at"), control(dataset, variant, "attention_at"), trained)
    found = [test.get(of, {}) if of else {} for of in settings]
    if trained is None or not all(found):
        return ()
    name = figure or figure_of(found[0])
    own, zero, best = (number(runs, name) if figure else percent(runs, name) for runs in found)
    alone, added = difference_p(found[0], found[1], name), difference_p(found[2], found[0], name)
    return (named(lines, dataset), zero, own, alone, best, epsilon_cell(trained.epsilon), added)


def _compared(of: Judged) -> tuple[str, ...]:
    """A row of the comparison with the others."""
    cells, seeds = [], sorted({other.seeds for other in of.differences} - {0})
    for other in of.differences:
        if other.difference is None:
            cells.append("n/a")
            continue
        p = "; ".join(p_cell(value) for value in (other.p_value, other.p_holm))
        cells.append(f"{difference_cell(other.difference, of.figure)} ({p})")
    counts = " to ".join(map(str, sorted({seeds[0], seeds[-1]}))) if seeds else "-"
    return (of.dataset, of.reading, f"{epsilon_cell(of.setting.epsilon)} ({of.epsilons}{of.end})", *cells, counts)


def _courses(lines: Sequence[Line], test: Index, dataset: str, found: Sequence[Course]) -> Iterator[tuple[str, ...]]:
    """Rows of how techniques of a data set depend on epsilon."""
    variant = main_variant(dataset)
    for of in sorted(found, key=lambda of: ORDER.index(of.name)):
        seeds = {len(test[Setting(dataset, variant, *of.name, epsilon)]) for epsilon in of.epsilons}
        yield (
            named(lines, dataset),
            technique_name(of.name),
            ", ".join(f"{epsilon:g}" for epsilon in of.epsilons),
            _relative(test, dataset, variant, of),
            f"{of.best:.2f}",
            f"{of.range:.2f}",
            "n/a" if math.isnan(of.without[0]) else f"{of.without[0]:.2f} to {of.without[1]:.2f}",
            chance_cell(of),
            f"{of.octaves:.1f}",
            " to ".join(map(str, sorted({min(seeds), max(seeds)}))),
        )


def _relative(test: Index, dataset: str, variant: str, of: Course) -> str:
    """The ends of a course's epsilons over the clean norm of what is perturbed."""
    found = relative_epsilons(test, dataset, variant, of)
    return f"{found[0]:.2g} to {found[-1]:.2g}" if found else "n/a"
