"""The certificate against every corner of the box in float64, against attacks, and on degenerate rows."""

import itertools
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_attnat.perturbation.certificate import certify_attention

FEW = hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
INF = math.inf
CORNERS = np.array(list(itertools.product([-1.0, 1.0], repeat=12)))
T = 6

certify = jax.jit(certify_attention)


def means(s, v, r):
    """`sum_t softmax(s + r)_t v_t` of one row for many `r` `[..., T]`, in float64."""
    moved = s.astype(np.float64) + r
    weights = np.exp(moved - moved.max(-1, keepdims=True))
    return (weights * v.astype(np.float64)).sum(-1) / weights.sum(-1)


def brute(s, v, mask, epsilon):
    """Least and greatest mean of one row over the 2^T corners of the box."""
    s, v = s[mask], v[mask]
    z = means(s, v, epsilon * CORNERS[: 2 ** len(s), -len(s) :]) if len(s) else np.zeros(1)
    return z.min(), z.max()


def rows(count, width, scale=1.0, seed=0):
    """Random scores, values and masks, real tokens anywhere; NaN and infinity stand on padding."""
    rng = np.random.default_rng(seed)
    s, v = (scale * rng.normal(size=(count, width))).astype(np.float32), rng.normal(size=(count, width))
    mask = rng.uniform(size=(count, width)) < rng.uniform(size=(count, 1))
    mask[0] = True
    s[~mask], v[~mask] = np.nan, np.where(rng.uniform(size=(~mask).sum()) < 0.5, np.inf, np.nan)
    return s, v.astype(np.float32), mask


def precision(v, mask, epsilon):
    """`[B]` the error that the docstring allows: a part of the values' range, and one rounding of the values."""
    low, high = (side(v, axis=-1, where=mask, initial=0) for side in (np.min, np.max))
    low, high = np.where(mask, v, high[:, None]).min(-1), np.where(mask, v, low[:, None]).max(-1)
    return (1e-6 + 1e-7 * np.asarray(epsilon)) * (high - low) + 1.2e-7 * np.maximum(np.abs(low), np.abs(high))


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 30.0, 1e4])
def test_equals_the_best_of_all_corners(scale):
    """1,000 rows of up to 12 tokens, 200 for each scale of the scores; epsilon differs between rows."""
    s, v, mask = rows(200, 12, scale, seed=int(scale))
    epsilon = np.resize(np.array([0.0, 0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0], np.float32), 200)
    expected = np.array([brute(*row) for row in zip(s, v, mask, epsilon, strict=True)]).T
    bounds = np.array(certify(s, v, mask, epsilon))
    assert bounds.dtype == np.float32
    np.testing.assert_allclose(bounds, expected, atol=1e-5, rtol=0)
    assert np.all(np.abs(bounds - expected) <= precision(v, mask, epsilon))


@pytest.mark.parametrize("epsilon", [0.3, 2.0, 8.0])
def test_no_point_of_the_box_passes_the_bounds_and_gradient_ascent_reaches_them(epsilon):
    rng = np.random.default_rng(1)
    s, v = (rng.normal(size=(4, 200)).astype(np.float32) for _ in range(2))
    mask = np.arange(200) < np.array([[2], [13], [60], [200]])
    bounds = zip(*certify(s, v, mask, epsilon), precision(v, mask, epsilon), strict=True)
    for row, (lower, upper, slack) in enumerate(bounds):
        s1, v1 = s[row, mask[row]], v[row, mask[row]]
        inner = rng.uniform(-epsilon, epsilon, (5_000, len(s1)))
        z = means(s1, v1, np.concatenate([inner, epsilon * np.sign(inner)]))
        assert lower - slack <= z.min() and z.max() <= upper + slack
        for bound, direction in ((lower, -1), (upper, 1)):
            r = np.zeros(len(s1))
            for _ in range(60):
                r = np.clip(r + direction * epsilon / 4 * np.sign(v1 - means(s1, v1, r)), -epsilon, epsilon)
            np.testing.assert_allclose(means(s1, v1, r), bound, atol=slack)


