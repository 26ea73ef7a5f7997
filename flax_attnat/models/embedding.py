"""Word vectors: what their table starts from, how the encoder reads it, dropout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.perturbation.word import normalise_words
from flax_attnat.typing import Array, Params


class EmbeddingInit(NamedTuple):
    """What the embedding table starts from.

    Attributes:
      frequencies: `[V]` relative training frequencies of the words.
      table: `[V, E]` pretrained vectors, or None.
      found: `[V]` true where `table` has a vector; the other rows start small and random.
    """

    frequencies: np.ndarray
    table: np.ndarray | None = None
    found: np.ndarray | None = None


# Words without a pretrained vector start at this standard deviation; without any vectors, at 1 (torch.nn.Embedding).
UNSEEN_SCALE = 0.1


def initial_table(key: Array, words: EmbeddingInit, size: int) -> Array:
    """Embedding table `[V, E]`: pretrained rows, random rows for the others, zero for padding (id 0)."""
    random = jax.random.normal(key, (len(words.frequencies), size))
    if words.table is None or words.found is None:
        table = random
    else:
        table = jnp.where(jnp.asarray(words.found)[:, None], jnp.asarray(words.table), UNSEEN_SCALE * random)
    return table.at[0].set(0)


def read_table(frequencies: Array, normalise: bool, params: Params) -> Array:
    """Word vectors `[V, E]` as the encoder reads them, normalised by the frequencies `[V]` if asked."""
    raw = params["embedding"]["table"]
    return normalise_words(raw, raw, frequencies) if normalise else raw


def read_words(frequencies: Array, normalise: bool, params: Params, ids: Array, places: Array | None = None) -> Array:
    """The rows `[..., E]` of `read_table` for ids `[...]`, or at `places` `[...]`, without the rest of it."""
    raw = params["embedding"]["table"]
    ids = ids if places is None else places
    return normalise_words(raw[ids], raw, frequencies) if normalise else raw[ids]


def dropout(x: Array, rate: float, key: Array | None, stream: int) -> Array:
    """Inverted dropout on `x`, `[B, T, E]` or `[B, H]`; the same key gives the same mask to all passes of a step.

    The mask of a token depends on the key, the stream and its place alone, so that padding changes nothing.
    """
    if key is None or rate == 0:
        return x
    key = jax.random.fold_in(key, stream)
    if x.ndim == 3:
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(x.shape[1]))
        kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, (x.shape[0], x.shape[2])), out_axes=1)(keys)
    else:
        kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)
