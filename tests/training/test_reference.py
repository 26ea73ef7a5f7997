"""The library's gradients, optimiser and training steps against a float64 implementation derived by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.training import reference
from tests.training.reference import Adam, Row, Tree, float64, tree_map

from flax_attnat.config import Config, ModelConfig, OptimizerConfig
from flax_attnat.models.single import EmbeddingInit, Model, build
from flax_attnat.objective import Hparams, build_objective
from flax_attnat.training.optimizer import build_optimizer
from flax_attnat.training.step import build_train_step, init_state
from flax_attnat.typing import Batch

VOCABULARY, WIDTH = 11, 7
POS_WEIGHT = 1.7
LENGTHS = (6, 1, 4, 5)  # all below the width: every row has padding; the second has one token
TECHNIQUES = ("vanilla", "attention_at", "attention_iat")


def rows_of(seed: int) -> list[Row]:
    """Four real rows, one of a single token, and a filler row of weight 0 that is not empty."""
    rng = np.random.default_rng(seed)
    sizes = (*rng.permutation(LENGTHS), 3)
    return [Row(rng.integers(2, VOCABULARY, n), int(rng.integers(2)), float(i < 4)) for i, n in enumerate(sizes)]


def as_batch(rows: list[Row]) -> Batch:
    """The rows as the library reads them."""
    tokens = np.zeros((len(rows), WIDTH), np.int32)
    for place, row in zip(tokens, rows, strict=True):
        place[: len(row.ids)] = row.ids
    return Batch(
        jnp.asarray(tokens),
        jnp.asarray([len(row.ids) for row in rows], jnp.int32),
        jnp.asarray([row.label for row in rows], jnp.int32),
        jnp.asarray([row.weight for row in rows], jnp.float32),
    )


def hparams(epsilon: float = 0.8, weight: float = 0.6, learning_rate: float = 1e-3, decay: float = 1e-2) -> Hparams:
    return Hparams(*(jnp.asarray(x, jnp.float32) for x in (epsilon, weight, learning_rate, decay)))


def setup(technique: str, attention: str = "additive") -> tuple[Config, Model]:
    """A configuration with a small BiLSTM, and its model."""
    config = Config(technique=technique, model=ModelConfig(attention=attention, embedding_size=6, hidden_size=4))
    return config, build(config.model, EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY)))


def reference_gradients(params: Tree, rows: list[Row], technique: str, epsilon: float, weight: float) -> Tree:
    """The float64 gradient; vanilla is the objective without its second term."""
    deltas = reference.perturbations(params, rows, technique, epsilon, POS_WEIGHT)
    return reference.gradients(params, rows, deltas, 0.0 if technique == "vanilla" else weight, POS_WEIGHT)


def largest_error(ours: Tree, exact: Tree) -> float:
    """Largest difference in any leaf, over that leaf's largest magnitude."""
    errors = tree_map(lambda a, b: np.max(np.abs(np.asarray(a, np.float64) - b)) / np.max(np.abs(b)), ours, exact)
    return max(jax.tree.leaves(errors))


@pytest.mark.parametrize("attention", ["additive", "scaled_dot"])
def test_float64_gradient_is_the_finite_difference_of_its_objective(attention: str) -> None:
    config = ModelConfig(attention=attention, embedding_size=3, hidden_size=2)
    params = float64(build(config, EmbeddingInit(np.full(6, 1 / 6))).init(jax.random.key(3)))
    rows = [Row(np.array([2, 3, 2, 5]), 1, 1.0), Row(np.array([4]), 0, 1.0), Row(np.array([3, 5]), 0, 0.0)]
    deltas = reference.perturbations(params, rows, "attention_iat", 0.7, POS_WEIGHT)
    value = functools.partial(reference.objective, params, rows, deltas, 0.6, POS_WEIGHT)
    exact = reference.gradients(params, rows, deltas, 0.6, POS_WEIGHT)
    h = 1e-5
    for leaf, gradient in zip(jax.tree.leaves(params), jax.tree.leaves(exact), strict=True):
        for place in np.ndindex(leaf.shape):
            kept, sides = leaf[place], []
            for shift in (h, -h):
                leaf[place] = kept + shift
                sides.append(value())
            leaf[place] = kept
            assert abs((sides[0] - sides[1]) / (2 * h) - gradient[place]) < 1e-9