def test_the_box_of_radius_epsilon_over_root_two_covers_the_l2_ball():
    """Random points of the sphere, and for two tokens the worst point of the ball, which reaches the bound."""
    rng = np.random.default_rng(2)
    s, v, mask = rows(40, 12, seed=2)
    mask[1] = np.arange(12) < 2
    s[1], v[1] = rng.normal(size=(2, 12))
    for epsilon in (0.5, 2.0, 8.0):
        bounds = zip(*certify(s, v, mask, epsilon / math.sqrt(2)), precision(v, mask, epsilon), strict=True)
        for row, (lower, upper, slack) in enumerate(bounds):
            s1, v1 = s[row, mask[row]], v[row, mask[row]]
            if not len(s1):
                continue
            r = rng.normal(size=(1_000, len(s1)))
            r = np.concatenate([r, np.sign(v1 - np.median(v1))[None]])
            z = means(s1, v1, epsilon * r / np.maximum(np.linalg.norm(r, axis=-1, keepdims=True), 1e-9))
            assert lower - slack <= z.min() and z.max() <= upper + slack
            if row == 1:
                np.testing.assert_allclose(z[-1], upper, atol=slack)


arrays = hnp.arrays(np.float32, (3, T), elements=st.floats(-30, 30, width=32).filter(lambda x: x == 0 or abs(x) > 1e-4))
masks = hnp.arrays(np.bool_, (3, T))
epsilons = hnp.arrays(np.float32, 3, elements=st.floats(0, 16, width=32) | st.just(INF))


@FEW
@hypothesis.given(s=arrays, v=arrays, mask=masks, epsilon=epsilons)
def test_the_range_is_ordered_grows_with_epsilon_turns_with_the_values_and_ignores_the_order_of_tokens(
    s, v, mask, epsilon
):
    lower, upper = map(np.asarray, certify(s, v, mask, epsilon))
    plain, _ = map(np.asarray, certify(s, v, mask, np.zeros(3, np.float32)))
    slack = precision(v, mask, np.where(np.isinf(epsilon), 0, epsilon))
    some = mask.any(-1)
    assert np.all(lower <= plain) and np.all(plain <= upper)
    assert np.all(np.where(mask, v, INF).min(-1)[some] <= lower[some])
    assert np.all(upper[some] <= np.where(mask, v, -INF).max(-1)[some])
    wider = certify(s, v, mask, 1.5 * epsilon)
    assert np.all(wider[0] <= lower + slack) and np.all(upper - slack <= wider[1])
    mirrored = certify(s, -v, mask, epsilon)
    assert np.all(np.abs(np.array(mirrored) + np.array([upper, lower])) <= 2 * slack)
    turned = certify(s[:, ::-1], v[:, ::-1], mask[:, ::-1], epsilon)
    assert np.all(np.abs(np.array(turned) - np.array([lower, upper])) <= 2 * slack)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 100.0, INF])
def test_equal_values_one_token_and_no_token_have_width_zero(epsilon):
    s, v, mask = rows(4, T)
    v[1], mask[1] = 0.1, np.arange(T) < 4
    s[1] = np.linspace(-3, 3, T)
    mask[2] = np.arange(T) == 3
    s[2, 3], v[2, 3] = 5.0, -0.3
    mask[3] = False
    lower, upper = certify(s, v, mask, epsilon)
    np.testing.assert_array_equal(lower[1:], np.array([0.1, -0.3, 0.0], np.float32))
    np.testing.assert_array_equal(upper[1:], lower[1:])
    np.testing.assert_array_equal(certify(jnp.zeros((2, 0)), jnp.zeros((2, 0)), None, epsilon), np.zeros((2, 2)))


def test_tied_values_equal_one_token_of_their_joint_weight():
    """Values (2, 2, 1, 1): scores log 1, 3, 2, 2 become log 4 and log 4."""
    s, v = np.log(np.array([[1, 3, 2, 2]], np.float32)), np.array([[2, 2, 1, 1]], np.float32)
    for epsilon in (0.1, 1.0, 20.0):
        share = 1 / (1 + math.exp(-2 * epsilon))
        np.testing.assert_allclose(np.array(certify(s, v, None, epsilon))[:, 0], [2 - share, 1 + share], rtol=3e-7)


