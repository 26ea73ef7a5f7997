"""Finished workdirs to tables, figures and one page; reads `results.jsonl` and arrays, trains and measures nothing."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from flax_attnat.allowed import CONTROLS, TECHNIQUES
from flax_attnat.reporting import curves, plot, summary
from flax_attnat.reporting.examples import Examples, examples
from flax_attnat.reporting.export import Table, write_tables
from flax_attnat.reporting.heatmap import draw_heat_map
from flax_attnat.reporting.lines import Line, check_one_configuration, read_comparisons, read_results
from flax_attnat.reporting.measures import NORMS
from flax_attnat.reporting.page import Heat, Page, Picture, Titled, render_page
from flax_attnat.reporting.record import Record, read_record
from flax_attnat.reporting.results import Choice, best
from flax_attnat.reporting.rows import Group, headline, of_family, technique_lines
from flax_attnat.reporting.tables import FIGURES, predictions
from flax_attnat.training.workdir import write_atomically

SHOWN = ("vanilla", "attention_at", "attention_iat")
DRAWN = 4


class Options(NamedTuple):
    """What a report shows.

    Attributes:
      group: whether workdirs of different configurations stand beside each other.
      examples: texts under each data set's heat maps.
      techniques: columns of the heat maps; empty: vanilla, attention_at and attention_iat, or the first three.
    """

    group: bool = False
    examples: int = 60
    techniques: tuple[str, ...] = ()


class Source(NamedTuple):
    """What a report reads of a workdir.

    Attributes:
      workdir: its folder.
      lines: of `results.jsonl`.
      comparisons: of `significance.jsonl`.
      choices: settings chosen on dev among its own lines.
      record: how it was made.
    """

    workdir: epath.Path
    lines: list[Line]
    comparisons: list[Line]
    choices: list[Choice]
    record: Record


def write_report(
    workdirs: Sequence[epath.PathLike],
    folder: epath.PathLike,
    options: Options = Options(),
    say: Callable[[str], None] = print,
) -> epath.Path:
    """Writes tables, figures and a page about workdirs.

    Args:
      workdirs: of launch.train or launch.ablate, with `results.jsonl`; what launch.evaluate wrote is shown too.
      folder: gets `index.html`, `tables/` (CSV, Markdown, LaTeX, HTML) and `figures/` (PNG, SVG).
      options: what is shown.
      say: told what was left out, a sentence each.

    Returns:
      The page.

    Raises:
      ResultsError: lines are damaged, or of configurations that cannot be compared.
      WorkdirError: `config.json` is not there or damaged.
    """
    folder, notes = epath.Path(folder), list[str]()
    sources = [_read(epath.Path(workdir), notes) for workdir in workdirs]
    check_one_configuration({str(source.workdir): source.lines for source in sources}, options.group)
    groups = _groups(sources, options.group)
    tables = {name: table for name, table in _tables(groups) if table is not None}
    for name, table in tables.items():
        write_tables(folder / "tables", name, table)
    pictures = list(_figures(groups, folder / "figures", notes))
    heat = [_heat(source, options, notes) for source in sources]
    _draw_heat(sources, heat, folder / "figures")
    page = Page(
        title=f"Report: {', '.join(dict.fromkeys(choice.dataset for of in groups for choice in of.choices))}",
        summary=[sentence for group in groups for sentence in summary_sentences(group)],
        notes=notes,
        tables=[Titled(name, table) for name, table in tables.items()],
        pictures=pictures,
        heat=[Heat(name if len(heat) > 1 else "", of) for name, of in zip(_names(sources), heat, strict=True)],
        records=[source.record for source in sources],
    )
    write_atomically(folder / "index.html", render_page(page))
    for note in notes:
        say(note)
    return folder / "index.html"


def summary_sentences(group: Group) -> list[str]:
    """What a group of runs comes to, in sentences: its size, and the best of each figure beside vanilla."""
    found = []
    for dataset in dict.fromkeys(choice.dataset for choice in group.choices):
        lines = [line for line in predictions(group.lines) if (line["dataset"], line["split"]) == (dataset, "test")]
        choices = [choice for choice in group.choices if choice.dataset == dataset]
        mark = f", {choices[0].mark} data" if choices[0].mark else ""
        where = f"{group.title}: " if group.title else ""
        sizes = ", ".join(f"{n:,}" for n in dict.fromkeys(line["n"] for line in lines if line.get("n")))
        found.append(
            f"{where}{dataset}{mark}: {_count(len(lines), 'run')} of"
            f" {_count(len({each.technique for each in choices}), 'technique')},"
            f" {sizes or 'an unknown number of'} test texts."
        )
        for name in (headline(choices), "pearson"):
            found += _best_of(choices, name)
        found += [
            f"{choice.technique}: {len(choice.left_out)} of its settings left out: {choice.left_out[0].reason}."
            for choice in choices
            if choice.left_out
        ]
    return found


def _count(number: int, name: str) -> str:
    """A number of things.

    >>> _count(1, "run"), _count(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def _best_of(choices: Sequence[Choice], name: str) -> list[str]:
    """A sentence about the technique whose mean is highest, beside vanilla; nothing for one technique."""
    title, scale, digits = FIGURES[name]
    means = [(of.mean, choice) for choice in choices if (of := choice.test.get(name)) and of.mean is not None]
    if len(means) < 2:
        return []

    def said(choice: Choice) -> str:
        """A technique and its figure."""
        figure = choice.test[name]
        spread = f" ± {scale * figure.sd:.{digits}f}" if figure.sd is not None else ""
        reading = f" ({choice.reading})" if choice.reading else ""
        return f"{choice.technique}{reading} {scale * (figure.mean or 0):.{digits}f}{spread}"

    top = max(means, key=lambda each: each[0])[1]
    beside = [said(choice) for _, choice in means if choice.technique == "vanilla" and choice is not top]
    words = "Pearson correlation of attention and gradient importance" if name == "pearson" else title
    return [f"Highest mean {words}: {'; '.join([said(top), *beside])}."]


def _read(workdir: epath.Path, notes: list[str]) -> Source:
    """What a workdir holds; what was left out goes to the notes."""
    results = read_results(workdir / "results.jsonl")
    comparisons = read_comparisons(workdir / "significance.jsonl")
    notes += [*results.notes, *comparisons.notes]
    choices = sorted(best(results.lines), key=_order)
    return Source(workdir, results.lines, comparisons.lines, choices, read_record(workdir))


def _names(sources: Sequence[Source]) -> list[str]:
    """Names of workdirs: the last part of their paths, or all of it where two are the same."""
    short = [source.workdir.name for source in sources]
    return short if len(set(short)) == len(short) else [str(source.workdir) for source in sources]


def _order(choice: Choice) -> tuple[int, str, str]:
    """Techniques as the documents list them, the controls after them."""
    known = (*TECHNIQUES, *CONTROLS)
    place = known.index(choice.technique) if choice.technique in known else len(known)
    return place, choice.technique, choice.reading or ""


def _groups(sources: Sequence[Source], group: bool) -> list[Group]:
    """What is compared: all workdirs together, or each by itself where they are of different configurations."""
    if group and len(sources) > 1:
        names = _names(sources)
        return [Group(name, of.lines, of.choices, of.comparisons) for name, of in zip(names, sources, strict=True)]
    lines = [line for source in sources for line in source.lines]
    comparisons = [line for source in sources for line in source.comparisons]
    datasets = list(dict.fromkeys(line["dataset"] for line in lines))
    choices = sorted(best(lines), key=lambda choice: (datasets.index(choice.dataset), _order(choice)))
    return [Group("", lines, choices, comparisons)]


def _tables(groups: Sequence[Group]) -> Iterator[tuple[str, Table | None]]:
    """The tables of a report by file name; None where nothing was measured for one."""
    yield "overview", summary.overview_table(groups)
    yield "prediction", summary.prediction_table(groups)
    yield "significance", summary.difference_table(groups)
    yield "agreement", summary.agreement_table(groups)
    yield "faithfulness", summary.faithfulness_table(groups)
    for norm in NORMS:
        yield f"robustness_{norm}", summary.robustness_table(groups, norm)
    yield "deletion", summary.deletion_table(groups)
    yield "settings", summary.settings_table(groups)


def _figures(groups: Sequence[Group], folder: epath.Path, notes: list[str]) -> Iterator[Picture]:
    """The curves of every data set of every group, drawn and written."""
    for number, group in enumerate(groups, 1):
        robust = of_family(group, "robustness")
        for dataset in dict.fromkeys(choice.dataset for choice in group.choices):
            lines = [line for line in group.lines if line["dataset"] == dataset]
            choices = [choice for choice in group.choices if choice.dataset == dataset]
            title = f"{dataset}, {group.title}" if group.title else dataset
            name = _file_name(dataset) + (f"_{number}" if len(groups) > 1 else "")
            yield from _epsilon_figures(lines, choices, title, name, folder, notes)
            attacked = [line for choice in choices for line in technique_lines(robust, choice)]
            yield from _robustness_figures(attacked, title, name, folder)


def _epsilon_figures(
    lines: Sequence[Mapping[str, Any]],
    choices: Sequence[Choice],
    title: str,
    name: str,
    folder: epath.Path,
    notes: list[str],
) -> Iterator[Picture]:
    """A metric and the correlation against epsilon, where a technique has several."""
    for figure in (headline(choices), "pearson"):
        drawn = curves.epsilon_curves(lines, figure)
        if not any(len(curve.x) > 1 for curve in drawn):
            notes.append(f"{title}: no curves against epsilon: no technique has two epsilons.")
            return
        picture = curves.draw_epsilon(lines, figure, title)
        file = f"{name}_epsilon_{figure}"
        caption = f"{title}: {FIGURES[figure][0]} on test against epsilon."
        paths = plot.save(picture, folder, file)
        yield Picture(file, caption, curves.alternative_text(drawn, figure), paths[1].read_bytes(), "svg")


def _robustness_figures(
    lines: Sequence[Mapping[str, Any]], title: str, name: str, folder: epath.Path
) -> Iterator[Picture]:
    """Accuracy against the radius of a perturbation, for each norm."""
    for norm, words in NORMS.items():
        columns = curves.robustness_curves(lines, norm)
        if any(kind != "clean" for kinds in columns.values() for kind in kinds):
            file = f"{name}_robustness_{norm}"
            paths = plot.save(curves.draw_robustness(lines, norm, title), folder, file)
            caption = f"{title}: accuracy on test against the {words} radius of a perturbation of the scores."
            yield Picture(file, caption, curves.robustness_text(columns, norm), paths[1].read_bytes(), "svg")


def _heat(source: Source, options: Options, notes: list[str]) -> Examples:
    """The texts of a workdir under some techniques."""
    names = options.techniques or _usual(source.choices)
    chosen = [choice for name in names for choice in source.choices if choice.technique == name and choice.setting]
    found = examples(source.workdir, chosen, count=options.examples)
    if not found.sentences:
        notes.append(found.note)
    return found


def _usual(choices: Sequence[Choice]) -> list[str]:
    """The techniques that a heat map shows if nobody says which."""
    there = list(dict.fromkeys(choice.technique for choice in choices))
    return [name for name in SHOWN if name in there] or there[:3]


def _draw_heat(sources: Sequence[Source], heat: Sequence[Examples], folder: epath.Path) -> None:
    """Writes some texts of each workdir, spread over those of the page, as a picture for a paper."""
    for number, (source, found) in enumerate(zip(sources, heat, strict=True), 1):
        if found.sentences:
            dataset = source.choices[0].dataset
            name = f"{_file_name(dataset)}_heatmap" + (f"_{number}" if len(sources) > 1 else "")
            spread = found.sentences[:: max(len(found.sentences) // DRAWN, 1)][:DRAWN]
            plot.save(draw_heat_map(spread, dataset), folder, name)


def _file_name(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60] or "data"
