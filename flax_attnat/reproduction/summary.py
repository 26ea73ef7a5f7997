"""What the record says, in a few lines: verdicts of the claims, and what is best."""

from collections.abc import Sequence

from flax_attnat.reproduction.cells import TITLES, named, technique_name
from flax_attnat.reproduction.claims import FAILS, HOLDS, OPEN, TASKS, Verdict, comparisons, judge, verdicts
from flax_attnat.reproduction.courses import sensitivity_verdicts
from flax_attnat.reproduction.dataset_tables import CONTROL_TITLES
from flax_attnat.reproduction.settings import (
    ORDER,
    Line,
    chosen,
    control,
    datasets_of,
    index,
    main_figure,
    main_variant,
    mean,
    values,
)

WORDS = ("word_at", "word_iat", CONTROL_TITLES["word_at"])
"""What normalises word vectors."""

CLAIMS = (
    ("Attention iAT predicts best, on nine of ten tasks.", 1),
    ("Its attention correlates more strongly with gradient importance, on all tasks.", 0),
)


def summary(lines: Sequence[Line]) -> list[str]:
    """What the record says, in five lines of Markdown at most."""
    tested = datasets_of(lines)
    if not tested:
        return ["Nothing has been trained yet: no claim was tested."]
    runs = sum((line["split"], line["epoch"]) == ("dev", "best") for line in lines)
    found = [
        f"{runs} runs on {', '.join(_trained(lines, dataset) for dataset in tested)};"
        f" {TASKS - len(tested)} of ten data sets not tested."
    ]
    compared = {number: _compared(lines, figure) for number, figure in ((1, None), (2, "pearson_gradient"))}
    for number, (claim, judged) in enumerate(judged_claims(lines), 1):
        parts = [
            _part(verdict, [of for of in judged if of.verdict == verdict])
            for verdict in (FAILS, HOLDS, OPEN)
            if any(of.verdict == verdict for of in judged)
        ]
        found.append(f"{number}. {claim} {_capital('; '.join(parts))}.{compared.get(number, '')}")
    if largest := [said for dataset in tested if (said := _largest(lines, dataset))]:
        found.append(
            "Largest means on test, of techniques at their epsilon of dev and of controls (epsilon 0: twice the clean"
            f" loss; normalised words: word_at at epsilon 0): {'; '.join(largest)}."
        )
    return found


def _compared(lines: Sequence[Line], figure: str | None) -> str:
    """How many comparisons of a claim are significant; nothing where there is none."""
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    every = comparisons(judge(lines, variants, figure))
    count = sum(of.significant for of in every)
    are = "1 is" if count == 1 else f"{count} are" if count else "none is"
    return f" Of its {len(every)} comparisons, corrected over all of them, {are} significant." if every else ""


def _trained(lines: Sequence[Line], dataset: str) -> str:
    """A data set with its mark, and that nothing but vanilla was trained on it where that is so."""
    others = {line["technique"] for line in lines if line["dataset"] == dataset} - {"vanilla"}
    return named(lines, dataset) + ("" if others else " (vanilla only)")


def _largest(lines: Sequence[Line], dataset: str) -> str:
    """What predicts best on a data set and what correlates most, controls included, beside vanilla; else nothing."""
    test, variant = index(lines), main_variant(dataset)
    best = chosen(lines, dataset, variant)
    runs = {technique_name(name): test[best[name]] for name in ORDER if name in best and best[name] in test}
    zeros = {title: control(dataset, variant, technique) for technique, title in CONTROL_TITLES.items()}
    controls = {title: test[of] for title, of in zeros.items() if of in test}
    if "vanilla" not in runs or len(runs) < 2:
        return ""
    main = main_figure(lines, dataset)
    said = []
    for figure, title, scale, digits in ((main, TITLES[main], 100, 2), ("pearson_gradient", "Pearson", 1, 3)):
        means = {name: scale * mean(of, figure) for name, of in (runs | controls).items() if values(of, figure)}
        if "vanilla" not in means:
            continue
        top = max(means, key=lambda name: means[name])
        beside = ["vanilla", *CONTROL_TITLES.values()]
        others = ", ".join(f"{name} {means[name]:.{digits}f}" for name in beside if name in means and name != top)
        rest = max((name for name in means if name not in WORDS), key=lambda name: means[name])
        if top in WORDS and rest != "vanilla":
            others += f"; without normalised words {rest} {means[rest]:.{digits}f}"
        said.append(f"{title} {top} {means[top]:.{digits}f}" + (f" ({others})" if others else ""))
    return f"{named(lines, dataset)} {', '.join(said)}" if said else ""


def _part(verdict: str, judged: Sequence[Verdict]) -> str:
    """What is said of the readings that have one verdict: those together that have the same figures."""
    named_by: dict[str, list[str]] = {}
    for of in judged:
        named_by.setdefault(of.so_far, []).append(of.reading)
    said = [", ".join(names) + (f" ({so_far})" if so_far else "") for so_far, names in named_by.items()]
    enough = " on enough data sets" if verdict == OPEN and any(named_by) else ""
    return f"{verdict}{enough} for {' and for '.join(said)}"


def judged_claims(lines: Sequence[Line]) -> list[tuple[str, list[Verdict]]]:
    """The claims and their verdicts."""
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    found = []
    for (claim, allowed), figure in zip(CLAIMS, (None, "pearson_gradient"), strict=True):
        found.append((claim, verdicts(judge(lines, variants, figure), allowed)))
    third = "The techniques that perturb attention depend much less on epsilon than those that perturb words."
    return [*found, (third, sensitivity_verdicts(lines, variants))]


def _capital(text: str) -> str:
    """With a capital letter first."""
    return text[:1].upper() + text[1:]
