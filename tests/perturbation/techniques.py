"""Every perturbation behind one signature, on a small problem whose padding is poison."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import flax_attnat as fa
from flax_attnat.perturbation.attention import READINGS

B, T, E, V, K = 4, 6, 5, 9, 3

"""Options that halve the time of compilation on a CPU."""

ATTENTION = ("attention_at", *(f"attention_iat {reading}" for reading in READINGS))
WORD = ("word_at", "word_iat", "word_iat per_word")
FROM_LOSS = (*ATTENTION, *WORD, "virtual_at")
RANDOM = ("random_perturbation", "virtual_at")
ALL = (*FROM_LOSS, "random_perturbation")
CORE = ("attention_at", "attention_iat span", "word_at", "word_iat", "virtual_at", "random_perturbation")
"""One of each kind, for what the readings and normalisations share."""


class Problem(NamedTuple):
    """What a perturbation needs; every field but the table has a batch axis.

    Attributes:
      like: scores `[B, T]` or word vectors `[B, T, E]`.
      weights: `[B, T]` what the attended values or the words count for.
      sign: `[B]`, +1 or -1 by the label; 0 makes the gradient 0, NaN and inf make it not finite.
      neighbours: `[B, T, K]` ids.
      table: `[V, E]` all word vectors.
      mask: `[B, T]`.
    """

    like: jax.Array
    weights: jax.Array
    sign: jax.Array
    neighbours: jax.Array
    table: jax.Array
    mask: jax.Array


def on_words(name: str) -> bool:
    return name.startswith("word")


def problem(name: str, seed: int = 0, width: int = T, dtype=np.float32) -> Problem:
    """A problem whose first T columns depend on the seed alone; whatever stands on padding is NaN."""
    rng = np.random.default_rng(seed)
    mask = np.arange(T) < np.array([4, 6, 2, 5])[:, None]
    like = rng.normal(size=(B, T, E) if on_words(name) else (B, T))
    weights = rng.normal(size=(B, T))
    sign = np.where(rng.uniform(size=B) < 0.5, 1.0, -1.0)
    neighbours, table = rng.integers(0, V, (B, T, K)), rng.normal(size=(V, E))

    def pad(x, value):
        widths = [(0, 0), (0, width - T)] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, widths, constant_values=value)

    like[~mask], weights[~mask] = np.nan, np.nan
    arrays = (pad(like, np.nan).astype(dtype), pad(weights, np.nan).astype(dtype), sign.astype(dtype))
    return Problem(*map(jnp.asarray, (*arrays, pad(neighbours, V - 1), table.astype(dtype), pad(mask, False))))


def logit(name: str, p: Problem, delta: jax.Array) -> jax.Array:
    """`sum_t softmax(s + delta)_t weights_t`, or `sum_t weights_t mean_e tanh(w_te + delta_te)`, over real tokens."""
    if on_words(name):
        real = p.mask[..., None]
        words = jnp.tanh(jnp.where(real, p.like + delta, 0))
        return jnp.sum(jnp.where(p.mask, p.weights, 0) * jnp.mean(words, axis=-1), axis=-1)
    return jnp.sum(fa.masked_softmax(p.like + delta, p.mask) * jnp.where(p.mask, p.weights, 0), axis=-1)


def loss(name: str, p: Problem, delta: jax.Array) -> jax.Array:
    """Losses `[B]`: `softplus(sign logit)`."""
    return jax.nn.softplus(p.sign * logit(name, p, delta))


def divergence(name: str, p: Problem, delta: jax.Array) -> jax.Array:
    """`KL` `[B]` between the Bernoulli predictions without and with `delta`."""
    clean = jax.lax.stop_gradient(p.sign * logit(name, p, jnp.zeros_like(delta)))
    moved = p.sign * logit(name, p, delta)
    q = jax.nn.sigmoid(clean)
    log_ratio = jax.nn.log_sigmoid(clean) - jax.nn.log_sigmoid(moved)
    return q * log_ratio + (1 - q) * (jax.nn.log_sigmoid(-clean) - jax.nn.log_sigmoid(-moved))


def finite(p: Problem) -> Problem:
    """The problem with 0.5 in place of the NaN on padding."""
    return jax.tree.map(lambda x: jnp.nan_to_num(x, nan=0.5) if jnp.issubdtype(x.dtype, jnp.floating) else x, p)


def perturb(name: str, p: Problem, epsilon, key: jax.Array, mask="from the problem", loss_fn=None) -> jax.Array:
    """The perturbation `name` of `p.like`."""
    base, _, option = name.partition(" ")
    mask = p.mask if isinstance(mask, str) else mask
    default = divergence if base == "virtual_at" else loss
    loss_fn = functools.partial(default, name, p) if loss_fn is None else loss_fn
    match base:
        case "attention_at":
            return fa.attention_at(loss_fn, p.like, mask, epsilon)
        case "attention_iat":
            return fa.attention_iat(loss_fn, p.like, mask, epsilon, reading=option)
        case "random_perturbation":
            return fa.random_perturbation(key, p.like, mask, epsilon)
        case "word_at":
            return fa.word_at(loss_fn, p.like, mask, epsilon)
        case "word_iat":
            ids, per_word = p.neighbours, option == "per_word"
            return fa.word_iat(loss_fn, p.like, p.table, ids, mask, epsilon, per_word=per_word)
        case "virtual_at":
            return fa.virtual_at(loss_fn, p.like, mask, epsilon, key=key)
    raise ValueError(name)


@functools.cache
def compiled(name: str):
    """`perturb` of that name with every array, epsilon and the key traced."""
    return jax.jit(functools.partial(perturb, name))
