"""Finished workdirs to tables, figures and one page; reads `results.jsonl` and arrays, trains and measures nothing."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from matplotlib.figure import Figure

from flax_attnat.reporting import curves, plot, summary
from flax_attnat.reporting.examples import Examples, examples
from flax_attnat.reporting.export import Table, write_tables
from flax_attnat.reporting.heatmap import draw_heat_map
from flax_attnat.reporting.measures import NORMS
from flax_attnat.reporting.page import Heat, Page, Picture, Titled, render_page
from flax_attnat.reporting.results import Choice, ResultsError
from flax_attnat.reporting.rows import Group, headline, of_family, technique_lines, technique_name
from flax_attnat.reporting.sources import Source, group_sources, read_source, workdir_names
from flax_attnat.reporting.tables import FIGURES, predictions
from flax_attnat.training.workdir import write_atomically

SHOWN = ("vanilla", "attention_at", "attention_iat")
DRAWN, LISTED = 4, 3


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
      ResultsError: lines or arrays are damaged, or of configurations that cannot be compared.
    """
    folder, notes = epath.Path(folder), list[str]()
    sources = [read_source(epath.Path(workdir), notes) for workdir in workdirs]
    groups = group_sources(sources, options.group)
    _check_techniques(groups, options.techniques)
    tables = {name: table for name, table in _tables(groups) if table is not None}
    heat = [_heat(source, groups, options, notes) for source in sources] if options.examples else []
    written = [path for name, table in tables.items() for path in write_tables(folder / "tables", name, table)]
    pictures = list(_figures(groups, folder / "figures", written, notes))
    _draw_heat(sources, heat, folder / "figures", written)
    names = workdir_names(sources) if len(sources) > 1 else [""]
    page = Page(
        title=f"Report: {', '.join(dict.fromkeys(choice.dataset for of in groups for choice in of.choices))}",
        summary=[sentence for group in groups for sentence in summary_sentences(group)],
        notes=notes,
        tables=[Titled(name, table) for name, table in tables.items()],
        pictures=pictures,
        heat=[Heat(name, found) for name, found in zip(names, heat, strict=bool(heat))],
        records=[source.record for source in sources],
    )
    write_atomically(folder / "index.html", render_page(page))
    _remove_old(folder, written)
    for note in notes:
        say(note)
    return folder / "index.html"


def _remove_old(folder: epath.Path, written: Sequence[epath.Path]) -> None:
    """Removes what an earlier report wrote into a folder and this one did not; `files.json` has the names."""
    index, names = folder / "files.json", [str(path.relative_to(folder)) for path in written]
    with contextlib.suppress(OSError, ValueError):
        for name in json.loads(index.read_text()):
            if name not in names and re.fullmatch(r"(tables|figures)/\w[\w-]*\.(csv|md|tex|html|png|svg)", str(name)):
                (folder / name).unlink(missing_ok=True)
    write_atomically(index, json.dumps(names, indent=1) + "\n")


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
        found += [f"{technique_name(of)}: {_left_out(of)}" for of in choices if of.left_out]
    return found


def _left_out(choice: Choice) -> str:
    """Which settings did not compete, and why."""
    settings = []
    for setting, reason in choice.left_out[:LISTED]:
        named = {name.replace("_", " "): value for name, value in setting._asdict().items() if value is not None}
        settings.append(f"{', '.join(f'{name} {value:g}' for name, value in named.items()) or 'its runs'}: {reason}")
    more = len(choice.left_out) - LISTED
    return f"left out: {'; '.join(settings)}{f'; and {more:,} more' if more > 0 else ''}."


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
        return f"{technique_name(choice)} {scale * (figure.mean or 0):.{digits}f}{spread}"

    top = max(means, key=lambda each: each[0])[1]
    beside = [said(choice) for _, choice in means if choice.technique == "vanilla" and choice is not top]
    words = "Pearson correlation of attention and gradient importance" if name == "pearson" else title
    return [f"Highest mean {words}: {'; '.join([said(top), *beside])}."]


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


