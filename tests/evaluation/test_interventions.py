"""Other attentions over the same hidden states: against enumeration, a float64 objective and forward passes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.evaluation.interventions import (
    _objective,
    adversarial_attention,
    by_largest_attention,
    permute_attention,
    seed_divergence,
)
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Encoded
from tests.models.small import as_batch, as_pairs, initial, small, small_pair

TEXTS = [[3, 5, 4, 9, 2], [7, 2, 11, 7, 8, 6], [6], []]
LN2 = math.log(2)


def tabled():
    """A classifier whose words have a score and a value each, `params [V, 2]`: the logit is the attended value."""

    def encode(params, words, batch):
        """The words themselves, and the mask."""
        return Encoded(words, jnp.arange(batch.tokens.shape[1])[None] < batch.length[:, None])

    def classify(params, encoded, scores, key=None):
        """The attended value, `[B, 1]`."""
        return jnp.einsum("bt,bt->b", masked_softmax(scores, encoded.mask), encoded.states[..., 1])[:, None]

    return Model(
        init=lambda key: jnp.zeros((1, 2)),
        table=lambda params: params,
        tokens=lambda batch: (batch.tokens, batch.tokens > 0),
        embed=lambda params, batch, key=None: params[batch.tokens],
        encode=encode,
        score=lambda params, encoded: encoded.states[..., 0],
        classify=classify,
        values=lambda params, encoded: (encoded.states[..., 1:], jnp.zeros(1)),
    )


def words(scores, values):
    """Parameters of `tabled` of one text, and the text: words 1, 2, ..."""
    table = np.concatenate([[[0, 0]], np.stack([scores, values], axis=1)]).astype(np.float32)
    return jnp.asarray(table), as_batch([range(1, len(scores) + 1)], [0], [1.0], len(scores) + 1)


def compiled(function, model, params, batch, key, **options):
    """An intervention as one program."""
    return jax.jit(lambda p: function(model, p, batch, key, **options))(params)


def softmax(x):
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def exact_jsd(p, q):
    """In float64, by logarithms of ratios; `[..., T]` without zeros."""
    middle = (p + q) / 2
    return ((p * np.log(p / middle)).sum(-1) + (q * np.log(q / middle)).sum(-1)) / 2


def pair_batch(width=7, padding=0):
    """Four pairs, of passages of 5, 2, 4 and 1 words."""
    passages, queries = [[3, 5, 4, 9, 2], [4, 3], [6, 3, 6, 5], [5]], [[6, 2], [9], [2], [3, 3, 4]]
    return as_pairs(passages, queries, [0] * 4, [1.0] * 4, (width, 4), padding)


# Permutations


def test_the_median_is_that_of_all_permutations():
    """Of 4 tokens: 24 equally likely changes, enumerated; the median of 2,001 draws is near the middle ones."""
    scores, values = np.array([2.0, -1.0, 0.5, 0.0]), np.array([3.0, -2.0, 0.5, -1.0])
    params, batch = words(scores, values)
    found = float(compiled(permute_attention, tabled(), params, batch, jax.random.key(1), permutations=2001)[0])
    z = [softmax(np.array(order)) @ values for order in itertools.permutations(scores)]
    changes = np.sort(np.abs(1 / (1 + np.exp(-np.array(z))) - 1 / (1 + np.exp(-softmax(scores) @ values))))
    assert np.abs(changes - found).min() < 1e-6  # an odd number of draws: the median is one of them
    assert changes[9] - 1e-6 <= found <= changes[14] + 1e-6


def test_all_permutations_are_equally_likely():
    """One permutation under each of 1,200 keys; 6 outcomes of 3 tokens, told apart by their changes; 200 each."""
    scores, values = np.array([2.0, -1.0, 0.5]), np.array([3.0, -2.0, 0.4])
    params, batch = words(scores, values)
    keys = jax.random.split(jax.random.key(5), 1200)
    once = jax.jit(jax.vmap(lambda key: permute_attention(tabled(), params, batch, key, permutations=1)))
    z = [softmax(np.array(order)) @ values for order in itertools.permutations(scores)]
    changes = np.abs(1 / (1 + np.exp(-np.array(z))) - 1 / (1 + np.exp(-z[0])))
    found = np.asarray(once(keys))[:, 0]
    counts = (np.abs(found[:, None] - changes) < 1e-5).sum(axis=0)
    assert counts.sum() == 1200
    assert np.square(counts - 200).sum() / 200 < 25  # chi-square of 5 degrees: p = 1e-4


def test_uniform_attention_changes_nothing_in_any_permutation():
    """Exactly; equal scores by an attention without weights, under every one of 40 keys."""
    _, model = small("vanilla", "average")
    params = initial(model)
    params = params | {"attention": jax.tree.map(jnp.zeros_like, params["attention"])}
    batch = as_batch(TEXTS, [0] * 4, [1.0] * 4, 7)
    keys = jax.random.split(jax.random.key(0), 40)
    found = jax.jit(jax.vmap(lambda key: permute_attention(model, params, batch, key, permutations=1)))(keys)
    np.testing.assert_array_equal(found[:, :3], 0)
    assert np.isnan(found[:, 3]).all()  # a text without words


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_permutations_do_not_depend_on_padding_or_other_rows(encoder):
    """More columns, other words in them, and other rows; a text of one token has 0, an empty one NaN."""
    _, model = small("vanilla", encoder)
    params = initial(model)
    permute = jax.jit(lambda batch: permute_attention(model, params, batch, jax.random.key(3)))
    found = permute(as_batch(TEXTS, [0] * 4, [1.0] * 4, 6))
    np.testing.assert_allclose(permute(as_batch(TEXTS, [0] * 4, [1.0] * 4, 9, padding=11)), found, atol=1e-6)
    other = permute(as_batch([[4, 4], TEXTS[1], [2, 9]], [0] * 3, [1.0] * 3, 6))
    assert other[1] == pytest.approx(float(found[1]), abs=1e-6)
    assert (found[:2] > 1e-4).all() and found[2] == 0 and np.isnan(found[3])


def test_permutations_of_a_pair_model():
    """Three classes; a median of 100 is in the middle third of the total variations of all 120 orders."""
    _, model = small_pair("vanilla", "average")
    params, batch = initial(model), pair_batch()
    found = np.asarray(compiled(permute_attention, model, params, batch, jax.random.key(0)))
    encoded = model.encode(params, model.embed(params, batch), batch)
    scores = model.score(params, encoded)
    read = jax.jit(lambda scores: probabilities(model.classify(params, encoded, scores)))
    plain = np.asarray(read(scores), np.float64)[0]
    changes = []
    for order in itertools.permutations(range(5)):
        probability = read(scores[:, np.array([*order, 5, 6])])
        changes.append(np.abs(np.asarray(probability, np.float64)[0] - plain).sum() / 2)
    assert 0 < np.sort(changes)[40] <= found[0] <= np.sort(changes)[79]
    assert found[3] == 0


# Adversarial attention


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_objective_and_its_gradient_equal_float64(count):
    """The sum over candidates less the mean divergence of the K x K ordered pairs; central differences of scores."""
    rng = np.random.default_rng(count)
    scores, own = rng.normal(size=(count, 3, 4)) * 2, softmax(rng.normal(size=(3, 4)))
    coefficients = rng.normal(size=4)

    def exact(scores):
        """Objective `[3]`, with a cost linear in the weights, up to the penalty's kink."""
        weights = softmax(scores)
        total = -exact_jsd(weights, own[None]) + 500 * np.maximum(np.abs(weights @ coefficients) - 0.01, 0)
        return total.sum(0) - exact_jsd(weights[:, None], weights[None]).sum((0, 1)) / count**2

    def ours(scores):
        """Likewise, with padding behind."""
        real = jnp.arange(6) < 4
        weights = masked_softmax(scores, jnp.broadcast_to(real, (count, 3, 6)))
        change = jnp.abs(weights[..., :4] @ jnp.asarray(coefficients, jnp.float32))
        return _objective(weights, change, jnp.pad(jnp.asarray(own, jnp.float32), ((0, 0), (0, 2))))

    wide = jnp.pad(jnp.asarray(scores, jnp.float32), ((0, 0), (0, 0), (0, 2)))
    np.testing.assert_allclose(ours(wide), exact(scores), rtol=2e-5, atol=1e-5)
    gradient = np.asarray(jax.jit(jax.grad(lambda scores: jnp.sum(ours(scores))))(wide))
    assert not gradient[..., 4:].any()
    for place in np.ndindex(scores.shape):
        step = np.zeros(scores.shape)
        step[place] = 1e-6
        slope = (exact(scores + step) - exact(scores - step)).sum() / 2e-6
        assert gradient[place] == pytest.approx(slope, rel=1e-3, abs=2e-3)


