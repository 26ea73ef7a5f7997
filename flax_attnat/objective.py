"""Technique name -> objective: the one place that knows all techniques.

Attention techniques encode once: the perturbation and both losses vary only the readout. Word techniques encode for
every word vector they try.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flax_attnat.allowed import PLAIN
from flax_attnat.config import Config, OptimizerConfig
from flax_attnat.models.model import Model, absent_logit
from flax_attnat.perturbation.attention import attention_at, attention_iat, random_perturbation
from flax_attnat.perturbation.loss import Aux, adversarial_loss, weighed
from flax_attnat.perturbation.word import word_at, word_iat
from flax_attnat.typing import Array, Batch, Encoded, LossFn, Params


class Hparams(NamedTuple):
    """What may differ between the runs of a population; traced, so that a new value compiles nothing.

    Attributes:
      epsilon: norm of the perturbation, scalar (or `[R]` outside vmap; so for all).
      adversarial_weight: lambda.
      learning_rate: step size.
      weight_decay: L2 coefficient.
    """

    epsilon: Array
    adversarial_weight: Array
    learning_rate: Array
    weight_decay: Array


class StepSums(NamedTuple):
    """Sums over the real rows of a batch, scalars; divide by `rows` for means.

    Attributes:
      rows: real rows.
      loss: the objective.
      clean: loss without perturbation.
      adversarial: loss under it.
      delta_norm: L2 norm of the perturbation.
      raised: rows whose loss the perturbation raised.
    """

    rows: Array
    loss: Array
    clean: Array
    adversarial: Array
    delta_norm: Array
    raised: Array


Objective = Callable[[Params, Batch, Hparams, Array, Array | None], tuple[Array, StepSums]]
"""`objective(params, batch, hparams, key, neighbours) -> (mean loss over real rows, StepSums)`."""

Perturb = Callable[[LossFn, Array, Array], Array]
"""`perturb(loss_fn, like, mask) -> delta`, with epsilon and whatever else it needs closed over."""


def binary_cross_entropy(logits: Array, labels: Array, pos_weight: float | Array = 1.0) -> Array:
    """`-(w y log p + (1 - y) log(1 - p))` with `p = sigmoid(z)`: losses `[B]` of logits `[B, 1]` and labels `[B]`."""
    z, y = logits[:, 0], labels.astype(logits.dtype)
    return -(pos_weight * y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z))


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """`-log softmax(z)_y`: losses `[B]` of logits `[B, C]` and labels `[B]`.

    A row whose label is impossible has the loss of the least normal probability, and no gradient.
    """
    places = labels[:, None]
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), places, axis=-1)[:, 0]
    absent = jnp.take_along_axis(logits, places, axis=-1)[:, 0] == absent_logit(logits.dtype)
    return -jnp.where(absent, math.log(jnp.finfo(logits.dtype).tiny), log_probability)


def example_losses(logits: Array, labels: Array, pos_weight: float | Array = 1.0) -> Array:
    """Losses `[B]`: binary cross-entropy of logits `[B, 1]`, where alone `pos_weight` counts, else softmax's."""
    if logits.shape[-1] == 1:
        return binary_cross_entropy(logits, labels, pos_weight)
    return softmax_cross_entropy(logits, labels)


def build_objective(config: Config, model: Model, pos_weight: float = 1.0) -> Objective:
    """The objective of `config.technique`: `L(0) + lambda L(r)`, averaged over the real rows of the batch.

    Args:
      config: technique, reading, options of the word techniques.
      model: the four functions.
      pos_weight: weight of the positive class, `n_neg / n_pos` of the training split; read where there is one logit.

    Returns:
      A pure function of parameters, batch, hyper-parameters, a key (consumed) and, for word_iat, neighbours `[V, K]`.

    Source: Kitada & Iyatomi 2021, section 3; the sources of the baselines stand with their perturbations.
    """
    build = _word_objective if config.technique.startswith("word_") else _attention_objective
    return build(config, model, pos_weight)


