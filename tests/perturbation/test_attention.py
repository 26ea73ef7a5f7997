"""Attention AT and the five readings of attention iAT, against their formulas in float64 NumPy."""

import functools
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flax_attnat as fa
from flax_attnat.perturbation.attention import READINGS
from tests.perturbation.techniques import compiled, loss, problem

FEW = hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
T = 6


@functools.cache
def linear(name):
    """The perturbation `name` of scores `s` under the loss `<g, delta>`, whose gradient is `g` to the last bit."""

    def call(s, g, mask, epsilon):
        def loss_fn(delta):
            return jnp.sum(jnp.where(mask, g, 0) * delta, axis=-1)

        if name == "attention_at":
            return fa.attention_at(loss_fn, s, mask, epsilon)
        return fa.attention_iat(loss_fn, s, mask, epsilon, reading=name)

    return jax.jit(call)


def directions(s, mask):
    """`(s_t - s_k)` `[T, T]` of one row over its real tokens, in float64; zero elsewhere."""
    s = np.where(mask, s, 0).astype(np.float64)
    return (s[:, None] - s[None, :]) * (mask[:, None] & mask[None, :])


def explicit(reading, s, g, mask):
    """Direction of the perturbation of one row from the `(T, T)` difference matrix, before it is scaled."""
    d, g = directions(s, mask), np.where(mask, g, 0).astype(np.float64)
    n = np.sqrt((d**2).sum(1, keepdims=True))
    dn = d / np.where(n > 0, n, 1)
    if reading == "span":
        return dn @ (dn.T @ g)  # r = Dn alpha, alpha = Dn^T g
    if reading == "sentence":
        scaled = d / max(np.sqrt((d**2).sum()), 1e-300)
        return (g[:, None] * scaled * scaled).sum(1)  # r_t = sum_k alpha_tk d_tk, alpha_tk = g_t d_tk
    if reading == "token":
        return (g[:, None] * dn * dn).sum(1)
    gradient = g[:, None] * dn
    size = np.sqrt((gradient**2).sum(1, keepdims=True))
    return (gradient / np.where(size > 0, size, 1) * dn).sum(1)  # "sign": alpha of norm 1 for each token


def scaled(direction, epsilon):
    size = np.sqrt((direction**2).sum(-1, keepdims=True))
    return epsilon * direction / np.where(size > 0, size, 1)


