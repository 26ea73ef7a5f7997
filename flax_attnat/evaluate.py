"""Measures what a workdir holds: the figures of every run, the suites, and how techniques compare. Trains nothing."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from flax_attnat.ablation import parts
from flax_attnat.config import Config
from flax_attnat.data.dataset import Dataset
from flax_attnat.evaluation.comparison import Measured
from flax_attnat.evaluation.families import family_lines
from flax_attnat.evaluation.measure import Explain, Measures, build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.evaluation.suite import Found, Options, Stages, build_stages, run_suites
from flax_attnat.training.memory import OUT_OF_MEMORY
from flax_attnat.training.population import EVALUATION_ROWS
from flax_attnat.training.runs import Cohort, cohort_name
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
    """

    split: str = "test"
    suites: Sequence[str] = ()
    options: Options = Options()
    say: Callable[[str], None] = print
    progress: Callable[[str, int, int], None] = lambda part, texts, of: None


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
      workdir: of `launch.train` or `launch.ablate`; gets lines in `results.jsonl` and arrays in `instances/`.
      task: what is to be measured.

    Raises:
      WorkdirError: there is nothing trained, or it was trained on other data.
    """
    report = Report([], {suite: [] for suite in task.suites}, {}, [])
    compiled: dict[tuple[bool, bool], _Compiled] = {}
    trainer = None
    for part in parts(workdir, config):
        if trainer is None or trainer.config != part.config:
            # Without the vectors: what they became is in the checkpoint.
            metric, buckets = METRICS[config.training.selection], trainer.buckets if trainer else None
            trainer = build_trainer(part.config, dataset, None, metric, buckets=buckets)
        trainer = with_runs(trainer, part.runs)
        restored = restore(trainer, workdir, task.say)
        if restored is None:
            continue
        states, meta = restored
        epoch, _, seconds = meta["position"]
        if epoch < config.training.epochs:
            task.say(
                f"{cohort_name(part)}: training is at epoch {epoch} of {config.training.epochs}; its figures are"
                " provisional."
            )
        technique = part.config.technique
        # Nothing else in a configuration that several techniques share changes what a model computes.
        same = (technique.startswith("word_"), technique == "uniform")
        if same not in compiled:
            compiled[same] = _Compiled(build_explain(trainer), build_stages(trainer, task.options))
        measures = measure_split(trainer, compiled[same].explain, states.best_params, task.split)
        lines = result_lines(trainer, states, task.split, measures, seconds)
        finished = _write_new(workdir, part, task.split, lines)
        report.lines.extend(lines)
        report.measured.extend(_settings(trainer, lines, measures))
        _measure_suites(trainer, compiled[same].stages, states.best_params, workdir, task, report, keep=finished)
    if not report.lines:
        raise WorkdirError(f"{workdir} holds no checkpoint that can be read: train it first with launch.train.")
    return report


def _write_new(workdir: epath.PathLike, part: Cohort, split: str, lines: list[Line]) -> bool:
    """Writes the lines of a split that has none; returns whether the population is finished.

    Without any lines it is not finished, and whoever trains it measures it.
    """
    known = read_lines(workdir, "results", cohort_name(part))
    if known and split not in {line["split"] for line in known}:
        write_lines(workdir, "results", cohort_name(part), known + lines)
    return bool(known)


def _measure_suites(
    trainer: Trainer,
    compiled: Stages,
    params: Params,
    workdir: epath.PathLike,
    task: Task,
    report: Report,
    *,
    keep: bool,
) -> None:
    """Adds a population's lines of every suite to the report, measured now or before."""
    names = {suite: f"{cohort_name(trainer.cohort)}.{task.split}.{suite}" for suite in task.suites}
    known = {suite: read_lines(workdir, "results", name) for suite, name in names.items()}
    asked = task.options.fields()
    new = [s for s, lines in known.items() if not lines or any(lines[0].get(k, v) != v for k, v in asked.items())]
    if new:
        found = _run(trainer, compiled, params, task, new)
        for suite, lines in family_lines(trainer, task.split, found, task.options).items():
            known[suite] = lines
            if keep:
                write_arrays(workdir, names[suite], found.arrays[suite])
                write_lines(workdir, "results", names[suite], lines)
        for stage, seconds in found.seconds.items():
            report.seconds[stage] = report.seconds.get(stage, 0.0) + seconds
    for suite, lines in known.items():
        report.families[suite].extend(lines)


def _run(trainer: Trainer, compiled: Stages, params: Params, task: Task, suites: Sequence[str]) -> Found:
    """The suites of a population, with fewer texts at once where the memory is too small."""
    name, texts = cohort_name(trainer.cohort), len(trainer.dataset.splits[task.split].labels)
    for width in (EVALUATION_ROWS, EVALUATION_ROWS // 8, 1):
        done = 0

        def progress(rows: int) -> None:
            """Adds the texts of a batch."""
            nonlocal done
            done += rows
            task.progress(name, done, texts)

        try:
            with jax.default_matmul_precision(trainer.config.training.matmul_precision):
                return run_suites(
                    trainer, compiled, params, task.split, suites, task.options, width=width, progress=progress
                )
        except jax.errors.JaxRuntimeError as error:
            if OUT_OF_MEMORY not in str(error) or width == 1:
                raise
    raise AssertionError("the last width returns or raises")


def _settings(trainer: Trainer, lines: Sequence[Line], measures: Measures) -> list[Measured]:
    """The runs of a population by setting, each with what a comparison reads."""
    settings: dict[tuple, list[int]] = {}
    for place, run in enumerate(trainer.runs):
        settings.setdefault(run._replace(seed=0), []).append(place)
    found = []
    for places in settings.values():
        places = sorted(places, key=lambda place: trainer.runs[place].seed)
        figures = {name: [lines[place][name] for place in places] for name in ("f1", "accuracy", "pearson")}
        seeds = tuple(trainer.runs[place].seed for place in places)
        probability, pearson = measures.probability[places], measures.pearson[places]
        found.append(Measured(lines[places[0]], seeds, probability, pearson, measures.labels, figures))
    return found
