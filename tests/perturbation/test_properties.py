"""What every perturbation has in common: masks, norms, constancy, degenerate rows, padding, transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import flax_attnat as fa
from tests.perturbation.techniques import (
    ALL,
    CORE,
    FROM_LOSS,
    RANDOM,
    B,
    T,
    compiled,
    divergence,
    finite,
    loss,
    perturb,
    problem,
)

KEY = jax.random.key(7)
EPSILON = jnp.asarray([0.0, 0.1, 3.0, 20.0], jnp.float32)


def norms(delta):
    """L2 norm of each row, in float64."""
    delta = np.asarray(delta).astype(np.float64)
    return np.sqrt((delta.reshape(len(delta), -1) ** 2).sum(-1))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [0, 1])
def test_norm_is_epsilon_and_padding_is_zero(name, seed):
    p = problem(name, seed)
    r = compiled(name)(p, EPSILON, KEY)
    assert r.shape == p.like.shape and r.dtype == p.like.dtype
    np.testing.assert_array_equal(np.asarray(r)[~np.asarray(p.mask)], 0)
    np.testing.assert_array_equal(r[0], 0)  # epsilon 0
    assert np.all(norms(r) <= np.asarray(EPSILON, np.float64) * (1 + 1e-6))
    np.testing.assert_allclose(norms(r), EPSILON, rtol=1e-6)


@pytest.mark.parametrize("name", CORE)
def test_half_precision_keeps_dtype_and_ball(name):
    p = problem(name, dtype=jnp.bfloat16)
    r = compiled(name)(p, EPSILON, KEY)
    assert r.dtype == jnp.bfloat16
    assert np.all(norms(r) <= np.asarray(EPSILON, np.float64) * (1 + 1e-6))
    np.testing.assert_allclose(norms(r), EPSILON, rtol=3e-2)


@pytest.mark.parametrize("name", FROM_LOSS)
@pytest.mark.parametrize("sign", [0.0, np.nan, np.inf])
def test_a_row_without_a_usable_gradient_is_zero_and_leaves_the_others_alone(name, sign):
    """`sign` 0 makes the gradient of row 1 zero; NaN makes its loss and gradient NaN; inf makes them inf or NaN."""
    p = problem(name)
    expected = np.asarray(compiled(name)(p, EPSILON, KEY)).copy()
    expected[1] = 0
    np.testing.assert_array_equal(compiled(name)(p._replace(sign=p.sign.at[1].set(sign)), EPSILON, KEY), expected)


@pytest.mark.parametrize("name", FROM_LOSS)
def test_a_score_or_word_that_is_not_finite_gives_a_zero_row(name):
    p = problem(name)
    expected = np.asarray(compiled(name)(p, EPSILON, KEY)).copy()
    expected[1] = 0
    np.testing.assert_array_equal(compiled(name)(p._replace(like=p.like.at[1, 0].set(jnp.nan)), EPSILON, KEY), expected)


@pytest.mark.parametrize("name", ALL)
def test_neither_padding_nor_the_rest_of_the_batch_matters(name):
    """Row 0 in its batch, among other rows, and alone with 3 more columns of padding."""
    p, epsilon = problem(name), jnp.full(B, 0.5)
    expected = compiled(name)(p, epsilon, KEY)[0]
    others = problem(name, seed=3)
    others = others._replace(sign=others.sign.at[1].set(jnp.nan))
    mixed = p._replace(
        **{
            field: jnp.concatenate([getattr(p, field)[:1], getattr(others, field)[1:]])
            for field in p._fields
            if field != "table"
        }
    )
    alone = problem(name, width=T + 3)
    alone = alone._replace(**{field: getattr(alone, field)[:1] for field in p._fields if field != "table"})
    np.testing.assert_array_equal(compiled(name)(mixed, epsilon, KEY)[0], expected)
    result = compiled(name)(alone, epsilon[:1], KEY)[0]
    np.testing.assert_allclose(result[:T], expected, atol=1e-6 * 0.5)
    np.testing.assert_array_equal(result[T:], 0)


@pytest.mark.parametrize("name", CORE)
def test_the_perturbation_is_a_constant_for_whatever_made_it(name):
    """d sum(r * c) / d anything is exactly 0, epsilon included; a path left open would give numbers of size 1."""
    p = finite(problem(name))

    def total(like, weights, sign, table, epsilon):
        r = perturb(name, p._replace(like=like, weights=weights, sign=sign, table=table), epsilon, KEY)
        return jnp.sum(r * jnp.cos(jnp.arange(r.size, dtype=r.dtype)).reshape(r.shape))

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3, 4)))
    for g in gradient(p.like, p.weights, p.sign, p.table, EPSILON):
        np.testing.assert_array_equal(g, 0)


@pytest.mark.parametrize("name", CORE)
def test_vmap_scan_and_scalars_give_the_rows_of_one_call(name):
    """A `[B]` epsilon equals one number a row; a vmap and a scan over epsilon equal one call each."""
    p = problem(name)
    expected = compiled(name)(p, EPSILON, KEY)

    @jax.jit
    def mapped(epsilons):
        one = functools.partial(perturb, name, p, key=KEY)
        scanned = jax.lax.scan(lambda _, epsilon: (None, one(epsilon=epsilon)), None, epsilons)[1]
        return jax.vmap(lambda epsilon: one(epsilon=epsilon))(epsilons), scanned

    for result in mapped(EPSILON):
        np.testing.assert_allclose(result[jnp.arange(B), jnp.arange(B)], expected, rtol=1e-5, atol=1e-6)


def test_vmap_over_keys_equals_one_call_each():
    p, keys, name = problem("random_perturbation"), jax.random.split(KEY, 3), "random_perturbation"
    together = jax.jit(jax.vmap(functools.partial(perturb, name, p, EPSILON)))(keys)
    for key, result in zip(keys, together, strict=True):
        np.testing.assert_allclose(result, compiled(name)(p, EPSILON, key), rtol=1e-6)
    assert np.all(np.abs(together[0] - together[1]).max(axis=-1)[1:] > 1e-3)


@pytest.mark.parametrize("name", CORE)
def test_shard_map_over_rows_equals_the_call_on_the_rows(name):
    """On two devices where there are two. A delta taken for replicated would sum its gradient over the shards.

    The mask is None: nothing but `like` says that the rows differ between shards.
    """
    p = finite(problem(name))
    p = p._replace(mask=jnp.ones_like(p.mask))
    expected = compiled(name)(p, EPSILON, KEY)
    count = min(2, jax.device_count())
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,))
    specs = p._replace(**{field: P() if field == "table" else P("rows") for field in p._fields})
    call = jax.shard_map(
        lambda p, epsilon: perturb(name, p, epsilon, KEY, mask=None),
        mesh=mesh,
        in_specs=(specs, P("rows")),
        out_specs=P("rows"),
    )
    # The noise is indexed by the row in its shard: beyond the first shard only what draws none can be compared.
    equal = slice(0, B // count if name in RANDOM else B)
    np.testing.assert_allclose(jax.jit(call)(p, EPSILON)[equal], expected[equal], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CORE)
def test_rows_sharded_over_an_explicit_mesh_equal_the_call_on_one_device(name):
    """What `jax.make_mesh` makes unless told otherwise; on two devices where there are two."""
    p = finite(problem(name))
    expected = compiled(name)(p, EPSILON, KEY)
    mesh = jax.make_mesh((min(2, jax.device_count()),), ("rows",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = p._replace(
            **{
                field: jax.device_put(getattr(p, field), NamedSharding(mesh, P() if field == "table" else P("rows")))
                for field in p._fields
            }
        )
        call = jax.jit(lambda p, epsilon: perturb(name, p, epsilon, KEY))
        np.testing.assert_allclose(call(placed, jax.device_put(EPSILON, P("rows"))), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FROM_LOSS)
def test_no_second_derivative_is_asked_of_the_loss(name):
    """A kernel that has none is fine: its backward pass raises when it is differentiated in turn."""
    p = finite(problem(name))

    @jax.custom_jvp
    def once(x):
        return x

    @once.defjvp
    def refuse(primals, tangents):
        raise AssertionError("a second derivative was taken")

    @jax.custom_vjp
    def kernel(x):
        return x

    kernel.defvjp(lambda x: (x, None), lambda _, g: (once(g),))

    def objective(weights, like):
        q = p._replace(weights=weights, like=like)
        total = functools.partial(divergence if name == "virtual_at" else loss, name, q)
        loss_fn = lambda delta: total(kernel(delta))  # noqa: E731
        return jnp.sum(fa.adversarial_loss(loss_fn, perturb(name, q, 1.0, KEY, loss_fn=loss_fn))[0])

    found = jax.eval_shape(jax.grad(objective, argnums=(0, 1)), p.weights, p.like)
    assert [x.shape for x in found] == [p.weights.shape, p.like.shape]


@pytest.mark.parametrize("name", ["attention_iat span", "word_iat"])
def test_adversarial_training_differentiates_the_loss_alone(name):
    """Gradient of L(0) + L(r) with r made from the same parameters, and with r given as numbers."""
    p = finite(problem(name))

    def objective(weights, r):
        q = p._replace(weights=weights)
        r = perturb(name, q, 1.0, KEY) if r is None else r
        return jnp.sum(fa.adversarial_loss(functools.partial(loss, name, q), r)[0])

    inside = jax.jit(lambda w: jax.grad(objective)(w, None))(p.weights)
    given = jax.jit(jax.grad(objective))(p.weights, compiled(name)(p, jnp.ones(B), KEY))
    np.testing.assert_allclose(inside, given, rtol=1e-5, atol=1e-6)


MULTI_HEAD = [
    *(("attention_at", axes) for axes in ((-1,), (-2, -1), (1, 2, 3))),
    ("random_perturbation", (1, 3)),
    ("virtual_at", (-1,)),
]


@pytest.mark.parametrize(("name", "axes"), MULTI_HEAD)
def test_multi_head_attention_is_the_same_call_with_other_axes(name, axes):
    """Scores `[B, heads, Q, T]`: the norm over `axes` is epsilon, and r is epsilon g / ||g|| of a linear loss."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(B, 2, 3, T)), jnp.float32)
    mask, ball = np.arange(T) < np.array([4, 6, 2, 5])[:, None], fa.Ball(axes=axes)

    @jax.jit
    def call(g, epsilon):
        def linear(delta):
            return jnp.sum(g * delta, axis=(1, 2, 3))

        if name == "attention_at":
            return fa.attention_at(linear, g, mask, epsilon, ball=ball)
        if name == "random_perturbation":
            return fa.random_perturbation(KEY, g, mask, epsilon, ball=ball)
        return fa.virtual_at(linear, g, mask, epsilon, key=KEY, ball=ball)

    r = np.asarray(call(g, EPSILON), np.float64)
    np.testing.assert_array_equal(r * ~mask[:, None, None, :], 0)
    size = np.sqrt((r**2).sum(axes, keepdims=True))
    np.testing.assert_allclose(size, np.broadcast_to(EPSILON[:, None, None, None], size.shape), rtol=1e-6)
    if name != "random_perturbation":
        real = np.asarray(g, np.float64) * mask[:, None, None, :]
        direction = real / np.sqrt((real**2).sum(axes, keepdims=True))
        np.testing.assert_allclose(r, np.asarray(EPSILON)[:, None, None, None] * direction, rtol=1e-5)


