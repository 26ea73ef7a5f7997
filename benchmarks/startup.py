r"""What comes before, between and after the steps: import, start of a training, and the rest of an epoch.

    python -m benchmarks.startup
    python -m benchmarks.startup --raw_dir=DIR --times=9 --starts=5 --json=FILE
    python -m benchmarks.startup --only=import

Flags:
  --times=N      imports of each kind, and chunks of steps of each width, of which the median counts (default 5)
  --starts=N     starts of each kind (default 3)
  --epochs=N     epochs of which the first is left out and the median of the others counts (default 4)
  --raw_dir=DIR  SST from its official archive in this folder; without it the planted texts
  --only=WHAT    import, start or epoch; all without it
  --json=FILE    writes the figures too

Import: fresh processes, in turn, seconds of `import jax, flax, optax`, of the same and `import flax_attnat` behind it,
and of `import flax_attnat` alone. Start: from the start of the process of launch.train to the end of its first step,
the texts having been prepared, without compiled programs and with those that an earlier start has kept. Epoch: an
epoch of `fit` with batches, dev and checkpoint, over its steps alone, timed in the same process.
"""

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.work import read_flags, save_record

ROOT = Path(__file__).parents[1]
MORE_SECONDS, COLD_SECONDS, WARM_SECONDS, OVER_STEPS = 0.3, 15.0, 6.0, 1.15
IMPORTS = {
    "jax, flax, optax": "import jax, flax, optax",
    "jax, flax, optax, then flax_attnat": "import jax, flax, optax, flax_attnat",
    "flax_attnat alone": "import flax_attnat",
}
TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
# launch.train as it is, but for what shows its progress: that says when the first step has ended, and ends the process.
FIRST_STEP = """
import os, sys, time
from launch import cli, train

class FirstStep:
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def update(self, cohort, progress):
        print(time.monotonic(), flush=True)
        os._exit(0)

values = cli.flag_values(sys.argv, train.FLAGS | cli.CLUSTER, switches=train.SWITCHES, config=True)
train.run(values, cli.read_config(values), lambda console: FirstStep(), lambda *_: None)
"""


def run(command: Sequence[str], **variables: str) -> str:
    """Standard output of a Python process in the checkout that keeps no compiled programs unless a variable says so."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS"))}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=kept | variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"python {' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def in_turn(calls: Mapping[str, Callable[[], float]], times: int) -> dict[str, list[float]]:
    """The seconds that each call returns, one after another in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            seconds[name].append(call())
    return seconds


def measure_import(times: int) -> dict[str, Any]:
    """Seconds of each import, their medians, and what flax_attnat adds to the others."""

    def once(statement: str) -> float:
        """Seconds of a statement in a process of its own."""
        return float(run(["-c", TIMED.format(statement)]))

    for statement in IMPORTS.values():  # so that all files have been read and byte-compiled
        once(statement)
    seconds = in_turn({name: functools.partial(once, it) for name, it in IMPORTS.items()}, times)
    found = {name: float(np.median(values)) for name, values in seconds.items()}
    base, both, _ = found.values()
    return {"seconds": seconds, "medians": found, "more": both - base}


def command_of(raw_dir: str | None, data_dir: str) -> list[str]:
    """Flags of an experiment whose records lie, or will lie, in `data_dir`."""
    if raw_dir is None:
        return ["--config=configs/planted.py", f"--config.data.data_dir={data_dir}"]
    raw = Path(raw_dir).absolute()
    return ["--config=configs/sst.py", f"--config.data.raw_dir={raw}", f"--config.data.data_dir={data_dir}"]


def measure_start(raw_dir: str | None, starts: int, folder: Path) -> dict[str, Any]:
    """Seconds from the start of a process to the end of its first step, by whether programs were compiled before."""
    flags = command_of(raw_dir, str(folder / "data"))
    run(["-m", "launch.prepare", *flags])
    # As launch.cli.keep_programs has it, for launch.train keeps none by itself.
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }

    def once(variables: Mapping[str, str]) -> float:
        """Seconds of one start in an empty workdir."""
        with tempfile.TemporaryDirectory() as workdir:
            began = time.monotonic()
            said = run(["-c", FIRST_STEP, *flags, f"--workdir={workdir}"], **variables)
        return float(said.split()[-1]) - began

    filling = once(kept)
    seconds = in_turn({"cold": lambda: once({}), "warm": lambda: once(kept)}, starts)
    found = {name: float(np.median(values)) for name, values in seconds.items()}
    return {"seconds": seconds, "medians": found, "filling": filling}