def test_attention_at_equals_the_gradient_of_an_additive_attention_classifier():
    """Forward and backward by hand: s = v.tanh(W h + b), z = sum a_t (o.h_t) + b_o, weighted binary cross-entropy.

    dL/ds_t = (dL/dz) a_t (o.h_t - sum_k a_k o.h_k); dL/dz = p - 1 weighted where y = 1, p where y = 0.
    """
    rng = np.random.default_rng(0)
    h, W, b, v, o = (rng.normal(size=shape) for shape in ((3, T, 8), (4, 8), (4,), (4,), (8,)))
    mask, y, pos_weight, b_o = np.arange(T) < np.array([[6], [3], [4]]), np.array([1.0, 0.0, 1.0]), 1.7, 0.3
    s = np.tanh(h @ W.T + b) @ v
    a = np.exp(s) * mask
    a /= a.sum(-1, keepdims=True)
    values = h @ o
    z = (a * values).sum(-1) + b_o
    p = 1 / (1 + np.exp(-z))
    dz = np.where(y == 1, pos_weight * (p - 1), p)
    g = dz[:, None] * a * (values - (a * values).sum(-1, keepdims=True))
    expected = scaled(g, 0.7)

    h, W, b, v, o, y = (jnp.asarray(x, jnp.float32) for x in (h, W, b, v, o, y))

    @jax.jit
    def call(h, mask):
        scores = jnp.tanh(h @ W.T + b[None, None]) @ v

        def loss_fn(delta):
            attention = fa.masked_softmax(scores + delta, mask)
            z = jnp.einsum("bt,btm,m->b", attention, h, o) + b_o
            return -(pos_weight * y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z))

        return fa.attention_at(loss_fn, scores, mask, 0.7)

    np.testing.assert_allclose(call(h, mask), expected, atol=0.7e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_small_perturbation_raises_the_loss_and_the_released_form_lowers_it(seed):
    """Attention AT raises it by epsilon ||g||, to first order, and the reading "released" lowers it by as much."""
    p, epsilon = problem("attention_at", seed), 0.03
    loss_fn = jax.jit(functools.partial(loss, "attention_at", p))
    g = jax.jit(jax.grad(lambda delta: jnp.sum(loss_fn(delta))))(jnp.zeros_like(p.like))
    first_order = epsilon * np.sqrt(np.sum(np.where(p.mask, g, 0) ** 2, axis=-1))
    clean = loss_fn(jnp.zeros_like(p.like))
    for name, direction in (("attention_at", 1), ("attention_iat released", -1)):
        change = loss_fn(compiled(name)(p, jnp.full(4, epsilon), jax.random.key(0))) - clean
        np.testing.assert_allclose(change, direction * first_order, rtol=0.1)


# Programs take subnormal numbers for zero: no two scores differ by one.
scores = hnp.arrays(
    np.float32, (3, T), elements=st.floats(-30, 30, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)
)
gradients = hnp.arrays(
    np.float32, (3, T), elements=st.floats(-10, 10, width=32).filter(lambda x: x == 0 or abs(x) > 1e-4)
)
masks = hnp.arrays(np.bool_, (3, T))


@FEW
@hypothesis.given(s=scores, g=gradients, mask=masks)
def test_the_literal_reading_is_attention_at(s, g, mask):
    """SCIENCE: G_tk = g_t dn_tk and ||dn_t|| = 1, so r = eps g / ||g||; rows without a direction excepted."""
    at, token = (np.asarray(linear(name)(s, g, mask, 2.0)) for name in ("attention_at", "token"))
    spread = [len(set(row[real].tolist())) > 1 for row, real in zip(s, mask, strict=True)]
    np.testing.assert_allclose(token, np.where(np.array(spread)[:, None], at, 0), atol=2e-6)


@pytest.mark.parametrize("reading", ["span", "sentence", "token", "sign"])
@FEW
@hypothesis.given(s=scores, g=gradients, mask=masks, epsilon=st.floats(0.125, 8, width=32))
def test_every_reading_equals_its_explicit_matrix_form(reading, s, g, mask, epsilon):
    r = np.asarray(linear(reading)(s, g, mask, epsilon))
    for row in range(3):
        direction = explicit(reading, s[row], g[row], mask[row])
        if reading == "span" and 0 < np.linalg.norm(direction) < 1e-3 * np.linalg.norm(np.where(mask[row], g[row], 0)):
            continue  # Dn^T g is nearly zero: its direction is not determined to float32
        np.testing.assert_allclose(r[row], scaled(direction, epsilon), atol=1e-5 * epsilon)


@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5])
@pytest.mark.parametrize("reading", ["span", "sentence", "sign"])
def test_nearly_equal_scores_lose_nothing_to_cancellation(reading, offset, spread):
    """n_t^2 = n s_t^2 - 2 s_t S1 + S2 loses every digit at s = 100 +- 1e-5 unless the scores are centred first."""
    rng = np.random.default_rng(5)
    s = (offset + spread * rng.normal(size=(3, T))).astype(np.float32)
    g, mask = rng.normal(size=(3, T)).astype(np.float32), np.arange(T) < np.array([[6], [5], [3]])
    expected = [scaled(explicit(reading, *row), 1.0) for row in zip(s, g, mask, strict=True)]
    assert all(np.any(direction != 0) for direction in expected)
    np.testing.assert_allclose(linear(reading)(s, g, mask, 1.0), expected, atol=5e-6)


def test_long_sentences_and_scores_far_apart():
    rng = np.random.default_rng(6)
    s = (rng.normal(size=(2, 200)) * [[1.0], [1e4]]).astype(np.float32)
    g, mask = rng.normal(size=(2, 200)).astype(np.float32), np.ones((2, 200), bool)
    for reading in ("span", "sentence"):
        expected = [scaled(explicit(reading, *row), 1.0) for row in zip(s, g, mask, strict=True)]
        np.testing.assert_allclose(linear(reading)(s, g, mask, 1.0), expected, atol=1e-5)