def test_epsilon_zero_gives_the_mean_and_infinity_the_range_of_the_values():
    s, v, mask = rows(50, T)
    some = mask.any(-1)
    lower, upper = certify(s, v, mask, 0.0)
    expected = [means(a[m], b[m], 0.0) if m.any() else 0.0 for a, b, m in zip(s, v, mask, strict=True)]
    np.testing.assert_array_equal(lower, upper)
    np.testing.assert_allclose(lower, expected, atol=1e-6)
    for epsilon in (INF, 1e38):
        lower, upper = certify(s, v, mask, epsilon)
        np.testing.assert_array_equal(lower[some], np.where(mask, v, INF).min(-1)[some])
        np.testing.assert_array_equal(upper[some], np.where(mask, v, -INF).max(-1)[some])


def test_extreme_scores_and_values():
    """By hand: scores 1e4 apart and 2 epsilon as much; a mean that rounds to a value; values of 1e38."""
    far, v = np.array([[0, -1e4, 0]], np.float32), np.array([[0, 1, 0]], np.float32)
    expected = [0, math.exp(-2) / (2 + math.exp(-2))]
    np.testing.assert_allclose(np.array(certify(far, v, None, 4999.0))[:, 0], expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_array_equal(np.array(certify(far, v, None, 5100.0))[:, 0], [0, 1])
    tie, v = np.array([[0, -21, 0]], np.float32), np.array([[0.5, 1, 0]], np.float32)
    np.testing.assert_allclose(certify(tie, v, None, 10.0)[1], 0.5, rtol=1e-6)
    huge = np.array([[1e38, -1e38, 1e38]], np.float32)
    bounds = np.array(certify(np.zeros((1, 3), np.float32), huge, None, 1.0), np.float64)[:, 0]
    shares = 2 / (2 + math.exp(2)), 2 / (2 + math.exp(-2))
    np.testing.assert_allclose(bounds, [1e38 * (2 * share - 1) for share in shares], rtol=1e-6)


def test_an_offset_of_the_values_costs_one_rounding():
    """Half a unit in the last place of 1,000 is 3.05e-5."""
    s, v, mask = rows(40, 12, seed=11)
    offset = (v + np.float32(990)).astype(np.float32)
    expected = np.array([brute(*row, 0.5) for row in zip(s, offset, mask, strict=True)]).T
    np.testing.assert_allclose(certify(s, offset, mask, np.full(40, 0.5, np.float32)), expected, atol=3.2e-5, rtol=0)


def test_an_offset_of_the_scores_costs_nothing():
    rng = np.random.default_rng(12)
    s, v = rng.integers(-4, 4, (20, T)).astype(np.float32), rng.normal(size=(20, T)).astype(np.float32)
    np.testing.assert_array_equal(certify(s + np.float32(1e4), v, None, 0.7), certify(s, v, None, 0.7))


def test_rows_without_an_answer_are_nan_and_leave_the_others_alone():
    s, v, mask = rows(10, T)
    mask[:] = True
    s, v = (np.nan_to_num(x, posinf=0.0) for x in (s, v))
    epsilon = np.full(10, 0.5, np.float32)
    expected = np.array(certify(s, v, mask, epsilon))
    s[1, 2], s[2, 0], s[3, 5], v[4, 1], v[5, 0] = np.nan, np.inf, -np.inf, np.nan, np.inf
    epsilon[6], epsilon[7] = np.nan, -0.1
    s[8, :2], v[9, :2] = (3e38, -3e38), (3e38, -3e38)
    bounds = np.array(certify(s, v, mask, epsilon))
    np.testing.assert_array_equal(bounds[:, 0], expected[:, 0])
    assert np.all(np.isnan(bounds[:, 1:])) and np.all(np.isfinite(expected))


def test_neither_padding_nor_the_rest_of_the_batch_matters():
    s, v, mask = rows(20, 9, seed=4)
    epsilon = np.linspace(0, 4, 20, dtype=np.float32)
    bounds = np.array(certify(s, v, mask, epsilon))
    others = certify(np.where(np.arange(20)[:, None] == 3, s, 7.0), v, mask, epsilon)
    np.testing.assert_array_equal(np.array(others)[:, 3], bounds[:, 3])
    wide = [np.pad(x, ((0, 0), (4, 7)), constant_values=c) for x, c in ((s, np.nan), (v, np.inf), (mask, False))]
    np.testing.assert_allclose(certify(*wide, epsilon), bounds, atol=1e-6)


def test_vmap_leading_axes_and_one_row_alone_equal_the_batch():
    s, v, mask = rows(6, T, seed=5)
    s, v, mask = jnp.asarray(s), jnp.asarray(v), jnp.asarray(mask)
    epsilon = jnp.linspace(0, 2, 6)
    bounds = np.array(certify(s, v, mask, epsilon))
    np.testing.assert_allclose(jax.jit(jax.vmap(certify_attention))(s, v, mask, epsilon), bounds, atol=1e-6)
    np.testing.assert_allclose(certify(s[2], v[2], mask[2], epsilon[2]), bounds[:, 2], atol=1e-6)
    s, v, mask = (x.reshape(2, 3, T) for x in (s, v, mask))
    np.testing.assert_allclose(np.array(certify(s, v, mask, epsilon.reshape(2, 3))).reshape(2, 6), bounds, atol=1e-6)
    swept = jax.jit(jax.vmap(certify_attention, in_axes=(None, None, None, 0)))(s, v, mask, epsilon)
    for place, number in enumerate(epsilon.tolist()):
        np.testing.assert_allclose(np.array(swept)[:, place], certify(s, v, mask, number), atol=1e-6)


def test_shard_map_over_rows_equals_the_call_on_the_rows():
    s, v, mask = rows(4, T, seed=6)
    count = min(2, jax.device_count())
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,))
    call = jax.shard_map(
        lambda *row: certify_attention(*row, 0.5), mesh=mesh, in_specs=(P("rows"),) * 3, out_specs=(P("rows"),) * 2
    )
    np.testing.assert_allclose(jax.jit(call)(s, v, mask), certify(s, v, mask, 0.5), atol=1e-6)


