"""Gradient importance against finite differences, and leaving words out against shorter texts, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.evaluation.importance import (
    explain_batch,
    gradient_importance,
    gradient_importances,
    leave_one_out,
    probability_of,
)
from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.models.model import probabilities
from tests.evaluation import reference
from tests.models import reference as pairs
from tests.models.small import as_batch, as_pairs, initial, small, small_pair
from tests.training.reference import float64, softmax

TEXTS = [[3, 5, 4, 9, 2], [7, 2, 7], [6], []]


def explained(encoder, width=6, padding=0, edit=lambda params: params):
    """Parameters, three times their usual size, and what `explain_batch` says of TEXTS."""
    _, model = small("vanilla", encoder)
    params = edit(jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0))))
    batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), width, padding)
    return params, jax.device_get(jax.jit(lambda p, b: explain_batch(model, p, b))(params, batch))


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_equals_finite_differences_with_attention_held_constant(encoder):
    """`tau_t = |sum_e w_te dp/dw_te|`, normalised (Jain & Wallace 2019, section 4.1); 1 on the only token of a text."""
    params, found = explained(encoder)
    exact_params = reference.as_float64(jax.device_get(params))
    for row, text in enumerate(TEXTS[:3]):
        probability, attention, importance = reference.explain(exact_params, text)
        n = len(text)
        np.testing.assert_allclose(found.probability[row], [1 - probability, probability], rtol=1e-5)
        np.testing.assert_allclose(found.attention[row, :n], attention, rtol=1e-5)
        np.testing.assert_allclose(found.importance[row, :n], importance, atol=1e-5)
        assert found.importance[row].sum() == pytest.approx(1, abs=1e-6)
        assert not found.importance[row, n:].any() and not found.attention[row, n:].any()
    attached = reference.explain(exact_params, TEXTS[0], detached=False)[2]
    assert np.abs(attached - found.importance[0, :5]).max() > 1e-2  # the other definition is told apart
    assert not found.importance[3].any() and not found.attention[3].any()  # a text without words


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_the_function_of_a_figure_of_ones_own_gives_the_same(encoder):
    """A user's closure over the attention weights of the model that `explain_batch` measures."""
    _, model = small("vanilla", encoder)
    params, found = explained(encoder)
    batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), 6, 0)
    words = model.embed(params, batch)
    encoded = model.encode(params, words, batch)
    scores = model.score(params, encoded)

    def figure(words):
        probability = probabilities(model.classify(params, model.encode(params, words, batch), scores))
        return probability_of(probability, predicted_classes(found.probability))

    importance = jax.jit(lambda words: gradient_importance(figure, words, encoded.mask))(words)
    np.testing.assert_allclose(importance, found.importance, atol=1e-6)
    poison = jnp.where(encoded.mask[..., None], words, jnp.nan)
    by_token = gradient_importance(
        lambda w: jnp.sum(jnp.where(encoded.mask, jnp.sum(w, -1), 0), -1), poison, encoded.mask
    )
    assert np.all(np.isfinite(by_token)), "what stands on padding is not read"
    turned = jax.grad(lambda w: jnp.sum(gradient_importance(figure, w, encoded.mask) * jnp.arange(6.0)[None, :]))(words)
    np.testing.assert_array_equal(turned, 0)
    with pytest.raises(ValueError, match=r"one figure a row, \(4,\); it returned shape \(\)"):
        gradient_importance(jnp.sum, words, encoded.mask)


def test_a_row_without_gradient_gives_zeros():
    """An output that reads nothing has no gradient: importance 0, attention as ever, nothing NaN."""

    def deaf(params):
        """Zero output weights."""
        return params | {"output": jax.tree.map(jnp.zeros_like, params["output"])}

    _, found = explained("average", edit=deaf)
    np.testing.assert_array_equal(found.importance, 0)
    np.testing.assert_array_equal(found.probability, 0.5)
    np.testing.assert_allclose(found.attention.sum(axis=-1), [1, 1, 1, 0], rtol=1e-6)


def test_padding_changes_nothing():
    """Two more columns, and any word in them, leave every real token's figures as they were."""
    _, narrow = explained("bilstm")
    _, wide = explained("bilstm", width=8, padding=11)
    np.testing.assert_allclose(wide.probability, narrow.probability, rtol=1e-6)
    for a, b in ((wide.attention, narrow.attention), (wide.importance, narrow.importance)):
        np.testing.assert_allclose(a[:, :6], b, rtol=1e-5, atol=1e-7)
        assert not a[:, 6:].any()


