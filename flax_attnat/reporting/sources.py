"""What a report reads of workdirs, and which of them are compared with each other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from flax_attnat.allowed import CONTROLS, TECHNIQUES
from flax_attnat.reporting.lines import Line, check_one_configuration, read_comparisons, read_results
from flax_attnat.reporting.record import Record, read_record
from flax_attnat.reporting.results import Choice, ResultsError, best
from flax_attnat.reporting.rows import Group

VARIED = (
    *("seeds", "technique", "reading", "epsilon", "adversarial_weight"),
    *("optimizer.learning_rate", "optimizer.weight_decay"),
)
"""Fields that lines name, by which runs of one table may differ."""

ELSEWHERE = ("data.raw_dir", "data.data_dir", "training.save_every_minutes")
"""Fields that no figure depends on."""


class Source(NamedTuple):
    """What a report reads of a workdir.

    Attributes:
      workdir: its folder.
      lines: of `results.jsonl`.
      comparisons: its own lines of `significance.jsonl`.
      choices: settings chosen on dev among its own lines.
      record: how it was made.
    """

    workdir: epath.Path
    lines: list[Line]
    comparisons: list[Line]
    choices: list[Choice]
    record: Record


def read_source(workdir: epath.Path, notes: list[str]) -> Source:
    """What a workdir holds; what was left out goes to the notes.

    Raises:
      ResultsError: a file is damaged.
    """
    results = read_results(workdir / "results.jsonl")
    comparisons = read_comparisons(workdir / "significance.jsonl")
    notes += [*results.notes, *comparisons.notes]
    own = _own(workdir, comparisons.lines, results.lines)
    if comparisons.lines and not own:
        notes.append(
            f"{workdir / 'significance.jsonl'} holds comparisons of other workdirs only: they are left out. Run"
            " launch.evaluate with --suite=significance again."
        )
    return Source(workdir, results.lines, own, sorted(best(results.lines), key=_order), read_record(workdir))


def group_sources(sources: Sequence[Source], group: bool) -> list[Group]:
    """What is compared: all workdirs together, or each by itself if asked for.

    Raises:
      ResultsError: they are to be compared, and are of different configurations or data.
    """
    if group and len(sources) > 1:
        names = workdir_names(sources)
        return [Group(name, of.lines, of.choices, of.comparisons) for name, of in zip(names, sources, strict=True)]
    check_one_configuration({str(source.workdir): source.lines for source in sources}, group)
    _check_settings(sources)
    lines = [line for source in sources for line in source.lines]
    comparisons = [line for source in sources for line in source.comparisons]
    datasets = list(dict.fromkeys(line["dataset"] for line in lines))
    choices = sorted(best(lines), key=lambda choice: (datasets.index(choice.dataset), _order(choice)))
    return [Group("", lines, choices, comparisons)]


def workdir_names(sources: Sequence[Source]) -> list[str]:
    """Names of workdirs: the last part of their paths, or all of it where two are the same."""
    short = [source.workdir.name for source in sources]
    return short if len(set(short)) == len(short) else [str(source.workdir) for source in sources]


def _own(workdir: epath.Path, lines: Iterable[Line], results: Iterable[Line]) -> list[Line]:
    """The comparisons of a workdir: launch.evaluate writes those of all that were measured together into each."""
    trained = {(line["dataset"], line["technique"]) for line in results}
    by_workdir: dict[str, list[Line]] = {}
    for line in lines:
        by_workdir.setdefault(str(line.get("workdir")), []).append(line)
    for name, own in by_workdir.items():
        if epath.Path(name).expanduser().resolve() == workdir.expanduser().resolve():
            return own
    # A folder that was moved is known by its lines if there are no others, and they are of what was trained there.
    moved = [
        own
        for name, own in by_workdir.items()
        if (epath.Path(name).name == workdir.name or len(by_workdir) == 1)
        and {(line["dataset"], line[which]) for line in own for which in ("technique", "against")} <= trained
    ]
    return moved[0] if len(moved) == 1 else []


def _check_settings(sources: Sequence[Source]) -> None:
    """Makes sure that workdirs of a data set differ in what lines name only."""
    first: dict[str, Source] = {}
    for source in sources:
        for dataset in dict.fromkeys(line["dataset"] for line in source.lines):
            other = first.setdefault(dataset, source)
            if differing := _differing(dict(other.record.config), dict(source.record.config)):
                raise ResultsError(
                    f"{other.workdir} and {source.workdir} are of different configurations: they differ in"
                    f" {', '.join(differing)}. Give one of them, or --group to show them beside each other."
                )


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fields of two configurations in which runs must not differ unseen; none where one is unknown."""
    names = [name for name in ours if name not in VARIED + ELSEWHERE and not name.startswith(("sweep.", "population."))]
    return [name for name in names if theirs and ours[name] != theirs.get(name)]


def _order(choice: Choice) -> tuple[int, str, str]:
    """Techniques as the documents list them, the controls after them."""
    known = (*TECHNIQUES, *CONTROLS)
    place = known.index(choice.technique) if choice.technique in known else len(known)
    return place, choice.technique, choice.reading or ""
