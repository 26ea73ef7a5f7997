"""Unit vectors, projections, masks and the masked softmax, against float64 NumPy and the conditions of optimality."""

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
from flax_attnat.perturbation.geometry import delta_gradient
from flax_attnat.perturbation.precision import round_toward_zero

ORDERS = (1, 2, math.inf)
HALF = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
FEW = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)

unit = jax.jit(fa.unit, static_argnames="ball")
project = jax.jit(fa.project, static_argnames="ball")
softmax = jax.jit(fa.masked_softmax, static_argnames="axis")

gradients = hnp.arrays(
    np.float32, (3, 6), elements=st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-4 else 0.0)
)
masks = hnp.arrays(np.bool_, (3, 6))
radii = st.floats(0.015625, 1000.0, width=32)


def norm(x, order, axes=(-1,)):
    """Norm in float64 over `axes`."""
    x = np.abs(np.asarray(x).astype(np.float64))
    return {1: x.sum(axes), 2: np.sqrt((x**2).sum(axes)), math.inf: x.max(axes)}[order]


def dual(order):
    return {1: math.inf, 2: 2, math.inf: 1}[order]


@pytest.mark.parametrize("order", ORDERS)
@FEW
@hypothesis.given(g=gradients, mask=masks)
def test_unit_is_the_steepest_direction_of_norm_one(order, g, mask):
    """By the definition of the dual norm, <u, g> <= ||g||_dual for every u of norm 1; the steepest u attains it."""
    u = np.asarray(unit(g, mask=mask, ball=fa.Ball(order)), np.float64)
    real = np.where(mask, g, 0).astype(np.float64)
    usable = np.any(real != 0, axis=-1)
    np.testing.assert_allclose(norm(u, order), np.where(usable, 1, 0), rtol=1e-6)
    np.testing.assert_allclose((u * real).sum(-1), norm(real, dual(order)), rtol=1e-6)
    assert np.all(u[~mask] == 0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 3.0, 1e10, 1e30])
def test_unit_is_free_of_scale(order, scale):
    g = np.array([[3.0, -4.0, 0.5, 4.0, 0.0, -1e-3]], np.float32)
    expected = unit(g, ball=fa.Ball(order))
    np.testing.assert_allclose(unit(np.float32(scale) * g, ball=fa.Ball(order)), expected, rtol=1e-6)


def test_unit_at_the_ends_of_float32():
    """A gradient of the largest or of the smallest normal numbers still has its direction."""
    g = np.array([[3.0, 4.0], [0.6, 0.8]]) * np.array([[8e37], [2e-38]])
    for order, expected in {1: [[0, 1]] * 2, 2: [[0.6, 0.8]] * 2, math.inf: [[1, 1]] * 2}.items():
        np.testing.assert_allclose(unit(g.astype(np.float32), ball=fa.Ball(order)), expected, rtol=1e-6)
    wide_range = np.array([[1e20, -1e-20]], np.float32)
    np.testing.assert_array_equal(unit(wide_range, ball=fa.Ball(math.inf)), [[1, -1]])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("function", ["unit", "project"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_zero_and_masked_entries_are_not_read(order, function, bad):
    g = np.array([[1, 2, bad], [1, 2, bad], [1, 2, 3], [0, 0, 0]], np.float32)
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 1]], bool)
    ball = fa.Ball(order)
    out = np.asarray(unit(g, mask=mask, ball=ball) if function == "unit" else project(g, 0.5, mask=mask, ball=ball))
    np.testing.assert_array_equal(out[[0, 3]], 0)
    np.testing.assert_array_equal(out[1], out[2])
    assert np.any(out[1] != 0) and out[1, 2] == 0


def test_unit_of_order_one_shares_among_ties():
    np.testing.assert_allclose(
        unit(np.array([[2.0, -2.0, 1.0, 2.0]], np.float32), ball=fa.Ball(1)), [[1, -1, 0, 1]] / np.float32(3)
    )


@pytest.mark.parametrize("order", ORDERS)
@FEW
@hypothesis.given(x=gradients, mask=masks, radius=radii)
def test_projection_is_the_nearest_point(order, x, mask, radius):
    """p is nearest to x in a ball C iff <x - p, y - p> <= 0 on C, where <x - p, y> is at most radius ||x - p||_dual."""
    ball = fa.Ball(order)
    p = np.asarray(project(x, radius, mask=mask, ball=ball))
    real = np.where(mask, x, 0).astype(np.float64)
    assert np.all(norm(p, order) <= radius * (1 + 1e-6))
    assert np.all(p[~mask] == 0)
    away = real - p
    slack = radius * norm(away, dual(order)) - (away * p).sum(-1)
    assert np.all(slack <= 1e-5 * (radius * norm(real, 2) + 1e-30))
    inside = norm(real, order) <= radius * (1 - 1e-6)
    np.testing.assert_array_equal(p[inside], real[inside].astype(np.float32))
    np.testing.assert_allclose(project(p, radius, ball=ball), p, rtol=1e-6, atol=1e-6 * radius)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("size", "radius"), [(1e30, 1e-30), (1e30, 1.0), (3e38, 2.0), (1e-30, 1e-33), (1e-30, 1e30)])
