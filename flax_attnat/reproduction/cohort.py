"""Trains runs of one setting that differ in their seed, and says all that the record keeps of them."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from flax_attnat.config import Config, config_hash
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.vectors import Vectors
from flax_attnat.evaluation.brief import build_brief, measure_brief
from flax_attnat.evaluation.measure import build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.loop import fit
from flax_attnat.training.mesh import BY_RUN, WHOLE, put
from flax_attnat.training.population import zero_sums
from flax_attnat.training.saved import remove_checkpoints, train_sizes
from flax_attnat.training.schedule import CHUNK_STEPS, chunk_of, epoch_plan
from flax_attnat.training.trainer import Trainer, build_trainer

Line = dict[str, Any]

# By how many chunks of an epoch its seconds are estimated.
TIMED_CHUNKS = 3


def train_cohort(
    config: Config,
    dataset: Dataset,
    vectors: Vectors | None,
    workdir: epath.PathLike,
    facts: Line,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> list[Line]:
    """Trains the runs of a configuration that sweeps nothing, and returns their lines; it goes on where it stopped.

    Args:
      config: of one technique, reading and epsilon; its seeds are the runs.
      dataset: splits train, dev and test.
      vectors: pretrained vectors of the vocabulary, or None.
      workdir: gets checkpoints while they train.
      facts: what every line says besides, the variant say.
      stop: asked between steps; true ends training with everything saved.
      say: told what the user should know.

    Returns:
      For each run a line of its best epoch on dev and on test, and one of its last epoch on test: the fields of
      `results.jsonl`, for test at the best epoch those of `evaluation.brief`, and "epoch", "best" or "last".

    Raises:
      Stopped: `stop` asked.
    """
    trainer = build_trainer(config, dataset, vectors, METRICS[config.training.selection])
    states, seconds = fit(trainer, workdir, stop=stop, say=say)
    began = time.monotonic()
    explain, brief = build_explain(trainer), build_brief(trainer)
    lines = []
    for epoch, params, split in (
        ("best", states.best_params, "dev"),
        ("best", states.best_params, "test"),
        ("last", states.params, "test"),
    ):
        if (epoch, split) == ("best", "test"):
            measures, more = measure_brief(trainer, brief, params, split)
        else:
            measures, more = measure_split(trainer, explain, params, split), [{}] * len(trainer.runs)
        found = result_lines(trainer, states, split, measures, seconds)
        lines += [line | of | {"epoch": epoch} for line, of in zip(found, more, strict=True)]
    for line in lines:
        line |= facts | _facts(trainer, vectors) | {"evaluation_seconds": round(time.monotonic() - began, 3)}
    remove_checkpoints(workdir, trainer.cohort)
    return lines


def _facts(trainer: Trainer, vectors: Vectors | None) -> Line:
    """What a figure depends on besides the run's own values."""
    config, dataset = trainer.config, trainer.dataset
    device = jax.devices()[0]
    return {
        "train_n": len(dataset.splits["train"].labels),
        "vocabulary": len(dataset.vocabulary.words),
        "classes": len(dataset.label_names),
        "vectors": epath.Path(config.data.vectors).name if vectors is not None else None,
        "vectors_found": None if vectors is None else int(vectors.found.sum()),
        "attention": config.model.attention,
        "epochs": config.training.epochs,
        "selection": config.training.selection,
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "config_hash": config_hash(config),
    }


def estimate_seconds(config: Config, dataset: Dataset) -> float:
    """Seconds that one run of a configuration's steps takes here: a few chunks of steps, timed when compiled."""
    trainer = build_trainer(config, dataset, None, METRICS[config.training.selection])
    seeds = np.asarray(trainer.seeds).tolist()
    plan = epoch_plan(seeds, 0, train_sizes(trainer), config.training.batch_size)
    states, steps = trainer.population.init(trainer.seeds), len(plan.which)
    neighbours = trainer.population.refresh(states.params)
    timed = min(TIMED_CHUNKS * CHUNK_STEPS, steps)
    for _ in range(2):
        began = time.monotonic()
        for first in range(0, timed, CHUNK_STEPS):
            which, rows = chunk_of(plan, seeds, first)
            work = put(trainer.mesh, WHOLE, which), put(trainer.mesh, BY_RUN, rows)
            span = put(trainer.mesh, WHOLE, (np.int32(0), np.int32(min(CHUNK_STEPS, timed - first))))
            sums = put(trainer.mesh, BY_RUN, zero_sums(len(seeds)))
            given = tuple(trainer.buckets["train"]), *work, *span, trainer.hparams, trainer.seeds, neighbours
            states, sums = trainer.population.run_chunk(states, sums, *given)
            jax.block_until_ready(sums)
        seconds = time.monotonic() - began
    return seconds * steps / timed * config.training.epochs / len(seeds)
