"""What the record says, in a few lines: verdicts of the claims, and what helps."""

from collections import Counter
from collections.abc import Sequence

from flax_attnat.reproduction.cells import TITLES, named, technique_name
from flax_attnat.reproduction.claims import (
    FAILS,
    HOLDS,
    LEAST_EPSILONS,
    OPEN,
    OTHERS,
    Verdict,
    at_ceiling,
    comparisons,
    judge,
    verdicts,
)
from flax_attnat.reproduction.courses import judged_courses, sensitivity_verdicts
from flax_attnat.reproduction.differences import difference_p
from flax_attnat.reproduction.settings import (
    DATASETS,
    READINGS,
    Line,
    Name,
    chosen,
    control,
    curves_of,
    datasets_of,
    early,
    index,
    main_figure,
    main_variant,
    perturbed,
    runs_of,
)

WHERE = ("on which it is the best", "on which it correlates most", "on which it is true")
"""What is counted of each claim, by data sets."""
CLAIMS = (
    ("Attention iAT predicts best, on nine of ten tasks.", 1),
    ("Its attention correlates more strongly with gradient importance, on all tasks.", 0),
)
THIRD = "The techniques depend much less on the perturbation size."


def summary(lines: Sequence[Line]) -> list[str]:
    """What the record says, in five lines of Markdown at most."""
    if not datasets_of(lines):
        return ["Nothing has been trained yet: no claim was tested."]
    counted = (_compared(lines, None), _compared(lines, "pearson_gradient"), _ranges(lines))
    claims = enumerate(zip(judged_claims(lines), WHERE, counted, strict=True), 1)
    said = [f"{number}. {_claim(claim, judged, where)}{counts}" for number, ((claim, judged), where, counts) in claims]
    return [_tested(lines), *said, *_helps(lines)]


def lacking(lines: Sequence[Line], dataset: str) -> list[str]:
    """What a data set lacks of a whole grid: techniques and readings without a choice of epsilons, and epsilon 0."""
    curves = curves_of(index(lines), dataset, main_variant(dataset))
    names: list[Name] = [*OTHERS[1:3], *(("attention_iat", reading) for reading in READINGS), *OTHERS[3:]]
    found = [technique_name(name) for name in names if len(curves.get(name, {}).keys() - {0.0}) < LEAST_EPSILONS]
    return found + ([] if control(dataset, main_variant(dataset), "attention_at") in index(lines) else ["epsilon 0"])


def _tested(lines: Sequence[Line]) -> str:
    """What was trained, what of it is whole, and what a verdict means."""
    tested, missing = datasets_of(lines), [of for of in DATASETS if of not in datasets_of(lines)]
    runs = sum((line["split"], line["epoch"]) == ("dev", "best") for line in lines)
    groups = {
        "every technique": [named(lines, of) for of in tested if not lacking(lines, of)],
        "some": [named(lines, of) for of in tested if lacking(lines, of)],
        "none": missing,
    }
    said = "; ".join(f"{title} on {', '.join(of)}" for title, of in groups.items() if of)
    seeds = sorted({len({line["seed"] for line in lines if line["dataset"] == of}) for of in tested})
    many = " or ".join(map(str, seeds))
    test = index(lines)
    trained = {of: perturbed(runs_of(test, of, main_variant(of))) for of in tested}
    quick = [
        f"{named(lines, of)} ({early(runs)} of {len(runs)})"
        for of, runs in trained.items()
        if 2 * early(runs) > len(runs)
    ]
    few = f" Perturbed runs that are best after one or two epochs: {', '.join(quick)}." if quick else ""
    return (
        f"{runs} runs: {said}. Verdicts go by the means of {many} seed{'' if seeds == [1] else 's'}, however"
        " little they differ. No claim can be said to hold before all ten data sets are trained; and one that does not"
        f" hold is not shown to be false where differences are not significant.{few}"
    )


def _compared(lines: Sequence[Line], figure: str | None) -> str:
    """How many comparisons of a claim are significant, by both corrections; nothing where there is none."""
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    judged = judge(lines, variants, figure)
    every = comparisons(judged)
    if not every:
        return ""
    count, above = sum(of.clear for of in every), sum(of.above for of in every)
    over = dict.fromkeys(f"{other.name} on {of.dataset}" for of in judged for other in of.differences if other.above)
    favour = f" ({', '.join((f'{above} in favour of iAT', *(f'over {name}' for name in over)))})" if count else ""
    full = "; ".join(f"{', '.join(names)} on {dataset}" for dataset, names in at_ceiling(judged).items())
    return (
        f"{f' At 100 %, where nothing can be above: {full}.' if full else ''} Of {len(every)} comparisons"
        f" {_significant(count)} when corrected for readings and data sets{favour},"
        f" {sum(of.significant for of in every) or 'none'} when corrected for what they are compared with too."
    )


