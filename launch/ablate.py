r"""Trains techniques x readings x epsilons x lambdas x seeds, each technique's runs in one compiled program.

    python -m launch.ablate --config=configs/ablation_planted.py --workdir=runs/ablation_planted
    python -m launch.ablate --config=configs/ablation_sst.py --config.data.raw_dir=DIR --workdir=gs://BUCKET/sst

Flags:
  --config=FILE           an experiment of configs/; its docstring says what it reproduces
  --config.FIELD=VALUE    changes one field: --config.sweep.epsilons=0.1,1,10, --config.seeds=0,1,2,
                          --config.sweep.techniques=vanilla,attention_at, --config.sweep.readings=span,released,
                          --config.sweep.adversarial_weights=0.5,1 (lambda); flax_attnat/config.py explains every field
  --config.population.max_runs=N
                          at most so many runs in one program; otherwise as many as the memory holds
  --config.population.data_shards=N
                          devices that share each batch, where one model is too large for one device
  --workdir=DIR           gets config.json, metrics.jsonl, results.jsonl and what was trained; may be a gs:// address
  --profile               writes a profiler trace of a few seconds of training to DIR/profile
  --tensorboard           writes every epoch's figures to DIR/tensorboard too, a folder per run, also those of epochs
                          that were trained without it; needs the extra tensorboard, and a DIR that is no gs:// address
  --coordinator=HOST:PORT, --num_processes=N, --process_id=I
                          one of several processes that train together; found by itself on a Cloud TPU, under Slurm and
                          under Open MPI (launch.local starts several on this machine)

Shows a line per technique while it trains, then the test figures of every setting, then those of the setting that is
best on dev. The same command on the same workdir goes on where it was stopped, by a signal or at any moment.

Exit codes: 0 done, 1 a checkpoint could not be written or another process was lost, 2 the command or its data cannot be
used, 3 a run was frozen at a value that is not finite, 130 and 143 interrupted or terminated with everything saved,
134 (from JAX) the other processes never came.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from flax_attnat.allowed import CONTROLS, TECHNIQUES
from flax_attnat.perturbation.attention import READINGS
from flax_attnat.reporting.results import best, table
from flax_attnat.reporting.tables import summarise
from flax_attnat.training.runs import cohorts
from launch import cli
from launch.board import CohortBoard
from launch.display import results_table
from launch.train import FLAGS, SWITCHES, results_title, run


def main(argv: Sequence[str]) -> int:
    """Trains what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS | cli.CLUSTER, switches=SWITCHES, config=True)
    config = cli.read_config(values)
    return run(values, config, lambda console: CohortBoard(console, cohorts(config)), show_tables)


def show_tables(console: Console, lines: Sequence[dict[str, Any]]) -> None:
    """Prints the test figures of every setting, and of the best one on dev."""
    title = results_title(lines)
    lines = sorted(lines, key=_order)
    test = [line for line in lines if line["split"] == "test"]
    console.print(results_table(f"{title}, test, every setting", summarise(test)))
    console.print(results_table(f"{title}, test, the setting that is best on dev", table(best(lines))))


def _order(line: Mapping[str, Any]) -> tuple:
    """The place of a result line in a table."""
    numbers = (line[name] or 0 for name in ("epsilon", "lambda", "learning_rate", "weight_decay", "seed"))
    return ((TECHNIQUES + CONTROLS).index(line["technique"]), READINGS.index(line["reading"] or "span"), *numbers)


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
