"""Trains a population to the end: epochs, dev selection, checkpoints, resuming. Shows nothing itself."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from flax_attnat.config import Config, config_hash
from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.data.batches import Bucket, make_buckets
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.vectors import Vectors
from flax_attnat.models.single import EmbeddingInit, Model, build
from flax_attnat.objective import StepSums, build_objective
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.population import Metric, Population, build_population, make_hparams, zero_sums
from flax_attnat.training.schedule import Chunk, batches_of, chunk_rows, epoch_chunks
from flax_attnat.training.step import FROZEN_REASONS, TrainState
from flax_attnat.training.workdir import WorkdirError, write_lines
from flax_attnat.typing import Array


class Stopped(Exception):
    """Training was asked to stop; everything is saved."""


class Progress(NamedTuple):
    """What a progress display is told.

    Attributes:
      epoch: the epoch under way, from 1.
      step: steps of this epoch that are done.
      steps: steps of an epoch.
      metrics: lines of the epoch, one per run, when it has just ended, else None.
    """

    epoch: int
    step: int
    steps: int
    metrics: list[dict[str, Any]] | None = None


class Position(NamedTuple):
    """Where training stands.

    Attributes:
      epoch: epochs that are done.
      chunk: chunks of the next epoch that are done.
      seconds: spent training so far, over all starts.
    """

    epoch: int
    chunk: int
    seconds: float


class Carry(NamedTuple):
    """The arrays that a checkpoint holds.

    Attributes:
      states: population state, R on every leaf.
      sums: sums of the epoch under way, each `[R]`.
      neighbours: `[R, V, K]` of word_iat, else None.
    """

    states: TrainState
    sums: StepSums
    neighbours: Array | None


class Trainer(NamedTuple):
    """What training needs, built once from a configuration and its data."""

    config: Config
    dataset: Dataset
    model: Model
    population: Population
    buckets: dict[str, list[Bucket]]
    seeds: Array


def build_trainer(config: Config, dataset: Dataset, vectors: Vectors | None, metric: Metric) -> Trainer:
    """Model, objective and compiled functions for a dataset; its buckets go to the device.

    Args:
      config: the configuration.
      dataset: splits train and dev, at least.
      vectors: pretrained vectors of the vocabulary, or None.
      metric: what the best epoch is chosen by.
    """
    counts = dataset.vocabulary.counts.astype(np.float64)
    initial = EmbeddingInit(counts / max(counts.sum(), 1), *(vectors or (None, None)))
    model = build(config.model, initial, normalise=config.word.normalise and config.technique.startswith("word_"))
    labels = dataset.splits["train"].labels
    pos_weight = float(np.sum(labels == 0) / max(np.sum(labels == 1), 1))
    valid_words = np.arange(len(counts)) > 1
    return Trainer(
        config=config,
        dataset=dataset,
        model=model,
        population=build_population(config, model, build_objective(config, model, pos_weight), metric, valid_words),
        buckets={
            name: [jax.tree.map(jnp.asarray, bucket) for bucket in make_buckets(split, config.data.bucket_widths)]
            for name, split in dataset.splits.items()
        },
        seeds=jnp.asarray(config.seeds, jnp.int32),
    )


def fit(
    trainer: Trainer,
    workdir: epath.PathLike,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> tuple[TrainState, float]:
    """Trains all runs, from the newest whole checkpoint if there is one, and returns their final state.

    A checkpoint is written after every epoch, when `stop` asks, and inside an epoch every
    `config.training.save_every_minutes`. The same configuration resumed gives the same numbers as uninterrupted.

    Args:
      trainer: from `build_trainer`.
      workdir: gets `checkpoints/` and `metrics.jsonl`.
      progress: told after each chunk of steps and after each epoch.
      stop: asked after each chunk of steps; true ends training with everything saved.
      say: told what the user should know (a damaged checkpoint, say).

    Returns:
      States of the R runs after the last epoch, and the seconds of training over all starts.

    Raises:
      Stopped: `stop` asked.
      CheckpointError: a checkpoint could not be written.
    """
    with jax.default_matmul_precision(trainer.config.training.matmul_precision):
        store = Store(epath.Path(workdir) / "checkpoints", say)
        carry, position, history = _start(trainer, store)
        write_lines(workdir, "metrics", config_hash(trainer.config), history)
        while position.epoch < trainer.config.training.epochs:
            carry, position = _train_epoch(trainer, carry, position, history, store, progress, stop)
            began = time.monotonic()
            carry, lines = _end_epoch(trainer, carry, position.epoch + 1)
            history = history + lines
            position = Position(position.epoch + 1, 0, position.seconds + time.monotonic() - began)
            _save(trainer, store, carry, position, history)
            write_lines(workdir, "metrics", config_hash(trainer.config), history)
            steps = _steps_per_epoch(trainer)
            progress(Progress(position.epoch, steps, steps, lines))
            if stop() and position.epoch < trainer.config.training.epochs:
                raise Stopped
        return carry.states, position.seconds


def restore(trainer: Trainer, workdir: epath.PathLike, say: Callable[[str], None]) -> tuple[TrainState, dict] | None:
    """States and metadata of the newest whole checkpoint of a workdir, or None if there is none."""
    found = Store(epath.Path(workdir) / "checkpoints", say).restore(jax.eval_shape(lambda: _fresh(trainer)))
    if found is None:
        return None
    _check_vocabulary(trainer, found[1])
    return found[0].states, found[1]


def _fresh(trainer: Trainer) -> Carry:
    """The carry before the first step."""
    states = trainer.population.init(trainer.seeds)
    return Carry(states, zero_sums(len(trainer.config.seeds)), trainer.population.refresh(states.params))


def _start(trainer: Trainer, store: Store) -> tuple[Carry, Position, list[dict[str, Any]]]:
    """Carry, position and metric lines to go on from."""
    found = store.restore(jax.eval_shape(lambda: _fresh(trainer)))
    if found is None:
        return _fresh(trainer), Position(0, 0, 0.0), []
    carry, meta = found
    _check_vocabulary(trainer, meta)
    return carry, Position(*meta["position"]), meta["history"]


def _check_vocabulary(trainer: Trainer, meta: dict[str, Any]) -> None:
    """Raises WorkdirError if a checkpoint was made with other words: its embedding rows would mean something else."""
    then, now = vocabularies.from_json(meta["vocabulary"]).words, trainer.dataset.vocabulary.words
    if then != now:
        place = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
        raise WorkdirError(
            f"the checkpoint was made with a vocabulary of {len(then):,} words and the data have {len(now):,}; they "
            f"differ from word {place} on. Point config.data.raw_dir at the data it was trained on, or give another "
            "--workdir."
        )


def _save(trainer: Trainer, store: Store, carry: Carry, position: Position, history: list[dict[str, Any]]) -> None:
    """One checkpoint with everything that a later start needs."""
    meta = {
        "position": list(position),
        "history": history,
        "vocabulary": vocabularies.to_json(trainer.dataset.vocabulary),
        "labels": list(trainer.dataset.label_names),
        "config_hash": config_hash(trainer.config),
    }
    chunks = len(epoch_chunks(0, _train_sizes(trainer), trainer.config.training.batch_size))
    store.save(position.epoch * chunks + position.chunk, carry, meta)


def _train_epoch(
    trainer: Trainer,
    carry: Carry,
    position: Position,
    history: list[dict[str, Any]],
    store: Store,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> tuple[Carry, Position]:
    """The rest of the epoch at `position`, chunk by chunk."""
    config = trainer.config
    hparams = make_hparams(config, len(config.seeds))
    chunks = epoch_chunks(position.epoch, _train_sizes(trainer), config.training.batch_size)
    done = sum(chunk.steps for chunk in chunks[: position.chunk])
    saved = time.monotonic()
    for number in range(position.chunk, len(chunks)):
        began = time.monotonic()
        carry = _run_chunk(trainer, carry, position.epoch, chunks[number], hparams)
        done += chunks[number].steps
        position = position._replace(chunk=number + 1, seconds=position.seconds + time.monotonic() - began)
        progress(Progress(position.epoch + 1, done, _steps_per_epoch(trainer)))
        if position.chunk == len(chunks):
            break  # the end of the epoch saves
        due = time.monotonic() - saved > 60 * config.training.save_every_minutes
        stopping = stop()
        if due or stopping:
            _save(trainer, store, carry, position, history)
            saved = time.monotonic()
        if stopping:
            raise Stopped
    return carry, position


def _run_chunk(trainer: Trainer, carry: Carry, epoch: int, chunk: Chunk, hparams: Any) -> Carry:
    """The steps of one chunk, done when it returns."""
    bucket = trainer.buckets["train"][chunk.bucket]
    rows = chunk_rows(trainer.config.seeds, epoch, chunk, bucket.tokens.shape[0], trainer.config.training.batch_size)
    states, sums = trainer.population.run_chunk(
        carry.states,
        carry.sums,
        bucket,
        jnp.asarray(rows),
        jnp.int32(chunk.steps),
        hparams,
        trainer.seeds,
        carry.neighbours,
    )
    jax.block_until_ready(sums)
    return carry._replace(states=states, sums=sums)


def _end_epoch(trainer: Trainer, carry: Carry, epoch: int) -> tuple[Carry, list[dict[str, Any]]]:
    """Dev metric and selection; sums start anew and neighbours are refreshed. Returns one metric line per run."""
    population, buckets = trainer.population, trainer.buckets["dev"]
    probability = jnp.concatenate([population.predict(carry.states.params, bucket) for bucket in buckets], axis=1)
    labels = jnp.concatenate([bucket.labels for bucket in buckets])
    states, metric = population.select(carry.states, probability, labels, jnp.int32(epoch))
    lines = _metric_lines(trainer.config, epoch, jax.device_get(carry.sums), jax.device_get(metric), states)
    neighbours = population.refresh(states.params) if epoch < trainer.config.training.epochs else carry.neighbours
    return Carry(states, zero_sums(len(trainer.config.seeds)), neighbours), lines


def _metric_lines(
    config: Config, epoch: int, sums: StepSums, metric: np.ndarray, states: TrainState
) -> list[dict[str, Any]]:
    """One line of `metrics.jsonl` per run."""
    lines = []
    for run, seed in enumerate(config.seeds):
        rows = max(float(sums.rows[run]), 1.0)
        means = {name: float(getattr(sums, name)[run]) / rows for name in StepSums._fields if name != "rows"}
        line = run_fields(config, seed) | {"epoch": epoch, "train_rows": int(sums.rows[run])} | means
        lines.append(
            line | {f"dev_{config.training.selection}": finite_or_none(metric[run])} | frozen_fields(states, run)
        )
    return lines


def run_fields(config: Config, seed: int) -> dict[str, Any]:
    """The fields that name a run in every line of a workdir."""
    return {
        "dataset": config.dataset,
        "technique": config.technique,
        "reading": config.reading if config.technique == "attention_iat" else None,
        "epsilon": None if config.technique == "vanilla" else config.epsilon,
        "lambda": None if config.technique == "vanilla" else config.adversarial_weight,
        "seed": seed,
    }


def frozen_fields(states: TrainState, run: int) -> dict[str, Any]:
    """When and why a run was frozen; both None for one that was not."""
    step = int(states.frozen_step[run])
    return {
        "frozen_step": step if step >= 0 else None,
        "frozen_reason": FROZEN_REASONS[int(states.frozen_reason[run])] if step >= 0 else None,
    }


def finite_or_none(value: Any) -> float | None:
    """A float for JSON, which knows neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def _train_sizes(trainer: Trainer) -> list[int]:
    """Rows of each training bucket."""
    return [bucket.tokens.shape[0] for bucket in trainer.buckets["train"]]


def _steps_per_epoch(trainer: Trainer) -> int:
    """Steps of an epoch over all buckets."""
    return sum(batches_of(size, trainer.config.training.batch_size) for size in _train_sizes(trainer))
