"""Word AT, word iAT, nearest neighbours and normalised embeddings, against float64 NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flax_attnat as fa

B, T, E, V, K = 3, 4, 5, 11, 3
rng = np.random.default_rng(0)
WORDS, G = (rng.normal(size=(B, T, E)).astype(np.float32) for _ in range(2))
TABLE = rng.normal(size=(V, E)).astype(np.float32)
IDS = rng.integers(0, V, (B, T, K))
MASK = np.arange(T) < np.array([[4], [2], [1]])


@functools.partial(jax.jit, static_argnames="per_word")
def word_iat(words, g, table, ids, mask, epsilon, per_word=False):
    """Word iAT under the loss `<g, delta>`, whose gradient is `g`."""

    def loss_fn(delta):
        return jnp.sum(g * delta, axis=(1, 2))

    return fa.word_iat(loss_fn, words, table, ids, mask, epsilon, per_word=per_word)


def explicit(words, g, table, ids, mask, epsilon, per_word):
    """Sato et al. 2018 with the array of directions `[B, T, K, E]`, in float64."""
    words, g, table = (x.astype(np.float64) for x in (words, g, table))
    d = table[ids] - words[:, :, None, :]
    size = np.sqrt((d**2).sum(-1, keepdims=True))
    d = d / np.where(size > 0, size, 1)
    G = (g[:, :, None, :] * d).sum(-1) * mask[..., None]
    total = np.sqrt((G**2).sum(-1 if per_word else (-2, -1), keepdims=True))
    alpha = G / np.where(total > 0, total, 1)
    r = (alpha[..., None] * d).sum(2)
    norm = np.sqrt((r**2).sum((-2, -1), keepdims=True))
    return epsilon * r / np.where(norm > 0, norm, 1)


def test_word_at_is_the_gradient_over_the_norm_of_the_sentence():
    def loss_fn(delta):
        return jnp.sum(G * delta, axis=(1, 2))

    real = G.astype(np.float64) * MASK[..., None]
    expected = 2.5 * real / np.sqrt((real**2).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(fa.word_at(loss_fn, jnp.asarray(WORDS), MASK, 2.5), expected, rtol=1e-6)


@pytest.mark.parametrize("per_word", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_word_iat_equals_the_explicit_computation(per_word, scale):
    """In both normalisations, at any scale of the gradient."""
    r = word_iat(WORDS, G * np.float32(scale), TABLE, IDS, MASK, 1.5, per_word)
    np.testing.assert_allclose(r, explicit(WORDS, G, TABLE, IDS, MASK, 1.5, per_word), atol=2e-6)


def test_the_normalisations_differ_and_per_word_gives_faint_words_their_share():
    """The gradient of the second word is 1e-25 of the first one's; its alpha still has norm 1 per word."""
    g = G.copy()
    g[0, 1] *= 1e-25
    for per_word in (False, True):
        r = np.asarray(word_iat(WORDS, g, TABLE, IDS, MASK, 1.0, per_word))
        np.testing.assert_allclose(r, explicit(WORDS, g, TABLE, IDS, MASK, 1.0, per_word), atol=2e-6)
        assert (np.abs(r[0, 1]).max() > 0.05) == per_word


def test_a_neighbour_equal_to_the_word_has_no_direction():
    ids, words = IDS.copy(), TABLE[IDS[..., 0]]
    expected = explicit(words, G, TABLE, ids, MASK, 1.0, False)
    np.testing.assert_allclose(word_iat(words, G, TABLE, ids, MASK, 1.0), expected, atol=2e-6)
    only_itself = np.broadcast_to(ids[..., :1], ids.shape)
    np.testing.assert_array_equal(word_iat(words, G, TABLE, only_itself, MASK, 1.0), 0)


def brute_force(table, k, valid):
    """Ids of the k nearest valid others by cosine in float64, and all cosines, -inf where not allowed."""
    directions = table.astype(np.float64)
    directions = directions / np.sqrt((directions**2).sum(1, keepdims=True))
    cosine = directions @ directions.T
    cosine[:, ~valid] = -np.inf
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("block", [1, 7, 16, 37, 64])
def test_nearest_neighbours_equal_brute_force_whatever_the_block(block):
    """37 words: 7 and 16 leave a last block that is not full, 64 is wider than the table."""
    table = np.random.default_rng(1).normal(size=(37, 4)).astype(np.float32) * 10.0 ** np.arange(-18, 19)[:, None]
    table = table.astype(np.float32)
    valid = np.random.default_rng(2).uniform(size=37) < 0.7
    valid[:2] = False
    found = fa.nearest_neighbours(jnp.asarray(table), 6, valid=valid, block=block)
    np.testing.assert_array_equal(found, brute_force(table, 6, valid))
    every = fa.nearest_neighbours(jnp.asarray(table), 36, block=block)
    np.testing.assert_array_equal(every, brute_force(table, 36, np.ones(37, bool)))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([every, np.arange(37)[:, None]], axis=1)), [np.arange(37)] * 37
    )


