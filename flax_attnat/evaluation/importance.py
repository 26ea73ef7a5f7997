"""What each word contributes to a prediction, by gradients (Jain & Wallace 2019)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Array, Batch, Params


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


def explain_batch(model: Model, params: Params, batch: Batch) -> Instances:
    """Prediction, attention and gradient importance of one batch.

    `tau_t = |sum_e w_te dp/dw_te|`, normalised to sum 1 over real tokens, with the attention weights held constant; p
    is the probability of the predicted class, w the word vectors of the passage.

    Args:
      model: the four functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model.

    Returns:
      `Instances`.

    Source: Jain & Wallace 2019, section 4.1 (the computation graph is cut at the attention weights).
    """
    words = model.embed(params, batch)
    encoded = model.encode(params, words, batch)
    scores = model.score(params, encoded)

    def others_probability(words: Array) -> tuple[Array, Array]:
        """Sum over the batch of 1 - p(predicted class) with constant attention, and all probabilities `[B, C]`."""
        logits = model.classify(params, model.encode(params, words, batch), jax.lax.stop_gradient(scores))
        probability = probabilities(logits)
        predicted = predicted_classes(probability)[:, None] == jnp.arange(probability.shape[1])[None, :]
        # Its gradient is that of p but for the sign, and is exact where p rounds to 1.
        return jnp.sum(jnp.where(predicted, 0, probability)), probability

    gradient, probability = jax.grad(others_probability, has_aux=True)(words)
    size = encoded.mask.shape[1]
    raw = jnp.where(encoded.mask, jnp.abs(jnp.sum(gradient[:, :size] * words[:, :size], axis=-1)), 0)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    importance = raw / jnp.where(total > 0, total, 1)
    return Instances(probability, masked_softmax(scores, encoded.mask), importance)
