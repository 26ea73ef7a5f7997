"""Attention scores against their formulas."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.models.attention import Additive, ScaledDot
from tests.training.reference import float64


def test_additive_scores() -> None:
    states = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    module: Any = Additive()
    params = module.init(jax.random.key(0), states)["params"]
    exact = float64(params)
    inner = np.tanh(states.astype(np.float64) @ exact["inner"]["kernel"] + exact["inner"]["bias"])
    assert inner.shape[-1] == 3
    np.testing.assert_allclose(
        module.apply({"params": params}, states), inner @ exact["outer"]["kernel"][:, 0], atol=1e-6
    )
    assert set(params["outer"]) == {"kernel"}


def test_scaled_dot_scores() -> None:
    states = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    module: Any = ScaledDot()
    params = module.init(jax.random.key(0), states)["params"]
    query = float64(params)["query"]
    np.testing.assert_allclose(
        module.apply({"params": params}, states),
        states.astype(np.float64) @ query["kernel"][:, 0] / np.sqrt(6),
        atol=1e-6,
    )
    assert set(query) == {"kernel"}


def test_initial_attention_parameters_lie_within_one_over_the_root_of_the_fan_in() -> None:
    states = jnp.zeros((1, 1, 64))
    additive = Additive().init(jax.random.key(0), states)["params"]
    dot = ScaledDot().init(jax.random.key(0), states)["params"]
    for leaf, fan_in in (
        (additive["inner"]["kernel"], 64),
        (additive["inner"]["bias"], 64),
        (additive["outer"]["kernel"], 32),
        (dot["query"]["kernel"], 64),
    ):
        largest = float(jnp.max(jnp.abs(leaf))) * fan_in**0.5
        assert 0.7 < largest <= 1
