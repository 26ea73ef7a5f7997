"""The library's gradients and training steps against a float64 implementation derived by hand."""

import functools

import jax
import numpy as np
import pytest

from flax_attnat.config import ModelConfig
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.single import build_single
from flax_attnat.objective import build_objective
from flax_attnat.training.step import build_train_step, init_state
from flax_attnat.typing import Batch
from tests.models.small import VOCABULARY, as_batch, hparams, initial, relative_error, small
from tests.training import reference
from tests.training.reference import Adam, Row, Tree, float64

WIDTH = 7
POS_WEIGHT = 1.7
LENGTHS = (6, 1, 4, 5)  # all below the width: every row has padding; the second has one token
TECHNIQUES = ("vanilla", "attention_at", "attention_iat")


def rows_of(seed: int) -> list[Row]:
    """Four real rows, one of a single token, and a filler row of weight 0 that is not empty."""
    rng = np.random.default_rng(seed)
    sizes = (*rng.permutation(LENGTHS), 3)
    return [Row(rng.integers(2, VOCABULARY, n), int(rng.integers(2)), float(i < 4)) for i, n in enumerate(sizes)]


def batch_of(rows: list[Row]) -> Batch:
    """The rows as the library reads them."""
    return as_batch([row.ids for row in rows], [row.label for row in rows], [row.weight for row in rows], WIDTH)


def reference_gradients(params: Tree, rows: list[Row], technique: str, epsilon: float, weight: float) -> Tree:
    """The float64 gradient; vanilla is the objective without its second term."""
    deltas = reference.perturbations(params, rows, technique, epsilon, POS_WEIGHT)
    return reference.gradients(params, rows, deltas, 0.0 if technique == "vanilla" else weight, POS_WEIGHT)


@pytest.mark.parametrize("attention", ["additive", "scaled_dot"])
def test_float64_gradient_is_the_finite_difference_of_its_objective(attention: str) -> None:
    config = ModelConfig(attention=attention, embedding_size=3, hidden_size=2)
    params = float64(build_single(config, EmbeddingInit(np.full(6, 1 / 6))).init(jax.random.key(3)))
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
    config, model = small(technique, attention=attention)
    value_and_grad = jax.jit(jax.value_and_grad(build_objective(config, model, POS_WEIGHT), has_aux=True))
    for seed in range(3):
        params, rows = initial(model, seed), rows_of(seed)
        (loss, _), grads = value_and_grad(params, batch_of(rows), hparams(), jax.random.key(0))
        exact = float64(params)
        deltas = reference.perturbations(exact, rows, technique, 0.8, POS_WEIGHT)
        weight = 0.0 if technique == "vanilla" else 0.6
        np.testing.assert_allclose(loss, reference.objective(exact, rows, deltas, weight, POS_WEIGHT), rtol=1e-6)
        assert relative_error(grads, reference_gradients(exact, rows, technique, 0.8, 0.6)) < 1e-5


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_20_training_steps_follow_float64(technique: str) -> None:
    config, model = small(technique)
    step = jax.jit(build_train_step(build_objective(config, model, POS_WEIGHT), config.optimizer))
    state = init_state(initial(model, 7), config.optimizer)
    exact = Adam(float64(state.params), 1e-2, {"embedding": 1e-2, "encoder": 1e-2, "attention": 0.0, "output": 1e-2})
    for seed in range(20):
        rows = rows_of(seed)
        exact.step(reference_gradients(exact.params, rows, technique, 0.8, 0.6))
        state, _ = step(state, batch_of(rows), hparams(learning_rate=1e-2), jax.random.key(0))
    assert int(state.step) == 20
    # Rounding errors of 1e-6 in a gradient move an entry of amsgrad's update by as much at most, 20 times over.
    assert relative_error(state.params, exact.params) < 1e-4
