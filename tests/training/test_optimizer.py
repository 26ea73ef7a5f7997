"""Adam with amsgrad against torch's formula in float64, and the parameter groups that carry L2."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_attnat.config import OptimizerConfig
from flax_attnat.training.optimizer import build_optimizer, scale_by_torch_amsgrad
from tests.models.small import relative_error
from tests.training.reference import Adam, Tree, float64, tree_map

GROUPS = ("embedding", "encoder", "attention", "output")
RATE, DECAY = 1e-2, 1e-2
NO_DECAY = dict.fromkeys(GROUPS, 0.0)
DECAYED = NO_DECAY | dict.fromkeys(("embedding", "encoder", "output"), DECAY)  # Jain & Wallace's groups


def parameters() -> Tree:
    """One leaf a group, float32 values as NumPy arrays."""
    rng = np.random.default_rng(1)
    return {name: {"kernel": rng.normal(size=(3, 4)).astype(np.float32)} for name in GROUPS}


def fading_gradients(steps: int) -> list[Tree]:
    """Gradients that shrink tenfold on the way, so that the largest second moment lies far behind the last one."""
    rng = np.random.default_rng(0)
    # The part that stays the same keeps the parameters moving one way, where a wrong step size shows.
    drift = tree_map(lambda p: rng.normal(size=p.shape), parameters())
    return [
        tree_map(lambda d, scale=scale: (scale * (d + rng.normal(size=d.shape))).astype(np.float32), drift)
        for scale in np.geomspace(1, 0.1, steps)
    ]


def run(transform: optax.GradientTransformation, grads: list[Tree]) -> Tree:
    """The parameters after one update per gradient."""

    @jax.jit
    def update(params: Tree, state: optax.OptState, gradient: Tree) -> tuple[Tree, optax.OptState]:
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, parameters())
    state = transform.init(params)
    for gradient in grads:
        params, state = update(params, state, gradient)
    return params


def run_float64(grads: list[Tree], weight_decay: dict[str, float]) -> Tree:
    """The same in float64."""
    exact = Adam(float64(parameters()), RATE, weight_decay)
    for gradient in grads:
        exact.step(float64(gradient))
    return exact.params


def test_200_updates_equal_float64_where_the_maximum_matters() -> None:
    """With L2 on the groups that carry it, and without: then the gradients tell the formulas apart."""
    grads = fading_gradients(200)
    with_decay = build_optimizer(OptimizerConfig(), RATE, DECAY)
    assert relative_error(run(with_decay, grads), run_float64(grads, DECAYED)) < 1e-5
    exact = run_float64(grads, NO_DECAY)
    chain = optax.chain(scale_by_torch_amsgrad(), optax.scale_by_learning_rate(RATE))
    assert relative_error(run(chain, grads), exact) < 1e-5
    # These gradients tell the formulas apart: no maximum, and optax's maximum after the bias correction.
    for other, apart in ((optax.scale_by_adam, 5e-4), (optax.scale_by_amsgrad, 1e-2)):
        with jax.numpy_dtype_promotion("standard"):
            ends = run(optax.chain(other(), optax.scale_by_learning_rate(RATE)), grads)
        assert relative_error(ends, exact) > apart


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_l2_is_added_to_the_gradient_of_the_groups_that_carry_it(embedding: bool, attention: bool) -> None:
    grads = fading_gradients(20)
    carries = {"embedding": embedding, "encoder": True, "attention": attention, "output": True}
    config = OptimizerConfig(decay_embedding=embedding, decay_attention=attention)
    ours = run(build_optimizer(config, RATE, DECAY), grads)
    assert relative_error(ours, run_float64(grads, {name: DECAY * on for name, on in carries.items()})) < 1e-5
    without = run(build_optimizer(config, RATE, 0.0), grads)
    moved = {name: relative_error(ours[name], without[name]) > 1e-5 for name in GROUPS}
    assert moved == carries


def test_first_update_is_the_learning_rate_whatever_the_size_of_the_gradient() -> None:
    """The bias corrections cancel at the first step, `m / sqrt(v) = sign(g)`, as far as eps = 1e-8 lets them."""
    transform = scale_by_torch_amsgrad()
    for size in (1e-4, 1.0, 1e4):
        gradient = size * jnp.array([1.0, -1.0])
        update, _ = transform.update(gradient, transform.init(gradient))
        np.testing.assert_allclose(update, [1, -1], rtol=2e-4 if size < 1 else 1e-6)


def test_learning_rate_and_decay_may_be_traced() -> None:
    grads = fading_gradients(1)[0]
    params = jax.tree.map(jnp.asarray, parameters())

    @functools.partial(jax.vmap, in_axes=(0, 0))
    def updates(rate: jax.Array, decay: jax.Array) -> Tree:
        optimizer = build_optimizer(OptimizerConfig(), rate, decay)
        return optimizer.update(grads, optimizer.init(params), params)[0]

    both = updates(jnp.array([0.1, 0.2]), jnp.array([0.0, 3.0]))
    for run_index, (rate, decay) in enumerate(((0.1, 0.0), (0.2, 3.0))):
        optimizer = build_optimizer(OptimizerConfig(), rate, decay)
        alone = optimizer.update(grads, optimizer.init(params), params)[0]
        assert relative_error(jax.tree.map(lambda u, i=run_index: u[i], both), alone) < 1e-6
