"""Erasing words against texts that are rebuilt, one by one, in NumPy and float64."""

from fractions import Fraction
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.evaluation.erasure import SHARES, Erasure, aopc, delete_words, erase, random_importance
from flax_attnat.evaluation.importance import leave_one_out, predict_places
from tests.evaluation import reference
from tests.models import reference as pairs
from tests.models.small import ENTITIES, VOCABULARY, as_batch, as_pairs, initial, small, small_pair
from tests.training.reference import float64, softmax

LENGTHS, WIDTH = (23, 12, 4, 1, 0, 21), 24
EXACT_SHARES = [Fraction(1, 100), Fraction(1, 20), Fraction(1, 10), Fraction(1, 5), Fraction(1, 2)]


def random_texts(seed=0, lengths=LENGTHS):
    """Random words, from 2 on."""
    rng = np.random.default_rng(seed)
    return [list(rng.integers(2, VOCABULARY, n)) for n in lengths]


def text_batch(texts, width=WIDTH, padding=0, labels=None):
    """A batch of single texts."""
    return as_batch(texts, [1] * len(texts) if labels is None else labels, [1.0] * len(texts), width, padding)


def predict(params, ids):
    """Probabilities `[2]` of one text in float64; of an empty one, those of the bias."""
    if not len(ids):
        p = float(reference.sigmoid(params["output"]["bias"])[0])
    else:
        words = params["embedding"]["table"][np.asarray(ids)]
        p = reference.probability(params, words, reference.attention(params, words))
    return np.array([1 - p, p])


def predict_pair(params, passage, query, entities):
    """Probabilities `[3]` of one pair in float64, zero for a class that no word of the passage names."""
    logits = pairs.forward(params, passage, query)[1]
    possible = np.isin(np.arange(3), ENTITIES[np.asarray(passage, int)]) if entities else np.ones(3, bool)
    return softmax(np.where(possible, logits, -np.inf)) if possible.any() else np.zeros(3)


def erased(predict_one, text, importance):
    """Comprehensiveness and sufficiency `[5]` of one text, by sorting."""
    if not text or np.isnan(importance[: len(text)]).any():
        return np.full((2, 5), np.nan)
    whole = predict_one(text)
    order = sorted(range(len(text)), key=lambda t: (-importance[t], t))
    rows = []
    for share in EXACT_SHARES:
        top = set(order[: ceil(share * len(text))])
        rest = predict_one([word for t, word in enumerate(text) if t not in top])
        alone = predict_one([word for t, word in enumerate(text) if t in top])
        rows.append([(whole - other)[whole.argmax()] for other in (rest, alone)])
    return np.array(rows).T


def importances(seed, count, texts, width=WIDTH):
    """Importances `[count, B, width]`, the first with many ties; padding holds the largest."""
    rng = np.random.default_rng(seed)
    found = rng.random((count, len(texts), width)).astype(np.float32)
    found[0] = np.round(3 * found[0])
    for row, text in enumerate(texts):
        found[:, row, len(text) :] = 9
    return found


def erase_all(model, params, batch, importance, spare=True):
    """Predictions, then their erasure."""
    left_out = leave_one_out(model, params, batch)
    return erase(model, params, batch, left_out.probability, importance, left_out if spare else None)


def measured(model, most):
    """Erasure and deletion, as a function of parameters, batch and importance."""

    def measure(params, batch, importance):
        """Of one run."""
        left_out = leave_one_out(model, params, batch)
        figures = erase(model, params, batch, left_out.probability, importance, left_out)
        return figures, delete_words(model, params, batch, left_out, most=most)

    return measure


@pytest.mark.parametrize("encoder", ["average", "bilstm", "cnn"])
def test_kept_words_are_a_text_of_their_own(encoder):
    """Any choice of words predicts what the text of those words does, in any padded width that holds them."""
    _, model = small("vanilla", encoder)
    params = initial(model)
    texts = random_texts()
    keep = np.random.default_rng(1).random((len(texts), WIDTH)) < 0.4
    keep[2] = False
    keep &= np.arange(WIDTH)[None, :] < np.array(LENGTHS)[:, None]
    kept = [[word for t, word in enumerate(text) if keep[row, t]] for row, text in enumerate(texts)]
    order = np.argsort(~keep, axis=1, stable=True)

    def chosen(params, batch, places):
        """Of the words at some places."""
        length = jnp.asarray(keep.sum(axis=1), jnp.int32)
        return predict_places(model, params, batch, model.embed(params, batch), places, length)

    exact = jax.jit(chosen)(params, text_batch(kept), np.broadcast_to(np.arange(WIDTH)[None, :], keep.shape))
    if encoder != "cnn":
        np.testing.assert_allclose(exact, [predict(float64(params), text) for text in kept], atol=1e-5)
    for width, padding in ((WIDTH, 0), (max(map(len, kept)), 11)):
        found = jax.jit(chosen)(params, text_batch(texts, padding=padding), order[:, :width])
        np.testing.assert_allclose(found, exact, atol=1e-6)


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_erasure_equals_that_of_rebuilt_texts(encoder):
    """Both figures at all shares, of ties, of one word (erased whole, enough for itself) and of none (undefined)."""
    _, model = small("vanilla", encoder)
    params, texts = initial(model), random_texts()
    importance = importances(2, 2, texts)
    importance[1, 2, 3] = np.nan
    found = jax.jit(lambda p, b, i: erase_all(model, p, b, i))(params, text_batch(texts), importance)
    exact_params = float64(params)
    exact = [
        [erased(lambda ids: predict(exact_params, ids), text, row) for text, row in zip(texts, source, strict=True)]
        for source in importance
    ]
    np.testing.assert_allclose(np.stack(found, axis=2), exact, atol=1e-5)
    assert np.isnan(found.comprehensiveness[1, 2]).all() and np.isnan(found.sufficiency[:, 4]).all()
    assert not found.sufficiency[:, 3].any()
    assert np.nanmax(np.ptp(found.comprehensiveness, axis=-1)) > 0.1  # the shares are told apart
    np.testing.assert_allclose(aopc(found.sufficiency)[0, :4], found.sufficiency[0, :4].mean(axis=-1), rtol=1e-5)


