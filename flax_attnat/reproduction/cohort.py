"""Trains runs of one setting that differ in their seed, and says all that the record keeps of them."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
from flax_attnat.training.schedule import CHUNK_STEPS, Chunk, batches_of, chunk_rows
from flax_attnat.training.trainer import Trainer, build_trainer

Line = dict[str, Any]


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
    """Seconds that one run of a configuration's steps takes here: a few steps of every width, timed when compiled."""
    trainer = build_trainer(config, dataset, None, METRICS[config.training.selection])
    seeds, size = np.asarray(trainer.seeds).tolist(), config.training.batch_size
    states, total = trainer.population.init(trainer.seeds), 0.0
    neighbours = trainer.population.refresh(states.params)
    for number, texts in enumerate(train_sizes(trainer)):
        steps = batches_of(texts, size)
        taken = min(steps, CHUNK_STEPS)
        rows = put(trainer.mesh, BY_RUN, chunk_rows(seeds, 0, Chunk(number, 0, taken), texts, size))
        span = put(trainer.mesh, WHOLE, (np.int32(0), np.int32(taken)))
        for _ in range(2):
            began = time.monotonic()
            sums = put(trainer.mesh, BY_RUN, zero_sums(len(seeds)))
            given = rows, *span, trainer.hparams, trainer.seeds, neighbours
            states, sums = trainer.population.run_chunk(states, sums, trainer.buckets["train"][number], *given)
            jax.block_until_ready(jnp.sum(sums.loss))
            seconds = time.monotonic() - began
        total += seconds * steps / taken
    return total * config.training.epochs / len(seeds)