def measure_epoch(raw_dir: str | None, epochs: int, times: int, folder: Path) -> dict[str, Any]:
    """Median seconds of a whole epoch after the first, of what follows its steps, and of its steps alone."""
    import jax

    from configs import planted, sst
    from flax_attnat.config import parse
    from flax_attnat.data.load import load
    from flax_attnat.evaluation.prediction import METRICS
    from flax_attnat.training.loop import Progress, fit
    from flax_attnat.training.saved import steps_per_epoch
    from flax_attnat.training.trainer import build_trainer

    values = planted.get_config() if raw_dir is None else sst.get_config()
    values.data.update({"raw_dir": raw_dir or "", "data_dir": str(folder / "data")})
    values.training.epochs = epochs
    config = parse(values)
    trainer = build_trainer(config, load(config), None, METRICS[config.training.selection])
    stepped, ends = [0.0] * epochs, list[float]()

    def note(progress: Progress) -> None:
        """Remembers when the last step of an epoch has ended, and when all that comes after it."""
        if progress.metrics is not None:
            ends.append(time.perf_counter())
        elif progress.step == progress.steps:
            stepped[progress.epoch - 1] = time.perf_counter()

    states, _ = fit(trainer, folder / "workdir", progress=note)
    with jax.default_matmul_precision(config.training.matmul_precision):
        steps = step_seconds(trainer, states, times)
    whole, after = float(np.median(np.diff(ends))), float(np.median(np.subtract(ends, stepped)[1:]))
    return {
        "dataset": config.dataset,
        "technique": config.technique,
        "steps": steps_per_epoch(trainer),
        "epochs": list(np.diff(ends)),
        "whole": whole,
        "after_steps": after,
        "steps_alone": steps,
        "ratio": whole / steps,
    }


def step_seconds(trainer: Any, states: Any, times: int) -> float:
    """Seconds of an epoch's steps alone: the median of an epoch of them."""
    import jax

    from benchmarks.work import medians
    from flax_attnat.training.mesh import BY_RUN, WHOLE, put
    from flax_attnat.training.population import zero_sums
    from flax_attnat.training.saved import train_sizes
    from flax_attnat.training.schedule import CHUNK_STEPS, chunk_of, epoch_plan

    mesh, held = trainer.mesh, [states]
    neighbours = trainer.population.refresh(states.params)
    seeds = np.asarray(trainer.seeds).tolist()
    plan = epoch_plan(seeds, 0, train_sizes(trainer), trainer.config.training.batch_size)
    chunks = []
    for first in range(0, len(plan.which), CHUNK_STEPS):
        which, rows = chunk_of(plan, seeds, first)
        span = put(mesh, WHOLE, (np.int32(0), np.int32(min(CHUNK_STEPS, len(plan.which) - first))))
        chunks.append((put(mesh, WHOLE, which), put(mesh, BY_RUN, rows), *span))

    def call() -> None:
        """An epoch's steps, further from where the last one stopped."""
        sums = put(mesh, BY_RUN, zero_sums(len(seeds)))
        for chunk in chunks:
            given = tuple(trainer.buckets["train"]), *chunk, trainer.hparams, trainer.seeds, neighbours
            held[0], sums = trainer.population.run_chunk(held[0], sums, *given)
        jax.block_until_ready(sums)

    return medians({"epoch": call}, times)["epoch"]


def show(record: Mapping[str, Any]) -> None:
    """Prints what was measured, and what is asked for."""
    if "import" in record:
        print("import (median seconds)")
        for name, seconds in record["import"]["medians"].items():
            print(f"  {seconds:8.3f}  {name}")
        print(f"  {record['import']['more']:8.3f}  more for flax_attnat (at most {MORE_SECONDS:g})")
    if "start" in record:
        found = record["start"]["medians"]
        print("start to the end of the first step (median seconds)")
        print(f"  {found['cold']:8.2f}  without compiled programs (at most {COLD_SECONDS:g})")
        print(f"  {found['warm']:8.2f}  with those of an earlier start (at most {WARM_SECONDS:g})")
    if "epoch" in record:
        found = record["epoch"]
        print(f"an epoch of {found['steps']} steps, {found['dataset']} {found['technique']} (median seconds)")
        print(f"  {found['whole']:8.3f}  with everything, {found['after_steps']:.3f} of it dev and checkpoint")
        print(f"  {found['steps_alone']:8.3f}  its steps alone")
        print(f"  {found['ratio']:8.3f}  the first over the second (at most {OVER_STEPS:g})")


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    times, starts, epochs = (int(flags.get(*flag)) for flag in (("times", 5), ("starts", 3), ("epochs", 4)))
    raw_dir, only = flags.get("raw_dir"), flags.get("only")
    record: dict[str, Any] = {"times": times, "starts": starts, "texts": "planted" if raw_dir is None else "sst"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only in (None, "import"):
            record["import"] = measure_import(times)
        if only in (None, "start"):
            record["start"] = measure_start(raw_dir, starts, folder)
        if only in (None, "epoch"):
            record["epoch"] = measure_epoch(raw_dir, epochs, times, folder)
    # Last, for asking takes the device, which the processes above need.
    import jax

    record |= {"device": jax.devices()[0].device_kind, "jax": version("jax")}
    print(f"{record['device']}, jax {record['jax']}, texts of {record['texts']}")
    show(record)
    save_record(flags, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
