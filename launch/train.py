r"""Trains one technique, one run per seed, and measures each run's best epoch on dev and test.

    python -m launch.train --config=configs/planted.py --workdir=runs/planted
    python -m launch.train --config=configs/sst.py --config.technique=attention_at --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/sst

Flags:
  --config=FILE           an experiment of configs/; its docstring says what it reproduces
  --config.FIELD=VALUE    changes one field, --config.seeds=0,1,2 say; flax_attnat/config.py explains every field.
                          technique: vanilla, attention_rp, attention_at, attention_iat, word_at, word_iat;
                          reading (of attention_iat): span, sentence, token, sign, released; epsilon: its norm;
                          model.encoder: bilstm, cnn, average; model.attention: additive, scaled_dot
  --workdir=DIR           gets config.json, metrics.jsonl, results.jsonl and checkpoints/; may be a gs:// address

The same command on the same workdir goes on where it was stopped. A finished workdir only shows its results; one
of another configuration is refused.

Exit codes: 0 done, 1 a checkpoint could not be written, 2 the command or its data cannot be used, 3 a run was frozen at
a value that is not finite, 130 and 143 interrupted or terminated with everything saved.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from etils import epath
from rich.console import Console

from flax_attnat.config import Config, config_hash
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load, load_vectors
from flax_attnat.data.vectors import Vectors
from flax_attnat.evaluation.measure import SplitInstances, check_measurable, explain_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.reporting.tables import summarise
from flax_attnat.training.loop import Stopped, fit
from flax_attnat.training.trainer import build_trainer
from flax_attnat.training.workdir import check_free, claim, locked, read_lines, write_lines
from launch import cli
from launch.display import Display, preparing, results_table, show_notes

FLAGS = {"workdir": "where everything is written"}
MEASURED = ("dev", "test")


class Signals:
    """Remembers SIGTERM and SIGINT, so that training can stop where everything can be saved."""

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        """A second signal ends the process at once."""
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number
        os.write(2, b"\nStopping after the steps under way; everything will be saved. (Again: stop at once.)\n")


def train(
    config: Config,
    dataset: Dataset,
    vectors: Vectors | None,
    workdir: epath.PathLike,
    console: Console,
    signals: Signals,
) -> dict[str, SplitInstances]:
    """Trains and measures one configuration in its workdir; returns what the runs say of each split."""
    trainer = build_trainer(config, dataset, vectors, METRICS[config.training.selection])

    def say(sentence: str) -> None:
        """A sentence between the lines of progress."""
        console.print(sentence, style="yellow", highlight=False, markup=False)

    with locked(workdir):
        claim(workdir, config)
        with Display(console, config.training.epochs, f"{config.dataset} {config.technique}") as display:
            states, seconds = fit(
                trainer, workdir, progress=display.update, stop=lambda: signals.received is not None, say=say
            )
        found = {split: explain_split(trainer, states.best_params, split) for split in MEASURED}
        lines = [line for split in MEASURED for line in result_lines(trainer, states, split, found[split], seconds)]
        others = [line for line in read_lines(workdir, "results") if line["split"] not in MEASURED]
        write_lines(workdir, "results", config_hash(config), lines + others)
    return found


def is_finished(workdir: epath.PathLike, config: Config) -> bool:
    """Whether every run of the workdir has been measured on every split that training measures."""
    there = {(line["split"], line["seed"]) for line in read_lines(workdir, "results")}
    return {(split, seed) for split in MEASURED for seed in config.seeds} <= there


def main(argv: Sequence[str]) -> int:
    """Trains what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, config=True)
    config = cli.read_config(values)
    workdir = cli.open_workdir(values.workdir)
    console = cli.console()
    if not check_free(workdir, config) and is_finished(workdir, config):
        console.print(f"{workdir} is finished; nothing was trained.", highlight=False)
    else:
        signals = Signals()
        with preparing(console) as progress:
            dataset = load(config, progress)
            vectors = load_vectors(config, dataset.vocabulary, progress)
        check_measurable(dataset, MEASURED)
        show_notes(console, dataset)
        show_coverage(console, vectors)
        try:
            train(config, dataset, vectors, workdir, console, signals)
        except Stopped:
            console.print(f"Stopped; the same command goes on from here ({workdir}).", highlight=False)
            return 128 + (signals.received or signal.SIGINT)
    lines = read_lines(workdir, "results")
    show_results(console, lines)
    return report_frozen(console, lines)


def show_coverage(console: Console, vectors: Vectors | None) -> None:
    """Says how many words have a pretrained vector."""
    if vectors is not None:
        known, words = int(vectors.found.sum()), len(vectors.found) - 2
        console.print(f"vectors: {known:,} of {words:,} words have one ({known / max(words, 1):.1%})", highlight=False)


def show_results(console: Console, lines: Sequence[dict[str, Any]]) -> None:
    """Prints the table of a workdir's results."""
    first = lines[0]
    mark = f" ({first['mark']} data)" if first["mark"] else ""
    console.print(results_table(f"{first['dataset']}{mark}", summarise(lines)))


def report_frozen(console: Console, lines: Sequence[dict[str, Any]]) -> int:
    """Names the runs that were frozen; returns the exit code that says whether there are any."""
    frozen = {line["seed"]: line for line in lines if line["frozen_step"] is not None}
    for seed, line in frozen.items():
        console.print(
            f"seed {seed} was frozen at step {line['frozen_step']}: {line['frozen_reason']}. Its figures are those of "
            f"its best epoch before ({line['best_epoch'] or 'none: the initial parameters'}).",
            style="red",
            highlight=False,
        )
    return cli.FROZEN if frozen else 0


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
