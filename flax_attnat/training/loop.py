"""Trains a population to the end: epochs, dev selection, checkpoints, resuming. Shows nothing itself."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from flax_attnat.config import config_hash
from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.objective import StepSums
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.population import make_hparams, zero_sums
from flax_attnat.training.records import metric_lines
from flax_attnat.training.schedule import Chunk, batches_of, chunk_rows, epoch_chunks
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer
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
    """States and metadata of the newest whole checkpoint of a workdir, or None if there is none; changes no file."""
    found = _load(trainer, Store(epath.Path(workdir) / "checkpoints", say, read_only=True))
    return None if found is None else (found[0].states, found[1])


def _fresh(trainer: Trainer) -> Carry:
    """The carry before the first step."""
    states = trainer.population.init(trainer.seeds)
    return Carry(states, zero_sums(len(trainer.config.seeds)), trainer.population.refresh(states.params))


def _start(trainer: Trainer, store: Store) -> tuple[Carry, Position, list[dict[str, Any]]]:
    """Carry, position and metric lines to go on from."""
    found = _load(trainer, store)
    if found is None:
        return _fresh(trainer), Position(0, 0, 0.0), []
    carry, meta = found
    return carry, Position(*meta["position"]), meta["history"]


def _load(trainer: Trainer, store: Store) -> tuple[Carry, dict[str, Any]] | None:
    """The newest whole checkpoint, provided that it belongs to this configuration and these data."""
    return store.restore(jax.eval_shape(lambda: _fresh(trainer)), lambda meta: _check_owner(trainer, meta))


def _check_owner(trainer: Trainer, meta: dict[str, Any]) -> None:
    """Raises WorkdirError for checkpoints of another configuration, vocabulary or set of classes."""
    if meta["config_hash"] != config_hash(trainer.config):
        raise WorkdirError(
            f"the checkpoints were made by another configuration ({meta['config_hash']}, and this one is "
            f"{config_hash(trainer.config)}). Give another --workdir."
        )
    then, now = vocabularies.from_json(meta["vocabulary"]).words, trainer.dataset.vocabulary.words
    if then != now:
        place = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
        raise WorkdirError(
            f"the checkpoints were made with a vocabulary of {len(then):,} words and the data have {len(now):,}; they "
            f"differ from word {place} on. Point config.data.raw_dir at the data it was trained on, or give another "
            "--workdir."
        )
    if meta["labels"] != list(trainer.dataset.label_names):
        raise WorkdirError(
            f"the checkpoints were made for the classes {', '.join(meta['labels'])} and the data have "
            f"{', '.join(trainer.dataset.label_names)}. Give the data it was trained on, or another --workdir."
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
    lines = metric_lines(trainer.config, epoch, jax.device_get(carry.sums), jax.device_get(metric), states)
    neighbours = population.refresh(states.params) if epoch < trainer.config.training.epochs else carry.neighbours
    return Carry(states, zero_sums(len(trainer.config.seeds)), neighbours), lines


def _train_sizes(trainer: Trainer) -> list[int]:
    """Rows of each training bucket."""
    return [bucket.tokens.shape[0] for bucket in trainer.buckets["train"]]


def _steps_per_epoch(trainer: Trainer) -> int:
    """Steps of an epoch over all buckets."""
    return sum(batches_of(size, trainer.config.training.batch_size) for size in _train_sizes(trainer))
