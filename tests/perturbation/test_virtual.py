"""Virtual adversarial perturbations: the power iteration and its limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flax_attnat as fa

KEY = jax.random.key(3)


def hessians(rng):
    """Two symmetric 4 x 4 matrices of known, well separated eigenvalues, and their leading eigenvectors."""
    bases = [np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2)]
    matrices = [q @ np.diag([5.0, 1.0, 0.5, 0.1]) @ q.T for q in bases]
    return np.stack(matrices), np.stack([q[:, 0] for q in bases])


def test_power_iteration_finds_the_leading_eigenvector():
    """The error shrinks by the ratio of the two largest eigenvalues, 1/5, in each step."""
    h, leading = hessians(np.random.default_rng(0))
    h = jnp.asarray(h, jnp.float32)

    def divergence(delta):
        return 0.5 * jnp.einsum("bi,bij,bj->b", delta, h, delta)

    errors = []
    for steps in (1, 3, 12):
        r = np.asarray(fa.virtual_at(divergence, jnp.zeros((2, 4)), None, 2.0, key=KEY, xi=1e-3, steps=steps)) / 2
        errors.append(np.sqrt(1 - np.minimum((r * leading).sum(-1) ** 2, 1)))
    assert np.all(errors[1] < errors[0] / 4) and np.all(errors[2] < 1e-3)


@pytest.mark.parametrize("xi", [0.1, 1.0, 10.0])
def test_one_step_equals_the_formula(xi):
    """grad KL(q || p(s + d)) = a_t (v_t - c) (p - q) at d = xi d0, for p = sigmoid(sum_t a_t v_t), in float64."""
    rng = np.random.default_rng(1)
    s, v = rng.normal(size=(2, 3, 5))
    mask = np.arange(5) < np.array([[5], [3], [4]])

    def attend(scores):
        a = np.exp(scores) * mask
        a /= a.sum(-1, keepdims=True)
        return a, 1 / (1 + np.exp(-(a * v).sum(-1, keepdims=True)))

    start = np.asarray(fa.random_perturbation(KEY, jnp.zeros((3, 5)), mask, 1.0), np.float64)
    (_, q), (a, p) = attend(s), attend(s + xi * start)
    g = a * (v - (a * v).sum(-1, keepdims=True)) * (p - q)
    expected = 0.7 * g / np.sqrt((g**2).sum(-1, keepdims=True))

    scores, values = jnp.asarray(s, jnp.float32), jnp.asarray(v, jnp.float32)

    def logit(delta):
        return jnp.sum(fa.masked_softmax(scores + delta, mask) * values, axis=-1)

    clean = logit(jnp.zeros((3, 5)))

    def kl(delta):
        q, z = jax.nn.sigmoid(clean), logit(delta)
        positive = q * (jax.nn.log_sigmoid(clean) - jax.nn.log_sigmoid(z))
        return positive + (1 - q) * (jax.nn.log_sigmoid(-clean) - jax.nn.log_sigmoid(-z))

    r = jax.jit(lambda key: fa.virtual_at(kl, scores, mask, 0.7, key=key, xi=xi))(KEY)
    np.testing.assert_allclose(r, expected, atol=1e-4)


def test_a_row_that_loses_its_direction_stays_zero():
    """The first gradient of row 0 is zero and of row 1 NaN; a second step from delta 0 would find one all the same."""

    def divergence(delta):
        moved = jnp.sum(jnp.square(delta), axis=-1) > 0
        return jnp.where(moved, jnp.array([0.0, jnp.nan, 1.0]), 1) * jnp.sum(delta, axis=-1)

    r = np.asarray(fa.virtual_at(divergence, jnp.zeros((3, 2)), None, 1.0, key=KEY, steps=2))
    np.testing.assert_array_equal(r[:2], 0)
    np.testing.assert_allclose(r[2], np.sqrt([0.5, 0.5]), rtol=1e-6)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_step_is_refused(steps):
    with pytest.raises(ValueError, match=f"at least 1; got {steps}"):
        fa.virtual_at(lambda delta: jnp.sum(delta, axis=-1), jnp.zeros((1, 2)), None, 1.0, key=KEY, steps=steps)


@pytest.mark.parametrize("xi", [0.0, -1.0, float("nan"), float("inf")])
def test_a_radius_of_the_gradient_that_is_none_is_refused_by_its_name(xi):
    with pytest.raises(ValueError, match="xi must be a positive, finite number"):
        fa.virtual_at(lambda delta: jnp.sum(delta, axis=-1), jnp.zeros((1, 2)), None, 1.0, key=KEY, xi=xi)
