"""The training step: what freezes a run, what that leaves alone, and what compiles nothing new."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.config import OptimizerConfig
from flax_attnat.objective import Hparams, StepSums, build_objective
from flax_attnat.training.step import FROZEN_REASONS, TrainState, build_train_step, init_state
from flax_attnat.typing import Array, Batch, Params
from tests.models.small import hparams, initial, random_batch, small

KEY = jax.random.key(0)


def power_objective(
    params: Params, batch: Batch, hparams: Hparams, key: Array, neighbours: Array | None = None
) -> tuple[Array, StepSums]:
    """`sum_t x^(label / 2)` of one parameter: at x = 0 the loss is finite and its gradient, for label 1, is not."""
    loss = jnp.sum(params["output"]["x"] ** (batch.label.astype(jnp.float32) / 2)) * batch.weight[0]
    return loss, StepSums(*(loss + i for i in range(6)))


def one_row(label: int, weight: float = 1.0) -> Batch:
    """A batch of which `power_objective` reads label and weight alone."""
    return random_batch(lengths=(3,))._replace(label=jnp.array([label]), weight=jnp.array([weight], jnp.float32))


def same(ours: TrainState, theirs: TrainState) -> None:
    """Raises unless two states are equal bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("bad", "reason"), [(one_row(2, np.nan), "loss not finite"), (one_row(1), "gradient not finite or above 1e18")]
)
def test_a_value_that_is_not_finite_freezes_the_last_good_state_for_good(bad: Batch, reason: str) -> None:
    step = jax.jit(build_train_step(power_objective, OptimizerConfig()))
    state = init_state({"output": {"x": jnp.array([0.0, 2.0])}}, OptimizerConfig())
    good = one_row(4)
    for _ in range(2):
        before = state
        state, sums = step(state, good, hparams(weight_decay=0.0), KEY)
        assert float(sums.loss) > 0
    assert int(state.step) == 2
    assert not np.array_equal(state.params["output"]["x"], before.params["output"]["x"])
    assert (int(state.frozen_step), FROZEN_REASONS[int(state.frozen_reason)]) == (-1, "running")

    frozen, sums = step(state, bad, hparams(weight_decay=0.0), KEY)
    assert (int(frozen.frozen_step), FROZEN_REASONS[int(frozen.frozen_reason)]) == (2, reason)
    same(frozen._replace(frozen_step=state.frozen_step, frozen_reason=state.frozen_reason), state)
    assert not np.any(jnp.stack(sums))
    for later in (good, bad, good):
        still, sums = step(frozen, later, hparams(weight_decay=0.0), KEY)
        same(still, frozen)
        assert not np.any(jnp.stack(sums))


def test_a_gradient_too_large_to_square_freezes() -> None:
    """It is finite; the largest that is let through is 1e18."""

    def slope(
        params: Params, batch: Batch, hparams: Hparams, key: Array, neighbours: Array | None = None
    ) -> tuple[Array, StepSums]:
        """A loss whose gradient is the weight of the batch."""
        loss = jnp.sum(params["output"]["x"]) * batch.weight[0]
        return loss, StepSums(*(loss + i for i in range(6)))

    step = jax.jit(build_train_step(slope, OptimizerConfig()))
    state = init_state({"output": {"x": jnp.array([0.5, 2.0])}}, OptimizerConfig())
    allowed, _ = step(state, one_row(0, 0.9e18), hparams(weight_decay=0.0), KEY)
    assert int(allowed.frozen_step) == -1 and bool(jnp.all(jnp.isfinite(allowed.params["output"]["x"])))
    frozen, _ = step(state, one_row(0, 1e19), hparams(weight_decay=0.0), KEY)
    assert int(frozen.frozen_step) == 0
    assert FROZEN_REASONS[int(frozen.frozen_reason)] == "gradient not finite or above 1e18"
    np.testing.assert_array_equal(frozen.params["output"]["x"], state.params["output"]["x"])


def test_the_other_runs_of_a_population_go_on_bit_for_bit() -> None:
    """Run 1 diverges by a learning rate that overflows; runs 0 and 2 are as beside a healthy neighbour."""
    config, model = small("attention_iat")
    step = jax.jit(jax.vmap(build_train_step(build_objective(config, model), config.optimizer), (0, None, 0, None)))
    params = [initial(model, seed) for seed in range(3)]
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(init_state(p, config.optimizer) for p in params))

    def train(rate: float) -> tuple[TrainState, list[StepSums]]:
        """Six steps with this learning rate for run 1."""
        values = jax.tree.map(lambda x: jnp.full(3, x), hparams())
        values = values._replace(learning_rate=jnp.array([1e-2, rate, 2e-2]))
        state, sums = start, []
        for seed in range(6):
            state, new = step(state, random_batch(seed), values, KEY)
            sums.append(new)
        return state, sums

    healthy, healthy_sums = train(1e-2)
    state, sums = train(1e38)
    np.testing.assert_array_equal(state.frozen_step, [-1, 1, -1])
    np.testing.assert_array_equal(state.step, [6, 1, 6])
    assert FROZEN_REASONS[int(state.frozen_reason[1])] == "loss not finite"
    others = np.array([0, 2])
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[others], b[others]), (state, sums), (healthy, healthy_sums)
    )
    assert not any(np.any(column[1]) for new in sums[1:] for column in new)


@pytest.mark.parametrize("technique", ["vanilla", "attention_iat"])
def test_new_hyper_parameters_compile_nothing_and_change_the_result(technique: str) -> None:
    config, model = small(technique, "average")
    chex.clear_trace_counter()
    train_step = chex.assert_max_traces(build_train_step(build_objective(config, model), config.optimizer), n=1)
    step: Callable[..., tuple[TrainState, StepSums]] = jax.jit(train_step)
    start, _ = step(init_state(initial(model), config.optimizer), random_batch(), hparams(), KEY)
    plain, _ = step(start, random_batch(), hparams(), KEY)
    read = {"epsilon": 0.1, "weight": 0.1, "learning_rate": 0.1, "weight_decay": 0.1}
    for name, value in read.items():
        other, _ = step(start, random_batch(), hparams(**{name: value}), KEY)
        moved = not np.array_equal(other.params["output"]["kernel"], plain.params["output"]["kernel"])
        assert moved == (technique != "vanilla" or name in ("learning_rate", "weight_decay"))


def test_a_step_depends_on_the_key_and_the_step_count_alone() -> None:
    """Random perturbations differ from step to step and are the same again when a run resumes at a step."""
    config, model = small("attention_rp", "average")
    step = jax.jit(build_train_step(build_objective(config, model), config.optimizer))
    start = init_state(initial(model), config.optimizer)
    _, first = step(start, random_batch(), hparams(), KEY)
    _, again = step(start, random_batch(), hparams(), KEY)
    _, later = step(start._replace(step=jnp.array(1, jnp.int32)), random_batch(), hparams(), KEY)
    _, other = step(start, random_batch(), hparams(), jax.random.key(1))
    assert float(first.adversarial) == float(again.adversarial)
    assert float(first.clean) == float(later.clean) == float(other.clean)
    assert len({float(s.adversarial) for s in (first, later, other)}) == 3
