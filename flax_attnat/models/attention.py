"""Attention scores of a single sequence: hidden states `[B, T, H]` to scores `[B, T]`, before the softmax."""

import flax.linen as nn
import jax.numpy as jnp

from flax_attnat.models.encoders import uniform
from flax_attnat.typing import Array


class Additive(nn.Module):
    """`s_t = v . tanh(W h_t + b)` with W of `[H, H / 2]` and v without bias (Bahdanau et al. 2015)."""

    @nn.compact
    def __call__(self, states_BxTxH: Array) -> Array:
        """Scores `[B, T]`."""
        size = states_BxTxH.shape[-1]
        init = uniform(size)
        inner = jnp.tanh(nn.Dense(size // 2, kernel_init=init, bias_init=init, name="inner")(states_BxTxH))
        return nn.Dense(1, use_bias=False, kernel_init=uniform(size // 2), name="outer")(inner)[..., 0]


class ScaledDot(nn.Module):
    """`s_t = u . h_t / sqrt(H)` with u learned, without bias (Vaswani et al. 2017)."""

    @nn.compact
    def __call__(self, states_BxTxH: Array) -> Array:
        """Scores `[B, T]`."""
        size = states_BxTxH.shape[-1]
        return nn.Dense(1, use_bias=False, kernel_init=uniform(size), name="query")(states_BxTxH)[..., 0] / size**0.5