def test_padding_one_source_alone_and_saved_passes_change_nothing():
    """Other widths, other words in the padding, nothing left out beforehand, a source by itself: the same figures."""
    _, model = small("vanilla", "average")
    params, texts = initial(model), random_texts(3)
    importance = importances(4, 2, texts, 30)
    plain = jax.jit(lambda p, b, i: erase_all(model, p, b, i))(params, text_batch(texts), importance[..., :WIDTH])
    wide = jax.jit(lambda p, b, i: erase_all(model, p, b, i, spare=False))(
        params, text_batch(texts, 30, padding=11), importance[1]
    )
    for a, b in zip(wide, plain, strict=True):
        assert a.shape == (len(texts), len(SHARES))
        np.testing.assert_allclose(a, b[1], atol=2e-6)


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_pairs_lose_words_of_the_passage(encoder):
    """The query stays, and a class that no word names any more becomes impossible."""
    _, model = small_pair("vanilla", encoder, entities=True)
    params = initial(model)
    passages = [[3, 5, 4, 9, 2, 8, 5], [4, 3], [6, 3, 6, 5], [5], []]
    queries = [[6, 2], [9], [], [3, 3, 4], [7]]
    batch = as_pairs(passages, queries, [0, 1, 0, 2, 1], [1.0] * 5, (8, 4))
    importance = importances(5, 2, passages, 8)

    figures, deletion = jax.jit(measured(model, 3))(params, batch, importance)
    exact_params = float64(params)
    for row, (passage, query) in enumerate(zip(passages, queries, strict=True)):

        def one(ids, query=query):
            """Of the passage's words alone."""
            return predict_pair(exact_params, ids, query, entities=True)

        exact = [erased(one, passage, source[row]) for source in importance]
        np.testing.assert_allclose(np.stack([x[:, row] for x in figures], axis=1), exact, atol=1e-5)
        correct = deleted_one_by_one(one, passage, int(batch.label[row]), most=3)
        np.testing.assert_array_equal(deletion.correct[row], correct)


def deleted_one_by_one(predict_one, text, label, most):
    """Whether the prediction is still the label after each number of deletions, `[most + 1]`."""
    right = predict_one(text).argmax() == label
    correct = [right]
    alone = [predict_one(text[:t] + text[t + 1 :])[label] for t in range(len(text))]
    order = sorted(range(len(text)), key=lambda t: (alone[t], t))
    for count in range(1, most + 1):
        if right and count < len(text):
            gone = order[:count]
            right = predict_one([word for t, word in enumerate(text) if t not in gone]).argmax() == label
        correct.append(right)
    return correct


def test_deletion_goes_on_until_the_prediction_leaves_the_label():
    """Greedy over 60 texts against a loop; after 0, 1, 2 and more words, and never."""
    _, model = small("vanilla", "average")
    params = initial(model)
    texts = [*random_texts(6, [1 + n % 9 for n in range(58)]), [], []]
    labels = [*np.random.default_rng(7).integers(0, 2, 58).tolist(), 0, 1]
    batch = text_batch(texts, 10, labels=labels)

    def attack(params, batch):
        """From the predictions on."""
        return delete_words(model, params, batch, leave_one_out(model, params, batch), most=4)

    found = jax.jit(attack)(params, batch)
    exact_params = float64(params)
    exact = np.array(
        [
            deleted_one_by_one(lambda ids: predict(exact_params, ids), text, label, 4)
            for text, label in zip(texts, labels, strict=True)
        ]
    )
    np.testing.assert_array_equal(found.correct, exact)
    np.testing.assert_array_equal(found.deleted, np.where(exact[:, -1], -1, exact.sum(axis=-1)))
    assert set(np.asarray(found.deleted)) >= {-1, 0, 1, 2}
    short = np.array([len(text) < 2 for text in texts])
    assert (np.asarray(found.deleted)[short] <= 0).all()


