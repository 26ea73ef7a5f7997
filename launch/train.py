r"""Trains one technique, one run per seed, and measures each run's best epoch on dev and test.

    python -m launch.train --config=configs/planted.py --workdir=runs/planted
    python -m launch.train --config=configs/sst.py --config.technique=attention_at --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/sst

Flags:
  --config=FILE           an experiment of configs/; its docstring says what it reproduces
  --config.FIELD=VALUE    changes one field, --config.seeds=0,1,2 say; flax_attnat/config.py explains every field.
                          technique: vanilla, attention_rp, attention_at, attention_iat, word_at, word_iat, and as
                          controls uniform (even attention), frozen (attention as it starts);
                          reading (of attention_iat): span, sentence, token, sign, released; epsilon: its norm;
                          model.encoder: bilstm, cnn, average; model.attention: additive, scaled_dot
  --workdir=DIR           gets config.json, metrics.jsonl, results.jsonl and what was trained; may be a gs:// address
  --profile               writes a profiler trace of a few seconds of training to DIR/profile
  --tensorboard           writes every epoch's figures to DIR/tensorboard too, a folder per run, also those of epochs
                          that were trained without it; needs the extra tensorboard, and a DIR that is no gs:// address
  --coordinator=HOST:PORT, --num_processes=N, --process_id=I
                          one of several processes that train together; found by itself on a cluster

The same command on the same workdir goes on where it was stopped. A finished workdir only shows its results; one
of another configuration is refused. Several techniques or epsilons: launch.ablate.

Exit codes: 0 done, 1 a checkpoint could not be written or another process was lost, 2 the command or its data cannot be
used, 3 a run was frozen at a value that is not finite, 130 and 143 interrupted or terminated with everything saved,
134 (from JAX) the other processes never came.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Protocol

from etils import epath
from rich.console import Console

from flax_attnat.ablation import MEASURED, Watch, is_finished, train_all
from flax_attnat.config import Config, SweepConfig
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load, load_vectors
from flax_attnat.data.vectors import Vectors
from flax_attnat.evaluation.measure import check_measurable
from flax_attnat.reporting.tables import predictions, summarise
from flax_attnat.reporting.tensorboard import Scalars, check_available
from flax_attnat.training.cluster import from_primary, is_primary
from flax_attnat.training.loop import Progress, Stopped
from flax_attnat.training.runs import Cohort, cohorts
from flax_attnat.training.trainer import check_fit
from flax_attnat.training.workdir import check_free, claim, locked, read_lines
from launch import cli
from launch.display import Display, preparing, results_table, show, show_notes
from launch.profile import Profile

FLAGS = {"workdir": "where everything is written"}
SWITCHES = {"profile": "write a profiler trace", "tensorboard": "write TensorBoard's scalars"}


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


class Board(Protocol):
    """What shows the progress of training: a context that takes reports."""

    def __enter__(self) -> "Board":
        """Begins to show."""

    def __exit__(self, *_: object) -> None:
        """Ends it."""

    def update(self, cohort: Cohort, progress: Progress | None) -> None:
        """Takes one report; None: the cohort is finished."""


def train(
    config: Config,
    dataset: Dataset,
    vectors: Vectors | None,
    workdir: epath.PathLike,
    console: Console,
    board: Board,
    signals: Signals,
    *,
    profile: bool = False,
    tensorboard: bool = False,
) -> None:
    """Trains and measures what a configuration asks for in its workdir."""
    tracing = Profile(workdir if profile and is_primary() else None)
    scalars = Scalars(workdir, config) if tensorboard and is_primary() else None

    def progress(cohort: Cohort, progress: Progress | None) -> None:
        """To whom it concerns."""
        board.update(cohort, progress)
        if scalars is not None:
            scalars.update(cohort, progress)
        if progress is not None:
            tracing.update()

    def say(sentence: str) -> None:
        """A sentence between the lines of progress."""
        console.print(sentence, style="yellow", highlight=False, markup=False)

    with locked(workdir if is_primary() else None):
        if is_primary():
            claim(workdir, config)
        with board, tracing:
            train_all(config, dataset, vectors, workdir, Watch(progress, lambda: signals.received is not None, say))


def run(values: Any, config: Config, board: Callable[[Console], Board], tables: Callable[[Console, list], None]) -> int:
    """Trains what a command line asks for, shows its tables, and returns the exit code."""
    workdir = cli.open_workdir(values.workdir)
    if values.tensorboard:
        check_scalars(workdir)
    # What is resumed finds its programs here, and techniques that share programs find each other's.
    cli.keep_programs(workdir)
    cli.connect(values)
    console = cli.console()
    done = not check_free(workdir, config) and all(is_finished(workdir, cohort) for cohort in cohorts(config))
    if from_primary(lambda: done):
        show(console, f"{workdir} is finished; nothing was trained.")
        if values.tensorboard and is_primary():
            write_scalars(workdir, config)
    else:
        signals = Signals()
        with preparing(console) as progress:
            dataset = load(config, progress)
            vectors = load_vectors(config, dataset.vocabulary, progress)
        check_measurable(dataset, MEASURED)
        for cohort in cohorts(config):
            check_fit(cohort.config, dataset)
        show_notes(console, dataset)
        show_coverage(console, vectors)
        try:
            switches = {name: getattr(values, name) for name in SWITCHES}
            train(config, dataset, vectors, workdir, console, board(console), signals, **switches)
        except Stopped:
            show(console, f"Stopped; the same command goes on from here ({workdir}).")
            return 128 + (signals.received or signal.SIGTERM)
    lines = predictions(from_primary(lambda: read_lines(workdir, "results")))
    code = report_frozen(console, lines)
    tables(console, lines)
    return code


def main(argv: Sequence[str]) -> int:
    """Trains what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS | cli.CLUSTER, switches=SWITCHES, config=True)
    config = cli.read_config(values)
    if config.sweep != SweepConfig():
        raise cli.UsageError("config.sweep is trained by python -m launch.ablate; launch.train trains one technique.")
    title = f"{config.dataset} {config.technique}"
    return run(values, config, lambda console: Display(console, config.training.epochs, title), show_results)