def test_projection_neither_overflows_nor_cancels(order, size, radius):
    x = (np.array([[0.999, 0.99, -0.5, 0.1]]) * size).astype(np.float32)
    exact = {1: [[radius, 0, 0, 0]], 2: radius * x.astype(np.float64) / norm(x, 2), math.inf: radius * np.sign(x)}[
        order
    ]
    expected = x if norm(x, order) <= radius else exact
    np.testing.assert_allclose(project(x, radius, ball=fa.Ball(order)), expected, rtol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_projection_over_several_axes_and_a_radius_for_each_row(order):
    """Equal to the projection of each row, flattened, on its own ball."""
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    radius = np.array([0.0, 0.7, 100.0], np.float32)
    out = project(x, radius, ball=fa.Ball(order, axes=(-2, -1)))
    for row, row_radius in enumerate(radius):
        flat = project(x[row].reshape(1, -1), float(row_radius), ball=fa.Ball(order))
        np.testing.assert_allclose(out[row].reshape(1, -1), flat, rtol=1e-6)
    swapped = project(x.swapaxes(0, 1), 0.7, ball=fa.Ball(order, axes=(0, 2)))
    np.testing.assert_allclose(swapped.swapaxes(0, 1)[1], out[1], rtol=1e-5)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("order", ORDERS)
def test_half_precision_is_rounded_into_the_ball(dtype, order):
    """Rounded to nearest, about half of all norms would exceed the radius by up to the precision of the type."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(200, 7)), dtype)
    for out, radius in ((unit(x, ball=fa.Ball(order)), 1.0), (project(x, 0.3, ball=fa.Ball(order)), 0.3)):
        assert out.dtype == dtype
        size = norm(out, order)
        assert np.all(size <= radius * (1 + 1e-6))
        assert np.all(size >= radius * (1 - 7 * float(jnp.finfo(dtype).eps)))


@pytest.mark.parametrize("dtype", HALF)
def test_rounding_goes_toward_zero(dtype):
    """To the largest representable magnitude that is not above the number: checked by stepping once away from zero."""
    x = np.concatenate(
        [np.random.default_rng(2).normal(size=100) * 10.0 ** np.arange(-4, 4).repeat(25)[:100], [0, 1, -1]]
    )
    x = x.astype(np.float32)
    out = round_toward_zero(jnp.asarray(x), dtype)
    above = jnp.nextafter(out, jnp.asarray(np.copysign(np.inf, x), dtype))
    assert np.all(np.abs(np.asarray(out, np.float32)) <= np.abs(x))
    assert np.all(np.abs(np.asarray(above, np.float32)) > np.abs(x))
    np.testing.assert_array_equal(np.asarray(round_toward_zero(jnp.float32([7e4, -1e6]), HALF[1])), [65504, -65504])


def test_float64_is_computed_in_float64():
    with jax.enable_x64(True):
        g = np.array([[1.0, 1e-12]])
        np.testing.assert_allclose(fa.unit(jnp.asarray(g)), g / np.sqrt((g**2).sum()), rtol=1e-15)
        np.testing.assert_allclose(fa.project(jnp.asarray(g), 0.1), 0.1 * g / np.sqrt((g**2).sum()), rtol=1e-15)


@pytest.mark.parametrize("draw", [np.abs, np.ones_like, np.exp])
def test_the_norm_of_a_long_sentence_is_exact(draw):
    """1,347 words (the longest bAbI 3 passage) of 300 dimensions: a plain running sum would lose 1e-4."""
    g = draw(np.random.default_rng(3).normal(size=(2, 1347, 300))).astype(np.float32)
    ball = fa.Ball(axes=(-2, -1))
    np.testing.assert_allclose(norm(unit(g, ball=ball), 2, (-2, -1)), 1, rtol=1e-6)
    np.testing.assert_allclose(norm(project(g, 0.1, ball=ball), 2, (-2, -1)), 0.1, rtol=1e-6)


def test_masks_gain_the_axes_they_need():
    """`[B, T]` means words for `[B, T, E]` and scores for `[B, heads, Q, T]`; where it could be both it is refused."""
    mask = np.arange(4) < np.array([[2], [4], [3]])
    sentence = fa.Ball(axes=(-2, -1))
    words, square, heads = (np.ones(shape, np.float32) for shape in ((3, 4, 5), (3, 4, 4), (3, 4, 2, 4)))
    np.testing.assert_array_equal(np.asarray(unit(words, mask=mask, ball=sentence)) != 0, mask[..., None] & (words > 0))
    for full in (mask[..., None], mask[:, None, :]):
        np.testing.assert_array_equal(np.asarray(unit(square, mask=full)) != 0, full & (square > 0))
    heads_of = fa.attention_at(lambda delta: jnp.sum(delta, (1, 2)), jnp.asarray(square), jnp.asarray(mask), 1.0)
    np.testing.assert_array_equal(np.asarray(heads_of) != 0, np.broadcast_to(mask[:, None, :], square.shape))
    words_of = fa.word_at(lambda delta: jnp.sum(delta, (1, 2)), jnp.asarray(square), jnp.asarray(mask), 1.0)
    np.testing.assert_array_equal(np.asarray(words_of) != 0, np.broadcast_to(mask[..., None], square.shape))
    np.testing.assert_array_equal(np.asarray(unit(heads, mask=mask)) != 0, mask[:, None, None, :] & (heads > 0))
    np.testing.assert_array_equal(np.asarray(softmax(heads, mask)) != 0, mask[:, None, None, :] & (heads > 0))
    np.testing.assert_array_equal(np.asarray(softmax(square, mask, axis=1)) != 0, mask[:, :, None] & (square > 0))
    np.testing.assert_array_equal(
        np.asarray(softmax(heads, mask, axis=1)) != 0, mask[:, :, None, None] & (heads > 0), err_msg="T heads"
    )
    np.testing.assert_array_equal(
        np.asarray(unit(words[0], mask=np.array([1, 0, 0, 1, 1]))) != 0, [[1, 0, 0, 1, 1]] * 4
    )


def test_a_mask_that_could_be_of_words_or_of_scores_is_refused():
    """Where T is the number of dimensions, or of heads; which axis is of tokens, attention_at and word_at know."""
    square, mask, key = jnp.ones((3, 4, 4)), jnp.ones((3, 4), bool), jax.random.key(0)
    for call in (
        lambda: fa.unit(square, mask=mask),
        lambda: fa.project(square, 1.0, mask=mask, ball=fa.Ball(axes=(-2, -1))),
        lambda: fa.random_perturbation(key, square, mask, 1.0),
        lambda: fa.virtual_at(lambda d: jnp.sum(d, (1, 2)), square, mask, 1.0, key=key),
        lambda: fa.pgd(lambda d: jnp.sum(d, (1, 2)), square, mask, 1.0),
    ):
        with pytest.raises(ValueError, match=r"\(3, 4\) fits two axes of a delta of shape \(3, 4, 4\): pass mask"):
            call()


@pytest.mark.parametrize("rows", [3, 5])
def test_a_mask_of_queries_by_keys_needs_its_axes(rows):
    """It is read as `[B, T]` where there are as many rows as queries, and so refused at every other batch size."""
    causal, scores = np.tril(np.ones((4, 4), bool)), jnp.zeros((rows, 4, 4))
    with pytest.raises(ValueError, match=rf"no axis of the {rows} rows of a delta of shape \({rows}, 4, 4\)"):
        fa.masked_softmax(scores, causal)
    expected = np.broadcast_to(causal / causal.sum(-1, keepdims=True), scores.shape)
    np.testing.assert_allclose(fa.masked_softmax(scores, causal[None]), expected, rtol=1e-6)
    one_for_all = np.array([[True, True, True, False]])
    np.testing.assert_array_equal(fa.masked_softmax(scores, one_for_all)[..., 3], 0)
    square = fa.masked_softmax(jnp.zeros((4, 4, 4)), causal)
    np.testing.assert_array_equal(np.asarray(square) > 0, np.broadcast_to(causal[:, None, :], square.shape))
    words = fa.word_at(lambda delta: jnp.sum(delta, (1, 2)), scores, one_for_all, 1.0)
    np.testing.assert_array_equal(np.asarray(words) != 0, np.broadcast_to(one_for_all[..., None], words.shape))
    half = np.arange(rows) % 2 == 0
    np.testing.assert_array_equal(np.asarray(fa.unit(scores + 1, mask=half[:, None])).any((1, 2)), half)


def test_masked_softmax_of_integers_and_of_nan_is_that_of_jax():
    """A NaN on a real entry makes its row NaN, and no other; none on padding."""
    integers = jnp.array([[0, 0, 7]])
    np.testing.assert_allclose(
        fa.masked_softmax(integers, None), jax.nn.softmax(integers.astype(jnp.float32)), rtol=1e-6
    )
    scores = jnp.array([[jnp.nan, 1.0, 100.0, 2.0], [1.0, 2.0, 3.0, jnp.nan]])
    weights = fa.masked_softmax(scores, jnp.array([[True, True, True, False]] * 2))
    np.testing.assert_array_equal(np.isnan(weights), [[True, True, True, False], [False] * 4])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_to_perturb_stays_nothing(order, shape):
    g, ball = jnp.zeros(shape), fa.Ball(ord=order)
    assert fa.unit(g, ball=ball).shape == fa.project(g, 1.0, ball=ball).shape == shape


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (3, 4, 1), (4,)])
def test_a_mask_that_does_not_fit_is_refused_with_both_shapes(shape):
    mask, g = np.ones(shape, bool), np.ones((3, 6), np.float32)
    for call in (fa.unit, functools.partial(fa.project, epsilon=1.0), fa.masked_softmax):
        with pytest.raises(ValueError) as error:
            call(jnp.asarray(g), mask=mask)
        assert str(shape) in str(error.value) and "(3, 6)" in str(error.value)


@pytest.mark.parametrize("epsilon", [-1.0, -1e-30, math.nan, -math.inf, np.float32(-1), np.array([-1.0])])
def test_a_negative_or_nan_radius_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        fa.project(jnp.ones((1, 2)), epsilon)


def test_a_radius_for_other_rows_is_refused():
    with pytest.raises(ValueError, match="2 rows"):
        fa.project(jnp.ones((2, 3)), jnp.ones(3))


@pytest.mark.parametrize("order", [0, 3, -1, math.nan, "2"])
def test_an_unknown_order_is_refused(order):
    for call in (fa.unit, functools.partial(fa.project, epsilon=1.0)):
        with pytest.raises(ValueError, match="1, 2 or infinity"):
            call(jnp.ones((1, 2)), ball=fa.Ball(order))


@FEW
@hypothesis.given(scores=gradients, mask=masks)
def test_masked_softmax_equals_the_softmax_of_the_real_tokens(scores, mask):
    out = softmax(np.where(mask, scores, np.nan), mask)
    for row, real, result in zip(scores.astype(np.float64), mask, np.asarray(out), strict=True):
        powers = np.exp(row[real] - row[real].max(initial=-np.inf)) if real.any() else row[real]
        np.testing.assert_allclose(result[real], powers / powers.sum(), rtol=2e-6, atol=1e-37)
        np.testing.assert_array_equal(result[~real], 0)


@pytest.mark.parametrize("padding", [np.nan, np.inf, -np.inf, 3e38])
def test_gradients_of_the_masked_softmax_are_finite_whatever_stands_on_padding(padding):
    """Row 0 has no real token: zeros, with gradient zero. Row 1 against the Jacobian diag(a) - a a^T."""
    scores = np.array([[padding] * 3, [0.5, -1.0, padding], [-np.inf, -np.inf, padding]], np.float32)
    mask = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 0]], bool)
    weights = np.array([2.0, -1.0, 5.0], np.float32)

    def total(scores):
        a = fa.masked_softmax(scores, mask)
        return jnp.sum(a * weights[None]), a

    (_, a), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(scores)
    np.testing.assert_array_equal(np.asarray(a)[[0, 2]], 0)
    np.testing.assert_array_equal(np.asarray(gradient)[[0, 2]], 0)
    p = np.exp([0.5, -1.0]) / np.exp([0.5, -1.0]).sum()
    np.testing.assert_allclose(gradient[1, :2], (np.diag(p) - np.outer(p, p)) @ [2.0, -1.0], rtol=1e-6)
    assert gradient[1, 2] == 0


def test_masked_softmax_normalises_any_axis():
    scores = np.random.default_rng(4).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(softmax(scores, None, axis=1), softmax(scores.swapaxes(1, 2), None).swapaxes(1, 2))


def test_the_gradient_is_taken_for_each_example():
    """A loss of half precision is summed in float32: 4,096 rows of 1e-3 would stall in bfloat16."""
    scale = jnp.asarray(np.linspace(-2, 2, 64), jnp.bfloat16)
    g = delta_gradient(lambda delta: scale * delta[:, 0], jnp.zeros((64, 1), jnp.bfloat16))
    np.testing.assert_array_equal(g[:, 0], scale)