def test_word_vectors_of_a_square_sentence_are_masked_by_word():
    """T = E and a norm for each word: a `[B, T]` mask could be taken for one over the vectors' entries."""
    words, mask = jnp.ones((2, 3, 3)), np.arange(3) < np.array([[2], [3]])
    r = fa.word_at(lambda delta: jnp.sum(delta, axis=(1, 2)), words, mask, 1.0, ball=fa.Ball(axes=(-1,)))
    np.testing.assert_allclose(r, np.broadcast_to(mask[..., None] / np.sqrt(3), (2, 3, 3)), rtol=1e-6)


def linear(delta):
    """A loss of gradient 1 everywhere."""
    return jnp.sum(delta, axis=tuple(range(1, delta.ndim)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_a_negative_or_nan_epsilon_is_refused(name, epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        jax.eval_shape(lambda p: perturb(name, p, epsilon, KEY, loss_fn=linear), problem(name))


@pytest.mark.parametrize("name", ALL)
def test_a_mask_that_does_not_fit_is_refused_with_both_shapes(name):
    p, mask = problem(name), np.ones((B, T + 1), bool)
    with pytest.raises(ValueError) as error:
        jax.eval_shape(lambda p: perturb(name, p, 1.0, KEY, mask=mask, loss_fn=linear), p)
    assert str(mask.shape) in str(error.value) and str(p.like.shape) in str(error.value)


@pytest.mark.parametrize("name", ["attention_at", "attention_iat span", "word_iat"])
def test_a_numpy_mask_of_numbers_serves(name):
    """The mask is closed over, so that it reaches the perturbation as NumPy made it."""
    p = problem(name)
    mask = np.asarray(p.mask).astype(np.int8)
    result = jax.jit(lambda p: perturb(name, p, 1.0, KEY, mask=mask, loss_fn=linear))(p)
    expected = jax.jit(lambda p: perturb(name, p, 1.0, KEY, loss_fn=linear))(p)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