def check_scalars(workdir: epath.Path) -> None:
    """Raises UsageError or WorkdirError where TensorBoard's scalars cannot be written, before anything is done."""
    try:
        check_available(workdir)
    except ImportError as error:
        raise cli.UsageError(str(error)) from error


def write_scalars(workdir: epath.Path, config: Config) -> None:
    """Writes TensorBoard's scalars of a workdir that is finished."""
    with locked(workdir):
        scalars = Scalars(workdir, config)
        for cohort in cohorts(config):
            scalars.update(cohort, None)


def show_coverage(console: Console, vectors: Vectors | None) -> None:
    """Says how many words have a pretrained vector."""
    if vectors is not None:
        known, words = int(vectors.found.sum()), len(vectors.found) - 2
        show(console, f"vectors: {known:,} of {words:,} words have one ({known / max(words, 1):.1%})")


def results_title(lines: Sequence[Mapping[str, Any]]) -> str:
    """Data set and mark of a workdir's results."""
    mark = f" ({lines[0]['mark']} data)" if lines[0]["mark"] else ""
    return f"{lines[0]['dataset']}{mark}"


def show_results(console: Console, lines: Sequence[dict[str, Any]]) -> None:
    """Prints the table of a workdir's results."""
    console.print(results_table(results_title(lines), summarise(lines)))


def report_frozen(console: Console, lines: Sequence[dict[str, Any]]) -> int:
    """Names the runs that were frozen; returns the exit code that says whether there are any."""
    names = ("technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay", "seed")
    frozen = {tuple(line.get(name) for name in names): line for line in lines if line["frozen_step"] is not None}
    for key, line in frozen.items():
        run = ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True) if value is not None)
        console.print(
            f"{run}: frozen at step {line['frozen_step']}: {line['frozen_reason']}. Its figures are those of "
            f"its best epoch before ({line['best_epoch'] or 'none: the initial parameters'}).",
            style="red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return cli.FROZEN if frozen else 0


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
