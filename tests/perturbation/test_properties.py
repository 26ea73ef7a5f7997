"""What every perturbation has in common: masks, norms, constancy, degenerate rows, padding, transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import flax_attnat as fa
from tests.perturbation.techniques import ALL, FROM_LOSS, RANDOM, B, T, compiled, on_words, perturb, problem

KEY = jax.random.key(7)
EPSILON = jnp.asarray([0.0, 0.1, 3.0, 20.0], jnp.float32)


def norms(delta):
    """L2 norm of each row, in float64."""
    delta = np.asarray(delta).astype(np.float64)
    return np.sqrt((delta.reshape(len(delta), -1) ** 2).sum(-1))


def rows(p, index, p_other=None):
    """Rows `index` of a problem; the table is shared."""
    return p._replace(**{field: getattr(p, field)[index] for field in p._fields if field != "table"})


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


@pytest.mark.parametrize("name", ALL)
def test_half_precision_keeps_dtype_and_ball(name):
    p = problem(name, dtype=jnp.bfloat16)
    r = compiled(name)(p, EPSILON, KEY)
    assert r.dtype == jnp.bfloat16
    assert np.all(norms(r) <= np.asarray(EPSILON, np.float64) * (1 + 1e-6))
    np.testing.assert_allclose(norms(r), EPSILON, rtol=3e-2)


@pytest.mark.parametrize("name", FROM_LOSS)
@pytest.mark.parametrize("sign", [0.0, np.nan, np.inf])
def test_a_row_without_a_usable_gradient_is_zero_and_leaves_the_others_alone(name, sign):
    """`sign` 0 makes the gradient of row 1 zero; NaN makes its loss and gradient NaN; inf makes them infinite or NaN."""
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
    """Row 0 in its batch, among other rows, alone, and with 3 more columns of padding."""
    p, epsilon = problem(name), jnp.full(B, 0.5)
    expected = np.asarray(compiled(name)(p, epsilon, KEY))
    others = problem(name, seed=3)
    others = others._replace(sign=others.sign.at[1].set(jnp.nan), table=p.table)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]), p._replace(table=p.table[:1]), others)
    mixed = compiled(name)(mixed._replace(table=p.table), epsilon, KEY)
    alone = compiled(name)(rows(p, slice(0, 1)), epsilon[:1], KEY)
    padded = compiled(name)(problem(name, width=T + 3), epsilon, KEY)
    np.testing.assert_array_equal(mixed[0], expected[0])
    np.testing.assert_allclose(alone[0], expected[0], atol=1e-6 * 0.5)
    np.testing.assert_allclose(padded[:, :T], expected, atol=1e-6 * 0.5)
    np.testing.assert_array_equal(padded[:, T:], 0)


@pytest.mark.parametrize("name", ALL)
def test_the_perturbation_is_a_constant_for_whatever_made_it(name):
    """d sum(r * c) / d anything is exactly 0, epsilon included; a path left open would give numbers of size 1."""
    p = problem(name)
    p = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0, x) if x.dtype == jnp.float32 else x, p)

    def total(like, weights, sign, table, epsilon):
        r = perturb(name, p._replace(like=like, weights=weights, sign=sign, table=table), epsilon, KEY)
        return jnp.sum(r * jnp.cos(jnp.arange(r.size, dtype=r.dtype)).reshape(r.shape))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3, 4)))(p.like, p.weights, p.sign, p.table, EPSILON)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", ALL)
def test_vmap_scan_and_scalars_give_the_rows_of_one_call(name):
    """A `[B]` epsilon equals one number a row; a vmap and a scan over epsilon equal one call each."""
    p = problem(name)
    expected = compiled(name)(p, EPSILON, KEY)

    @jax.jit
    def both(epsilons):
        one = functools.partial(perturb, name, p, key=KEY)
        return jax.vmap(lambda e: one(epsilon=e))(epsilons), jax.lax.scan(lambda _, e: (None, one(epsilon=e)), None, epsilons)[1]

    for result in both(EPSILON):
        np.testing.assert_allclose(result[jnp.arange(B), jnp.arange(B)], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled(name)(p, 3.0, KEY)[2], expected[2], rtol=1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_vmap_over_keys_equals_one_call_each(name):
    p, keys = problem(name), jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(functools.partial(perturb, name, p, EPSILON)))(keys)
    for key, result in zip(keys, together, strict=True):
        np.testing.assert_allclose(result, compiled(name)(p, EPSILON, key), rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(together[0] - together[1]).max(axis=-1)[1:] > 1e-3)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_shard_map_over_rows_equals_the_call_on_each_shard(name, masked):
    """On two devices where there are two: a delta taken for replicated would sum gradients over the shards."""
    p = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0.5, x) if x.dtype == jnp.float32 else x, problem(name))
    if not masked:
        p = p._replace(mask=jnp.ones_like(p.mask))
    count = min(2, jax.device_count())
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,))
    specs = p._replace(**{field: P() if field == "table" else P("rows") for field in p._fields})

    def call(p, epsilon):
        return perturb(name, p if masked else p._replace(mask=p.mask), epsilon, KEY)

    sharded = jax.jit(jax.shard_map(call, mesh=mesh, in_specs=(specs, P("rows")), out_specs=P("rows")))(p, EPSILON)
    size = B // count
    for shard in range(count):
        part = slice(shard * size, (shard + 1) * size)
        expected = compiled(name)(rows(p, part), EPSILON[part], KEY)
        np.testing.assert_allclose(sharded[part], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["attention_at", "attention_iat span", "word_iat", "virtual_at"])
def test_adversarial_training_differentiates_the_loss_alone(name):
    """Gradient of L(0) + L(r) with r made from the same parameters, and with r given as numbers."""
    p = problem(name)
    p = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), 0, x) if x.dtype == jnp.float32 else x, p)
    from tests.perturbation.techniques import loss

    def objective(weights, r):
        q = p._replace(weights=weights)
        r = perturb(name, q, 1.0, KEY) if r is None else r
        return jnp.sum(fa.adversarial_loss(functools.partial(loss, name, q), r)[0])

    inside = jax.jit(lambda w: jax.grad(objective)(w, None))(p.weights)
    given = jax.jit(jax.grad(objective))(p.weights, compiled(name)(p, 1.0, KEY))
    np.testing.assert_allclose(inside, given, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (1, 2, 3)])
@pytest.mark.parametrize("name", ["attention_at", "random_perturbation", "virtual_at"])
def test_multi_head_attention_is_the_same_call_with_other_axes(name, axes):
    """Scores `[B, heads, Q, T]`: the norm over `axes` is epsilon, and AT is epsilon g / ||g|| of a linear loss."""
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(B, 2, 3, T)), jnp.float32)
    mask, ball = np.arange(T) < np.array([4, 6, 2, 5])[:, None], fa.Ball(axes=axes)

    @jax.jit
    def call(g, epsilon):
        loss_fn = lambda delta: jnp.sum(g * delta, axis=(1, 2, 3))  # noqa: E731
        if name == "attention_at":
            return fa.attention_at(loss_fn, g, mask, epsilon, ball=ball)
        if name == "random_perturbation":
            return fa.random_perturbation(KEY, g, mask, epsilon, ball=ball)
        return fa.virtual_at(loss_fn, g, mask, epsilon, key=KEY, ball=ball)

    r = np.asarray(call(g, EPSILON), np.float64)
    np.testing.assert_array_equal(r * ~mask[:, None, None, :], 0)
    size = np.sqrt((r**2).sum(axes, keepdims=True))
    np.testing.assert_allclose(size, np.broadcast_to(EPSILON[:, None, None, None], size.shape), rtol=1e-6)
    if name != "random_perturbation":
        real = np.asarray(g, np.float64) * mask[:, None, None, :]
        direction = real / np.sqrt((real**2).sum(axes, keepdims=True))
        np.testing.assert_allclose(r, np.asarray(EPSILON)[:, None, None, None] * direction, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_a_negative_or_nan_epsilon_is_refused(name, epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        jax.eval_shape(lambda p: perturb(name, p, epsilon, KEY), problem(name))


@pytest.mark.parametrize("name", ALL)
def test_a_mask_that_does_not_fit_is_refused_with_both_shapes(name):
    p = problem(name)
    like = p._replace(mask=jnp.ones((B, T + 1), bool))

    def call():
        if name == "random_perturbation":
            return fa.random_perturbation(KEY, p.like, like.mask, 1.0)
        linear = lambda delta: jnp.sum(delta, axis=tuple(range(1, delta.ndim)))  # noqa: E731
        base, _, option = name.partition(" ")
        if base == "virtual_at":
            return fa.virtual_at(linear, p.like, like.mask, 1.0, key=KEY)
        if base == "word_iat":
            return fa.word_iat(linear, p.like, p.table, p.neighbours, like.mask, 1.0)
        options = {"reading": option} if option else {}
        return getattr(fa, base)(linear, p.like, like.mask, 1.0, **options)

    with pytest.raises(ValueError) as error:
        jax.eval_shape(call)
    assert str(like.mask.shape) in str(error.value) and str(p.like.shape) in str(error.value)


@pytest.mark.parametrize("name", ["attention_at", "attention_iat span", "random_perturbation", "word_at"])
def test_a_numpy_mask_of_numbers_serves(name):
    p = problem(name)
    numbers = perturb(name, p._replace(mask=p.mask), EPSILON, KEY)
    base, _, option = name.partition(" ")
    from tests.perturbation.techniques import loss

    mask = np.asarray(p.mask).astype(np.float32)
    loss_fn = functools.partial(loss, name, p)
    if base == "random_perturbation":
        result = fa.random_perturbation(KEY, p.like, mask, EPSILON)
    else:
        result = getattr(fa, base)(loss_fn, p.like, mask, EPSILON, **({"reading": option} if option else {}))
    np.testing.assert_array_equal(result, numbers)
    assert on_words(name) == (result.ndim == 3)