def test_the_predicted_class_and_class_1_give_the_same_importance_to_two_classes():
    """One probability is 1 minus the other; against the gradient of p(class 1), for both predictions."""
    _, model = small("vanilla")
    params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
    # Every text is predicted twice, by a bias to either side.
    for bias in (-4.0, 4.0):
        params["output"]["bias"] = jnp.array([bias])
        batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), 6)
        found = explain_batch(model, params, batch)
        assert (found.probability[:3].argmax(-1) == int(bias > 0)).all()
        words = model.embed(params, batch)
        weights = model.score(params, model.encode(params, words, batch))

        def class_1(words, params=params, batch=batch, weights=weights):
            """Sum of p(class 1) under constant attention."""
            return jnp.sum(jax.nn.sigmoid(model.classify(params, model.encode(params, words, batch), weights)))

        raw = np.abs(np.sum(np.asarray(jax.grad(class_1)(words) * words), axis=-1))
        raw = np.where(np.arange(6) < np.array([[5], [3], [1], [0]]), raw, 0)
        np.testing.assert_allclose(found.importance[:3], raw[:3] / raw[:3].sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_a_prediction_that_rounds_to_certainty_still_has_its_importance():
    """The gradient of a probability of 1 - 1e-13 in float32, for either class."""

    def certain(bias):
        """A model that adds `bias` to its logit."""
        return lambda params: params | {"output": params["output"] | {"bias": jnp.array([bias])}}

    _, plain = explained("average")
    for bias in (-30.0, 30.0):
        _, found = explained("average", edit=certain(bias))
        assert (found.probability.max(-1) == 1).all()
        np.testing.assert_allclose(found.importance, plain.importance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("encoder", "entities"), [("average", False), ("bilstm", False), ("average", True)])
def test_a_pair_model_by_finite_differences_of_the_predicted_class(encoder, entities):
    """Moves each word of the passage alone, attention held constant; words 3, 4, 9 and 5 name classes 0, 1, 1, 2."""
    _, model = small_pair("vanilla", encoder, entities=entities)
    params = initial(model)
    passages, queries = [[3, 5, 4, 9, 2], [4, 3], [6, 3, 6, 5], [5]], [[6, 2], [9], [], [3, 3, 4]]
    batch = as_pairs(passages, queries, [0] * 4, [1.0] * 4, (7, 4))
    found = jax.device_get(jax.jit(lambda p, b: explain_batch(model, p, b))(params, batch))
    assert found.probability.shape == (4, 3) and found.importance.shape == found.attention.shape == (4, 7)
    exact, predicted = float64(params), set()
    for row, (passage, query) in enumerate(zip(passages, queries, strict=True)):
        words, asked = (exact["embedding"]["table"][np.array(ids, int)] for ids in (passage, query))
        weights = softmax(pairs.forward_words(exact, words, asked)[0])
        named = {{3: 0, 4: 1, 9: 1, 5: 2}.get(word) for word in passage}
        possible = np.array([not entities or c in named for c in range(3)])

        def probability(words, asked=asked, weights=weights, possible=possible):
            """Probabilities `[C]` under given attention."""
            logits = pairs.forward_words(exact, words, asked, weights)[1]
            return softmax(np.where(possible, logits, -np.inf))

        plain = probability(words)
        np.testing.assert_allclose(found.probability[row], plain, rtol=1e-4, atol=1e-7)
        predicted.add(int(plain.argmax()))
        raw = []
        for place in range(len(passage)):
            scale = 1e-6 * (np.arange(len(passage)) == place)[:, None]
            sides = [probability(words * (1 + sign * scale))[plain.argmax()] for sign in (1, -1)]
            raw.append(abs(sides[0] - sides[1]) / 2e-6)
        n = len(passage)
        np.testing.assert_allclose(found.attention[row, :n], weights, rtol=1e-4)
        if sum(possible) > 1:
            np.testing.assert_allclose(found.importance[row, :n], np.array(raw) / sum(raw), atol=1e-4)
        else:
            assert not found.importance[row].any()  # one possible class is certain whatever the words
        assert not found.importance[row, n:].any()
    assert len(predicted) > 1


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_three_kinds_of_gradient_equal_finite_differences(encoder):
    """Attention constant or not, along the word vector or in all directions; one of one word, none of none."""
    _, model = small("vanilla", encoder)
    params = initial(model)
    batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), 6, 11)
    found = jax.device_get(jax.jit(lambda p, b: gradient_importances(model, p, b))(params, batch))
    plain = jax.device_get(jax.jit(lambda p, b: explain_batch(model, p, b))(params, batch))
    for a, b in zip(found, plain, strict=False):  # the first three are those of `explain_batch`
        np.testing.assert_allclose(a, b, atol=1e-6)
    exact = reference.as_float64(jax.device_get(params))
    for row, text in enumerate(TEXTS[:3]):
        n = len(text)
        attached = reference.explain(exact, text, detached=False)[2]
        np.testing.assert_allclose(found.attached[row, :n], attached, atol=1e-5)
        np.testing.assert_allclose(found.norm[row, :n], gradient_norms(exact, text), atol=1e-5)
    for kind in (found.one_hot, found.attached, found.norm):
        np.testing.assert_allclose(kind.sum(axis=-1), [1, 1, 1, 0], atol=1e-6)
        assert kind[2, 0] == pytest.approx(1, abs=1e-6) and not kind[0, 5:].any()