def test_too_few_valid_words_repeat_the_nearest_and_never_an_invalid_one():
    table = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    found = fa.nearest_neighbours(table, 3, valid=jnp.asarray([False, False, True, True]))
    np.testing.assert_array_equal(found, [[2, 3, 2], [3, 2, 3], [3, 3, 3], [2, 2, 2]])
    one = fa.nearest_neighbours(table, 2, valid=jnp.asarray([False, False, True, False]))
    np.testing.assert_array_equal(one, [[2, 2], [2, 2], [2, 2], [2, 2]])  # word 2 has itself alone: no direction


@pytest.mark.parametrize("k", [0, 4, 5])
def test_an_impossible_number_of_neighbours_is_refused(k):
    with pytest.raises(ValueError, match=f"3 words of the table; got {k}"):
        fa.nearest_neighbours(jnp.ones((4, 2)), k)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_normalised_embeddings_have_mean_0_and_variance_1(offset):
    """Under the frequencies, in float64, also where the mean is large beside the spread; frequencies may be 0."""
    generator = np.random.default_rng(3)
    table = (offset + generator.normal(size=(50, 3)) * [1e-2, 1.0, 1e2]).astype(np.float32)
    frequencies = np.where(np.arange(50) < 2, 0, generator.uniform(size=50) ** 4)
    frequencies = (frequencies / frequencies.sum()).astype(np.float32)
    out = np.asarray(jax.jit(fa.normalise_embeddings)(table, frequencies), np.float64)
    weight = frequencies[:, None] / frequencies.sum(dtype=np.float64)
    np.testing.assert_allclose((weight * out).sum(0), 0, atol=1e-5 if offset == 0 else 5e-3)
    np.testing.assert_allclose((weight * out**2).sum(0), 1, rtol=1e-5 if offset == 0 else 1e-4)
    mean = (weight * table.astype(np.float64)).sum(0)
    deviation = np.sqrt((weight * (table - mean) ** 2).sum(0))
    np.testing.assert_allclose(out, (table - mean) / deviation, atol=1e-4 if offset == 0 else 5e-3, rtol=1e-5)


def test_counts_are_as_good_as_frequencies():
    table, counts = jnp.array([[1.0], [3.0], [5.0]]), np.array([10, 20, 10])
    expected = fa.normalise_embeddings(table, counts / 40)
    np.testing.assert_allclose(fa.normalise_embeddings(table, counts), expected, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(expected)[:, 0], [-math.sqrt(2), 0, math.sqrt(2)], atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.3, -1e4])
def test_a_dimension_that_does_not_vary_is_zero_with_a_finite_gradient(constant):
    """An embedding that starts at zero must not meet 1 / sqrt(0); nor may rounding pass for variance."""
    table = np.random.default_rng(4).normal(size=(1000, 2)).astype(np.float32)
    table[:, 0] = constant
    frequencies = np.full(1000, 1e-3, np.float32)
    out = fa.normalise_embeddings(jnp.asarray(table), jnp.asarray(frequencies))
    np.testing.assert_array_equal(out[:, 0], 0)
    g = jax.jit(jax.grad(lambda t: jnp.sum(jnp.sin(fa.normalise_embeddings(t, frequencies)))))(table)
    assert np.all(np.abs(g) < 10)


def test_half_precision_embeddings_are_normalised_in_float32():
    """Sums of 4,096 frequencies stall in bfloat16, whose numbers next to 1 are 1/128 apart."""
    table = jnp.asarray(1 + np.random.default_rng(5).normal(size=(4096, 2)), jnp.bfloat16)
    out = fa.normalise_embeddings(table, jnp.full(4096, 1 / 4096))
    assert out.dtype == jnp.bfloat16
    wide = np.asarray(out, np.float64)
    np.testing.assert_allclose(wide.mean(0), 0, atol=2e-3)
    np.testing.assert_allclose((wide**2).mean(0), 1, rtol=5e-3)