def test_the_readings_differ():
    rng = np.random.default_rng(7)
    s, g = rng.normal(size=(2, 3, T)).astype(np.float32)
    results = {reading: np.asarray(linear(reading)(s, g, np.ones((3, T), bool), 1.0)) for reading in READINGS}
    for first in READINGS:
        for second in READINGS:
            if first != second:
                difference = np.sqrt(((results[first] - results[second]) ** 2).sum(-1))
                assert np.all(difference > 0.05), (first, second)
    np.testing.assert_allclose(results["released"], -results["token"], atol=1e-6)


@FEW
@hypothesis.given(s=scores, g=gradients, mask=masks)
def test_span_lies_in_the_span_of_the_differences(s, g, mask):
    """The columns of Dn span at most two dimensions: what a least-squares fit on them leaves of r is zero."""
    r = np.asarray(linear("span")(s, g, mask, 1.0), np.float64)
    for row in range(3):
        d = directions(s[row], mask[row])
        n = np.sqrt((d**2).sum(1, keepdims=True))
        basis, sizes, _ = np.linalg.svd(d / np.where(n > 0, n, 1))
        basis = basis[:, :2][:, sizes[:2] > 1e-9]
        np.testing.assert_allclose(basis @ (basis.T @ r[row]), r[row], atol=3e-5)


def test_span_is_zero_where_no_shared_alpha_changes_the_loss():
    """Dn^T g = 0 iff sum_t g_t / n_t = sum_t g_t s_t / n_t = 0: here by symmetry, and to rounding for random scores."""
    s = np.array([[-2, -1, 1, 2, 0, 0]], np.float32)
    mask = np.arange(T)[None] < 4
    n = np.sqrt((directions(s[0], mask[0]) ** 2).sum(1))
    symmetric = np.where(mask, n * [1, -1, -1, 1, 0, 0], 0).astype(np.float32)
    np.testing.assert_array_equal(linear("span")(s, symmetric, mask, 1.0), 0)
    rng = np.random.default_rng(8)
    for _ in range(50):
        s, real = rng.normal(size=(1, T)).astype(np.float32), np.ones((1, T), bool)
        n = np.sqrt((directions(s[0], real[0]) ** 2).sum(1))
        constraints = np.stack([1 / n, s[0] / n])
        g = np.linalg.svd(constraints)[2][2:].T @ rng.normal(size=4)
        np.testing.assert_array_equal(linear("span")(s, g[None].astype(np.float32), real, 1.0), 0)


@FEW
@hypothesis.given(s=scores, g=gradients)
def test_sign_gives_every_token_with_a_gradient_the_same_size(s, g):
    r = np.asarray(linear("sign")(s, g, np.ones((3, T), bool), 2.0))
    for row in range(3):
        count = np.sum(g[row] != 0) if len(set(s[row].tolist())) > 1 else 0
        size = 2 / math.sqrt(count) if count else 0.0
        np.testing.assert_allclose(r[row], size * np.sign(g[row]), rtol=1e-6)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("offset", [0.0, 0.1, 1e-20, -123.456, 1e20])
def test_rows_without_differences_are_zero(reading, offset):
    """One real token: zero in every reading. Equal scores, whatever stands on padding: zero in all but "released"."""
    s = np.full((3, T), offset, np.float32)
    s[:2, 3:] = [[7, 8, 9], [np.nan, np.inf, 1]]
    mask = np.arange(T) < np.array([[1], [3], [6]])
    g = np.random.default_rng(9).normal(size=(3, T)).astype(np.float32)
    r = np.asarray(linear(reading)(s, g, mask, 1.0))
    np.testing.assert_array_equal(r[0], 0)
    if reading == "released":
        np.testing.assert_allclose(r[1:], scaled(-g.astype(np.float64) * mask, 1.0)[1:], rtol=1e-6)
    else:
        np.testing.assert_array_equal(r[1:], 0)