def _figures(
    groups: Sequence[Group], folder: epath.Path, written: list[epath.Path], notes: list[str]
) -> Iterator[Picture]:
    """The curves of every data set of every group, drawn and written."""
    for number, group in enumerate(groups, 1):
        robust = of_family(group, "robustness")
        for dataset in dict.fromkeys(choice.dataset for choice in group.choices):
            lines = [line for line in group.lines if line["dataset"] == dataset]
            choices = [choice for choice in group.choices if choice.dataset == dataset]
            title = f"{dataset}, {group.title}" if group.title else dataset
            name = _file_name(dataset) + (f"_{number}" if len(groups) > 1 else "")
            drawn = [*_epsilon_figures(lines, choices, title, notes)]
            drawn += _robustness_figures([line for of in choices for line in technique_lines(robust, of)], title)
            for kind, caption, alternative, figure in drawn:
                paths = plot.save(figure, folder, f"{name}_{kind}")
                written += paths
                yield Picture(caption, alternative, paths[1].read_bytes(), "svg")


def _epsilon_figures(
    lines: Sequence[Mapping[str, Any]], choices: Sequence[Choice], title: str, notes: list[str]
) -> Iterator[tuple[str, str, str, Figure]]:
    """A metric and the correlation against epsilon, where a technique has several."""
    for figure in (headline(choices), "pearson"):
        drawn = curves.epsilon_curves(lines, figure)
        if not any(len(curve.x) > 1 for curve in drawn):
            notes.append(f"{title}: no curves against epsilon: no technique has two epsilons.")
            return
        caption = f"{title}: {FIGURES[figure][0]} on test against epsilon."
        alternative = curves.alternative_text(drawn, figure)
        yield f"epsilon_{figure}", caption, alternative, curves.draw_epsilon(lines, figure, title)


def _robustness_figures(lines: Sequence[Mapping[str, Any]], title: str) -> Iterator[tuple[str, str, str, Figure]]:
    """Accuracy against the radius of a perturbation, for each norm."""
    for norm, words in NORMS.items():
        columns = curves.robustness_curves(lines, norm)
        if any(kind != "clean" for kinds in columns.values() for kind in kinds):
            caption = f"{title}: accuracy on test against the {words} radius of a perturbation of the scores."
            drawn = curves.draw_robustness(lines, norm, title)
            yield f"robustness_{norm}", caption, curves.robustness_text(columns, norm), drawn


def _check_techniques(groups: Sequence[Group], names: Sequence[str]) -> None:
    """Makes sure that the techniques asked for are there."""
    there = list(dict.fromkeys(choice.technique for group in groups for choice in group.choices))
    if absent := [name for name in names if name not in there]:
        raise ResultsError(f"there are no runs of {', '.join(absent)}: the techniques are {', '.join(there)}.")


def _heat(source: Source, groups: Sequence[Group], options: Options, notes: list[str]) -> Examples:
    """The texts of a workdir under some techniques, at the settings of the tables where it has them."""
    names = options.techniques or _usual(source.choices)
    shown = {(of.dataset, of.technique, of.reading): of for group in groups for of in group.choices}
    chosen = []
    for choice in (choice for name in names for choice in source.choices if choice.technique == name):
        best = choice if len(groups) > 1 else shown[choice.dataset, choice.technique, choice.reading]
        if best.setting and _has(source, best):
            chosen.append(best)
        elif choice.setting:
            chosen.append(choice)
            notes.append(
                f"{source.workdir}: the texts show {technique_name(choice)} at the setting that is best there, the"
                " tables at the one that is best of all workdirs."
            )
    found = examples(source.workdir, chosen, count=options.examples)
    if not found.sentences:
        notes.append(found.note)
    return found


def _has(source: Source, choice: Choice) -> bool:
    """Whether a workdir has the first run of a choice."""
    seed = choice._replace(seeds=choice.seeds[:1])
    return bool(technique_lines(Group("", predictions(source.lines), (), ()), seed))


def _usual(choices: Sequence[Choice]) -> list[str]:
    """The techniques that a heat map shows if nobody says which."""
    there = list(dict.fromkeys(choice.technique for choice in choices))
    return [name for name in SHOWN if name in there] or there[:3]


def _draw_heat(
    sources: Sequence[Source], heat: Sequence[Examples], folder: epath.Path, written: list[epath.Path]
) -> None:
    """Writes some texts of each workdir, spread over those of the page, as a picture for a paper."""
    for number, (source, found) in enumerate(zip(sources, heat, strict=bool(heat)), 1):
        if found.sentences:
            dataset = source.choices[0].dataset
            name = f"{_file_name(dataset)}_heatmap" + (f"_{number}" if len(sources) > 1 else "")
            spread = found.sentences[:: max(len(found.sentences) // DRAWN, 1)][:DRAWN]
            written += plot.save(draw_heat_map(spread, dataset), folder, name)


def _file_name(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60] or "data"
