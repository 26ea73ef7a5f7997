"""What each word contributes to a prediction: by gradients, and by leaving it out (Jain & Wallace 2019).

Everything is for one run and one batch; `jax.vmap` over parameters serves many runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_attnat.evaluation.divergence import total_variation
from flax_attnat.evaluation.erasure import predict_places
from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Array, Batch, Encoded, Params


class Instances(NamedTuple):
    """What one run says of a batch.

    Attributes:
      probability: `[B, C]` of the classes.
      attention: `[B, T]` weights, summing to 1 over real tokens.
      importance: `[B, T]` gradient importance, likewise; zero in a row whose gradient is zero.
    """

    probability: Array
    attention: Array
    importance: Array


class Gradients(NamedTuple):
    """What one run says of a batch, with three kinds of gradient importance.

    Importances sum to 1 over real tokens; they are zero in a row whose gradient is zero, and NaN in one where it is.

    Attributes:
      probability: `[B, C]` of the classes.
      attention: `[B, T]` weights, summing to 1 over real tokens.
      one_hot: `[B, T]`, `|w_t . dp/dw_t|` with the attention weights held constant.
      attached: `[B, T]`, the same with the gradient through the attention weights.
      norm: `[B, T]`, `||dp/dw_t||_2` with the attention weights held constant.
    """

    probability: Array
    attention: Array
    one_hot: Array
    attached: Array
    norm: Array


class _Pass(NamedTuple):
    """One forward pass and what its gradients are made of.

    Attributes:
      words: `[B, T, E]` word vectors of the passage.
      mask: `[B, T]`, true on real tokens.
      attention: `[B, T]`.
      probability: `[B, C]`.
      detached: `detached() -> [B, T, E]`, -dp/dw with the attention weights held constant.
      attached: `attached() -> [B, T, E]`, -dp/dw.
    """

    words: Array
    mask: Array
    attention: Array
    probability: Array
    detached: Callable[[], Array]
    attached: Callable[[], Array]


def explain_batch(model: Model, params: Params, batch: Batch) -> Instances:
    """Prediction, attention and gradient importance of one batch.

    `tau_t = |sum_e w_te dp/dw_te|`, normalised to sum 1 over real tokens, with the attention weights held constant; p
    is the probability of the predicted class, w the word vectors of the passage.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model.

    Returns:
      `Instances`.

    Source: Jain & Wallace 2019, section 4.1 (the computation graph is cut at the attention weights).
    """
    one = _differentiate(model, params, batch)
    return Instances(one.probability, one.attention, _one_hot(one.detached(), one))


def gradient_importances(model: Model, params: Params, batch: Batch) -> Gradients:
    """Prediction, attention and three kinds of gradient importance of one batch, from one forward pass.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model.

    Returns:
      `Gradients`; its `one_hot` is the importance of `explain_batch`. A text of one word has importance 1, an empty one
      zeros.

    Source: Jain & Wallace 2019, section 4.1.
    """
    one = _differentiate(model, params, batch)
    gradient = one.detached()
    # Of size 1 first: the squares of a gradient of 1e-23 are 0 in float32.
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2), keepdims=True, initial=0.0)
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient / jnp.where(largest > 0, largest, 1)), axis=-1))
    return Gradients(
        one.probability,
        one.attention,
        _one_hot(gradient, one),
        _one_hot(one.attached(), one),
        _normalise(norm, one.mask),
    )


def leave_one_out(model: Model, params: Params, batch: Batch) -> tuple[Array, Array]:
    """Class probabilities of every text, and of every text that lacks one of its words.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model: words of the passage are left out.

    Returns:
      probability: `[B, C]`.
      without: `[B, T, C]`, of text b with word t taken out, one word shorter; the `probability` on padding. Without its
        only word a text is empty, and its logits are those of a zero context.

    Source: Jain & Wallace 2019, section 4.1.
    """
    words = model.embed(params, batch)
    place = jnp.arange(batch.tokens.shape[1])
    rows = jnp.broadcast_to(place[None, :], batch.tokens.shape)
    probability = predict_places(model, params, batch, words, rows, batch.length)
    # All but the last: no text that lacks a word reads it.
    most = max(rows.shape[1] - 1, 1)

    def leave_out(word: Array, without: Array) -> Array:
        """Writes the probabilities of the texts that lack the word at one place."""
        others = jnp.where(rows < word, rows, jnp.minimum(rows + 1, rows.shape[1] - 1))[:, :most]
        there = word < batch.length
        shorter = predict_places(model, params, batch, words, others, batch.length - there.astype(jnp.int32))
        return jnp.where((there[:, None] & (place == word)[None, :])[:, :, None], shorter[:, None, :], without)

    whole = jnp.broadcast_to(probability[:, None, :], (*rows.shape, probability.shape[1]))
    return probability, jax.lax.fori_loop(0, jnp.max(batch.length, initial=0), leave_out, whole)


def leave_one_out_importance(probability: Array, without: Array, mask: Array) -> Array:
    """By how much each word alone changes the prediction: `sum_y |p(x)_y - p(x without t)_y| / 2`.

    Args:
      probability: `[B, C]` of whole texts.
      without: `[B, T, C]` from `leave_one_out`.
      mask: `[B, T]`, true on real tokens.

    Returns:
      `[B, T]` in [0, 1], not normalised, 0 on padding; `|dp|` for two classes. NaN where a probability is.

    Source: Jain & Wallace 2019, section 4.1.

    >>> import jax.numpy as jnp
    >>> p, without = jnp.array([[0.25, 0.75]]), jnp.array([[[0.5, 0.5], [0.25, 0.75]]])
    >>> leave_one_out_importance(p, without, jnp.ones((1, 2), bool))
    Array([[0.25, 0.  ]], dtype=float32)
    """
    return jnp.where(mask, total_variation(probability[:, None, :], without), 0)


def _differentiate(model: Model, params: Params, batch: Batch) -> _Pass:
    """One forward pass over a batch, and the gradients of the predicted class's probability."""
    words = model.embed(params, batch)
    size = batch.tokens.shape[1]

    def encode(words: Array) -> tuple[tuple[Array, Array | None], Encoded]:
        """What of `Encoded` has a gradient, and all of it."""
        encoded = model.encode(params, words, batch)
        return (encoded.states, encoded.query), encoded

    states, pull, encoded = jax.vjp(encode, words, has_aux=True)

    def with_states(states: tuple[Array, Array | None]) -> Encoded:
        """The same texts with other hidden states."""
        return encoded._replace(states=states[0], query=states[1])

    scores, pull_scores = jax.vjp(lambda states: model.score(params, with_states(states)), states)

    def others_probability(states: tuple[Array, Array | None], scores: Array) -> tuple[Array, Array]:
        """Sum over the batch of 1 - p(predicted class), and all probabilities `[B, C]`."""
        probability = probabilities(model.classify(params, with_states(states), scores))
        predicted = predicted_classes(probability)[:, None] == jnp.arange(probability.shape[1])[None, :]
        # Its gradient is that of p but for the sign, and is exact where p rounds to 1.
        return jnp.sum(jnp.where(predicted, 0, probability)), probability

    to_differentiate = jax.grad(others_probability, argnums=(0, 1), has_aux=True)
    (by_states, by_scores), probability = to_differentiate(states, scores)

    def attached() -> Array:
        """The gradient through states and scores."""
        return pull(jax.tree.map(jnp.add, by_states, pull_scores(by_scores)[0]))[0][:, :size]

    attention = masked_softmax(scores, encoded.mask)
    return _Pass(words[:, :size], encoded.mask, attention, probability, lambda: pull(by_states)[0][:, :size], attached)


def _one_hot(gradient: Array, one: _Pass) -> Array:
    """`|w . g|` `[B, T]` of a gradient `[B, T, E]`, normalised."""
    return _normalise(jnp.abs(jnp.sum(gradient * one.words, axis=-1)), one.mask)


def _normalise(raw: Array, mask: Array) -> Array:
    """Importances `[B, T]` that sum to 1 over real tokens; those of a row of zeros stay."""
    raw = jnp.where(mask, raw, 0)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    return raw / jnp.where(total > 0, total, 1)