@pytest.mark.parametrize("reading", ["", "Span", "frobenius"])
def test_an_unknown_reading_is_refused_with_the_five(reading):
    with pytest.raises(ValueError) as error:
        fa.attention_iat(lambda delta: jnp.sum(delta, axis=-1), jnp.ones((1, 3)), None, 1.0, reading=reading)
    assert all(name in str(error.value) for name in ("span", "sentence", "token", "sign", "released", repr(reading)))


def test_random_perturbation_is_uniform_on_the_sphere():
    """Mean 0 and covariance I / n of a uniform point on the sphere of R^n, over 20,000 draws (standard error 0.3 %)."""
    mask = np.broadcast_to(np.array([1, 1, 0, 1, 1], bool), (20000, 5))
    r = np.asarray(jax.jit(fa.random_perturbation)(jax.random.key(0), jnp.zeros((20000, 5)), mask, 1.0), np.float64)
    np.testing.assert_allclose(r.mean(0), 0, atol=0.015)
    np.testing.assert_allclose(r.T @ r / 20000, np.diag([0.25, 0.25, 0, 0.25, 0.25]), atol=0.01)


@pytest.mark.parametrize("order", [1, math.inf])
def test_random_and_virtual_perturbations_have_the_norm_of_their_ball(order):
    """Random: the sum of magnitudes, or the same magnitude everywhere; virtual: of a linear loss the best vertex."""
    mask, ball, key = jnp.arange(5)[None] < jnp.array([[5], [3]]), fa.Ball(ord=order), jax.random.key(0)
    r = np.asarray(fa.random_perturbation(key, jnp.zeros((2, 5)), mask, 2.0, ball=ball), np.float64)
    slope = jnp.array([[1.0, -4.0, 2.0, 3.0, -0.5]])
    v = np.asarray(
        fa.virtual_at(lambda d: (d * slope).sum(-1) ** 2, jnp.zeros((2, 5)), mask, 2.0, key=key, ball=ball), np.float64
    )
    for found in (r, v):
        size = np.abs(found).sum(-1) if order == 1 else np.abs(found).max(-1)
        np.testing.assert_allclose(size, 2, rtol=1e-6)
        np.testing.assert_array_equal(found[1, 3:], 0)
    best = np.where(np.asarray(mask), np.asarray(slope), 0)
    vertex = np.where(np.abs(best) == 4, 2 * np.sign(best), 0) if order == 1 else 2 * np.sign(best)
    np.testing.assert_allclose(np.abs(v), np.abs(vertex), rtol=1e-6)
    assert (np.sign(v * vertex).sum(-1) == np.sign(vertex[:, 1:2] * v[:, 1:2])[:, 0] * (vertex != 0).sum(-1)).all()


@pytest.mark.parametrize("reading", READINGS)
def test_heads_are_read_one_by_one(reading):
    """Scores `[B, heads, Q, T]` under a `[B, T]` mask: each head and query as a sentence of its own."""
    rng = np.random.default_rng(10)
    s, g = rng.normal(size=(2, 3, 2, 1, T)).astype(np.float32)
    mask = np.arange(T) < np.array([[6], [3], [4]])

    @jax.jit
    def call(s, g):
        return fa.attention_iat(lambda delta: jnp.sum(g * delta, axis=(1, 2, 3)), s, mask, 1.5, reading=reading)

    together = call(s, g)
    for head in range(2):
        expected = linear(reading)(s[:, head, 0], g[:, head, 0], mask, 1.5)
        np.testing.assert_allclose(together[:, head, 0], expected, atol=1e-6)


def test_an_order_1_perturbation_loses_no_row_under_jit():
    """The compiler may compute the gradient twice, with other rounding: the largest entry is found in any case."""

    @jax.jit
    def perturb(p, shift):
        def loss_fn(delta):
            return loss("attention_at", p, shift + delta)

        return fa.attention_at(loss_fn, p.like, p.mask, 3.0, ball=fa.Ball(1.0))

    for seed in range(6):
        p = problem("attention_at", seed)
        shift = jnp.asarray(np.random.default_rng(seed).normal(size=p.like.shape), jnp.float32)
        np.testing.assert_allclose(np.abs(np.asarray(perturb(p, shift))).sum(-1), 3.0, rtol=1e-6)