def gradient_norms(params, ids):
    """`||dp/dw_t||` `[T]` over its sum with constant attention, each direction by a central difference."""
    words = params["embedding"]["table"][np.asarray(ids)]
    weights = reference.attention(params, words)
    gradient = np.zeros_like(words)
    for place in np.ndindex(words.shape):
        step = np.zeros_like(words)
        step[place] = 1e-6
        ahead, behind = (reference.probability(params, words + sign * step, weights) for sign in (1, -1))
        gradient[place] = ahead - behind
    norms = np.linalg.norm(gradient, axis=-1)
    return norms / norms.sum()


def test_gradients_of_a_certain_prediction_keep_their_norms():
    """The squares of a gradient of 1e-26 are 0 in float32, its importances are those of a gradient of 1."""
    _, model = small("vanilla", "average")
    params = initial(model)
    batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), 6)
    gradients = jax.jit(lambda p: gradient_importances(model, p, batch))
    plain = gradients(params)
    for bias in (-60.0, 60.0):
        found = gradients(params | {"output": params["output"] | {"bias": jnp.array([bias])}})
        for name in ("one_hot", "attached", "norm"):
            np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-3, atol=1e-5)


def check_left_out(found, row, text, predict, label):
    """One row against exact probabilities `predict(ids)`; on padding, those of the whole text."""
    n, whole = len(text), predict(text)
    every = np.stack([predict(text[:t] + text[t + 1 :]) for t in range(found.change.shape[1])])
    np.testing.assert_allclose(found.probability[row], whole, atol=1e-5)
    np.testing.assert_allclose(found.change[row], np.abs(every - whole).sum(axis=1) / 2, atol=1e-5)
    np.testing.assert_allclose(found.predicted[row], every[:, whole.argmax()], atol=1e-5)
    np.testing.assert_allclose(found.label[row], every[:, label], atol=1e-5)
    np.testing.assert_array_equal(found.right[row], every.argmax(axis=1) == label)
    assert not found.change[row, n:].any()
    np.testing.assert_array_equal(found.label[row, n:], found.probability[row, label])
    np.testing.assert_array_equal(found.predicted[row, n:], found.probability[row].max())


def test_leaving_out_equals_the_shorter_text():
    """Every word of every text, the only one included; padding, whatever stands there, changes nothing."""
    labels, right = [1, 0, 1, 0], set()
    for encoder in ("average", "bilstm"):
        _, model = small("vanilla", encoder)
        params, exact = initial(model), reference.as_float64(jax.device_get(initial(model)))

        def predict(ids, exact=exact):
            """Probabilities `[2]`; of an empty text, those of the bias."""
            p = reference.explain(exact, ids)[0] if ids else float(reference.sigmoid(exact["output"]["bias"])[0])
            return np.array([1 - p, p])

        for width, padding in ((5, 0), (8, 11)):
            batch = as_batch(TEXTS, labels, [1.0] * len(TEXTS), width, padding)
            found = jax.device_get(jax.jit(lambda p, b, m=model: leave_one_out(m, p, b))(params, batch))
            for row, text in enumerate(TEXTS):
                check_left_out(found, row, text, predict, labels[row])
            right |= set(found.right.ravel().tolist())
    assert right == {False, True}


