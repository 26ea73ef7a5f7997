"""One population on one device, on eight, and on two processes of four: the same step, the same figures, how long.

    python -m benchmarks.meshes --workdir=DIR

Trains Attention AT of `configs/ablation_planted.py` (12 runs, synthetic data) on CPU devices, eight of them forced on
whatever cores there are: what is compared is the figures; seconds on forced devices say nothing about accelerators.

First every mesh takes one step from the same checkpoint: the largest difference of any parameter from one device's,
relative to the largest value of its array. Then every mesh trains from the start: test AUC of each, with the largest
difference of any run from one device's beside the standard deviation over seeds.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from configs import ablation_planted
from flax_attnat.config import Config, parse
from flax_attnat.data.load import load
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.cluster import is_primary
from flax_attnat.training.loop import Stopped, fit
from flax_attnat.training.mesh import BY_RUN, WHOLE, fetch, put
from flax_attnat.training.population import zero_sums
from flax_attnat.training.runs import cohorts
from flax_attnat.training.saved import checkpoints, start
from flax_attnat.training.schedule import chunk_of, epoch_plan
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer, build_trainer, with_runs
from launch import cli

MESHES = {"1 device": (1, 1), "8 devices": (1, 8), "2 processes x 4": (2, 4)}
OVERRIDES = ("--config.sweep.techniques=attention_at",)


def config() -> Config:
    """Attention AT over four epsilons and three seeds."""
    values = ablation_planted.get_config()
    values.sweep.techniques = ("attention_at",)
    return parse(values)


def build() -> Trainer:
    """The trainer of all runs on the devices of this process and its fellows."""
    runs = cohorts(config())[0]
    return with_runs(build_trainer(runs.config, load(runs.config), None, METRICS["auc"]), runs.runs)


def one_step(workdir: str, out: str) -> None:
    """A step from the checkpoint of a workdir, made after the first epoch if it is not there; parameters to a file."""
    trainer = build()
    if not Path(workdir).exists():
        calls = iter(range(10**6))
        steps = 75  # an epoch; it is asked at least once a step
        try:
            fit(trainer, workdir, stop=lambda: next(calls) >= steps // 16)
        except Stopped:
            return
    found = start(trainer, checkpoints(trainer, workdir, print))
    assert found is not None
    seeds = fetch(trainer.mesh, trainer.seeds).tolist()
    leaves = take_step(trainer, found[0].states, chunk_of(epoch_plan(seeds, 1, [2400], 32), seeds, 0))
    if is_primary():
        np.savez(out, *leaves)


def take_step(trainer: Trainer, states: TrainState, work: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Loss and parameters of the R runs after a step on the first rows of `work`, `[S]` and `[R padded, S, B]`."""
    states, sums = trainer.population.run_chunk(
        states,
        put(trainer.mesh, BY_RUN, zero_sums(len(trainer.seeds))),
        tuple(trainer.buckets["train"]),
        put(trainer.mesh, WHOLE, work[0]),
        put(trainer.mesh, BY_RUN, work[1]),
        *put(trainer.mesh, WHOLE, (np.int32(0), np.int32(1))),
        trainer.hparams,
        trainer.seeds,
        None,
    )
    leaves = fetch(trainer.mesh, [sums.loss, *jax.tree.leaves(states.params)])
    return [np.asarray(leaf)[: len(trainer.runs)] for leaf in leaves]


def call(name: str, command: Sequence[str]) -> None:
    """Runs a command on a mesh."""
    processes, devices = MESHES[name]
    if processes > 1:
        several = [sys.executable, "-m", "launch.local", f"--processes={processes}", f"--devices={devices}", "--"]
        command = [*several, *command]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def main(argv: Sequence[str]) -> int:
    """Compares the meshes; returns the exit code."""
    strings = {"workdir": "where to work", "shared": "", "out": ""} | cli.CLUSTER
    values = cli.flag_values(argv, strings, config=False)
    if values.out:
        cli.connect(values)
        one_step(values.shared, values.out)
        return 0
    folder = Path(cli.open_workdir(values.workdir))
    folder.mkdir(parents=True, exist_ok=True)
    me = [sys.executable, "-m", "benchmarks.meshes"]
    shared = folder / "checkpoint"
    call("1 device", [*me, f"--shared={shared}", f"--out={folder / 'none.npz'}"])
    stepped, figures, seconds = {}, {}, {}
    for name in MESHES:
        place = folder / name.replace(" ", "-")
        shutil.copytree(shared, place / "copy")
        call(name, [*me, f"--shared={place / 'copy'}", f"--out={place / 'step.npz'}"])
        with np.load(place / "step.npz") as file:
            stepped[name] = [file[key] for key in file.files]
        file_config = f"--config={Path(ablation_planted.__file__)}"
        ablate = [sys.executable, "-m", "launch.ablate", file_config, *OVERRIDES]
        call(name, [*ablate, f"--workdir={place / 'run'}"])
        lines = [json.loads(line) for line in (place / "run" / "results.jsonl").read_text().splitlines()]
        figures[name] = np.array([line["auc"] for line in lines if line["split"] == "test"])
        seconds[name] = lines[0]["seconds"]
    spread = figures["1 device"].reshape(-1, 3).std(axis=1, ddof=1)
    print("mesh              one step, relative   test AUC, mean   largest difference   sd over seeds   seconds")
    for name in MESHES:
        apart = max(
            np.abs(a - b).max() / np.abs(b).max() for a, b in zip(stepped[name], stepped["1 device"], strict=True)
        )
        off = np.abs(figures[name] - figures["1 device"]).max()
        row = f"{name:16}  {apart:18.1e}  {figures[name].mean():15.4f}  {off:19.4f}"
        print(f"{row}   {spread.min():.4f}-{spread.max():.4f}  {seconds[name]:8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
