"""Properties of the training objective that hold for every technique."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.allowed import READINGS
from flax_attnat.config import Config, ModelConfig
from flax_attnat.data import planted
from flax_attnat.data.vocabulary import encode, fit_vocabulary
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.models.single import build_single
from flax_attnat.objective import Hparams, Objective, StepSums, binary_cross_entropy, build_objective
from flax_attnat.perturbation.attention import attention_at, attention_iat
from flax_attnat.perturbation.word import nearest_neighbours, word_at, word_iat
from flax_attnat.training.step import build_train_step, init_state
from flax_attnat.typing import Array, Batch, Params
from tests.models.small import (
    ADVERSARIAL,
    ATTENTIONS,
    ENCODERS,
    TECHNIQUES,
    VOCABULARY,
    as_batch,
    hparams,
    initial,
    random_batch,
    random_neighbours,
    relative_error,
    small,
)

POS_WEIGHT = 1.7
GRID = list(itertools.product(TECHNIQUES, ENCODERS, ATTENTIONS))

Evaluate = Callable[..., tuple[tuple[Array, StepSums], Params]]


@functools.cache
def value_and_grad(config: Config, model: Model) -> Evaluate:
    """`(params, batch, hparams, key) -> ((loss, sums), gradients)`, compiled."""
    objective = jax.value_and_grad(build_objective(config, model, POS_WEIGHT), has_aux=True)
    return functools.partial(jax.jit(objective), neighbours=random_neighbours())


@pytest.mark.parametrize("technique", ADVERSARIAL)
def test_lambda_0_is_vanilla_and_epsilon_0_counts_the_clean_loss_twice(technique: str) -> None:
    """Exact operation by operation: the second term adds zeros, and a factor of two rounds nothing.

    Under jit, lambda = 0 may differ in the last bits (another program): the next test holds it to 2e-6 of a leaf.
    """
    config, model = small(technique, "average")
    params, batch, key = initial(model), random_batch(), jax.random.key(1)
    clean = build_objective(small("vanilla", "average")[0], model, POS_WEIGHT)
    by_operation = build_objective(config, model, POS_WEIGHT)

    def gradient(objective: Objective, values: Hparams) -> Params:
        """Gradient without jit."""
        return jax.grad(objective, has_aux=True)(params, batch, values, key, random_neighbours())[0]

    vanilla = gradient(clean, hparams())
    jax.tree.map(np.testing.assert_array_equal, gradient(by_operation, hparams(epsilon=0.8, weight=0.0)), vanilla)
    doubled = gradient(by_operation, hparams(epsilon=0.0, weight=1.0))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 2 * b), doubled, vanilla)


@pytest.mark.parametrize("technique", ADVERSARIAL)
def test_the_same_under_jit_with_the_recurrent_encoder(technique: str) -> None:
    config, model = small(technique)
    params, batch, key = initial(model), random_batch(), jax.random.key(1)
    evaluate = value_and_grad(config, model)
    _, vanilla = value_and_grad(small("vanilla")[0], model)(params, batch, hparams(), key)
    # Another program than vanilla, fused otherwise: equal up to the last bits.
    for epsilon, weight, factor in ((0.8, 0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 0.3, 1.3)):
        _, grads = evaluate(params, batch, hparams(epsilon=epsilon, weight=weight), key)
        assert relative_error(grads, jax.tree.map(lambda g, factor=factor: factor * g, vanilla)) < 2e-6
    _, perturbed = evaluate(params, batch, hparams(epsilon=0.8, weight=0.3), key)
    assert relative_error(perturbed, grads) > 1e-3


@pytest.mark.parametrize(("technique", "encoder", "attention"), GRID)
def test_padding_and_the_rest_of_the_batch_change_nothing(technique: str, encoder: str, attention: str) -> None:
    """One row alone, against the same row among rows of weight 0, with padding of any content.

    Alone it stands without padding or, to compile half as much, for scaled dot above rows that are empty.
    """
    config, model = small(technique, encoder, attention)
    params, key, evaluate = initial(model), jax.random.key(1), value_and_grad(config, model)
    text = [3, 5, 4, 9, 5]
    if attention == "additive":
        alone = as_batch([text], [1], [1.0], 5)
    else:
        alone = as_batch([text, [], [], []], [1, 0, 0, 0], [1.0, 0.0, 0.0, 0.0], 7)
    (loss, sums), grads = evaluate(params, alone, hparams(), key)
    others: tuple[list[int], ...] = ([2, 7, 11, 6, 3, 2], [8], [])
    among = as_batch([text, *others], [1, 0, 1, 1], [1.0, 0.0, 0.0, 0.0], 7, padding=12)
    (same_loss, same_sums), same_grads = evaluate(params, among, hparams(), key)
    np.testing.assert_allclose(same_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(jnp.stack(same_sums), jnp.stack(sums), rtol=1e-5)
    assert relative_error(same_grads, grads) < 1e-5


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_empty_rows_and_rows_of_weight_0_give_finite_gradients(technique: str) -> None:
    """A filler row adds nothing even where it is empty; an empty row that counts has the loss of the bias alone."""
    config, model = small(technique)
    params, key, evaluate = initial(model), jax.random.key(1), value_and_grad(config, model)
    batch = as_batch([[3, 5, 4], [], [6], []], [1, 1, 0, 0], [1.0, 1.0, 0.0, 0.0], 7)
    (_, sums), grads = evaluate(params, batch, hparams(), key)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    (_, without), _ = evaluate(params, batch._replace(weight=jnp.array([1.0, 0.0, 0.0, 0.0])), hparams(), key)
    bias = params["output"]["bias"]
    alone = float(binary_cross_entropy(bias[None, :], jnp.array([1]), POS_WEIGHT)[0])
    np.testing.assert_allclose(float(sums.clean - without.clean), alone, rtol=1e-5)
    assert float(sums.delta_norm) == float(without.delta_norm)
    (nothing, sums), grads = evaluate(params, batch._replace(weight=jnp.zeros(4)), hparams(), key)
    assert float(nothing) == 0
    assert all(not np.any(x) for x in jax.tree.leaves((grads, sums)))


@functools.cache
def learnable() -> tuple[list[Batch], np.ndarray]:
    """Four batches of 16 reviews of the data set `planted`, which a model can learn by heart, and word frequencies."""
    examples = planted.generate()["train"][:64]
    words = [example.text.split() for example in examples]
    vocabulary = fit_vocabulary(words)
    texts = [encode(vocabulary, text) for text in words]
    labels = [planted.LABEL_NAMES.index(example.label) for example in examples]
    width = max(len(text) for text in texts)
    batches = [as_batch(texts[i : i + 16], labels[i : i + 16], [1.0] * 16, width) for i in range(0, 64, 16)]
    return batches, vocabulary.counts / vocabulary.counts.sum()


@functools.cache
def learner(config: ModelConfig, normalise: bool) -> tuple[Model, Params]:
    """A model over the words of those reviews, and its parameters."""
    model = build_single(config, EmbeddingInit(learnable()[1]), normalise=normalise)
    return model, jax.jit(model.init)(jax.random.key(0))


@pytest.mark.parametrize(("technique", "encoder", "attention"), GRID)
def test_30_steps_lower_the_loss(technique: str, encoder: str, attention: str) -> None:
    batches, frequencies = learnable()
    config, _ = small(technique, encoder, attention)
    model, params = learner(config.model, technique.startswith("word_"))
    state, neighbours = init_state(params, config.optimizer), None
    if technique == "word_iat":
        neighbours = nearest_neighbours(model.table(params), 4, valid=jnp.asarray(frequencies > 0))
    step = jax.jit(build_train_step(build_objective(config, model), config.optimizer))
    losses, norms = [], []
    for number in range(30):
        values = hparams(epsilon=0.5, weight=1.0, learning_rate=3e-2, weight_decay=1e-5)
        state, sums = step(state, batches[number % 4], values, jax.random.key(1), neighbours)
        losses.append(float(sums.loss / sums.rows))
        norms.append(float(sums.delta_norm / sums.rows))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert int(state.step) == 30
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state.params))
    np.testing.assert_allclose(norms, 0.0 if technique == "vanilla" else 0.5, rtol=1e-5)


def lowered(config: Config, model: Model, batch: Batch, key: Array) -> jax.stages.Lowered:
    """The program of the loss and its gradient, before compilation."""
    objective = jax.value_and_grad(build_objective(config, model, POS_WEIGHT), has_aux=True)
    params = jax.eval_shape(model.init, jax.random.key(0))
    return jax.jit(objective).lower(params, batch, hparams(), key, random_neighbours())


def loops(technique: str, reading: str = "span") -> int:
    """While loops of that program, with a key whose random numbers need none."""
    key = jax.random.key(0, impl="unsafe_rbg")
    return lowered(*small(technique, reading=reading), random_batch(), key).as_text().count("stablehlo.while")


def test_attention_techniques_run_the_recurrent_encoder_once() -> None:
    """Two loops, forward and backward; word techniques twice as many, and word_iat one over the neighbours."""
    assert loops("vanilla") == loops("attention_rp") == loops("attention_at") == 2
    assert {reading: loops("attention_iat", reading) for reading in READINGS} == dict.fromkeys(READINGS, 2)
    assert loops("word_at") == 4
    assert loops("word_iat") == 5


def test_attention_techniques_cost_the_arithmetic_of_vanilla() -> None:
    batch, key = random_batch(lengths=(16, 30, 32, 9), width=32), jax.random.key(0)

    def flops(technique: str) -> Any:
        """Floating-point operations of one gradient with an encoder of ordinary width."""
        config, _ = small(technique)
        sizes = ModelConfig(encoder="cnn", embedding_size=64, hidden_size=32)
        model = build_single(sizes, EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY)))
        return lowered(config, model, batch, key).cost_analysis()["flops"]  # type: ignore[index]

    vanilla = flops("vanilla")
    ratios = {technique: flops(technique) / vanilla for technique in ADVERSARIAL}
    assert all(ratios[name] < 1.05 for name in ("attention_rp", "attention_at", "attention_iat"))
    assert all(ratios[name] > 1.8 for name in ("word_at", "word_iat"))


@pytest.mark.parametrize("technique", ADVERSARIAL)
def test_one_dropout_mask_serves_every_pass_of_a_step(technique: str) -> None:
    config, model = small(technique, dropout=0.5)
    params, batch, evaluate = initial(model), random_batch(lengths=(6, 2, 4, 5, 7, 3)), value_and_grad(config, model)
    sums = [evaluate(params, batch, hparams(epsilon=0.0), jax.random.key(seed))[0][1] for seed in (0, 0, 1)]
    assert all(float(s.adversarial) == float(s.clean) for s in sums)
    assert float(sums[0].clean) == float(sums[1].clean) != float(sums[2].clean)
    if technique != "attention_rp":
        # To first order every row's loss rises, and only if the gradient was taken under the mask of the two losses.
        for seed in range(5):
            (_, near), _ = evaluate(params, batch, hparams(epsilon=1e-2), jax.random.key(seed))
            assert float(near.raised) == float(near.rows) == 6


def test_without_a_rate_or_without_a_key_nothing_is_dropped() -> None:
    _, model = small("vanilla", dropout=0.5)
    _, plain = small("vanilla", dropout=0.0)
    params, batch = initial(model), random_batch()
    key = jax.random.key(0)

    @functools.partial(jax.jit, static_argnums=0)
    def logits(model: Model, key: Array | None) -> Array:
        """Logits `[B, 1]`."""
        encoded = model.encode(params, model.embed(params, batch, key), batch)
        return model.classify(params, encoded, model.score(params, encoded), key)

    np.testing.assert_array_equal(logits(model, None), logits(plain, key))
    np.testing.assert_array_equal(logits(plain, None), logits(plain, key))
    assert not np.array_equal(logits(model, key), logits(model, None))


@pytest.mark.parametrize("technique", ["attention_at", "attention_iat", "word_at", "word_iat"])
def test_gradient_treats_the_perturbation_as_a_constant(technique: str) -> None:
    """Against `L(s) + lambda L(s + r)` written out, with r computed beforehand and fed in as data."""
    config, model = small(technique, "average")
    params, batch, values, ids = initial(model), random_batch(), hparams(), random_neighbours()

    def losses(params: Params, delta: Array) -> Array:
        """Losses `[B]` with delta on the scores or on the word vectors."""
        words = model.embed(params, batch)
        encoded = model.encode(params, words + delta if technique.startswith("word_") else words, batch)
        scores = model.score(params, encoded)
        logits = model.classify(params, encoded, scores if technique.startswith("word_") else scores + delta)
        return binary_cross_entropy(logits, batch.label, POS_WEIGHT)

    def perturbation(params: Params) -> Array:
        """The delta at these parameters."""
        loss_fn = functools.partial(losses, params)
        words = model.embed(params, batch)
        encoded = model.encode(params, words, batch)
        scores = model.score(params, encoded)
        if technique == "attention_at":
            return attention_at(loss_fn, scores, encoded.mask, values.epsilon)
        if technique == "attention_iat":
            return attention_iat(loss_fn, scores, encoded.mask, values.epsilon)
        if technique == "word_at":
            return word_at(loss_fn, words, encoded.mask, values.epsilon)
        return word_iat(loss_fn, words, model.table(params), ids[batch.tokens], encoded.mask, values.epsilon)

    @jax.jit
    def written_out(params: Params, delta: Array) -> Params:
        """Gradient with delta as data."""
        zero = jnp.zeros_like(delta)
        return jax.grad(lambda p: jnp.mean(losses(p, zero) + values.adversarial_weight * losses(p, delta)))(params)

    exact = written_out(params, jax.jit(perturbation)(params))
    _, ours = value_and_grad(config, model)(params, batch, values, jax.random.key(0))
    assert relative_error(ours, exact) < 1e-5


def test_binary_cross_entropy_equals_its_formula_and_stays_finite() -> None:
    logits, labels = np.array([-3.0, -0.2, 0.0, 0.7, 4.0]), np.array([1, 0, 1, 0, 1])
    p = 1 / (1 + np.exp(-logits))
    expected = -(1.7 * labels * np.log(p) + (1 - labels) * np.log(1 - p))
    ours = binary_cross_entropy(jnp.asarray(logits[:, None], jnp.float32), jnp.asarray(labels), 1.7)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    extreme = jnp.array([[-1e4], [1e4]])
    value, slope = jax.value_and_grad(lambda z: jnp.sum(binary_cross_entropy(z, jnp.array([1, 0]), 1.7)))(extreme)
    np.testing.assert_allclose(value, 2.7e4, rtol=1e-6)
    np.testing.assert_allclose(slope, [[-1.7], [1.0]], rtol=1e-6)
