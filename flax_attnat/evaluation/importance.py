"""What each word contributes to a prediction, by gradients (Jain & Wallace 2019)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_attnat.models.single import Model
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Array, Batch, Params


class Instances(NamedTuple):
    """What one run says of a batch.

    Attributes:
      probability: `[B]` of class 1.
      attention: `[B, T]` weights, summing to 1 over real tokens.
      importance: `[B, T]` gradient importance, likewise; zero in a row whose gradient is zero.
    """

    probability: Array
    attention: Array
    importance: Array


def explain_batch(model: Model, params: Params, batch: Batch) -> Instances:
    """Prediction, attention and gradient importance of one batch.

    `tau_t = |sum_e w_te dp/dw_te|`, normalised to sum 1 over real tokens, with the attention weights held constant.

    Args:
      model: the four functions.
      params: one run's parameters.
      batch: `[B, T]` tokens.

    Returns:
      `Instances`.

    Source: Jain & Wallace 2019, section 4.1 (the computation graph is cut at the attention weights).
    """
    words = model.embed(params, batch)
    encoded = model.encode(params, words, batch)
    scores = model.score(params, encoded)

    def total_probability(words: Array) -> tuple[Array, Array]:
        """Sum over the batch, and per example `[B]`, of p(class 1) with constant attention."""
        logits = model.classify(params, model.encode(params, words, batch), jax.lax.stop_gradient(scores))
        probability = jax.nn.sigmoid(logits[:, 0])
        return jnp.sum(probability), probability

    gradient, probability = jax.grad(total_probability, has_aux=True)(words)
    raw = jnp.where(encoded.mask, jnp.abs(jnp.sum(gradient * words, axis=-1)), 0)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    importance = raw / jnp.where(total > 0, total, 1)
    return Instances(probability, masked_softmax(scores, encoded.mask), importance)