def test_leaving_out_of_a_batch_one_word_wide():
    """The only column: every word leaves an empty text."""
    _, model = small("vanilla")
    batch = as_batch([[6], []], [1, 0], [1.0] * 2, 1)
    found = jax.jit(lambda p, b: leave_one_out(model, p, b))(initial(model), batch)
    p = 1 / (1 + np.exp(-np.asarray(initial(model)["output"]["bias"], np.float64)[0]))
    np.testing.assert_allclose(found.label[:, 0], [p, 1 - p], atol=1e-6)


@pytest.mark.parametrize("entities", [False, True])
def test_leaving_out_words_of_a_passage(entities):
    """The query stays; a class whose only word goes becomes impossible."""
    _, model = small_pair("vanilla", entities=entities)
    params, labels = initial(model), [0, 1, 2, 2, 0]
    passages, queries = [[3, 5, 4, 9, 2], [4, 3], [6, 3, 6, 5], [5], []], [[6, 2], [9], [], [3, 3, 4], [2]]
    batch = as_pairs(passages, queries, labels, [1.0] * 5, (7, 4))
    found = jax.device_get(jax.jit(lambda p, b: leave_one_out(model, p, b))(params, batch))
    exact = float64(params)

    def predict(passage, query):
        """Probabilities `[C]`; zeros where no class is possible."""
        named = {{3: 0, 4: 1, 9: 1, 5: 2}.get(word) for word in passage}
        possible = np.array([not entities or c in named for c in range(3)])
        logits = pairs.forward(exact, passage, query)[1]
        return softmax(np.where(possible, logits, -np.inf)) if possible.any() else np.zeros(3)

    for row, (passage, query) in enumerate(zip(passages, queries, strict=True)):
        check_left_out(found, row, passage, lambda ids, query=query: predict(ids, query), labels[row])


def equations(jaxpr):
    """Every equation of a program, those of its inner ones included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(getattr(inner, "jaxpr", inner))


def test_leaving_out_never_holds_every_class_of_every_word():
    """Of 5 passages of width 7 and 3 classes, no array is as large as `[B, T, C]`; the loop writes in place."""
    _, model = small_pair("vanilla", entities=True)
    batch = as_pairs([[3, 5, 4]] * 5, [[6, 2]] * 5, [0] * 5, [1.0] * 5, (7, 4))
    program = jax.make_jaxpr(lambda p, b: leave_one_out(model, p, b))(initial(model), batch).jaxpr
    shapes = {out.aval.shape for equation in equations(program) for out in equation.outvars}
    assert {(5, 7), (5, 6), (5, 3)} <= shapes  # texts, those that lack a word, and predictions
    assert not [shape for shape in shapes if {5, 3} <= set(shape) and {6, 7} & set(shape)]
    (loop,) = [e for e in program.eqns if e.primitive.name == "while"]
    inside = [(e.primitive.name, out.aval) for e in equations(loop.params["body_jaxpr"].jaxpr) for out in e.outvars]
    makers = [name for name, out in inside if out.shape == (5, 7) and out.dtype == jnp.float32 and name != "jit"]
    assert makers == ["dynamic_update_slice"] * 3


def test_runs_at_once_equal_runs_alone_and_a_broken_one_harms_no_other():
    """Two runs and one of NaN; the loop over words asks no run whether to go on."""
    _, model = small("vanilla", "average")
    runs = [initial(model), initial(model, 1), jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), initial(model))]
    batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), 6)

    def measure(params, batch):
        """Everything of one run."""
        return leave_one_out(model, params, batch), gradient_importances(model, params, batch)

    many, stacked = jax.vmap(measure, in_axes=(0, None)), jax.tree.map(lambda *x: jnp.stack(x), *runs)
    together = jax.jit(many)(stacked, batch)
    alone = jax.jit(measure)
    for run, params in enumerate(runs):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone(params, batch)), strict=True):
            np.testing.assert_allclose(a[run], b, atol=1e-6)
    left_out, gradients = together
    assert np.isnan(left_out.predicted[2]).all() and np.isnan(left_out.label[2]).all() and not left_out.right[2].any()
    assert np.isnan(left_out.change[2, 0, :5]).all() and not left_out.change[2, 0, 5:].any()
    for kind in (gradients.one_hot, gradients.attached, gradients.norm):
        assert np.isnan(kind[2, 0, :5]).all() and np.isfinite(kind[:2]).all()
    loops = [e for e in jax.make_jaxpr(many)(stacked, batch).eqns if e.primitive.name == "while"]
    assert [[e.primitive.name for e in loop.params["cond_jaxpr"].eqns] for loop in loops] == [["lt"]]