def test_rows_sharded_over_an_explicit_mesh_equal_the_call_on_one_device():
    s, v, mask = rows(4, T, seed=6)
    mesh = jax.make_mesh((min(2, jax.device_count()),), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = (jax.device_put(x, NamedSharding(mesh, P("rows"))) for x in (s, v, mask))
        found = jax.jit(lambda *row: certify_attention(*row, 0.5))(*placed)
    np.testing.assert_allclose(found, certify(s, v, mask, 0.5), atol=1e-6)


def totals(s, v, mask, epsilon):
    """Sums of both bounds over the rows that have them, in float32."""
    lower, upper = certify_attention(s, v, mask, epsilon)
    return tuple(jnp.sum(jnp.nan_to_num(bound).astype(jnp.float32)) for bound in (lower, upper))


jacobian = jax.jit(jax.jacrev(totals, argnums=(0, 1, 3)))


def test_gradients_equal_finite_differences_of_the_best_corner():
    rng = np.random.default_rng(7)
    s, v, mask = rng.normal(size=T), rng.normal(size=T), np.arange(T) < 5
    arguments = (s.astype(np.float32)[None], v.astype(np.float32)[None], mask[None], np.float32([0.8]))
    s, v = s.astype(np.float32).astype(np.float64), v.astype(np.float32).astype(np.float64)
    epsilon, h = float(np.float32(0.8)), 1e-5
    basis = h * np.eye(T)
    expected = (
        [np.subtract(brute(s + e, v, mask, epsilon), brute(s - e, v, mask, epsilon)) for e in basis],
        [np.subtract(brute(s, v + e, mask, epsilon), brute(s, v - e, mask, epsilon)) for e in basis],
        [np.subtract(brute(s, v, mask, epsilon + h), brute(s, v, mask, epsilon - h))],
    )
    for side, gradients in enumerate(jacobian(*arguments)):
        for gradient, differences in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient.ravel(), np.array(differences)[:, side] / (2 * h), atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 100.0, INF])
