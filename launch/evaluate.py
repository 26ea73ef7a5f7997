"""Measures the best epoch of every run of a workdir: F1, accuracy, AUC, and Pearson between attention and importance.

    python -m launch.evaluate --workdir=runs/sst --split=test

Flags:
  --workdir=DIR    a workdir of launch.train or launch.ablate, from its first checkpoint on
  --split=NAME     train, dev or test (default test)
  --raw_dir=DIR    where the raw files lie now, if they have moved since training
  --data_dir=DIR   where the prepared records lie now, likewise

Prints a table. Nothing is trained. A split that has no lines in results.jsonl yet gets them from what is trained to
the end.

Exit codes: 0 done, 2 the workdir or its data cannot be used.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from rich.console import Console

from flax_attnat.ablation import parts
from flax_attnat.config import Config, PopulationConfig
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load
from flax_attnat.evaluation.measure import build_explain, check_measurable, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.runs import Cohort, cohort_name
from flax_attnat.training.saved import restore
from flax_attnat.training.trainer import build_trainer, with_runs
from flax_attnat.training.workdir import WorkdirError, read_config, read_lines, write_lines
from launch import cli
from launch.display import preparing, show
from launch.train import show_results

FLAGS = {
    "workdir": "a workdir of launch.train or launch.ablate",
    "split": "train, dev or test",
    "raw_dir": "where the raw files lie now",
    "data_dir": "where the prepared records lie now",
}


def main(argv: Sequence[str]) -> int:
    """Measures what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, config=False)
    split = values.split or "test"
    workdir = cli.open_workdir(values.workdir)
    if split not in ("train", "dev", "test"):
        raise cli.UsageError(f"--split must be train, dev or test; got {split!r}.")
    config = read_config(workdir)
    data = dataclasses.replace(
        config.data, raw_dir=values.raw_dir or config.data.raw_dir, data_dir=values.data_dir or config.data.data_dir
    )
    config = dataclasses.replace(config, data=data, population=PopulationConfig())

    console = cli.console()
    with preparing(console) as progress:
        dataset = load(config, progress)
    check_measurable(dataset, (split,))
    lines = []
    for part, found, epoch in _measured(config, dataset, workdir, split, console):
        lines += found
        if epoch < config.training.epochs:
            name = cohort_name(part)
            show(
                console,
                f"{name}: training is at epoch {epoch} of {config.training.epochs}; its figures are provisional.",
            )
    if not lines:
        raise WorkdirError(f"{workdir} holds no checkpoint that can be read: train it first with launch.train.")
    show_results(console, lines)
    return 0


def _measured(
    config: Config, dataset: Dataset, workdir: epath.Path, split: str, console: Console
) -> Iterator[tuple[Cohort, list[dict[str, Any]], int]]:
    """Populations, their result lines and the epochs they were trained for; lines that are new are written."""
    trainer = None
    for part in parts(workdir, config):
        if trainer is None or trainer.config != part.config:
            # Without the vectors: what they became is in the checkpoint.
            metric, buckets = METRICS[config.training.selection], trainer.buckets if trainer else None
            trainer = build_trainer(part.config, dataset, None, metric, buckets=buckets)
            explain = build_explain(trainer)
        trainer = with_runs(trainer, part.runs)
        restored = restore(trainer, workdir, lambda sentence: console.print(sentence, style="yellow", markup=False))
        if restored is None:
            continue
        states, meta = restored
        epoch, _, seconds = meta["position"]
        measures = measure_split(trainer, explain, states.best_params, split)
        lines = result_lines(trainer, states, split, measures, seconds)
        known = read_lines(workdir, "results", cohort_name(part))
        # Without any lines it is not finished, and whoever trains it measures it.
        if known and split not in {line["split"] for line in known}:
            write_lines(workdir, "results", cohort_name(part), known + lines)
        yield part, lines, epoch


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