def _attention_objective(config: Config, model: Model, pos_weight: float) -> Objective:
    """The objective of the plain techniques and of those that perturb scores: the encoder runs once."""
    name = config.technique

    def objective(
        params: Params, batch: Batch, hparams: Hparams, key: Array, neighbours: Array | None = None
    ) -> tuple[Array, StepSums]:
        """Mean loss over real rows (scalar), and the sums it came from."""
        dropout_key, noise_key = (jax.random.fold_in(key, stream) for stream in (0, 1))
        epsilon = hparams.epsilon

        def perturb(loss_fn: LossFn, scores: Array, mask: Array) -> Array:
            """Perturbation of the scores `[B, T]`."""
            if name == "attention_rp":
                return random_perturbation(noise_key, scores, mask, epsilon)
            if name == "attention_at":
                return attention_at(loss_fn, scores, mask, epsilon)
            return attention_iat(loss_fn, scores, mask, epsilon, reading=config.reading)

        parts = _attention_parts(model, params, batch, dropout_key, pos_weight)
        if name in PLAIN:
            losses, aux = _plain_losses(parts)
        else:
            losses, aux = _adversarial_losses(parts, perturb, hparams.adversarial_weight)
        return _mean(losses, aux, batch.weight)

    return objective


def _word_objective(config: Config, model: Model, pos_weight: float) -> Objective:
    """The objective of the techniques that perturb words: the encoder runs, forward and back, once for each loss.

    One differentiation of the clean loss gives its gradient to the parameters and the one to the words, which the
    perturbation follows. JAX would differentiate the objective as a whole and run the encoder three times, so its
    gradient is defined here; it is computed with the value.
    """
    value_and_gradient = functools.partial(_word_gradient, config, model, pos_weight)

    @jax.custom_vjp
    def objective(
        params: Params, batch: Batch, hparams: Hparams, key: Array, neighbours: Array | None = None
    ) -> tuple[Array, StepSums]:
        """Mean loss over real rows (scalar), and the sums it came from."""
        return value_and_gradient(params, batch, hparams, key, neighbours)[0]

    def backward(gradient: Params, cotangents: tuple[Array, StepSums]) -> tuple[Params, None, None, None, None]:
        """The gradient to the parameters; the sums are constants."""
        return jax.tree.map(lambda g: cotangents[0] * g, gradient), None, None, None, None

    objective.defvjp(value_and_gradient, backward)
    return objective


def _word_gradient(
    config: Config,
    model: Model,
    pos_weight: float,
    params: Params,
    batch: Batch,
    hparams: Hparams,
    key: Array,
    neighbours: Array | None,
) -> tuple[tuple[Array, StepSums], Params]:
    """What the objective of a word technique returns, and its gradient to the parameters."""
    dropout_key, weight = jax.random.fold_in(key, 0), hparams.adversarial_weight
    words, to_table = jax.vjp(lambda p: model.embed(p, batch, dropout_key), params)
    others = {name: group for name, group in params.items() if name != "embedding"}

    def mean_loss(others: Params, words: Array) -> tuple[Array, Array]:
        """Mean over real rows, and losses `[B]`, of word vectors `[B, W, E]`."""
        losses = _word_losses(model, others, words, batch, dropout_key, pos_weight)
        return jnp.sum(batch.weight * losses) / jnp.maximum(jnp.sum(batch.weight), 1), losses

    differentiate = jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True)
    (_, clean), at_clean = differentiate(others, words)
    delta = _word_delta(config, model, params, batch, hparams.epsilon, words, at_clean[1], neighbours)
    (_, adversarial), at_moved = differentiate(others, words + delta)
    of_others, of_words = jax.tree.map(lambda a, b: a + weight * b, at_clean, at_moved)
    gradient = {**of_others, "embedding": to_table(of_words)[0]["embedding"]}
    return _mean(*weighed(clean, adversarial, delta, weight), batch.weight), gradient


