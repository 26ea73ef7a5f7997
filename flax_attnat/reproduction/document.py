"""The document that says what of the paper holds; it follows from the lines of finished runs alone, byte for byte."""

from collections.abc import Iterator, Sequence

from etils import epath

from flax_attnat.reporting.curves import draw_epsilon
from flax_attnat.reporting.plot import save
from flax_attnat.reproduction.cells import TITLES, facts_of, mark_of, table
from flax_attnat.reproduction.choices import choices_section
from flax_attnat.reproduction.claim_tables import claim_section
from flax_attnat.reproduction.dataset_tables import dataset_section, drawn_lines
from flax_attnat.reproduction.figure import CAPTION, NAME, draw_differences, rows_of
from flax_attnat.reproduction.published import DIFFERENCES, PARTIAL, VECTORS
from flax_attnat.reproduction.readings import readings_section
from flax_attnat.reproduction.settings import DATASETS, Line, datasets_of, main_figure
from flax_attnat.reproduction.summary import judged_claims, lacking, summary
from flax_attnat.training.workdir import write_atomically

COMMAND = "python -m launch.reproduce --budget_hours=0"

HARD_TO_GET = ("cnn", "snli", "multi_nli")
"""Data sets whose official files were not to be had."""


def write_document(lines: Sequence[Line], folder: epath.PathLike, out: epath.PathLike) -> None:
    """Writes the document, and its figures beside the records.

    Args:
      lines: of finished runs, from `read_records`.
      folder: of the records; gets `minus_vanilla.svg`, `<dataset>_epsilon.svg`, and the same as `.png`.
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
    if differences := draw_differences(lines):
        save(differences, folder, NAME)
    place = epath.Path(folder).name if folder.parent == out.parent else str(folder)
    write_atomically(out, "\n".join(_document(lines, place)).rstrip() + "\n")


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
        f"writes this page and its figures anew, byte for byte, from the files `{place}/*.jsonl.gz`. With"
        " `--budget_hours=H`, `--datasets=NAMES`, `--raw_dir=DIR` and `--vectors=FILE` it first trains what is missing"
        " of the part that CPUs can do, which is small of imdb and ag_news; with `--full` the rest too. Claims are the"
        " abstract's; the paper's tables, its epsilons and its number of seeds are not known to us, so the grid is ours"
        " (`configs/reproduction.py`). F1 and accuracy are in per cent, means over seeds ± standard deviation (n - 1)."
        " Of each technique the epsilon is the one with the largest mean on dev of the figure that epochs are selected"
        " by (AUC of two classes, accuracy of more); of a tie the smaller one; 0 does not compete."
    )
    yield ""
    yield (
        "What the paper's text and its released code leave open of Attention iAT is read in five ways, each judged by"
        " itself: span, released (what the code does), sentence, sign, and token (the formula as it is printed, which"
        " is Attention AT); see [Which iAT?](#which-iat). Beside them: attention_at, random perturbation of attention"
        " (attention_rp), and word_at and word_iat, which perturb word vectors."
    )
    yield ""
    yield "## In short"
    yield ""
    for number, line in enumerate(summary(lines)):
        yield f"- {line}" if number else line
        if not number:
            yield ""
    yield ""
    if any(rows_of(lines, dataset) for dataset in tested):
        yield f"![Each technique minus vanilla: F1 or accuracy, and Pearson]({place}/{NAME}.svg)"
        yield from ("", CAPTION, "")
    yield from _runs(lines)
    for number, (claim, judged) in enumerate(judged_claims(lines), 1):
        yield from claim_section(number, claim, judged, lines)
    yield from readings_section(lines)
    for dataset in tested:
        yield from dataset_section(lines, dataset, place)
    yield from choices_section(lines)
    yield from _differences()
    yield from _untested(lines)


def _runs(lines: Sequence[Line]) -> Iterator[str]:
    """What every figure rests on."""
    facts = {
        (dataset, variant): facts_of(lines, dataset, variant)
        for dataset in datasets_of(lines)
        for variant in dict.fromkeys(line["variant"] for line in lines if line["dataset"] == dataset)
    }
    if not facts:
        return
    yield "## What was trained"
    yield ""
    yield (
        "Each figure of this page is of these runs, by its data set: the claims are judged by the first row of each,"
        " the others are of the section on our choices. Hours are of training alone, without evaluation."
    )
    yield ""
    titles = next(iter(facts.values()))
    rows = [(dataset, *of.values()) for (dataset, _), of in facts.items()]
    yield from table(
        ("data set", *("texts (train / dev / test)" if title == "texts" else title for title in titles)), rows
    )
    used = dict.fromkeys(line["vectors"] for line in lines)
    if said := [f"{name}: {VECTORS[name]}." for name in used if name in VECTORS]:
        yield from (*said, "")


def _differences() -> Iterator[str]:
    """What the paper and the released code do otherwise."""
    yield "## Differences from the paper and from the released code"
    yield ""
    rows = [
        ("paper" if theirs.startswith("in the paper") else "released code", theirs.removeprefix("in the paper "), here)
        for theirs, here in DIFFERENCES
    ]
    yield from table(("whose", "there", "here"), rows)


def _untested(lines: Sequence[Line]) -> Iterator[str]:
    """What was left out."""
    yield "## Not tested"
    yield ""
    tested = datasets_of(lines)
    missing = [dataset for dataset in DATASETS if dataset not in tested]
    hard = [dataset for dataset in missing if dataset in HARD_TO_GET]
    if hard:
        yield (
            f"- Data sets whose official files were not to be had when this was written: {', '.join(hard)} (of snli, a"
            " small part of the training pairs was). `--datasets` and `--raw_dir` train them where the files are."
        )
    if rest := [dataset for dataset in missing if dataset not in hard]:
        yield f"- Data sets not trained yet, for want of computing time: {', '.join(rest)}."
    if lacks := [f"{dataset}: {', '.join(of)}" for dataset in tested if (of := lacking(lines, dataset))]:
        full = (
            " Of imdb and ag_news `--full` trains them."
            if any(of.startswith(("imdb", "ag_news")) for of in lacks)
            else ""
        )
        yield f"- Without a choice of epsilons: {'; '.join(lacks)}.{full}"
    if marks := [dataset for dataset in tested if mark_of(lines, dataset)]:
        said = [f"{of} ({mark_of(lines, of)}{f': {PARTIAL[of]}' if of in PARTIAL else ''})" for of in marks]
        yield f"- The whole official data of {', '.join(said)}."
    if frozen := sum(line["frozen_step"] is not None and line["split"] == "dev" for line in lines):
        yield f"- {frozen} runs whose loss or gradient was not finite; they are left out of every figure."
    yield "- More than the seeds and epsilons that the tables name."
    yield "- Virtual adversarial training of attention (Kitada & Iyatomi 2022)."
