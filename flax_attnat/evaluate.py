"""Measures what a workdir holds: the figures of every run, the suites, and how techniques compare. Trains nothing."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from flax_attnat.ablation import parts
from flax_attnat.config import Config
from flax_attnat.data.dataset import Dataset
from flax_attnat.evaluation.comparison import Measured
from flax_attnat.evaluation.families import MEASURES_VERSION, RUN_FIELDS, family_lines
from flax_attnat.evaluation.measure import Explain, Measures, build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.evaluation.suite import Found, Options, Stages, build_stages, run_suites
from flax_attnat.evaluation.texts import write_texts
from flax_attnat.training.memory import with_fewer_rows
from flax_attnat.training.runs import Cohort, Run, cohort_name
from flax_attnat.training.saved import restore
from flax_attnat.training.trainer import Trainer, build_trainer, with_runs
from flax_attnat.training.workdir import WorkdirError, read_lines, write_arrays, write_lines
from flax_attnat.typing import Params

Line = dict[str, Any]


class Task(NamedTuple):
    """What is to be measured, and who is told.

    Attributes:
      split: "train", "dev" or "test".
      suites: some of SUITES.
      options: of the attacks.
      say: told what the user should know.
      progress: `progress(part, texts, of)` while the suites run.
      write: whether what is new is kept.
    """

    split: str = "test"
    suites: Sequence[str] = ()
    options: Options = Options()
    say: Callable[[str], None] = print
    progress: Callable[[str, int, int], None] = lambda part, texts, of: None
    write: bool = True


class Report(NamedTuple):
    """What was measured.

    Attributes:
      lines: one per run: prediction, and attention's agreement with gradients.
      families: the lines of each suite.
      seconds: of the suites by stage; nothing of what was measured before.
      measured: the runs of every setting, to be compared.
    """

    lines: list[Line]
    families: dict[str, list[Line]]
    seconds: dict[str, float]
    measured: list[Measured]


class _Compiled(NamedTuple):
    """What techniques of the same model share.

    Attributes:
      explain: prediction, attention, importance.
      stages: of the suites.
    """

    explain: Explain
    stages: Stages


def evaluate(config: Config, dataset: Dataset, workdir: epath.PathLike, task: Task = Task()) -> Report:
    """Measures every run of a workdir, and writes what is new of those that are trained to the end.

    Args:
      config: of the workdir.
      dataset: what it was trained on.
      workdir: of `launch.train` or `launch.ablate`; gets lines in `results.jsonl`, arrays and texts in `instances/`.
      task: what is to be measured.

    Raises:
      WorkdirError: there is nothing trained, or it was trained on other data.
      TooLarge: the memory is too small for a single text.
    """
    report = Report([], {suite: [] for suite in task.suites}, {}, [])
    compiled: dict[tuple[bool, bool], _Compiled] = {}
    grouped: dict[str, list[Cohort]] = {}
    for part in parts(workdir, config):
        grouped.setdefault(cohort_name(Cohort(part.config, ())), []).append(part)
    trainer = None
    for members in grouped.values():
        # Without the vectors: what they became is in the checkpoint.
        metric, buckets = METRICS[config.training.selection], trainer.buckets if trainer else None
        trainer = build_trainer(members[0].config, dataset, None, metric, buckets=buckets)
        technique = trainer.config.technique
        # Nothing else in which techniques of a workdir differ changes what a model computes.
        same = (technique.startswith("word_"), technique == "uniform")
        if same not in compiled:
            compiled[same] = _Compiled(build_explain(trainer), build_stages(trainer, task.options))
        measured = [
            found
            for part in members
            if (found := _measure_part(with_runs(trainer, part.runs), compiled[same].explain, workdir, task))
        ]
        if measured:
            # Lines of some parts only would stand beside those of all later.
            write = task.write and len(measured) == len(members)
            _add(report, measured, compiled[same].stages, workdir, task._replace(write=write))
    if not report.lines:
        raise WorkdirError(f"{workdir} holds no checkpoint that can be read: train it first with launch.train.")
    # Without this file nothing is trained to the end, and nothing was kept that texts could stand beside.
    if task.write and (epath.Path(workdir) / "results.jsonl").exists():
        write_texts(workdir, dataset, task.split)
    return report


class _Part(NamedTuple):
    """A population and its figures.

    Attributes:
      trainer: of its runs.
      params: their best parameters.
      measures: what their lines are made of.
      lines: one per run.
      finished: whether it is trained to the end and measured.
    """

    trainer: Trainer
    params: Params
    measures: Measures
    lines: list[Line]
    finished: bool


def _measure_part(trainer: Trainer, explain: Explain, workdir: epath.PathLike, task: Task) -> _Part | None:
    """The figures of a population, whose lines are written if the split has none; None if there is no checkpoint."""
    restored = restore(trainer, workdir, task.say)
    if restored is None:
        return None
    states, meta = restored
    epoch, _, seconds = meta["position"]
    name, epochs = cohort_name(trainer.cohort), trainer.config.training.epochs
    if epoch < epochs:
        task.say(f"{name}: training is at epoch {epoch} of {epochs}; its figures are provisional.")
    measures = with_fewer_rows(lambda width: measure_split(trainer, explain, states.best_params, task.split, width))
    lines = result_lines(trainer, states, task.split, measures, seconds)
    known = read_lines(workdir, "results", name)
    # Without any lines it is not finished, and whoever trains it measures it.
    if known and task.write and task.split not in {line["split"] for line in known}:
        write_lines(workdir, "results", name, known + lines)
    return _Part(trainer, states.best_params, measures, lines, bool(known))


def _add(report: Report, members: Sequence[_Part], stages: Stages, workdir: epath.PathLike, task: Task) -> None:
    """Adds the populations of a cohort to the report: their lines, those of the suites, and what is to be compared."""
    runs = [run for part in members for run in part.trainer.runs]
    lines = [line for part in members for line in part.lines]
    report.lines.extend(lines)
    report.measured.extend(_settings(runs, lines, [part.measures for part in members]))
    name = cohort_name(Cohort(members[0].trainer.config, tuple(runs)))
    names = {suite: f"{name}.{task.split}.{suite}" for suite in task.suites}
    known = {suite: read_lines(workdir, "results", file) for suite, file in names.items()}
    new = [suite for suite, before in known.items() if not _is_current(before, lines, task.options)]
    if new:
        found = _run(members, stages, task, new)
        began = time.monotonic()
        for suite, made in family_lines(lines, runs, found, task.options).items():
            known[suite] = made
            if task.write and all(part.finished for part in members):
                write_arrays(workdir, names[suite], found.arrays[suite] | _index(members[0].trainer, task, runs))
                write_lines(workdir, "results", names[suite], made)
        seconds = found.seconds | {"summaries": time.monotonic() - began}
        for stage, value in seconds.items():
            report.seconds[stage] = report.seconds.get(stage, 0.0) + value
    for suite, of_suite in known.items():
        report.families[suite].extend(of_suite)


def _is_current(before: Sequence[Line], lines: Sequence[Line], options: Options) -> bool:
    """Whether lines of a suite say what would be measured now of the runs of these lines of predictions."""
    if len(before) != len(lines):
        return False
    asked = options.fields() | {"measures_version": MEASURES_VERSION}
    return all(
        all(old[name] == now[name] for name in RUN_FIELDS) and all(old.get(k, v) == v for k, v in asked.items())
        for old, now in zip(before, lines, strict=True)
    )


def _index(trainer: Trainer, task: Task, runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """What rows and runs of the arrays are: `length` and `label` `[N]`, and `seed` and `epsilon` `[R]`."""
    split = trainer.dataset.splits[task.split]
    return {
        "length": np.array([len(tokens) for tokens in split.tokens], np.int32),
        "label": np.asarray(split.labels),
        "seed": np.array([run.seed for run in runs]),
        "epsilon": np.array([run.epsilon for run in runs]),
    }


def _run(members: Sequence[_Part], stages: Stages, task: Task, suites: Sequence[str]) -> Found:
    """The suites of a cohort, population by population, with fewer texts at once where the memory is too small."""
    found = []
    for part in members:
        name, texts = cohort_name(part.trainer.cohort), len(part.measures.labels)

        def attempt(width: int, part: _Part = part, name: str = name, texts: int = texts) -> Found:
            """All texts, so many at once."""
            with jax.default_matmul_precision(part.trainer.config.training.matmul_precision):
                return run_suites(
                    part.trainer,
                    stages,
                    part.params,
                    task.split,
                    suites,
                    task.options,
                    width=width,
                    progress=lambda done: task.progress(name, done, texts),
                )

        found.append(with_fewer_rows(attempt))
    first = found[0]
    arrays = {
        suite: {
            column: np.concatenate([each.arrays[suite][column] for each in found]) for column in first.arrays[suite]
        }
        for suite in suites
    }
    seconds = {stage: sum(each.seconds[stage] for each in found) for stage in first.seconds}
    return first._replace(arrays=arrays, seconds=seconds)


def _settings(runs: Sequence[Run], lines: Sequence[Line], measures: Sequence[Measures]) -> list[Measured]:
    """The runs of a cohort by setting, each with what a comparison reads."""
    probability = np.concatenate([each.probability for each in measures])
    pearson = np.concatenate([each.pearson for each in measures])
    settings: dict[Run, list[int]] = {}
    for place, run in enumerate(runs):
        settings.setdefault(run._replace(seed=0), []).append(place)
    found = []
    for places in settings.values():
        places = sorted(places, key=lambda place: runs[place].seed)
        figures = {name: [lines[place][name] for place in places] for name in ("f1", "accuracy")}
        seeds = tuple(runs[place].seed for place in places)
        labels = measures[0].labels
        found.append(Measured(lines[places[0]], seeds, probability[places], pearson[places], labels, figures))
    return found