def _word_delta(
    config: Config,
    model: Model,
    params: Params,
    batch: Batch,
    epsilon: Array,
    words: Array,
    gradient: Array,
    neighbours: Array | None,
) -> Array:
    """Perturbation of the word vectors `[B, W, E]`, from the gradient to them; neighbours `[V, K]`."""
    tokens, mask = model.tokens(batch)

    def linear(delta: Array) -> Array:
        """Losses `[B]` whose gradient is the one at hand."""
        return jnp.sum(gradient * delta, axis=(1, 2))

    if config.technique == "word_at":
        return word_at(linear, words, mask, epsilon)
    assert neighbours is not None
    ids = neighbours[tokens]
    return word_iat(linear, words, model.table(params), ids, mask, epsilon, per_word=config.word.per_word)


def _mean(losses: Array, aux: Aux, weight_B: Array) -> tuple[Array, StepSums]:
    """Mean of losses `[B]` over the rows of weight 1, and all sums over them."""
    total, rows = jnp.sum(weight_B * losses), jnp.sum(weight_B)
    return total / jnp.maximum(rows, 1), StepSums(rows, total, *(jnp.sum(weight_B * column) for column in aux))


def adapt_model(technique: str, model: Model) -> Model:
    """The model that a technique trains: with even attention for "uniform", with untrained attention for "frozen".

    Source: Wiegreffe & Pinter 2019, section 3.2, for even attention.
    """
    if technique == "uniform":
        return model._replace(score=lambda params, encoded: jnp.zeros(encoded.mask.shape, encoded.states.dtype))
    if technique != "frozen":
        return model

    def score(params: Params, encoded: Encoded) -> Array:
        """Scores `[B, T]` with constant attention parameters; the encoder learns through them."""
        return model.score(params | {"attention": jax.lax.stop_gradient(params["attention"])}, encoded)

    return model._replace(score=score)


def adapt_optimizer(technique: str, config: OptimizerConfig) -> OptimizerConfig:
    """What a technique is trained with: no weight decay on attention that is frozen."""
    return dataclasses.replace(config, decay_attention=False) if technique == "frozen" else config


class LossParts(NamedTuple):
    """A loss as a function of one additive delta, taken apart so that all but the delta can be held constant.

    Attributes:
      losses: `losses(closed, delta) -> [B]`.
      closed: pytree of everything the losses depend on besides the delta; what stands here is computed once per step.
      like: the scores `[B, T]` that the delta is added to.
      mask: `[B, T]`, true where the delta may differ from zero.
    """

    losses: Callable[[Any, Array], Array]
    closed: Any
    like: Array
    mask: Array


def _attention_parts(model: Model, params: Params, batch: Batch, key: Array, pos_weight: float) -> LossParts:
    """Loss as a function of a delta on the scores `[B, T]`: the encoder runs once, the readout for each delta."""
    encoded = model.encode(params, model.embed(params, batch, key), batch)
    scores = model.score(params, encoded)

    def losses(closed: Any, delta: Array) -> Array:
        """Per-example losses `[B]` with `delta` `[B, T]` added to the scores."""
        params, encoded, scores = closed
        return example_losses(model.classify(params, encoded, scores + delta, key), batch.label, pos_weight)

    return LossParts(losses, (params, encoded, scores), scores, encoded.mask)


def _word_losses(model: Model, params: Params, words: Array, batch: Batch, key: Array, pos_weight: float) -> Array:
    """Losses `[B]` of word vectors `[B, W, E]`; no parameter of the embedding is read."""
    encoded = model.encode(params, words, batch)
    logits = model.classify(params, encoded, model.score(params, encoded), key)
    return example_losses(logits, batch.label, pos_weight)


def _plain_losses(parts: LossParts) -> tuple[Array, Aux]:
    """Clean losses `[B]`; the adversarial columns are zero."""
    clean = parts.losses(parts.closed, jnp.zeros_like(parts.like))
    zeros = jnp.zeros_like(clean)
    return clean, Aux(clean, zeros, zeros, zeros)


def _adversarial_losses(parts: LossParts, perturb: Perturb, weight: Array) -> tuple[Array, Aux]:
    """Clean plus weighted adversarial losses `[B]`; the perturbation sees constants: no second derivatives."""
    constant = functools.partial(parts.losses, jax.lax.stop_gradient(parts.closed))
    delta = perturb(constant, jax.lax.stop_gradient(parts.like), parts.mask)
    return adversarial_loss(functools.partial(parts.losses, parts.closed), delta, weight=weight)