def _ranges(lines: Sequence[Line]) -> str:
    """Of how many techniques the dependence on epsilon is more than seeds explain."""
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    every = [of for found in judged_courses(lines, variants).values() for of in found if of.judged]
    judged = sensitivity_verdicts(lines, variants)
    cells = sum(len(of.false) for of in judged)
    counts = Counter("attention_at" if name == "attention_at" else "iAT itself" for of in judged for name in of.by)
    against = ", ".join(f"{name} in {count}" for name, count in sorted(counts.items()))
    decided = (
        f" What is against it by itself, of {cells} readings and data sets where it is not: {against}." if cells else ""
    )
    return decided + (
        f" Of {len(every)} ranges over epsilon {_significant(sum(of.clear for of in every))}." if every else ""
    )


def _significant(count: int) -> str:
    """How many are significant."""
    return f"{count or 'none'} {'are' if count > 1 else 'is'} significant"


def _helps(lines: Sequence[Line]) -> list[str]:
    """What changes prediction: Attention AT beside vanilla; word vectors normalised, and perturbed besides."""
    test, said = index(lines), dict[str, list[str]]()
    for dataset in datasets_of(lines):
        variant, figure = main_variant(dataset), main_figure(lines, dataset)
        few = lacking(lines, dataset)
        best = {
            name: test.get(of)
            for (name, reading), of in chosen(lines, dataset, variant).items()
            if not reading and name not in few
        }
        zero, normalised = (test.get(control(dataset, variant, name)) for name in ("attention_at", "word_at"))
        pairs = {
            "attention_at minus vanilla": (best.get("attention_at"), best.get("vanilla")),
            "normalised word vectors minus epsilon 0": (normalised, zero),
            "word_at minus normalised word vectors": (best.get("word_at"), normalised),
        }
        for title, (ours, theirs) in pairs.items():
            if ours and theirs:
                title_of = named(lines, dataset) + ("" if figure == "f1" else f" {TITLES[figure]}")
                epsilon = next(iter(ours.values()))["epsilon"]
                place = f"{title_of} at {epsilon:g}" if epsilon else title_of
                said.setdefault(title, []).append(f"{place} {difference_p(ours, theirs, figure)}")
    if not said:
        return []
    parts = "; ".join(f"{title}: {', '.join(changes)}" for title, changes in said.items())
    return [f"Beside the claims, F1 on test (in brackets p of a paired t test over seeds, not corrected). {parts}."]


def _claim(claim: str, judged: Sequence[Verdict], where: str) -> str:
    """A claim, the verdict of each reading, and on how many of the data sets that are decided it is so."""
    groups = {of.verdict: [each.reading for each in judged if each.verdict == of.verdict] for of in judged}
    counts: dict[tuple[int, int], list[str]] = {}
    for of in judged:
        so, not_so, _ = of.counts
        if so + not_so:
            counts.setdefault((so, so + not_so), []).append(of.reading)
    one = "every reading" if HOLDS in groups else "any reading"
    said = "; ".join(
        f"{verdict}{' on enough data sets' if verdict == OPEN and counts else ''}"
        f" for {', '.join(groups[verdict]) if len(groups) > 1 else one}"
        for verdict in (FAILS, HOLDS, OPEN)
        if verdict in groups
    )
    tally = "; ".join(f"{', '.join(names)} {so} of {every}" for (so, every), names in counts.items())
    return f"{claim[:-1]}: {said}." + (f" Data sets {where}, of those decided: {tally}." if tally else "")


def judged_claims(lines: Sequence[Line]) -> list[tuple[str, list[Verdict]]]:
    """The claims and their verdicts."""
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    found = []
    for (claim, allowed), figure in zip(CLAIMS, (None, "pearson_gradient"), strict=True):
        found.append((claim, verdicts(judge(lines, variants, figure), allowed)))
    return [*found, (THIRD, sensitivity_verdicts(lines, variants))]
