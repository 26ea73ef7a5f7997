"""The training objective of pair models and of more than two classes, for every technique."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.allowed import READINGS
from flax_attnat.config import Config, ModelConfig
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model, absent_logit
from flax_attnat.models.pair import build_pair
from flax_attnat.models.single import build_single
from flax_attnat.objective import binary_cross_entropy, build_objective, example_losses
from flax_attnat.training.step import build_train_step, init_state
from flax_attnat.typing import Array, Batch
from tests.models.small import (
    CLASSES,
    TECHNIQUES,
    VOCABULARY,
    as_batch,
    as_pairs,
    hparams,
    initial,
    random_neighbours,
    random_pairs,
    relative_error,
    small,
    small_pair,
)

VARIANTS = [(t, "span") for t in TECHNIQUES] + [("attention_iat", r) for r in READINGS if r != "span"]


def train(config: Config, model: Model, batches: list[Batch], steps: int = 30) -> tuple[list[float], list[float]]:
    """Mean loss and mean norm of the perturbation of each step; every parameter stays finite."""
    state = init_state(jax.jit(model.init)(jax.random.key(0)), config.optimizer)
    step = jax.jit(build_train_step(build_objective(config, model), config.optimizer))
    values = hparams(epsilon=0.5, weight=1.0, learning_rate=3e-2, weight_decay=1e-5)
    losses, norms = [], []
    for number in range(steps):
        state, sums = step(state, batches[number % len(batches)], values, jax.random.key(1), random_neighbours())
        losses.append(float(sums.loss / sums.rows))
        norms.append(float(sums.delta_norm / sums.rows))
    assert int(state.step) == steps
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state.params))
    return losses, norms


@functools.cache
def questions() -> list[Batch]:
    """Passages in which word 9 + q is followed by the answer, word 3 + label, to the question q; four batches of 16."""
    rng = np.random.default_rng(0)
    passages, queries, labels = [], [], []
    for _ in range(64):
        answers = rng.integers(0, CLASSES, 2)
        pairs = [[9 + q, 3 + int(answers[q])] for q in rng.permutation(2)]
        asked = int(rng.integers(2))
        passages.append([7, *pairs[0], 8, *pairs[1]][int(rng.integers(2)) :])
        queries.append([9 + asked])
        labels.append(int(answers[asked]))
    parts = [slice(start, start + 16) for start in range(0, 64, 16)]
    return [as_pairs(passages[p], queries[p], labels[p], [1.0] * 16, (7, 4)) for p in parts]


@pytest.mark.parametrize(("encoder", "attention"), [("bilstm", "additive"), ("average", "scaled_dot")])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_30_steps_lower_the_loss_of_a_pair_model(technique: str, encoder: str, attention: str) -> None:
    losses, norms = train(*small_pair(technique, encoder, attention), questions())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    np.testing.assert_allclose(norms, 0.0 if technique == "vanilla" else 0.5, rtol=1e-5)


@pytest.mark.parametrize("technique", ["vanilla", "attention_iat", "word_at"])
def test_30_steps_lower_the_loss_of_a_single_model_of_three_classes(technique: str) -> None:
    """Which of the words 3, 4, 5 stands in the text."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 64)
    texts = [rng.permutation([3 + label, *rng.integers(6, VOCABULARY, 4)]) for label in labels]
    batches = [as_batch(texts[i : i + 16], labels[i : i + 16], [1.0] * 16, 6) for i in range(0, 64, 16)]
    config, _ = small(technique)
    model = build_single(config.model, EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY)), classes=CLASSES)
    losses, norms = train(config, model, batches)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    np.testing.assert_allclose(norms, 0.0 if technique == "vanilla" else 0.5, rtol=1e-5)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_empty_sequences_and_filler_rows_give_finite_gradients(technique: str) -> None:
    """Either sequence empty, both empty, and a row of weight 0, which changes nothing."""
    config, model = small_pair(technique, "average", entities=True, perturb="both")
    params, key = initial(model), jax.random.key(1)
    evaluate = jax.jit(jax.value_and_grad(build_objective(config, model), has_aux=True))
    passages, queries = [[3, 4, 9, 2], [5], [], []], [[6, 3], [], [2], []]
    batch = as_pairs(passages, queries, [1, 2, 0, 0], [1.0, 1.0, 1.0, 0.0], (7, 4))
    (_, sums), grads = evaluate(params, batch, hparams(), key, random_neighbours())
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((sums, grads)))
    filled = as_pairs([*passages[:3], [3, 4]], [*queries[:3], [7]], [1, 2, 0, 1], [1.0, 1.0, 1.0, 0.0], (7, 4))
    (_, other_sums), other = evaluate(params, filled, hparams(), key, random_neighbours())
    np.testing.assert_allclose(jnp.stack(other_sums), jnp.stack(sums), rtol=1e-5)
    assert relative_error(other, grads) < 1e-5


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_padding_of_either_sequence_changes_no_gradient(technique: str) -> None:
    config, model = small_pair(technique, "average", perturb="both")
    params, key = initial(model), jax.random.key(1)
    evaluate = jax.jit(jax.value_and_grad(build_objective(config, model), has_aux=True))
    rows = ([[3, 5, 4, 9], [2, 7]], [[6], [4, 8, 2]], [0, 2], [1.0, 1.0])
    narrow, wide = (as_pairs(*rows, widths, padding=11) for widths in ((4, 3), (9, 8)))
    (loss, sums), grads = evaluate(params, narrow, hparams(), key, random_neighbours())
    (same_loss, same_sums), same = evaluate(params, wide, hparams(), key, random_neighbours())
    np.testing.assert_allclose(same_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(jnp.stack(same_sums), jnp.stack(sums), rtol=1e-5)
    assert relative_error(same, grads) < 1e-5


def lowered(config: Config, model: Model, batch: Batch) -> str:
    """The program of the loss and its gradient, before compilation, with a key whose random numbers need no loop."""
    objective = jax.value_and_grad(build_objective(config, model), has_aux=True)
    params = jax.eval_shape(model.init, jax.random.key(0))
    key = jax.random.key(0, impl="unsafe_rbg")
    return jax.jit(objective).lower(params, batch, hparams(), key, random_neighbours()).as_text()


def loops(technique: str, reading: str = "span") -> int:
    """While loops of that program for a recurrent pair model."""
    return lowered(*small_pair(technique, reading=reading), random_pairs()).count("stablehlo.while")


def test_attention_techniques_run_both_recurrent_encoders_once() -> None:
    """Two encoders, forward and backward: four loops; word techniques twice as many, word_iat one over neighbours."""
    assert {variant: loops(*variant) for variant in VARIANTS if not variant[0].startswith("word_")} == dict.fromkeys(
        [variant for variant in VARIANTS if not variant[0].startswith("word_")], 4
    )
    assert loops("word_at") == 8
    assert loops("word_iat") == 9


@pytest.mark.parametrize(("technique", "reading"), VARIANTS)
def test_no_array_of_tokens_by_tokens_or_tokens_by_classes_is_made(technique: str, reading: str) -> None:
    """97 tokens of passage, 4 of query, 53 classes that words name: no two of these sizes meet in one array."""
    rng = np.random.default_rng(0)
    config = Config(technique=technique, reading=reading)
    sizes = ModelConfig(encoder="cnn", embedding_size=6, hidden_size=8)
    named = np.arange(VOCABULARY) * 4
    words = EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY))
    model = build_pair(sizes, words, classes=53, perturb="both", entity_classes=named)
    batch = as_pairs([rng.integers(2, VOCABULARY, 97)] * 2, [[2, 3, 4, 5]] * 2, [0, 4], [1.0] * 2, (97, 4))
    text = lowered(config, model, batch)
    assert "2x97x16xf32" in text and "2x101x6xf32" in text and "2x53xf32" in text
    for a, b in itertools.product((97, 101, 53), repeat=2):
        assert (a, b) == (53, 53) or f"x{a}x{b}x" not in text, (a, b)


