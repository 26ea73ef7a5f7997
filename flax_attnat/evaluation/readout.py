"""The light part of a model, as cheap as it can be: what many attentions over the same hidden states give."""

from collections.abc import Callable

import jax.numpy as jnp

from flax_attnat.models.model import Model, absent_logit
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Array, Encoded, Params

Readout = Callable[[Array], Array]
"""`readout(scores [B, T]) -> [B, C']` logits of the texts that were encoded once."""


def build_readout(model: Model, params: Params, encoded: Encoded) -> Readout:
    """Logits as a function of the scores `[B, T]`, of texts that are encoded already.

    Where the model's logits are a mean under attention, `z = sum_t softmax(s)_t v_t + b`, only the values v,
    `[B, T, C']`, are read and not the states: two hundred times less in a model of two classes.
    """
    if model.values is None:
        return lambda scores: model.classify(params, encoded, scores)
    values, bias = model.values(params, encoded)

    def readout(scores: Array) -> Array:
        """Logits `[B, C']`."""
        return jnp.einsum("bt,btc->bc", masked_softmax(scores, encoded.mask), values) + bias[None, :]

    return readout


def margins(logits: Array, labels: Array) -> Array:
    """By how much the largest other class beats the label, `[B]`, positive where the prediction is wrong.

    Args:
      logits: `[B, 1]` of class 1 against class 0, or `[B, C]`; an impossible class beats nothing.
      labels: `[B]`.
    """
    if logits.shape[-1] == 1:
        return jnp.where(labels > 0, -logits[:, 0], logits[:, 0])
    own = labels[:, None] == jnp.arange(logits.shape[-1])[None, :]
    others = jnp.max(jnp.where(own, absent_logit(logits.dtype), logits), axis=-1)
    return others - jnp.sum(jnp.where(own, logits, 0), axis=-1)
