"""The document that says what of the paper holds; it follows from the lines of finished runs alone, byte for byte."""

from collections.abc import Iterator, Sequence

from etils import epath

from flax_attnat.reporting.curves import draw_epsilon
from flax_attnat.reporting.plot import save
from flax_attnat.reproduction.cells import TITLES, mark_of, named, table, technique_name
from flax_attnat.reproduction.choices import choices_section
from flax_attnat.reproduction.claim_tables import claim_section
from flax_attnat.reproduction.claims import FAILS, HOLDS, OPEN, TASKS, Verdict, judge, verdicts
from flax_attnat.reproduction.courses import sensitivity_verdicts
from flax_attnat.reproduction.dataset_tables import CONTROL_TITLES, dataset_section, drawn_lines
from flax_attnat.reproduction.published import DIFFERENCES
from flax_attnat.reproduction.readings import readings_section
from flax_attnat.reproduction.settings import (
    DATASETS,
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
from flax_attnat.training.workdir import write_atomically

COMMAND = "python -m launch.reproduce --budget_hours=0"

CLAIMS = (
    ("Attention iAT predicts best, on nine of ten tasks.", 1),
    ("Its attention correlates more strongly with gradient importance, on all tasks.", 0),
)


def write_document(lines: Sequence[Line], folder: epath.PathLike, out: epath.PathLike) -> None:
    """Writes the document, and its figures beside the records.

    Args:
      lines: of finished runs, from `read_records`.
      folder: of the records; gets `<dataset>_epsilon.svg` and `.png`.
      out: the Markdown file.
    """
    folder, out = epath.Path(folder), epath.Path(out)
    for dataset in datasets_of(lines):
        if found := drawn_lines(lines, dataset):
            figure = main_figure(lines, dataset)
            save(
                draw_epsilon(found, figure, f"{dataset}: {TITLES[figure]} against epsilon"),
                folder,
                f"{dataset}_epsilon",
            )
    place = epath.Path(folder).name if folder.parent == out.parent else str(folder)
    write_atomically(out, "\n".join(_document(lines, place)).rstrip() + "\n")


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
    for number, (claim, judged) in enumerate(_verdicts(lines), 1):
        named_by: dict[tuple[str, str], list[str]] = {}
        for of in sorted(judged, key=lambda of: (FAILS, HOLDS, OPEN).index(of.verdict)):
            named_by.setdefault((of.verdict, of.so_far), []).append(of.reading)
        parts = [_part(verdict, so_far, names) for (verdict, so_far), names in named_by.items()]
        found.append(f"{number}. {claim} {_capital('; '.join(parts))}.")
    if largest := [said for dataset in tested if (said := _largest(lines, dataset))]:
        found.append(
            "Largest means on test, of techniques at their epsilon of dev and of controls (epsilon 0: twice the clean"
            f" loss; normalised words: word_at at epsilon 0): {'; '.join(largest)}."
        )
    return found


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
        said.append(f"{title} {top} {means[top]:.{digits}f}" + (f" ({others})" if others else ""))
    return f"{named(lines, dataset)} {', '.join(said)}" if said else ""


def _part(verdict: str, so_far: str, readings: Sequence[str]) -> str:
    """What is said of some readings."""
    of = f"for {', '.join(readings)}"
    enough = "on enough data sets " if so_far and verdict == OPEN else ""
    return f"{verdict} {enough}{of}" + (f" ({so_far})" if so_far else "")


def _document(lines: Sequence[Line], place: str) -> Iterator[str]:
    """The lines of the document."""
    tested = datasets_of(lines)
    yield "# What of the paper holds"
    yield ""
    yield (
        "Three claims of *Attention Meets Perturbations* (Kitada & Iyatomi 2021), judged by trainings of this library."
        " All of it follows from the lines of finished runs:"
    )
    yield from ("", "```", COMMAND, "```", "")
    yield (
        f"writes this page and its figures anew, byte for byte, from the files `{place}/*.jsonl.gz`; with"
        " `--budget_hours=H` it trains what is missing first. Claims are the abstract's; the paper's tables, its"
        " epsilons and its number of seeds are not known to us, so the grid is ours (`configs/reproduction.py`). F1"
        " and accuracy are in per cent, means over seeds ± standard deviation (n - 1); the setting is the one that is"
        " best on dev."
    )
    yield ""
    yield "## In short"
    yield ""
    for number, line in enumerate(summary(lines)):
        yield f"- {line}" if number else line
        if not number:
            yield ""
    yield ""
    for number, (claim, judged) in enumerate(_verdicts(lines), 1):
        yield from claim_section(number, claim, judged, lines)
    yield from readings_section(lines)
    for dataset in tested:
        yield from dataset_section(lines, dataset, place)
    yield from choices_section(lines)
    yield from _differences()
    yield from _untested(lines)


def _verdicts(lines: Sequence[Line]) -> list[tuple[str, list[Verdict]]]:
    """The claims and their verdicts."""
    variants = {dataset: main_variant(dataset) for dataset in datasets_of(lines)}
    found = []
    for (claim, allowed), figure in zip(CLAIMS, (None, "pearson_gradient"), strict=True):
        found.append((claim, verdicts(judge(lines, variants, figure), allowed)))
    third = "The techniques that perturb attention depend much less on epsilon than those that perturb words."
    return [*found, (third, sensitivity_verdicts(lines, variants))]


def _differences() -> Iterator[str]:
    """What the paper and the released code do otherwise."""
    yield "## Differences from the paper and from the released code"
    yield ""
    yield from table(("paper or released code", "here"), DIFFERENCES)


def _untested(lines: Sequence[Line]) -> Iterator[str]:
    """What was left out."""
    yield "## Not tested"
    yield ""
    tested = datasets_of(lines)
    missing = [dataset for dataset in DATASETS if dataset not in tested]
    if missing:
        yield (
            f"- Data sets: {', '.join(missing)}. CNN QA, MultiNLI and the whole of SNLI were not to be had"
            " when this was written; the same command trains them where their raw files are."
        )
    lacking = []
    for dataset in tested:
        best = chosen(lines, dataset, main_variant(dataset))
        if names := [technique_name(name) for name in ORDER if name not in best]:
            lacking.append(f"{dataset}: {', '.join(names)}")
    if lacking:
        yield f"- Techniques without a finished run: {'; '.join(lacking)}."
    if marks := [f"{dataset} ({mark_of(lines, dataset)})" for dataset in tested if mark_of(lines, dataset)]:
        yield f"- The whole official data of {', '.join(marks)}."
    if frozen := sum(line["frozen_step"] is not None and line["split"] == "dev" for line in lines):
        yield f"- {frozen} runs whose loss or gradient was not finite; they are left out of every figure."
    yield "- More than the seeds and epsilons that the tables name; virtual adversarial training."


def _capital(text: str) -> str:
    """With a capital letter first."""
    return text[:1].upper() + text[1:]