def test_float64_perturbation_ascends_by_the_finite_difference_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    output = {"kernel": rng.normal(size=(4, 1)), "bias": rng.normal(size=1)}
    states, scores, h = rng.normal(size=(5, 4)), rng.normal(size=5), 1e-5
    loss = functools.partial(reference.readout_loss, output, states, label=1, pos_weight=POS_WEIGHT)
    slope = np.array([(loss(scores=scores + step) - loss(scores=scores - step)) / (2 * h) for step in h * np.eye(5)])
    _, gradient, _ = reference.readout_backward(output, states, scores, 1, POS_WEIGHT)
    np.testing.assert_allclose(gradient, slope, atol=1e-9)
    np.testing.assert_allclose(
        reference.perturb("attention_at", scores, gradient, 0.3), 0.3 * slope / np.linalg.norm(slope), atol=1e-8
    )


@pytest.mark.parametrize("attention", ["additive", "scaled_dot"])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_gradients_equal_float64(technique: str, attention: str) -> None:
    config, model = setup(technique, attention)
    value_and_grad = jax.jit(jax.value_and_grad(build_objective(config, model, POS_WEIGHT), has_aux=True))
    for seed in range(3):
        params, rows = model.init(jax.random.key(seed)), rows_of(seed)
        (loss, _), grads = value_and_grad(params, as_batch(rows), hparams(), jax.random.key(0))
        exact = float64(params)
        deltas = reference.perturbations(exact, rows, technique, 0.8, POS_WEIGHT)
        weight = 0.0 if technique == "vanilla" else 0.6
        np.testing.assert_allclose(loss, reference.objective(exact, rows, deltas, weight, POS_WEIGHT), rtol=1e-6)
        assert largest_error(grads, reference_gradients(exact, rows, technique, 0.8, 0.6)) < 1e-5


def fading_gradients(params: Tree, steps: int) -> list[Tree]:
    """Gradients that shrink tenfold on the way, so that the largest second moment lies far behind."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 0.1, steps)
    # A constant part keeps the parameters moving in one direction, so that a wrong step size shows.
    drift = tree_map(lambda p: rng.normal(size=p.shape), params)
    return [tree_map(lambda d, s=s: s * (d + rng.normal(size=d.shape)), drift) for s in scales]


def run_optimizer(transform: optax.GradientTransformation, params: Tree, grads: list[Tree]) -> Tree:
    """The parameters after one update per gradient."""

    @jax.jit
    def update(params: Tree, state: optax.OptState, gradient: Tree) -> tuple[Tree, optax.OptState]:
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = transform.init(params)
    for gradient in grads:
        params, state = update(params, state, jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradient))
    return params


def test_200_updates_with_fading_gradients_equal_float64_and_differ_from_optax() -> None:
    rng = np.random.default_rng(1)
    groups = ("embedding", "encoder", "attention", "output")
    params = {name: {"kernel": rng.normal(size=(3, 4)).astype(np.float32)} for name in groups}
    start = jax.tree.map(jnp.asarray, params)
    grads = [tree_map(lambda g: g.astype(np.float32), g) for g in fading_gradients(params, 200)]
    exact = Adam(float64(params), 1e-2, {"embedding": 1e-2, "encoder": 1e-2, "attention": 0.0, "output": 1e-2})
    for gradient in grads:
        exact.step(float64(gradient))
    ours = run_optimizer(build_optimizer(OptimizerConfig(), 1e-2, 1e-2), start, grads)
    assert largest_error(ours, exact.params) < 1e-5
    # The decay of embedding, encoder and output alone shows: without it they end elsewhere.
    assert largest_error(run_optimizer(build_optimizer(OptimizerConfig(), 1e-2, 0.0), start, grads), exact.params) > 1e-3
    mask = {name: name != "attention" for name in groups}
    corrected_first = optax.chain(
        optax.add_decayed_weights(1e-2, mask=mask), optax.scale_by_amsgrad(), optax.scale_by_learning_rate(1e-2)
    )
    assert largest_error(run_optimizer(corrected_first, start, grads), exact.params) > 1e-2


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_20_training_steps_follow_float64(technique: str) -> None:
    config, model = setup(technique)
    step = jax.jit(build_train_step(build_objective(config, model, POS_WEIGHT), config.optimizer))
    state = init_state(model.init(jax.random.key(7)), config.optimizer)
    exact = Adam(float64(state.params), 1e-2, {"embedding": 1e-2, "encoder": 1e-2, "attention": 0.0, "output": 1e-2})
    for seed in range(20):
        rows = rows_of(seed)
        exact.step(reference_gradients(exact.params, rows, technique, 0.8, 0.6))
        state, _ = step(state, as_batch(rows), hparams(learning_rate=1e-2), jax.random.key(0))
    assert int(state.step) == 20
    print('ERR', largest_error(state.params, exact.params))
    assert largest_error(state.params, exact.params) < 1e-4
