"""Attention scores: hidden states `[B, T, H]`, and a query's state `[B, H]`, to scores `[B, T]` before the softmax."""

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


class PairAdditive(nn.Module):
    """`s_t = v . tanh(W1 hP_t + b1 + W2 hQ + b2)` with W1 and W2 of `[H, H / 2]` and v without bias."""

    @nn.compact
    def __call__(self, states_BxTxH: Array, query_BxH: Array) -> Array:
        """Scores `[B, T]`."""
        size = states_BxTxH.shape[-1]
        init = uniform(size)
        passage = nn.Dense(size // 2, kernel_init=init, bias_init=init, name="passage")(states_BxTxH)
        query = nn.Dense(size // 2, kernel_init=init, bias_init=init, name="query")(query_BxH)
        inner = jnp.tanh(passage + query[:, None, :])
        return nn.Dense(1, use_bias=False, kernel_init=uniform(size // 2), name="outer")(inner)[..., 0]


class PairScaledDot(nn.Module):
    """`s_t = hP_t . hQ / sqrt(H)`, without parameters (Vaswani et al. 2017)."""

    @nn.compact
    def __call__(self, states_BxTxH: Array, query_BxH: Array) -> Array:
        """Scores `[B, T]`."""
        return jnp.einsum("bth,bh->bt", states_BxTxH, query_BxH) / states_BxTxH.shape[-1] ** 0.5
