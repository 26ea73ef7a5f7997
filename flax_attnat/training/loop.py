"""Trains a population to the end: epochs, dev selection, checkpoints, resuming. Shows nothing itself."""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from flax_attnat.objective import StepSums
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.cluster import is_primary, largest
from flax_attnat.training.memory import agreed
from flax_attnat.training.mesh import BY_RUN, WHOLE, fetch, put
from flax_attnat.training.population import zero_sums
from flax_attnat.training.records import metric_lines
from flax_attnat.training.runs import cohort_name
from flax_attnat.training.saved import Carry, Position, checkpoints, save, start, steps_per_epoch, train_sizes
from flax_attnat.training.schedule import CHUNK_STEPS, Plan, chunk_of, epoch_plan
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer
from flax_attnat.training.workdir import write_lines
from flax_attnat.typing import Array

# How long the devices work before it is asked whether to stop: a preempted machine has half a minute to save.
LONGEST_SECONDS = 5.0


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
    `config.training.save_every_minutes`, while training goes on; all is written when this returns or raises `Stopped`.
    The same configuration resumed gives the same numbers as uninterrupted, on the same mesh; on another one the runs go
    on from the same state, equal to rounding.

    Args:
      trainer: from `build_trainer`.
      workdir: gets the population's part of `checkpoints/` and `metrics/`.
      progress: told after some steps, every few seconds, and after each epoch.
      stop: asked as often; true ends training with everything saved. One process that says so stops all.
      say: told what the user should know (a damaged checkpoint, say).

    Returns:
      States of the R runs after the last epoch, and the seconds of training over all starts.

    Raises:
      Stopped: `stop` asked.
      CheckpointError: a checkpoint could not be written.
      OutOfMemory: the devices of this process, or of another, have too little memory for so many runs.
    """
    epochs = trainer.config.training.epochs
    precision = jax.default_matmul_precision(trainer.config.training.matmul_precision)
    with precision, contextlib.closing(checkpoints(trainer, workdir, say)) as store:
        carry, position, history = start(trainer, store) or (_fresh(trainer), Position(0, 0, 0.0), [])
        _write_metrics(trainer, workdir, history)
        while position.epoch < epochs:
            carry, position = _train_epoch(trainer, carry, position, history, store, progress, stop)
            began = time.monotonic()
            carry, lines = _end_epoch(trainer, carry, position.epoch + 1)
            history = history + lines
            position = Position(position.epoch + 1, 0, position.seconds + time.monotonic() - began)
            save(trainer, store, carry, position, history)
            _write_metrics(trainer, workdir, history)
            steps = steps_per_epoch(trainer)
            progress(Progress(position.epoch, steps, steps, lines))
            if largest(stop())[0] and position.epoch < epochs:
                store.wait()
                raise Stopped
        store.wait()
        return carry.states, position.seconds


def _write_metrics(trainer: Trainer, workdir: epath.PathLike, history: list[dict[str, Any]]) -> None:
    """The lines of the epochs that are done."""
    if is_primary():
        write_lines(workdir, "metrics", cohort_name(trainer.cohort), history)


def _fresh(trainer: Trainer) -> Carry:
    """The carry before the first step."""
    states = trainer.population.init(trainer.seeds)
    return Carry(states, _fresh_sums(trainer), trainer.population.refresh(states.params))


def _fresh_sums(trainer: Trainer) -> StepSums:
    """The sums before the first step of an epoch, each `[R]`, on the devices."""
    return put(trainer.mesh, BY_RUN, zero_sums(len(trainer.seeds)))


def _train_epoch(
    trainer: Trainer,
    carry: Carry,
    position: Position,
    history: list[dict[str, Any]],
    store: Store,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> tuple[Carry, Position]:
    """The rest of the epoch at `position`, a few steps at a time."""
    minutes, steps = trainer.config.training.save_every_minutes, steps_per_epoch(trainer)
    plan = epoch_plan(_seeds(trainer), position.epoch, train_sizes(trainer), trainer.config.training.batch_size)
    pace = Pace()
    saved = time.monotonic()
    while position.step < steps:
        begins = position.step // CHUNK_STEPS * CHUNK_STEPS
        work = _put_work(trainer, plan, begins)
        first, end = position.step - begins, min(CHUNK_STEPS, steps - begins)
        while first < end:
            began, count = time.monotonic(), pace.steps(end - first)
            carry = agreed(trainer.mesh, functools.partial(_run_steps, trainer, carry, work, first, count))
            seconds = time.monotonic() - began
            first += count
            position = position._replace(step=position.step + count, seconds=position.seconds + seconds)
            progress(Progress(position.epoch + 1, position.step, steps))
            due = time.monotonic() - saved > 60 * minutes
            stopping, saving, slowest = largest(stop(), due, seconds / count)
            pace.note(slowest)
            if position.step == steps:
                break  # the end of the epoch saves
            if saving or stopping:
                save(trainer, store, carry, position, history)
                saved = time.monotonic()
            if stopping:
                store.wait()
                raise Stopped
    return carry, position


class Pace:
    """How many steps to take at once, by how long the last ones took."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._begun = False

    def steps(self, left: int) -> int:
        """At most `left` steps."""
        return 1 if self._seconds is None else max(1, min(left, int(LONGEST_SECONDS / max(self._seconds, 1e-9))))

    def note(self, seconds: float) -> None:
        """Takes the seconds of a step; the first one's are not its own: it was compiled."""
        self._seconds, self._begun = seconds if self._begun else None, True


