"""What a model is: pure functions over one pytree of parameters; and what its logits mean."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_attnat.typing import Array, Batch, Encoded, Params


class Model(NamedTuple):
    """The four functions embed, encode, score, classify, and what belongs to them. `key`, if given, turns dropout on.

    Attributes:
      init: `init(key) -> params`, with the groups `embedding`, `encoder`, `attention`, `output`.
      table: `table(params) -> [V, E]` the word vectors as the encoder reads them (normalised, if asked).
      tokens: `tokens(batch) -> (ids [B, W], mask [B, W])`: the words behind the rows of `embed`, and which of them a
        word technique perturbs.
      embed: `embed(params, batch, key=None) -> [B, W, E]` word vectors.
      encode: `encode(params, words, batch) -> Encoded`, the heavy part, once per step.
      score: `score(params, encoded) -> [B, T]` attention scores, before the softmax.
      classify: `classify(params, encoded, scores, key=None) -> [B, C]` logits, the light part; `[B, 1]`, the logit of
        class 1, in a single-sequence model of two classes. A class that is impossible has the logit `absent_logit`.
      values: `values(params, encoded) -> (v [B, T, C'], b [C'])` where the logits are a mean under attention, `z =
        sum_t softmax(s)_t v_t + b`; None where they are not (pair models).
    """

    init: Callable[[Array], Params]
    table: Callable[[Params], Array]
    tokens: Callable[[Batch], tuple[Array, Array]]
    embed: Callable[..., Array]
    encode: Callable[[Params, Array, Batch], Encoded]
    score: Callable[[Params, Encoded], Array]
    classify: Callable[..., Array]
    values: Callable[[Params, Encoded], tuple[Array, Array]] | None = None


def absent_logit(dtype: jnp.dtype) -> float:
    """The logit of a class that is impossible: so low that its softmax is exactly 0, and finite."""
    return float(jnp.finfo(dtype).min) / 2


def probabilities(logits: Array) -> Array:
    """Class probabilities `[..., C]` of logits.

    Args:
      logits: `[..., 1]`, of class 1 against class 0, or `[..., C]`.

    Returns:
      `[sigmoid(-z), sigmoid(z)]` or `softmax(z)`; exactly 0 for a class that is impossible, so that a row without any
      possible class sums to 0.

    >>> import jax.numpy as jnp
    >>> probabilities(jnp.array([[1.0, 1.0, absent_logit(jnp.float32)]]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    if logits.shape[-1] == 1:
        return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))
    return jnp.where(logits == absent_logit(logits.dtype), 0, jax.nn.softmax(logits, axis=-1))
