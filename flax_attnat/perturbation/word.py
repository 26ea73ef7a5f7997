"""Perturbations of word vectors: Word AT (Miyato et al. 2017) and Word iAT (Sato et al. 2018).

`B` batch, `T` tokens, `E` embedding, `V` vocabulary, `K` neighbours.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from flax_attnat.perturbation.geometry import Ball, Mask, broadcast_mask, delta_gradient, scale_to, unit
from flax_attnat.perturbation.precision import wide_dtype
from flax_attnat.typing import LossFn, Scalar

SENTENCE = Ball(axes=(-2, -1))


def word_at(
    loss_fn: LossFn,
    embeddings: Float[Array, "B T E"],
    mask: Mask,
    epsilon: Scalar,
    *,
    ball: Ball = SENTENCE,
) -> Float[Array, "B T E"]:
    """Worst perturbation of the word vectors, to first order (Word AT).

    `r = epsilon g / ||g||` with `g = dL/dw` and the norm over the whole `(T, E)` sentence.

    Args:
      loss_fn: `loss_fn(delta) -> [B]` losses with `delta` added to the word vectors, examples independent.
      embeddings: `[B, T, E]` word vectors, normalised as the model reads them; only shape and dtype are read.
      mask: `[B, T]`, true on real tokens. None: all are real.
      epsilon: norm of the perturbation, >= 0: a float, a tracer or `[B]`.
      ball: order and axes of the norm.

    Returns:
      `[B, T, E]` perturbation of the embeddings' dtype, zero on padding and in rows without a finite gradient.

    Raises:
      ValueError: a mask that does not fit, an unknown order, or a Python or NumPy `epsilon` that is negative or NaN.

    Source: Miyato et al. 2017, equations 4-6.

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> words = jnp.zeros((1, 2, 2))
    >>> loss_fn = lambda delta: (words + delta).sum(axis=(1, 2))
    >>> fa.word_at(loss_fn, words, jnp.array([[True, False]]), 1.0).round(3)
    Array([[[0.707, 0.707],
            [0.   , 0.   ]]], dtype=float32)
    """
    g = delta_gradient(loss_fn, jnp.zeros_like(embeddings))
    return scale_to(unit(g, mask=broadcast_mask(mask, embeddings, axis=1), ball=ball), epsilon)


def word_iat(
    loss_fn: LossFn,
    embeddings: Float[Array, "B T E"],
    table: Float[Array, "V E"],
    neighbours: Int[Array, "B T K"],
    mask: Mask,
    epsilon: Scalar,
    *,
    per_word: bool = False,
) -> Float[Array, "B T E"]:
    """Worst perturbation of the word vectors toward neighbouring words (Word iAT).

    `r_t = sum_k alpha_tk dn_tk` with `dn_tk = (e_{n_tk} - w_t) / ||e_{n_tk} - w_t||`, `G_tk = g_t . dn_tk` and
    `alpha = G / ||G||`, the norm over `(t, k)`; `r` is then rescaled to norm epsilon over the sentence, because the
    directions are not orthogonal. Neighbours are visited one at a time: no `[B, T, K, E]` array is made.

    Args:
      loss_fn: `loss_fn(delta) -> [B]` losses with `delta` added to the word vectors, examples independent.
      embeddings: `[B, T, E]` word vectors, normalised as the model reads them.
      table: `[V, E]` all word vectors, normalised in the same way.
      neighbours: `[B, T, K]` ids of each word's neighbours, rows of `nearest_neighbours`.
      mask: `[B, T]`, true on real tokens. None: all are real.
      epsilon: norm of the perturbation, >= 0: a float, a tracer or `[B]`.
      per_word: normalise alpha over the neighbours of each word (Sato's released code), not over the sentence.

    Returns:
      `[B, T, E]` perturbation of the embeddings' dtype, zero on padding and in rows without a finite gradient.

    Raises:
      ValueError: a mask that does not fit, or a Python or NumPy `epsilon` that is negative or NaN.

    Source: Sato et al. 2018, equations 8-13.

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> table = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> words = table[None, :1]
    >>> loss_fn = lambda delta: (words + delta).sum(axis=(1, 2))
    >>> fa.word_iat(loss_fn, words, table, jnp.array([[[1, 2]]]), None, 1.0).round(3)
    Array([[[0.707, 0.707]]], dtype=float32)
    """
    embeddings, table = jax.lax.stop_gradient((embeddings, table))
    real = broadcast_mask(mask, embeddings, axis=1)
    wide = embeddings.astype(wide_dtype(embeddings))
    # The result is free of the gradient's scale, and rows without a usable gradient are 0 from here on.
    g = unit(delta_gradient(loss_fn, jnp.zeros_like(embeddings)).astype(wide.dtype), mask=real, ball=SENTENCE)
    if per_word:
        g = unit(g)

    def visit(carry: tuple[Array, Array], ids_BxT: Array) -> tuple[tuple[Array, Array], None]:
        """Adds one neighbour's `G_tk dn_tk` `[B, T, E]` and `G_tk^2` `[B, T, 1]`."""
        total, squares = carry
        direction = unit(_rows(table, ids_BxT, wide).astype(wide.dtype) - wide)
        coefficient = jnp.sum(g * direction, axis=-1, keepdims=True)
        return (total + coefficient * direction, squares + jnp.square(coefficient)), None

    start = (jnp.zeros_like(wide), jnp.zeros_like(wide[..., :1]))
    (total, squares), _ = jax.lax.scan(visit, start, jnp.moveaxis(neighbours, -1, 0))
    if per_word:
        total = total / jnp.where(squares > 0, jnp.sqrt(squares), 1)
    return scale_to(unit(total, mask=real, ball=SENTENCE), epsilon, embeddings.dtype)


def _rows(table: Array, ids: Array, like: Array) -> Array:
    """Rows `[B, T, E]` of a table `[V, E]`, sharded as `like`: an explicit mesh asks how."""
    sharding = jax.typeof(like).sharding
    if jax.sharding.AxisType.Explicit not in sharding.mesh.axis_types:
        return table[ids]
    return table.at[ids].get(out_sharding=sharding)


def nearest_neighbours(
    table: Float[Array, "V E"], k: int = 10, *, valid: Bool[Array | np.ndarray, "V"] | None = None, block: int = 512
) -> Int[Array, "V k"]:
    """The k words nearest to every word by cosine, itself excluded.

    `argmax_k cos(e_i, e_j)` over `j != i`. The similarities are made in blocks of `block` rows, never as `[V, V]`.

    Args:
      table: `[V, E]` word vectors.
      k: neighbours per word.
      valid: `[V]`, true on words that may be neighbours (padding and unknown are not). None: all.
      block: rows per block.

    Returns:
      `[V, k]` int32 ids, nearest first; a word with fewer than k valid others repeats its nearest one, and one
      without any repeats itself.

    Raises:
      ValueError: k is not between 1 and V - 1.

    Source: Sato et al. 2018, section 4 (the neighbours are refreshed as the vectors move; here once per epoch).

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> fa.nearest_neighbours(jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), k=1)
    Array([[1],
           [0],
           [1]], dtype=int32)
    """
    size = table.shape[0]
    if not 1 <= k < size:
        raise ValueError(f"k must be between 1 and the other {size - 1} words of the table; got {k}.")
    directions = unit(table.astype(wide_dtype(table)))
    allowed = jnp.ones(size, bool) if valid is None else jnp.asarray(valid)
    block = min(block, size)
    rows = jnp.arange(-(-size // block) * block).reshape(-1, block)

    def nearest(ids: Array) -> Array:
        """Ids `[block, k]` of the words nearest to rows `ids`; rows beyond V are cut off afterwards."""
        block_directions = directions[jnp.minimum(ids, size - 1)]
        # In full precision on every device: bfloat16 or TF32 products would swap near neighbours.
        similarity = jnp.matmul(block_directions, directions.T, precision=jax.lax.Precision.HIGHEST)
        others = allowed[None, :] & (ids[:, None] != jnp.arange(size)[None, :])
        # Behind a barrier XLA keeps its top-k kernel; fused with what follows it sorts whole rows on a CPU, far slower.
        found, places = jax.lax.optimization_barrier(jax.lax.top_k(jnp.where(others, similarity, -jnp.inf), k))
        nearest_or_itself = jnp.where(found[:, :1] > -jnp.inf, places[:, :1], ids[:, None])
        return jnp.where(found > -jnp.inf, places, nearest_or_itself).astype(jnp.int32)

    return jax.lax.map(nearest, rows).reshape(-1, k)[:size]


def normalise_embeddings(table: Float[Array, "V E"], frequencies: Real[Array | np.ndarray, "V"]) -> Float[Array, "V E"]:
    """Word vectors with mean 0 and variance 1 under the training unigram frequencies.

    `(e - mu) / sigma` with `mu = sum_j f_j e_j` and `sigma^2 = sum_j f_j (e_j - mu)^2`, per dimension: without it a
    model could make a perturbation of fixed norm harmless by growing its vectors.

    Args:
      table: `[V, E]` word vectors.
      frequencies: `[V]` counts or relative frequencies, >= 0; only their ratios are read.

    Returns:
      `[V, E]` normalised vectors, zero in a dimension that does not vary; differentiable, to be used inside the loss.

    Source: Miyato et al. 2017, equation 1.

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> fa.normalise_embeddings(jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5]))
    Array([[-1.],
           [ 1.]], dtype=float32)
    """
    total = jnp.sum(jnp.asarray(frequencies, wide_dtype(table)))
    return normalise_words(table, table, jnp.asarray(frequencies, total.dtype) / jnp.where(total > 0, total, 1))


def normalise_words(words: Array, table: Array, frequencies: Array | np.ndarray) -> Array:
    """Some rows `[..., E]` of a table `[V, E]`, normalised as `normalise_embeddings` normalises all of it.

    For the rows of a batch this writes no second table, neither forward nor backward.

    >>> normalise_words(jnp.array([[3.0]]), jnp.array([[1.0], [3.0]]), jnp.array([0.5, 0.5]))
    Array([[1.]], dtype=float32)
    """
    wide = table.astype(wide_dtype(table))
    weight = jnp.asarray(frequencies, wide.dtype)
    # As products: under vmap XLA's sums over the rows of a table take several times as long on a CPU.
    average = functools.partial(jnp.einsum, "v,ve->e", precision=jax.lax.Precision.HIGHEST)
    mean = average(weight, wide)
    variance = average(weight, jnp.square(wide - mean[None, :]))
    # A spread of a few roundings of the mean is a constant dimension: dividing by it would return noise of size 1.
    varies = variance > jnp.square(16 * jnp.finfo(wide.dtype).eps * mean)
    inverse = jnp.where(varies, jax.lax.rsqrt(jnp.where(varies, variance, 1)), 0)
    return ((words.astype(wide.dtype) - _row(mean, words)) * _row(inverse, words)).astype(table.dtype)


def _row(values: Array, like: Array) -> Array:
    """Values `[E]` with as many axes as `[..., E]`."""
    return values.reshape((1,) * (like.ndim - 1) + values.shape)