def test_gradients_are_finite_and_zero_on_padding(epsilon):
    """Rows: random, equal values, one token, no token, a real NaN, scores of 1e4."""
    s, v, mask = rows(6, T, seed=8)
    s[1], v[1], mask[1] = 1.0, 2.0, True
    mask[2] = np.arange(T) == 1
    s[2, 1], v[2, 1] = 0.0, 1.0
    mask[3] = False
    mask[4:] = True
    s[4], v[4] = np.nan, 1.0
    s[5], v[5] = np.linspace(-1e4, 1e4, T), np.array([0, 1, 1, 2, -1, 0])
    for ds, dv, de in jacobian(s, v, mask, jnp.full(6, epsilon)):
        assert all(np.all(np.isfinite(g)) for g in (ds, dv, de))
        np.testing.assert_array_equal(np.concatenate([ds, dv])[np.concatenate([~mask, ~mask])], 0)
        np.testing.assert_allclose(np.asarray(dv).sum(-1)[[0, 1, 2, 5]], 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_kept_and_rounded_outward(dtype):
    s, v, mask = rows(50, T, seed=9)
    s, v = jnp.asarray(s, dtype), jnp.asarray(v, dtype)
    lower, upper = certify(s, v, mask, 0.5)
    assert lower.dtype == upper.dtype == dtype
    exact = certify(s.astype(jnp.float32), v.astype(jnp.float32), mask, 0.5)
    for bound, wide, side in ((lower, exact[0], -1), (upper, exact[1], 1)):
        error = side * (np.asarray(bound, np.float32) - np.asarray(wide))
        assert np.all(error >= 0) and np.all(error <= float(jnp.finfo(dtype).eps) * np.abs(wide) + 1e-6)
    mixed = certify(s.astype(jnp.float32), v, mask, 0.5)
    np.testing.assert_array_equal(mixed, (lower, upper))
    for gradients in jacobian(s, v, mask, jnp.full(50, 0.5)):
        assert gradients[1].dtype == dtype
        np.testing.assert_allclose(gradients[1].astype(jnp.float32).sum(-1)[mask.any(-1)], 1, atol=2e-2)


def test_float64_is_kept_and_exact():
    with jax.enable_x64(True):
        s, v, mask = rows(20, 12, seed=10)
        s, v = s.astype(np.float64), v.astype(np.float64)
        bounds = certify(jnp.asarray(s), jnp.asarray(v), mask, 0.7)
        assert bounds[0].dtype == bounds[1].dtype == jnp.float64
        expected = np.array([brute(*row, 0.7) for row in zip(s, v, mask, strict=True)]).T
        np.testing.assert_allclose(bounds, expected, atol=1e-14)


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    """The largest array of the program of 4,096 tokens has two numbers a token."""
    x = jax.ShapeDtypeStruct((1, 4096), jnp.float32)
    text = str(jax.make_jaxpr(certify_attention)(x, x, jax.ShapeDtypeStruct((1, 4096), bool), 0.5))
    assert "f32[1,8192]" in text and "4096,4096" not in text and "16777216" not in text


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, (0.0,) * 3, ((0.0,), (0.0,))])
def test_an_epsilon_that_does_not_fit_is_an_error(epsilon):
    with pytest.raises(ValueError, match="epsilon must be"):
        certify_attention(
            jnp.zeros((2, T)), jnp.zeros((2, T)), None, jnp.asarray(epsilon) if isinstance(epsilon, tuple) else epsilon
        )


def test_arrays_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="does not fit"):
        certify_attention(jnp.zeros((2, T)), jnp.zeros((2, T)), np.ones((2, 5), bool), 1.0)
    unchecked = getattr(certify_attention, "__wrapped__", certify_attention)
    with pytest.raises(ValueError, match="must have one shape"):
        unchecked(jnp.zeros((2, T)), jnp.zeros((1, T)), None, 1.0)