def _seeds(trainer: Trainer) -> list[int]:
    """The seeds of the R runs, the filled-up ones included."""
    seeds = [run.seed for run in trainer.runs]
    return seeds + [seeds[-1]] * (len(trainer.seeds) - len(seeds))


def _put_work(trainer: Trainer, plan: Plan, first: int) -> tuple[Array, Array]:
    """Buckets `[S]` and rows `[R, S, B]` of the steps from `first` on, on the devices."""
    which, rows = chunk_of(plan, _seeds(trainer), first)
    return put(trainer.mesh, WHOLE, which), put(trainer.mesh, BY_RUN, rows)


def _run_steps(trainer: Trainer, carry: Carry, work: tuple[Array, Array], first: int, steps: int) -> Carry:
    """Some steps of one chunk, done when it returns; nothing goes to or from the devices meanwhile."""
    span = put(trainer.mesh, WHOLE, (np.int32(first), np.int32(steps)))
    with jax.transfer_guard("disallow"):
        states, sums = trainer.population.run_chunk(
            carry.states,
            carry.sums,
            tuple(trainer.buckets["train"]),
            *work,
            *span,
            trainer.hparams,
            trainer.seeds,
            carry.neighbours,
        )
        jax.block_until_ready(sums)
    return carry._replace(states=states, sums=sums)


def _end_epoch(trainer: Trainer, carry: Carry, epoch: int) -> tuple[Carry, list[dict[str, Any]]]:
    """Dev metric and selection; sums start anew and neighbours are refreshed. Returns one metric line per run."""
    population, buckets, mesh = trainer.population, trainer.buckets["dev"], trainer.mesh
    probability = jnp.concatenate([population.predict(carry.states.params, bucket) for bucket in buckets], axis=1)
    labels = jnp.concatenate([bucket.labels for bucket in buckets])
    states, metric = population.select(carry.states, probability, labels, put(mesh, WHOLE, np.int32(epoch)))
    figures = (carry.sums, metric, states.frozen_step, states.frozen_reason)
    lines = metric_lines(trainer.cohort, epoch, *fetch(mesh, figures))
    neighbours = population.refresh(states.params) if epoch < trainer.config.training.epochs else carry.neighbours
    return Carry(states, _fresh_sums(trainer), neighbours), lines