def test_losses_of_several_logits_are_softmax_cross_entropy_and_of_one_binary() -> None:
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    exact = np.log(np.exp(logits).sum(-1)) - logits[np.arange(6), labels]
    as_float32 = jnp.asarray(logits, jnp.float32)
    np.testing.assert_allclose(example_losses(as_float32, jnp.asarray(labels), 7.0), exact, rtol=1e-5)
    binary = jnp.asarray(labels % 2)
    np.testing.assert_array_equal(
        example_losses(as_float32[:, :1], binary, 1.7), binary_cross_entropy(as_float32[:, :1], binary, 1.7)
    )

    def total(logits: Array) -> Array:
        """Sum of losses for label 0."""
        return jnp.sum(example_losses(logits, jnp.zeros(2, jnp.int32)))

    extreme = jnp.array([[-1e4, 0.0, absent_logit(jnp.float32)], [1e4, 0.0, absent_logit(jnp.float32)]])
    value, slope = jax.value_and_grad(total)(extreme)
    np.testing.assert_allclose(value, 1e4, rtol=1e-6)
    np.testing.assert_allclose(slope, [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], atol=1e-6)
    assert not np.isfinite(example_losses(jnp.array([[jnp.nan, 0.0]]), jnp.zeros(1, jnp.int32)))[0]
