"""The adversarial objective: values, weights, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flax_attnat as fa

rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
W = jnp.asarray(rng.normal(size=4), jnp.float32)
DELTA = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)


def losses(w, delta):
    return jax.nn.softplus(jnp.tanh(X + delta) @ w)


@jax.jit
def objective(w, delta, weight):
    """Mean objective, its auxiliary values, and its gradient with respect to `w`."""

    def mean(w):
        loss, aux = fa.adversarial_loss(lambda d: losses(w, d), delta, weight=weight)
        return jnp.mean(loss), aux

    (value, aux), gradient = jax.value_and_grad(mean, has_aux=True)(w)
    return value, aux, gradient


@jax.jit
def vanilla(w):
    return jax.value_and_grad(lambda w: jnp.mean(losses(w, jnp.zeros_like(X))))(w)


def test_weight_0_is_vanilla_training_to_the_last_bit():
    value, _, gradient = objective(W, DELTA, 0.0)
    expected_value, expected_gradient = vanilla(W)
    assert value == expected_value
    np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_delta_0_multiplies_loss_and_gradient(weight):
    value, aux, gradient = objective(W, jnp.zeros_like(X), weight)
    expected_value, expected_gradient = vanilla(W)
    np.testing.assert_allclose(value, (1 + weight) * expected_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, (1 + weight) * expected_gradient, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(aux.clean, aux.adversarial, rtol=1e-6)
    np.testing.assert_array_equal(aux.raised, 0)
    np.testing.assert_array_equal(aux.delta_norm, 0)


def test_values_against_float64():
    x, w, delta = (np.asarray(a, np.float64) for a in (X, W, DELTA))
    clean, adversarial = (np.log1p(np.exp(np.tanh(x + d) @ w)) for d in (0, delta))
    value, aux, _ = objective(W, DELTA, 2.0)
    np.testing.assert_allclose(value, np.mean(clean + 2 * adversarial), rtol=1e-6)
    np.testing.assert_allclose(aux.clean, clean, rtol=1e-5)
    np.testing.assert_allclose(aux.adversarial, adversarial, rtol=1e-5)
    np.testing.assert_allclose(aux.delta_norm, np.sqrt((delta**2).sum(-1)), rtol=1e-6)
    np.testing.assert_array_equal(aux.raised, adversarial > clean)
    assert 0 < np.sum(aux.raised) < 3


def test_a_zero_delta_that_depends_on_parameters_has_a_finite_gradient():
    """The norm of a zero row has no derivative: it may not reach the gradient, even where the two are stacked."""

    def total(w):
        loss, aux = fa.adversarial_loss(lambda d: losses(w, d), 0.0 * X * w[None])
        return jnp.sum(jnp.stack([loss, aux.delta_norm])[0])

    assert np.all(np.isfinite(jax.jit(jax.grad(total))(W)))


def test_losses_that_are_not_one_a_row_are_refused():
    for loss_fn in (lambda delta: jnp.mean(delta), lambda delta: jnp.sum(delta, axis=-1, keepdims=True)):
        with pytest.raises(ValueError, match=r"one loss a row, of shape \(3,\)"):
            fa.adversarial_loss(loss_fn, DELTA)


def test_the_weight_may_be_traced_and_mapped():
    weights = jnp.asarray([0.0, 0.5, 2.0])
    mapped = jax.vmap(lambda weight: objective(W, DELTA, weight)[0])(weights)
    np.testing.assert_allclose(mapped, [objective(W, DELTA, weight)[0] for weight in weights], rtol=1e-6)