def test_more_deletions_than_words():
    """A batch narrower than what may be deleted: all but one word of each text go."""
    _, model = small("vanilla", "average")
    params = initial(model)
    batch = text_batch([[3, 5], [6]], 2)
    found = jax.jit(lambda p, b: delete_words(model, p, b, leave_one_out(model, p, b), most=5))(params, batch)
    exact = [deleted_one_by_one(lambda ids: predict(float64(params), ids), text, 1, 5) for text in ([3, 5], [6])]
    np.testing.assert_array_equal(found.correct, exact)


def test_runs_at_once_equal_runs_alone_and_a_broken_one_harms_no_other():
    """Two runs and one of NaN under vmap: its figures are NaN and its predictions wrong."""
    _, model = small("vanilla", "average")
    runs = [initial(model), initial(model, 1), jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), initial(model))]
    texts = random_texts(8)
    batch, importance = text_batch(texts, labels=[1, 0, 1, 0, 1, 0]), importances(9, 2, texts)

    together = jax.jit(jax.vmap(measured(model, 5), in_axes=(0, None, None)))(
        jax.tree.map(lambda *x: jnp.stack(x), *runs), batch, importance
    )
    alone = jax.jit(measured(model, 5))
    for run, params in enumerate(runs):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone(params, batch, importance)), strict=True):
            np.testing.assert_allclose(a[run], b, atol=1e-6)
    figures, deletion = together
    assert np.isnan(figures.comprehensiveness[2]).all() and np.isnan(figures.sufficiency[2]).all()
    assert np.isfinite(figures.comprehensiveness[:2, :, :4]).all()
    assert not deletion.correct[2].any() and not deletion.deleted[2].any()


def planted(model, bias, strength):
    """Attention is uniform and only word 12 has a vector: `z = strength m / n + bias` for m of n words."""
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    params["embedding"]["table"] = params["embedding"]["table"].at[12, 0].set(1)
    dense = params["encoder"]["Dense_0"]
    params["encoder"]["Dense_0"] = dense | {"kernel": dense["kernel"].at[0, 0].set(1)}
    output = params["output"]
    kernel = output["kernel"].at[0, 0].set(strength / np.tanh(1))
    params["output"] = {"kernel": kernel, "bias": output["bias"] + bias}
    return params


def test_one_planted_word_decides():
    """By hand: one word among five carries the prediction; what points to it is faithful, what does not is not."""
    _, model = small("vanilla", "average")
    params = planted(model, -1.0, 10.0)
    batch = text_batch([[3, 12, 4, 5, 6]] * 2, 6, labels=[1, 0])
    importance = np.array([[0.1, 0.9, 0.3, 0.0, 0.2, 0], [0.9, 0.0, 0.4, 0.5, 0.6, 0]], np.float32)

    found, deletion = jax.jit(measured(model, 2))(params, batch, importance)
    p = reference.sigmoid(np.array([1.0, -1.0, 1.5, 9.0, 7 / 3, 4.0]))
    whole, empty, of_four, one, of_three, of_two = p
    # Shares .01 to .2 take one of five words, .5 takes three.
    np.testing.assert_allclose(found.comprehensiveness[0], [whole - empty] * 5, rtol=1e-5)
    np.testing.assert_allclose(found.comprehensiveness[1], [whole - of_four] * 4 + [whole - of_two], rtol=1e-5)
    np.testing.assert_allclose(found.sufficiency[0], [whole - one] * 4 + [whole - of_three], rtol=1e-5)
    np.testing.assert_allclose(found.sufficiency[1], [whole - empty] * 5, rtol=1e-5)
    np.testing.assert_array_equal(deletion.deleted, [1, 0])
    np.testing.assert_array_equal(deletion.correct, [[True, False, False], [False, False, False]])


def test_random_importances_are_uniform_and_depend_on_their_place_alone():
    """Moments of 60,000 numbers; more padding and more rows leave those of a row as they are."""
    mask = np.ones((200, 300), bool)
    found = np.asarray(random_importance(jax.random.key(1), mask), np.float64)
    assert found.min() >= 0 and found.max() < 1
    assert found.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * found.size))
    assert found.var() == pytest.approx(1 / 12, rel=0.02)
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.02
    part = mask[:7, :20].copy()
    part[3, 5:] = False
    narrow = random_importance(jax.random.key(1), part)
    np.testing.assert_array_equal(narrow, np.where(part, found[:7, :20].astype(np.float32), 0))
    assert (random_importance(jax.random.key(2), part) != narrow).sum() == part.sum()


def test_the_figures_are_named_in_this_order():
    """What `aopc` averages and callers unpack."""
    assert Erasure._fields == ("comprehensiveness", "sufficiency") and len(SHARES) == len(EXACT_SHARES)
    assert [float(share) for share in EXACT_SHARES] == list(SHARES)
