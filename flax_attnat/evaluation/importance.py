"""What each word contributes to a prediction: by gradients, and by leaving it out (Jain & Wallace 2019).

Everything is for one run and one batch; `jax.vmap` over parameters serves many runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from flax_attnat.evaluation.divergence import total_variation
from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.geometry import delta_gradient, masked_softmax
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


class LeaveOneOut(NamedTuple):
    """What one run says of a batch, and of its texts without one word each; on padding, nothing is taken out.

    Attributes:
      probability: `[B, C]` of the whole texts.
      change: `[B, T]` in [0, 1], `sum_y |p(x)_y - p(x without t)_y| / 2`; `|dp|` for two classes, 0 on padding, and NaN
        on real tokens where a probability is.
      predicted: `[B, T]`, `p(x without t)` of the class that is predicted for the whole text.
      label: `[B, T]`, `p(x without t)` of the label.
      right: `[B, T]` bool, whether the prediction for x without t is the label; false for NaN.
    """

    probability: Array
    change: Array
    predicted: Array
    label: Array
    right: Array


class _Pass(NamedTuple):
    """One forward pass and what its gradients are made of.

    Attributes:
      words: `[B, T, E]` word vectors of the passage.
      encoded: the batch encoded.
      attention: `[B, T]`.
      probability: `[B, C]`.
      detached: `detached() -> [B, T, E]`, -dp/dw with the attention weights held constant.
      attached: `attached() -> [B, T, E]`, -dp/dw.
    """

    words: Array
    encoded: Encoded
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
    return gradients_and_encoding(model, params, batch)[0]


def gradients_and_encoding(model: Model, params: Params, batch: Batch) -> tuple[Gradients, Encoded]:
    """`gradient_importances`, and the encoding `[B, T, 2H]` that it differentiates, for whoever needs both."""
    one = _differentiate(model, params, batch)
    gradient = one.detached()
    # Of size 1 first: the squares of a gradient of 1e-23 are 0 in float32.
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2), keepdims=True, initial=0.0)
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient / jnp.where(largest > 0, largest, 1)), axis=-1))
    gradients = Gradients(
        one.probability,
        one.attention,
        _one_hot(gradient, one),
        _one_hot(one.attached(), one),
        _normalise(norm, one.encoded.mask),
    )
    return gradients, one.encoded


def gradient_importance(
    function: Callable[[Array], Array], words: Float[Array, "B T E"], mask: Bool[Array | np.ndarray, "B T"]
) -> Float[Array, "B T"]:
    """What each word contributes to a figure of a model of your own, by its gradient.

    `tau_t = |sum_e w_te df/dw_te|`, normalised to sum 1 over real tokens. Jain & Wallace's is that of
    `f = p(predicted class)` with the attention weights held constant: compute them outside of `function`.

    Args:
      function: `function(words) -> [B]`, texts independent; `1 - p`, the sum of the other classes' probabilities, has
        the gradient of p but for its sign, which is not read, and keeps it where p rounds to 1.
      words: `[B, T, E]` word vectors.
      mask: `[B, T]`, true on real tokens.

    Returns:
      `[B, T]`, zero on padding and in a row whose gradient is zero; NaN in one where it is; constant for gradients.

    Raises:
      ValueError: `function` does not return one figure a row.

    Source: Jain & Wallace 2019, section 4.1.

    >>> import jax.numpy as jnp
    >>> from flax_attnat.evaluation.importance import gradient_importance
    >>> words, mask = jnp.ones((1, 3, 2)), jnp.array([[True, True, False]])
    >>> attention = jnp.array([[0.25, 0.75, 0.0]])
    >>> gradient_importance(lambda words: jnp.sum(attention * words.sum(-1), axis=-1), words, mask)
    Array([[0.25, 0.75, 0.  ]], dtype=float32)
    """
    words = jax.lax.stop_gradient(words)
    figures = jax.eval_shape(function, words)
    if figures.shape != words.shape[:1]:
        raise ValueError(
            f"function must return one figure a row, {words.shape[:1]}; it returned shape {figures.shape}."
        )
    real = jnp.asarray(mask).astype(bool)
    # Whatever stands on padding, NaN included, is not read.
    products = jnp.where(real[..., None], delta_gradient(function, words) * words, 0)
    return _normalise(jnp.abs(jnp.sum(products, axis=-1)), real)


def leave_one_out(model: Model, params: Params, batch: Batch) -> LeaveOneOut:
    """What the model predicts for every text, and for every text that lacks one of its words.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model: words of the passage are left out; its labels are read.

    Returns:
      `LeaveOneOut`. A text that lacks a word is one word shorter; without its only word it is empty, and its logits are
      those of a zero context.

    Source: Jain & Wallace 2019, section 4.1.
    """
    words = model.embed(params, batch)
    rows = jnp.broadcast_to(jnp.arange(batch.tokens.shape[1])[None, :], batch.tokens.shape)
    probability = predict_places(model, params, batch, words, rows, batch.length)
    # Padding leaves a text as it is, also one whose probabilities are NaN.
    whole = (jnp.zeros_like(probability[:, 0]), *_compare(probability, probability, batch.label)[1:])
    # All but the last: no text that lacks a word reads it.
    most = max(rows.shape[1] - 1, 1)

    def leave_out(word: Array, found: tuple[Array, ...]) -> tuple[Array, ...]:
        """Writes the column `[B]` of the texts that lack the word at one place, in each of the figures `[B, T]`."""
        others = jnp.where(rows < word, rows, jnp.minimum(rows + 1, rows.shape[1] - 1))[:, :most]
        there = word < batch.length
        length = batch.length - there.astype(jnp.int32)
        shorter = predict_places(model, params, batch, words, others, length)
        columns = zip(found, _compare(probability, shorter, batch.label), whole, strict=True)
        # In place: written as a whole, arrays of this size would cost more than the predictions.
        return tuple(jax.lax.dynamic_update_index_in_dim(x, jnp.where(there, a, b), word, 1) for x, a, b in columns)

    start = tuple(jnp.broadcast_to(column[:, None], rows.shape) for column in whole)
    return LeaveOneOut(probability, *jax.lax.fori_loop(0, jnp.max(batch.length, initial=0), leave_out, start))


def predict_places(model: Model, params: Params, batch: Batch, words: Array, places: Array, length: Array) -> Array:
    """Class probabilities `[B, C]` of the texts that the words at some places make, in this order.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model, which stay.
      words: from `model.embed`, `[B, T, E]`, or `[B, T + Q, E]` for a pair.
      places: `[B, T']` in 0 ... T - 1.
      length: `[B]` how many of them are there; what comes after those is not read.

    Returns:
      `[B, C]`; a text of length 0 is an empty one, whose logits are those of a zero context.

    Source: DeYoung et al. 2020, section 4 (contrast examples).
    """
    size = batch.tokens.shape[1]
    shorter = batch._replace(tokens=jnp.take_along_axis(batch.tokens, places, axis=1), length=length)
    chosen = jnp.take_along_axis(words[:, :size], places[:, :, None], axis=1)
    encoded = model.encode(params, jnp.concatenate([chosen, words[:, size:]], axis=1), shorter)
    return probabilities(model.classify(params, encoded, model.score(params, encoded)))


def probability_of(probability: Array, classes: Array) -> Array:
    """Probability `[B]` of one class `[B]` of each of `[B, C]`; 0 for a class that is not there.

    >>> import jax.numpy as jnp
    >>> probability_of(jnp.array([[0.25, 0.75], [0.5, 0.5]]), jnp.array([0, 1]))
    Array([0.25, 0.5 ], dtype=float32)
    """
    own = classes[:, None] == jnp.arange(probability.shape[1])[None, :]
    return jnp.sum(jnp.where(own, probability, 0), axis=-1)


def predicts_label(probability: Array, label: Array) -> Array:
    """Whether the prediction of `[B, C]` is the label, `[B]`; false for NaN.

    >>> import jax.numpy as jnp
    >>> predicts_label(jnp.array([[0.25, 0.75], [0.75, 0.25], [jnp.nan, 1]]), jnp.array([1, 1, 0]))
    Array([ True, False, False], dtype=bool)
    """
    return (predicted_classes(probability) == label) & ~jnp.any(jnp.isnan(probability), axis=-1)


def _compare(whole: Array, shorter: Array, label: Array) -> tuple[Array, Array, Array, Array]:
    """The last four fields of `LeaveOneOut`, `[B]` each, of predictions `[B, C]` for the whole text and another."""
    return (
        total_variation(whole, shorter),
        probability_of(shorter, predicted_classes(whole)),
        probability_of(shorter, label),
        predicts_label(shorter, label),
    )


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
    return _Pass(words[:, :size], encoded, attention, probability, lambda: pull(by_states)[0][:, :size], attached)


def _one_hot(gradient: Array, one: _Pass) -> Array:
    """`|w . g|` `[B, T]` of a gradient `[B, T, E]`, normalised."""
    return _normalise(jnp.abs(jnp.sum(gradient * one.words, axis=-1)), one.encoded.mask)


def _normalise(raw: Array, mask: Array) -> Array:
    """Importances `[B, T]` that sum to 1 over real tokens; those of a row of zeros stay."""
    raw = jnp.where(mask, raw, 0)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    return raw / jnp.where(total > 0, total, 1)
