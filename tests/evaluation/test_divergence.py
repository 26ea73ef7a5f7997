"""Divergences against SciPy, their bounds, and gradients where a probability is zero."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from flax_attnat.evaluation.divergence import jensen_shannon, total_variation

ROWS, WIDTH = 300, 17

between = jax.jit(jensen_shannon)
slope = jax.jit(jax.grad(lambda p, q, mask: jnp.sum(jensen_shannon(p, q, mask)), argnums=(0, 1)))


@pytest.fixture(scope="module")
def attention():
    """Distributions `[300, 17]` over 1 to 17 tokens, some sparse, some concentrated, some close to each other."""
    rng = np.random.default_rng(0)
    mask = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (ROWS, 1))

    def draw():
        """Positive everywhere, then with zeros but on the first token."""
        x = rng.gamma(rng.choice([0.05, 1.0, 10.0], (ROWS, 1)), size=(ROWS, WIDTH)) + 1e-12
        x[::3, 1:] *= rng.random((len(x[::3]), WIDTH - 1)) < 0.5
        return x

    p, q = draw(), draw()
    q[100:200] = p[100:200] * (1 + rng.choice([1e-3, 0.1, 0.4], (100, 1)) * rng.standard_normal((100, WIDTH)) / 5)
    return *(
        (np.where(mask, x, 0) / np.where(mask, x, 0).sum(-1, keepdims=True)).astype(np.float32) for x in (p, q)
    ), mask


def exact(p, q):
    """JSD in float64 of rows `[N, T]` as they are, not normalised anew."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return sum(np.where(x > 0, x * np.log(x / middle), 0).sum(-1) / 2 for x in (p, q))


def test_jensen_shannon_equals_scipy(attention):
    """To 2e-7, within [0, ln 2]; on rows as they are in float32, also in relative terms where they are close."""
    p, q, mask = attention
    ours = np.asarray(between(p, q, mask))
    assert ours.min() >= 0 and ours.max() <= math.log(2)
    np.testing.assert_allclose(ours, exact(p, q), rtol=2e-6, atol=1e-12)
    for row in range(ROWS):
        x, y = p[row].astype(np.float64), q[row].astype(np.float64)
        assert ours[row] == pytest.approx(distance.jensenshannon(x, y, base=math.e) ** 2, abs=2e-7)


def test_jensen_shannon_is_zero_for_equal_ln_2_for_disjoint_and_symmetric(attention):
    """Exactly."""
    p, q, mask = attention
    np.testing.assert_array_equal(between(p, p, mask), 0)
    np.testing.assert_array_equal(between(p, q, mask), between(q, p, mask))
    disjoint = np.eye(2, dtype=np.float32)
    assert float(between(disjoint[0], disjoint[1], np.ones(2, bool))) == np.float32(math.log(2))


def test_gradients_are_finite_and_right(attention):
    """`log(p / m) / 2` in float64 where p is positive, 0 elsewhere, down to the smallest weights."""
    p, q, mask = attention
    p, q = p.copy(), q.copy()
    p[0, :3], q[0, :3] = [1e-30, 2e-38, 0], [3e-30, 0, 1e-36]
    for ours, x in zip(slope(p, q, mask), (p, q), strict=True):
        middle = (p.astype(np.float64) + q) / 2
        there = (x >= np.finfo(np.float32).tiny) & mask
        expected = np.where(there, np.log(np.where(there, x, 1) / np.where(there, middle, 1)) / 2, 0)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_jensen_shannon_without_tokens_is_nan_and_reads_no_padding(attention):
    """One token is 0; NaN on padding is not read, and NaN on a token is not lost."""
    p, q, mask = (array[:5].copy() for array in attention)
    expected = np.asarray(between(p, q, mask))
    wide = [np.pad(x, ((0, 0), (0, 3)), constant_values=np.nan) for x in (p, q)]
    p, q = np.where(mask, p, np.nan), np.where(mask, q, np.inf)
    wide_mask = np.pad(mask, ((0, 0), (0, 3)))
    np.testing.assert_array_equal(between(p, q, mask), expected)
    np.testing.assert_allclose(between(*wide, wide_mask), expected, rtol=1e-6)
    np.testing.assert_allclose([between(*row) for row in zip(p, q, mask, strict=True)], expected, rtol=1e-6)
    runs = jax.vmap(jensen_shannon, in_axes=(0, 0, None))(np.stack([p, q]), np.stack([q, p]), mask)
    np.testing.assert_allclose(runs, [expected, expected], rtol=1e-6)
    one = np.array([1.0, 5.0], np.float32)
    assert float(jensen_shannon(one, one[::-1] / 5, np.array([True, False]))) == 0
    assert np.isnan(jensen_shannon(one, one, np.zeros(2, bool)))
    for unknown, other in ((p, q), (q, p)):
        unknown = unknown.copy()
        unknown[:, 0] = np.nan
        other = np.where(np.arange(WIDTH) == 0, 0, other).astype(np.float32)
        assert np.isnan(between(unknown, other, mask)).all() and np.isnan(between(other, unknown, mask)).all()


def test_total_variation():
    """Half the absolute differences: the largest difference of any event; within [0, 1], gradient 0 at equality."""
    rng = np.random.default_rng(1)
    p, q = (rng.dirichlet(np.full(4, 0.3), (3, 100)).astype(np.float32) for _ in range(2))
    ours = np.asarray(jax.jit(total_variation)(p, q))
    events = np.array([[event >> c & 1 for c in range(4)] for event in range(16)], np.float64)
    largest = np.abs((p.astype(np.float64) - q) @ events.T).max(-1)
    np.testing.assert_allclose(ours, largest, atol=2e-7)
    assert ours.min() >= 0 and ours.max() <= 1
    np.testing.assert_allclose(jax.vmap(total_variation)(p, q), ours, rtol=1e-6)
    assert float(total_variation(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))) == 1
    np.testing.assert_array_equal(jax.grad(total_variation)(p[0, 0], p[0, 0].copy()), 0)
    np.testing.assert_array_equal(jax.grad(total_variation)(jnp.array([1.0, 0.0, 0.0]), jnp.eye(3)[1]), [0.5, -0.5, 0])
