"""Run as a program with eight CPU devices: a step and a checkpoint on meshes of 1, 2, 4 and 8. Prints what it found."""

import contextlib
import functools
import json
import sys
from pathlib import Path

import jax
import numpy as np

from benchmarks.meshes import take_step
from flax_attnat.config import Config, DataConfig, ModelConfig, SweepConfig, TrainingConfig
from flax_attnat.data.dataset import Split
from flax_attnat.data.load import load
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.loop import Progress, Stopped, fit
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.runs import cohorts
from flax_attnat.training.saved import checkpoints, start
from flax_attnat.training.trainer import Trainer, build_trainer, with_runs

RUNS = 5  # which none of 2, 4 and 8 divides
CONFIG = Config(
    technique="attention_iat",
    sweep=SweepConfig(epsilons=tuple(float(value) for value in range(1, RUNS + 1))),
    data=DataConfig(bucket_widths=(32,)),
    model=ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
    training=TrainingConfig(epochs=2, batch_size=8),
)


def trainers() -> dict[int, Trainer]:
    """The same five runs on 1, 2, 4 and 8 devices."""
    whole = load(CONFIG)
    splits = {
        name: Split(split.records[:80], split.tokens[:80], split.labels[:80]) for name, split in whole.splits.items()
    }
    dataset, runs = whole._replace(splits=splits), cohorts(CONFIG)[0].runs
    found = {}
    for devices in (1, 2, 4, 8):
        mesh = make_mesh(devices=devices)
        found[devices] = with_runs(build_trainer(CONFIG, dataset, None, METRICS["auc"], mesh=mesh), runs)
    return found


def step(trainer: Trainer, workdir: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a checkpoint holds as a trainer reads it, and parameters and loss one step later; five runs of each."""
    found = start(trainer, checkpoints(trainer, workdir, print, read_only=True))
    assert found is not None
    states = found[0].states
    read = [np.asarray(leaf)[:RUNS] for leaf in jax.device_get(jax.tree.leaves(states))]
    rows = np.broadcast_to(np.arange(128, dtype=np.int32).reshape(16, 8) % 80, (len(trainer.seeds), 16, 8))
    return read, take_step(trainer, states, (np.zeros(16, np.int32), rows))


def within_an_epoch(reports: list[Progress]) -> bool:
    """Whether there has been a second span, which is one step too."""
    return len(reports) == 2


def main(workdir: Path) -> None:
    """A checkpoint is made on each mesh, and read on every mesh."""
    result, found = {}, trainers()
    for made, trainer in found.items():
        reports: list[Progress] = []
        with contextlib.suppress(Stopped):
            stop = functools.partial(within_an_epoch, reports)
            fit(trainer, workdir / str(made), progress=reports.append, stop=stop, say=print)
        assert 1 < reports[-1].step < reports[-1].steps, "it was stopped within an epoch"
        seen = {devices: step(other, workdir / str(made)) for devices, other in found.items()}
        first_read, first_after = seen[1]
        for devices, (read, after) in seen.items():
            same = all(np.array_equal(a, b) for a, b in zip(read, first_read, strict=True))
            apart = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(after, first_after, strict=True))
            result[f"{made}-{devices}"] = (same, apart)
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
