"""The pure training step of one run; a population is its vmap."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from flax_attnat.config import OptimizerConfig
from flax_attnat.objective import Hparams, Objective, StepSums
from flax_attnat.training.optimizer import build_optimizer
from flax_attnat.typing import Array, Batch, Params

FROZEN_REASONS = ("running", "loss not finite", "gradient not finite or above 1e18")

# The square of a larger gradient is no float32: the second moment would be infinite and the run silently at rest.
LARGEST_GRADIENT = 1e18


class TrainState(NamedTuple):
    """Everything that training changes, for one run (a leading axis R on every leaf for a population).

    Attributes:
      params: parameters.
      opt_state: optimiser state.
      step: int32, steps taken.
      best_params: parameters of the epoch with the best dev metric.
      best_metric: float32, that metric; -inf before the first epoch ends.
      best_epoch: int32, that epoch, counted from 1; 0 before.
      frozen_step: int32, the step at which the run was frozen, or -1.
      frozen_reason: int32, index into FROZEN_REASONS.
    """

    params: Params
    opt_state: optax.OptState
    step: Array
    best_params: Params
    best_metric: Array
    best_epoch: Array
    frozen_step: Array
    frozen_reason: Array


Found = tuple[tuple[Array, StepSums], Params]
"""What a batch says: (loss, sums) and the gradient of the parameters."""


class StepParts(NamedTuple):
    """A step of one run in two parts, of which only the first depends on the shape of the batch.

    Attributes:
      gradient: `gradient(state, batch, hparams, key, neighbours) -> found`; changes nothing.
      update: `update(state, found, hparams) -> (state, StepSums)`.
    """

    gradient: Callable[..., Found]
    update: Callable[[TrainState, Found, Hparams], tuple[TrainState, StepSums]]


TrainStep = Callable[[TrainState, Batch, Hparams, Array, Array | None], tuple[TrainState, StepSums]]


"""`train_step(state, batch, hparams, key, neighbours) -> (state, sums)`."""


def init_state(params: Params, config: OptimizerConfig) -> TrainState:
    """State of one run before its first step."""
    return TrainState(
        params=params,
        opt_state=build_optimizer(config, 0.0, 0.0).init(params),
        step=jnp.zeros((), jnp.int32),
        best_params=jax.tree.map(jnp.copy, params),
        best_metric=jnp.full((), -jnp.inf, jnp.float32),
        best_epoch=jnp.zeros((), jnp.int32),
        frozen_step=jnp.full((), -1, jnp.int32),
        frozen_reason=jnp.zeros((), jnp.int32),
    )


def build_step_parts(objective: Objective, config: OptimizerConfig) -> StepParts:
    """The step of one run: gradient of the objective, update, and a guard against values that are not finite.

    A run whose loss or gradient turns non-finite (or too large to square) keeps the state it had, from then on and
    whatever comes: the first such step and its reason are recorded, and its sums are zero.

    Args:
      objective: `objective(params, batch, hparams, key, neighbours) -> (loss, StepSums)`.
      config: which parameter groups carry L2.

    Returns:
      Pure functions; the key is folded with the step count, so that a run resumes without any random state.
    """

    def gradient(
        state: TrainState, batch: Batch, hparams: Hparams, key: Array, neighbours: Array | None = None
    ) -> Found:
        """What a batch says of one run's parameters; changes nothing."""
        step_key = jax.random.fold_in(key, state.step)
        return jax.value_and_grad(objective, has_aux=True)(state.params, batch, hparams, step_key, neighbours)

    def update(state: TrainState, found: Found, hparams: Hparams) -> tuple[TrainState, StepSums]:
        """One update of one run."""
        (loss, sums), grads = found
        loss_ok = jnp.isfinite(loss)
        grads_ok = jnp.stack([jnp.all(jnp.abs(g) <= LARGEST_GRADIENT) for g in jax.tree.leaves(grads)]).all()
        running = state.frozen_step < 0
        good = running & loss_ok & grads_ok

        optimizer = build_optimizer(config, hparams.learning_rate, hparams.weight_decay)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, good=good)
        params = optax.apply_updates(state.params, updates)

        stopped = running & ~good
        state = state._replace(
            params=jax.tree.map(lambda new, old: jnp.where(good, new, old), params, state.params),
            opt_state=opt_state,
            step=jnp.where(good, state.step + 1, state.step),
            frozen_step=jnp.where(stopped, state.step, state.frozen_step),
            frozen_reason=jnp.where(stopped, jnp.where(loss_ok, 2, 1), state.frozen_reason),
        )
        return state, jax.tree.map(lambda s: jnp.where(good, s, 0), sums)

    return StepParts(gradient, update)


def build_train_step(objective: Objective, config: OptimizerConfig) -> TrainStep:
    """The step of `build_step_parts` as one function: `train_step(state, batch, hparams, key) -> (state, StepSums)`."""
    parts = build_step_parts(objective, config)

    def train_step(
        state: TrainState, batch: Batch, hparams: Hparams, key: Array, neighbours: Array | None = None
    ) -> tuple[TrainState, StepSums]:
        """One update of one run."""
        return parts.update(state, parts.gradient(state, batch, hparams, key, neighbours), hparams)

    return train_step