def test_the_gradient_of_the_divergences_alone():
    """Where the prediction is free, and at K = 5: to 1e-5, which the penalty would hide."""
    rng = np.random.default_rng(9)
    scores, own = rng.normal(size=(5, 2, 6)) * 2, softmax(rng.normal(size=(2, 6)) * 3)

    def exact(scores):
        """Sum over texts."""
        weights = softmax(scores)
        return -exact_jsd(weights, own[None]).sum() - exact_jsd(weights[:, None], weights[None]).sum() / 25

    def ours(scores):
        """Sum over texts."""
        return jnp.sum(_objective(jax.nn.softmax(scores), jnp.zeros((5, 2)), jnp.asarray(own, jnp.float32)))

    gradient = np.asarray(jax.jit(jax.grad(ours))(jnp.asarray(scores, jnp.float32)))
    for place in np.ndindex(scores.shape):
        step = np.zeros(scores.shape)
        step[place] = 1e-5
        assert gradient[place] == pytest.approx((exact(scores + step) - exact(scores - step)) / 2e-5, abs=1e-5)


def test_the_objective_of_weights_that_are_zero_has_a_finite_gradient():
    """Candidates and own attention that share no word, and one that no attention reads."""
    weights, own = jnp.array([[[1.0, 0.0, 0.0]]] * 2), jnp.array([[0.0, 1.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda w: jnp.sum(_objective(w, jnp.zeros((2, 1)), own)))(weights)
    assert value == pytest.approx(-2 * LN2, abs=1e-6) and np.isfinite(gradient).all()


def test_attention_moves_freely_between_words_of_equal_value():
    """Own weight .999 on the first of two words of the value 1: nearly all of it moves to the other, near ln 2."""
    params, batch = words([8.0, 1.0, -8.0], [1.0, 1.0, -3.0])
    found = compiled(adversarial_attention, tabled(), params, batch, jax.random.key(0))
    assert found.divergence[0] > 0.65 and found.attention[0, 1] > 0.95
    assert found.change[0] <= 0.05


def test_attention_cannot_move_between_words_of_hugely_different_value():
    """Values of +-50 that cancel: a weight that moves by .002 changes p by .05: the divergence is below 1e-5."""
    params, batch = words([0.0, 0.0], [50.0, -50.0])
    found = compiled(adversarial_attention, tabled(), params, batch, jax.random.key(0))
    assert 0 <= found.divergence[0] < 1e-5


@pytest.mark.parametrize("gap", [0.1, 1.0, 4.0])
def test_two_tokens_against_a_search_of_all_attentions(gap):
    """One weight: the divergence is at most the largest at change .05, and, chatter at .01 aside, that at .005."""
    scores, values = np.array([1.0, 0.0]), np.array([gap, -gap])
    params, batch = words(scores, values)
    found = compiled(adversarial_attention, tabled(), params, batch, jax.random.key(2))
    first = np.linspace(1e-6, 1 - 1e-6, 200_001)
    weights = np.stack([first, 1 - first], axis=1)
    changes = np.abs(1 / (1 + np.exp(-weights @ values)) - 1 / (1 + np.exp(-softmax(scores) @ values)))
    divergences = exact_jsd(weights, softmax(scores)[None])
    assert divergences[changes <= 0.05].max() + 1e-6 >= found.divergence[0]
    assert found.divergence[0] >= divergences[changes <= 0.005].max()


@pytest.mark.parametrize("pair", [False, True])
def test_what_is_found_holds_in_a_forward_pass(pair):
    """Divergence and change of the returned attention, by NumPy; one token leaves no choice; weights sum to 1."""
    _, model = small_pair("vanilla", "average") if pair else small("vanilla", "average")
    params = initial(model)
    batch = pair_batch() if pair else as_batch(TEXTS, [0] * 4, [1.0] * 4, 7)
    found = compiled(adversarial_attention, model, params, batch, jax.random.key(4))
    encoded = model.encode(params, model.embed(params, batch), batch)
    scores = model.score(params, encoded)
    there = found.attention > 0
    moved = jnp.where(there, jnp.log(jnp.where(there, found.attention, 1)), -1e9)
    p, q = (np.asarray(probabilities(model.classify(params, encoded, s)), np.float64) for s in (scores, moved))
    lengths = np.asarray(batch.length)
    several = lengths > 1
    assert several.sum() >= 2
    np.testing.assert_allclose(found.change[several], np.abs(p - q).sum(-1)[several] / 2, atol=1e-5)
    # Three classes pay for the sum of |dp| from .01 on, that is from a total variation of .005 on.
    assert 0.003 < found.change[several].max() < (0.006 if pair else 0.012)
    assert (found.change[several] <= 0.05).all() and (found.divergence[several] > 0).all()
    assert found.divergence.max(where=several, initial=0) > 0.2
    for row in np.flatnonzero(several):
        n = lengths[row]
        weights = np.asarray(found.attention[row, :n], np.float64)
        own = softmax(np.asarray(scores[row, :n], np.float64))
        assert weights.sum() == pytest.approx(1, abs=1e-5) and not found.attention[row, n:].any()
        assert found.divergence[row] == pytest.approx(exact_jsd(weights, own), rel=1e-3, abs=1e-6)
        assert found.divergence[row] <= LN2
    alone = int(np.flatnonzero(lengths == 1)[0])
    assert found.divergence[alone] == found.change[alone] == 0 and found.attention[alone, 0] == 1
    if not pair:
        assert np.isnan(found.divergence[3]) and np.isnan(found.change[3]) and not found.attention[3].any()


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_adversarial_attention_does_not_depend_on_padding(encoder):
    """More columns, and other words in them."""
    _, model = small("vanilla", encoder)
    params = initial(model)
    search = jax.jit(lambda batch: adversarial_attention(model, params, batch, jax.random.key(3), steps=200))
    narrow = search(as_batch(TEXTS, [0] * 4, [1.0] * 4, 6))
    wide = search(as_batch(TEXTS, [0] * 4, [1.0] * 4, 9, padding=11))
    np.testing.assert_allclose(wide.divergence, narrow.divergence, atol=1e-4)
    np.testing.assert_allclose(wide.attention[:, :6], narrow.attention, atol=1e-3)
    assert not wide.attention[:, 6:].any()


def test_without_an_allowed_candidate_the_own_attention_is_the_answer():
    """A prediction may not change at all, and no candidate has moved yet."""
    _, model = small("vanilla", "average")
    params, batch = initial(model), as_batch(TEXTS[:3], [0] * 3, [1.0] * 3, 6)
    found = compiled(adversarial_attention, model, params, batch, jax.random.key(0), steps=0, allowed=0.0)
    encoded = model.encode(params, model.embed(params, batch), batch)
    own = masked_softmax(model.score(params, encoded), encoded.mask)
    np.testing.assert_allclose(found.attention, own, rtol=1e-6)
    np.testing.assert_array_equal([found.divergence, found.change], 0)


def test_a_frozen_run_is_nan_and_the_others_are_what_they_are_alone():
    """Three runs at once, the second with logits that are not numbers; its rows alone are NaN."""
    _, model = small("vanilla", "average")
    runs = [initial(model, seed) for seed in range(3)]
    runs[1] = runs[1] | {"output": runs[1]["output"] | {"bias": jnp.array([jnp.nan])}}
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = as_batch(TEXTS, [0] * 4, [1.0] * 4, 7)

    def both(params, key):
        """Both interventions."""
        return (
            permute_attention(model, params, batch, key, permutations=20),
            adversarial_attention(model, params, batch, key, steps=50),
        )

    medians, found = jax.jit(jax.vmap(both))(stacked, keys)
    assert np.isnan(medians[1]).all() and np.isnan(found.divergence[1]).all() and np.isnan(found.change[1]).all()
    for run in (0, 2):
        median, alone = jax.jit(both)(runs[run], keys[run])
        np.testing.assert_allclose(medians[run], median, atol=1e-6)
        np.testing.assert_allclose(found.divergence[run], alone.divergence, atol=1e-4)
        assert not np.isnan(found.divergence[run, :3]).any()


def test_an_empty_search_is_refused():
    """A median of no permutation, and the best of no candidate."""
    _, model = small("vanilla", "average")
    batch = as_batch(TEXTS, [0] * 4, [1.0] * 4, 7)
    with pytest.raises(ValueError, match="at least 1 permutation; got 0"):
        permute_attention(model, initial(model), batch, jax.random.key(0), permutations=0)
    with pytest.raises(ValueError, match="at least 1 candidate is needed; got 0"):
        adversarial_attention(model, initial(model), batch, jax.random.key(0), candidates=0)


# Seeds and bins


def test_seed_divergence_is_the_mean_over_the_other_seeds():
    """Against float64; the seed whose weights are not numbers is left out of the others' means."""
    rng = np.random.default_rng(0)
    mask = np.arange(6) < np.array([6, 3, 1, 0])[:, None]
    raw = np.where(mask, rng.gamma(0.5, size=(5, 4, 6)) + 1e-6, 0)
    attention = raw / np.maximum(raw.sum(-1, keepdims=True), 1e-30)
    attention[2, 1, :2] = np.nan
    found = np.asarray(jax.jit(seed_divergence)(jnp.asarray(attention, jnp.float32), mask))
    for row, n in enumerate((6, 3, 1)):
        for seed in range(5):
            others = [s for s in range(5) if s != seed and not (row == 1 and s == 2)]
            expected = np.mean([exact_jsd(attention[seed, row, :n], attention[s, row, :n]) for s in others])
            if row == 1 and seed == 2:
                assert np.isnan(found[seed, row])
            else:
                assert found[seed, row] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert np.isnan(found[:, 3]).all()
    assert np.isnan(seed_divergence(jnp.asarray(attention[:1], jnp.float32), jnp.asarray(mask))).all()


def test_bins_of_the_largest_attention():
    """Bounds belong to the bin above them, 1 to the last, as a weight that rounds above 1; NaN is left out."""
    largest = np.array([0.1, 0.25, 0.4999, 0.75, 1.0, 1.0000001, 0.2, np.nan], np.float32)
    values = np.array([1.0, 2.0, 4.0, 5.0, 6.0, 10.0, np.nan, 7.0], np.float32)
    found = by_largest_attention(values, largest)
    assert found == [
        {"from": 0.0, "to": 0.25, "n": 1, "median": 1.0, "mean": 1.0},
        {"from": 0.25, "to": 0.5, "n": 2, "median": 3.0, "mean": 3.0},
        {"from": 0.5, "to": 0.75, "n": 0, "median": None, "mean": None},
        {"from": 0.75, "to": 1.0, "n": 3, "median": 6.0, "mean": 7.0},
    ]
    assert [b["n"] for b in by_largest_attention(values[:0], largest[:0])] == [0] * 4
