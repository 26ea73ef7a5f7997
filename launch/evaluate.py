"""Measures the best epoch of every run of a workdir: F1, accuracy, AUC, and Pearson between attention and importance.

    python -m launch.evaluate --workdir=runs/sst --split=test

Flags:
  --workdir=DIR    a workdir of launch.train, from its first checkpoint on
  --split=NAME     train, dev or test (default test)
  --raw_dir=DIR    where the raw files lie now, if they have moved since training
  --data_dir=DIR   where the prepared records lie now, likewise

Prints a table. Nothing is trained. A split that has no lines in results.jsonl yet gets them if training is finished.

Exit codes: 0 done, 2 the workdir or its data cannot be used.
"""

import dataclasses
import sys
from collections.abc import Sequence

from flax_attnat.config import config_hash
from flax_attnat.data.load import load
from flax_attnat.evaluation.measure import check_measurable, explain_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.loop import restore
from flax_attnat.training.trainer import build_trainer
from flax_attnat.training.workdir import WorkdirError, read_config, read_lines, write_lines
from launch import cli
from launch.display import preparing
from launch.train import show_results

FLAGS = {
    "workdir": "a workdir of launch.train",
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
    config = dataclasses.replace(config, data=data)

    console = cli.console()
    with preparing(console) as progress:
        dataset = load(config, progress)
    check_measurable(dataset, (split,))
    # Without the vectors: what they became is in the checkpoint.
    trainer = build_trainer(config, dataset, None, METRICS[config.training.selection])
    restored = restore(trainer, workdir, lambda sentence: console.print(sentence, style="yellow", markup=False))
    if restored is None:
        raise WorkdirError(f"{workdir} holds no checkpoint that can be read: train it first with launch.train.")
    states, meta = restored
    epoch, _, seconds = meta["position"]
    lines = result_lines(trainer, states, split, explain_split(trainer, states.best_params, split), seconds)
    if epoch < config.training.epochs:
        console.print(f"Training is at epoch {epoch} of {config.training.epochs}; these figures are provisional.")
    else:
        known = read_lines(workdir, "results")
        if split not in {line["split"] for line in known}:
            write_lines(workdir, "results", config_hash(config), known + lines)
    show_results(console, lines)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
