"""Seconds to measure 18 runs on the test texts of SST: prediction, Pearson, Kendall's tau and the exact certificate.

    python -m benchmarks.evaluation --raw_dir=DIR
    python -m benchmarks.evaluation --small

Flags:
  --raw_dir=DIR  where trainDevTestTrees_PTB.zip lies
  --small        the planted texts and two runs, of which the seconds mean nothing
  --runs=R       runs (default 18)
  --json=FILE    writes the figures too

The runs are not trained, which changes no work. Both times are of one process: compilation included, and again.
"""

import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from benchmarks.work import read_flags, save_record
from configs import planted, sst
from flax_attnat.config import parse
from flax_attnat.data.load import load
from flax_attnat.evaluation.brief import build_brief, measure_brief
from flax_attnat.evaluation.measure import result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.saved import Trained
from flax_attnat.training.trainer import build_trainer

MOST_SECONDS = 60


def measure(raw_dir: str | None, runs: int, data_dir: str) -> dict[str, float | int | str]:
    """Seconds of the first and of the second evaluation of so many runs on test."""
    values = sst.get_config() if raw_dir else planted.get_config()
    values.data.update({"raw_dir": raw_dir or "", "data_dir": data_dir})
    values.seeds = tuple(range(runs))
    config = parse(values)
    trainer = build_trainer(config, load(config), None, METRICS[config.training.selection])
    params = jax.block_until_ready(trainer.population.init(trainer.seeds).params)
    numbers = [jnp.zeros(runs, jnp.int32)] * 3
    brief = build_brief(trainer, ("gradient",))
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        found, more = measure_brief(trainer, brief, params, "test")
        lines = result_lines(trainer, Trained(params, *numbers), "test", found, 0.0)
        lines = [line | of for line, of in zip(lines, more, strict=True)]
        seconds.append(time.perf_counter() - began)
    assert all(line["f1"] is not None and line["kendall_gradient"] is not None for line in lines)
    return {"dataset": config.dataset, "runs": runs, "n": lines[0]["n"], "first": seconds[0], "again": seconds[1]}


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    if "small" not in flags and "raw_dir" not in flags:
        print("error: say where SST lies: --raw_dir=DIR, or --small.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as data_dir:
        runs = int(flags.get("runs", 2 if "small" in flags else 18))
        found = measure(flags.get("raw_dir"), runs, data_dir)
    print(f"{found['dataset']}, {found['n']:,} texts, {runs} runs: prediction, Pearson, tau, certificate")
    print(f"  {found['first']:8.2f} seconds with compilation (at most {MOST_SECONDS})")
    print(f"  {found['again']:8.2f} seconds again")
    save_record(flags, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
