"""The pair classifier against float64 NumPy, what padding may not do to it, and classes that are impossible."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.config import ModelConfig
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model, absent_logit, probabilities
from flax_attnat.models.pair import build_pair
from flax_attnat.objective import build_objective, example_losses
from flax_attnat.typing import Array, Batch, Params
from tests.models import reference
from tests.models.small import (
    ATTENTIONS,
    ENCODERS,
    VOCABULARY,
    as_pairs,
    hparams,
    initial,
    random_neighbours,
    random_pairs,
    relative_error,
    small_pair,
)
from tests.training.reference import float64, softmax, tree_map

PASSAGES: list[list[int]] = [[3, 5, 4, 9, 2, 6], [7], [2, 2, 8, 4], []]
QUERIES: list[list[int]] = [[6, 2, 4], [9], [], [5, 3]]
LABELS = [2, 0, 1, 1]
BATCH = as_pairs(PASSAGES, QUERIES, LABELS, [1.0] * 4, (7, 4))
BOTH = pytest.mark.parametrize(("encoder", "attention"), [(e, a) for e in ENCODERS for a in ATTENTIONS])


@functools.partial(jax.jit, static_argnums=0)
def predict(model: Model, params: Params, batch: Batch, key: Array | None = None) -> tuple[Array, Array]:
    """Attention scores `[B, T]` and logits `[B, C]`."""
    encoded = model.encode(params, model.embed(params, batch, key), batch)
    scores = model.score(params, encoded)
    return scores, model.classify(params, encoded, scores, key)


@BOTH
def test_scores_and_logits_equal_float64(encoder: str, attention: str) -> None:
    """On ordinary pairs, one word each, an empty query (its state is zero) and an empty passage (so is the context)."""
    _, model = small_pair("vanilla", encoder, attention)
    params = initial(model)
    assert (params["attention"] == {}) == (attention == "scaled_dot")
    scores, logits = predict(model, params, BATCH)
    for row, pair in enumerate(zip(PASSAGES, QUERIES, strict=True)):
        exact_scores, exact_logits = reference.forward(float64(params), *pair)
        np.testing.assert_allclose(scores[row, : len(pair[0])], exact_scores, atol=1e-5)
        np.testing.assert_allclose(logits[row], exact_logits, atol=1e-5)


@BOTH
def test_gradient_is_the_finite_difference_of_the_float64_loss(encoder: str, attention: str) -> None:
    """Along five random directions in the space of all parameters."""
    config, model = small_pair("vanilla", encoder, attention)
    params, rows = initial(model), list(zip(PASSAGES, QUERIES, LABELS, strict=True))
    objective = jax.jit(jax.value_and_grad(build_objective(config, model), has_aux=True))
    (loss, _), grads = objective(params, BATCH, hparams(), jax.random.key(0))
    exact = float64(params)
    np.testing.assert_allclose(loss, reference.loss(exact, rows), rtol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(5):
        direction = tree_map(lambda p: rng.normal(size=p.shape), exact)
        h = 1e-6
        sides = [
            reference.loss(tree_map(lambda p, d, step=step: p + step * d, exact, direction), rows) for step in (h, -h)
        ]
        dots = tree_map(lambda g, d: np.sum(np.asarray(g, np.float64) * d), grads, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(dots)), (sides[0] - sides[1]) / (2 * h), rtol=1e-4, atol=1e-5)


@BOTH
def test_padding_of_either_sequence_and_the_other_rows_change_nothing(encoder: str, attention: str) -> None:
    """Any words on wider padding of both; and each row alone."""
    _, model = small_pair("vanilla", encoder, attention)
    params = initial(model)
    _, expected = predict(model, params, BATCH)
    wide = as_pairs(PASSAGES, QUERIES, LABELS, [1.0] * 4, (12, 8), padding=11)
    np.testing.assert_allclose(predict(model, params, wide)[1], expected, rtol=1e-5, atol=1e-6)
    for row in range(4):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], BATCH)
        np.testing.assert_allclose(predict(model, params, alone)[1], expected[row : row + 1], rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing_under_dropout() -> None:
    _, model = small_pair("vanilla", dropout=0.5)
    params, key = initial(model), jax.random.key(3)
    _, expected = predict(model, params, BATCH, key)
    assert not np.allclose(expected, predict(model, params, BATCH)[1])
    for widths in ((12, 4), (7, 8)):
        wide = as_pairs(PASSAGES, QUERIES, LABELS, [1.0] * 4, widths, padding=11)
        np.testing.assert_allclose(predict(model, params, wide, key)[1], expected, rtol=1e-5, atol=1e-6)
    # Passage and query have masks of their own: equal words at equal places are not dropped alike.
    words = model.embed(params, as_pairs([[2, 3, 4]], [[2, 3, 4]], [0], [1.0], (3, 3)), key)
    assert not np.array_equal(words[0, :3] == 0, words[0, 3:] == 0)


@BOTH
def test_the_padding_vector_is_never_read(encoder: str, attention: str) -> None:
    """NaN as the vector of padding leaves logits and gradients as they are, and gets no gradient itself."""
    _, model = small_pair("vanilla", encoder, attention)
    params = initial(model)

    @jax.jit
    def evaluate(params: Params) -> Any:
        """Sum of the logits and its gradient."""
        return jax.value_and_grad(lambda p: jnp.sum(predict(model, p, BATCH)[1]))(params)

    plain = evaluate(params)
    table = params["embedding"]["table"]
    dirty = evaluate(params | {"embedding": {"table": table.at[0].set(jnp.nan)}})
    jax.tree.map(np.testing.assert_array_equal, dirty, plain)
    assert not np.any(plain[1]["embedding"]["table"][0])


def entity_loss() -> tuple[Params, Callable[[Params, Batch], Any]]:
    """Parameters of a model with entities, and `(losses [B], probabilities [B, C])` of a batch with summed gradient."""
    _, model = small_pair("vanilla", "average", entities=True)

    def total(params: Params, batch: Batch) -> tuple[Array, tuple[Array, Array]]:
        """Sum of the losses; losses and probabilities."""
        logits = predict(model, params, batch)[1]
        losses = example_losses(logits, batch.label)
        return jnp.sum(losses), (losses, probabilities(logits))

    return initial(model), jax.jit(jax.grad(total, has_aux=True))


def test_a_class_that_the_passage_does_not_name_has_probability_0_and_no_gradient() -> None:
    """Words 3, 4, 9 and 5 name classes 0, 1, 1 and 2; on padding and in the query they name nothing."""
    params, evaluate = entity_loss()
    _, unlimited = small_pair("vanilla", "average")
    passages = [[4, 2, 9], [3, 8, 4], [2, 5]]
    batch = as_pairs(passages, [[3], [5], [4]], [1, 0, 2], [1.0] * 3, (5, 4), padding=5)
    grads, (losses, found) = evaluate(params, batch)
    possible = np.array([[False, True, False], [True, True, False], [False, False, True]])
    np.testing.assert_array_equal(found > 0, possible)
    _, logits = predict(unlimited, params, batch)
    for row in range(3):
        exact = softmax(np.asarray(logits[row], np.float64)[possible[row]])
        np.testing.assert_allclose(found[row][possible[row]], exact, rtol=1e-5)
        np.testing.assert_allclose(losses[row], -math.log(found[row, batch.label[row]]), rtol=1e-5, atol=1e-6)
    two = jax.tree.map(lambda x: x[:2], batch)
    outer = evaluate(params, two)[0]["output"]["outer"]
    assert not np.any(outer["kernel"][:, 2]) and not np.any(outer["bias"][2])
    assert np.any(outer["kernel"][:, 1])
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(grads))


def test_a_row_whose_label_is_impossible_has_a_finite_loss_and_no_gradient() -> None:
    """A filler row names no class at all; a passage may name others than the label."""
    params, evaluate = entity_loss()
    batch = as_pairs([[], [2, 7], [3, 4]], [[], [3], [6]], [0, 2, 2], [0.0, 1.0, 1.0], (4, 4))
    grads, (losses, found) = evaluate(params, batch)
    np.testing.assert_allclose(losses, -math.log(np.finfo(np.float32).tiny), rtol=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))
    np.testing.assert_allclose(jnp.sum(found, axis=-1), [0, 0, 1], rtol=1e-6)


def test_probabilities_of_one_logit_are_both_exact_and_nan_stays_nan() -> None:
    """The less probable class keeps its digits, where 1 - p would have none."""
    z = np.array([-30.0, -0.3, 0.0, 2.0, 30.0])
    found = probabilities(jnp.asarray(z[:, None], jnp.float32))
    np.testing.assert_allclose(found, np.stack([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))], axis=-1), rtol=1e-6)
    logits = jnp.array([[jnp.nan, 0.0, 1.0], [absent_logit(jnp.float32), 0.0, 0.0]])
    assert np.isnan(probabilities(logits)[0]).all()
    np.testing.assert_array_equal(probabilities(logits)[1], [0.0, 0.5, 0.5])


def test_what_a_word_technique_perturbs() -> None:
    """Words of passage, then query; real words of the passage alone, or of both."""
    ids = [[3, 5, 0, 6, 0, 0, 0], [0, 0, 0, 2, 4, 0, 0]]
    real = [[True, True, False, True, False, False, False], [False, False, False, True, True, False, False]]
    batch = as_pairs([[3, 5], []], [[6], [2, 4]], [0, 1], [1.0] * 2, (3, 4))
    for perturb in ("passage", "both"):
        _, model = small_pair("word_at", perturb=perturb)
        found, mask = model.tokens(batch)
        np.testing.assert_array_equal(found, ids)
        np.testing.assert_array_equal(mask, np.array(real) & ((np.arange(7) < 3) | (perturb == "both")))
        table = model.table(initial(model))
        np.testing.assert_array_equal(model.embed(initial(model), batch), table[found])


@pytest.mark.parametrize("perturb", ["passage", "both"])
@pytest.mark.parametrize("technique", ["word_at", "word_iat"])
def test_the_query_is_perturbed_only_if_asked(technique: str, perturb: str) -> None:
    """What `encode` is given besides the plain words: a delta of norm epsilon per row, zero on padding.

    With one neighbour per word, word_iat moves each word of either sequence along the line to its own neighbour.
    """
    config, model = small_pair(technique, "average", perturb=perturb)
    params, batch, neighbours = initial(model), random_pairs(), random_neighbours(k=1)
    given: list[np.ndarray] = []

    def encode(params: Params, words: Array, batch: Batch) -> Any:
        """As the model's; keeps what it is given, while it is differentiated too."""
        jax.debug.callback(lambda values: given.append(np.asarray(values)), words)
        return model.encode(params, words, batch)

    objective = build_objective(config, model._replace(encode=encode))
    objective(params, batch, hparams(epsilon=0.8), jax.random.key(0), neighbours)
    jax.effects_barrier()
    deltas = np.stack([np.asarray(words - model.embed(params, batch)) for words in given])
    moved = [np.abs(delta).max(-1) > 0 for delta in deltas if delta.any()]
    assert len(moved) == 1
    real = np.asarray(small_pair(technique, "average", perturb="both")[1].tokens(batch)[1])
    np.testing.assert_array_equal(moved[0], real & ((np.arange(real.shape[1]) < 7) | (perturb == "both")))
    np.testing.assert_allclose(np.linalg.norm(deltas[-1], axis=(1, 2)), 0.8, rtol=1e-4)
    if technique == "word_iat":
        near = model.table(params)[neighbours[model.tokens(batch)[0], 0]] - model.embed(params, batch)
        along, delta = np.asarray(near)[moved[0]], deltas[-1][moved[0]]
        cosine = np.sum(along * delta, axis=-1) / np.linalg.norm(along, axis=-1) / np.linalg.norm(delta, axis=-1)
        np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-3)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_initial_parameters_are_those_of_their_seed_and_lie_within_their_bounds(attention: str) -> None:
    """Each layer within one over the root of its fan-in; passage and query start apart; also under jit and vmap."""
    config = ModelConfig(attention=attention, embedding_size=30, hidden_size=64)
    model = build_pair(config, EmbeddingInit(np.full(20, 1 / 20)), classes=3)
    together = jax.jit(jax.vmap(lambda seed: model.init(jax.random.key(seed))))(jnp.array([0, 1]))
    params = jax.jit(model.init)(jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), together, params)
    groups: dict[str, tuple[Params, int]] = {
        f"output/{name}": (params["output"][name], 128) for name in params["output"]
    }
    groups |= {f"attention/{name}": (params["attention"][name], 128) for name in params["attention"]}
    groups = {name: (layer, 64 if name.endswith("outer") else size) for name, (layer, size) in groups.items()}
    groups["encoder"] = (params["encoder"], 64)
    assert len(groups) == (7 if attention == "additive" else 4)
    for layer, fan_in in groups.values():
        largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(layer)) * fan_in**0.5
        assert 0.7 < largest <= 1
    kernels = [params["encoder"][name]["input_kernel"] for name in ("passage", "query")]
    assert relative_error(*kernels) > 0.5


def test_a_batch_without_queries_is_refused() -> None:
    _, model = small_pair("vanilla")
    with pytest.raises(ValueError, match="this batch has none"):
        model.embed(initial(model), BATCH._replace(query=None))


def test_every_id_of_the_vocabulary_may_stand_in_a_query() -> None:
    """The table is shared: a word moves the logits from the query as from the passage."""
    _, model = small_pair("vanilla", "average")
    params = initial(model)
    queries = [[word] for word in range(1, VOCABULARY)]
    batch = as_pairs([[2, 3]] * len(queries), queries, [0] * len(queries), [1.0] * len(queries), (2, 4))
    _, logits = predict(model, params, batch)
    assert len(np.unique(np.asarray(logits), axis=0)) == len(queries)
