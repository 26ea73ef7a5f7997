"""Perturbations of attention scores: adversarial (AT), interpretable adversarial (iAT), random.

`B` batch, `T` tokens, `*rest` further axes before T (heads, query positions). A perturbation is a constant for the
parameters (`stop_gradient`), zero on padding, and of norm at most epsilon in every row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from flax_attnat.perturbation.geometry import Ball, Mask, broadcast_mask, delta_gradient, scale_to, unit
from flax_attnat.perturbation.precision import wide_dtype
from flax_attnat.typing import LossFn, Scalar

READINGS = ("span", "sentence", "token", "sign", "released")


def attention_at(
    loss_fn: LossFn,
    scores: Float[Array, "*shape"],
    mask: Mask,
    epsilon: Scalar,
    *,
    ball: Ball = Ball(),
) -> Float[Array, "*shape"]:
    """Worst perturbation of the attention scores, to first order (Attention AT).

    `r = epsilon g / ||g||` with `g = dL/ds`, the gradient of each example's loss with respect to its scores.

    Args:
      loss_fn: `loss_fn(delta) -> [B]` losses with `delta` added to the scores, examples independent.
      scores: `[B, *rest, T]` attention scores, before the softmax; only their shape and dtype are read.
      mask: true on real tokens; `[B, T]` or anything that broadcasts to `scores`. None: all are real.
      epsilon: norm of the perturbation, >= 0: a float, a tracer or `[B]`.
      ball: order and axes of the norm.

    Returns:
      `[B, *rest, T]` perturbation of the scores' dtype, zero on padding and in rows without a finite gradient.

    Raises:
      ValueError: a mask that does not fit, an unknown order, or a Python or NumPy `epsilon` that is negative or NaN.

    Source: Kitada & Iyatomi 2021, section "Attention AT".

    >>> import jax, jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> scores, values = jnp.zeros((1, 3)), jnp.array([2.0, 1.0, 0.0])
    >>> loss_fn = lambda delta: jax.nn.softmax(scores + delta) @ values
    >>> fa.attention_at(loss_fn, scores, jnp.ones((1, 3), bool), 1.0).round(3)
    Array([[ 0.707,  0.   , -0.707]], dtype=float32)
    """
    real = broadcast_mask(mask, scores, axis=-1)
    g = delta_gradient(loss_fn, jnp.zeros_like(scores))
    return scale_to(unit(g, mask=real, ball=ball), epsilon)


def attention_iat(
    loss_fn: LossFn,
    scores: Float[Array, "*shape"],
    mask: Mask,
    epsilon: Scalar,
    *,
    reading: str = "span",
) -> Float[Array, "*shape"]:
    r"""Worst perturbation of the scores along the differences between tokens (Attention iAT).

    The paper builds `r_t = sum_k alpha_tk dn_tk` from the differences `d_tk = s_t - s_k` within a sentence, with
    `alpha = epsilon G / ||G||` and `G = dL/dalpha`. A score is one number, so unit differences leave nothing of the
    directions, and how `d` is normalised decides what iAT is. With `n_t^2 = sum_k d_tk^2`, `g = dL/ds`, and
    `Dn_tk = d_tk / n_t`:

      "span"      `r ~ Dn (Dn^T g)`: one alpha for all tokens; r lies in the span of the difference directions
      "sentence"  `r_t ~ g_t n_t^2`: differences normalised once a sentence
      "token"     `r_t ~ g_t`: the formula as printed; equal to `attention_at`
      "sign"      `r_t ~ sign(g_t)`: alpha normalised per token
      "released"  `r_t ~ -g_t`: what the authors' code computes; it lowers the loss

    each scaled to L2 norm epsilon. No (T, T) array is made: with scores centred, `S1 = sum s`, `S2 = sum s^2`,
    `n_t^2 = n s_t^2 - 2 s_t S1 + S2`, and `Dn (Dn^T g)` follows from `A = sum g_t s_t / n_t` and `B = sum g_t / n_t`.

    Args:
      loss_fn: `loss_fn(delta) -> [B]` losses with `delta` added to the scores, examples independent.
      scores: `[B, *rest, T]` attention scores, before the softmax.
      mask: true on real tokens; `[B, T]` or anything that broadcasts to `scores`. None: all are real.
      epsilon: L2 norm of the perturbation, >= 0: a float, a tracer or `[B]`.
      reading: one of the five above.

    Returns:
      `[B, *rest, T]` perturbation of the scores' dtype; zero on padding, in rows of one token, in rows without a finite
      gradient, and (except "released") in rows of equal scores, which have no direction.

    Raises:
      ValueError: an unknown reading, a mask that does not fit, or a Python or NumPy `epsilon` that is negative or NaN.

    Source: Kitada & Iyatomi 2021, section "Attention iAT"; the readings are this library's.

    >>> import jax, jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> scores, values = jnp.array([[1.0, 0.0, 0.0]]), jnp.array([2.0, 1.0, 0.0])
    >>> loss_fn = lambda delta: jax.nn.softmax(scores + delta) @ values
    >>> fa.attention_iat(loss_fn, scores, jnp.ones((1, 3), bool), 1.0).round(3)
    Array([[ 0.577, -0.577, -0.577]], dtype=float32)
    """
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {', '.join(READINGS)}; got {reading!r}.")
    scores = jax.lax.stop_gradient(scores)
    real = jnp.broadcast_to(broadcast_mask(mask, scores, axis=-1), scores.shape)
    g = delta_gradient(loss_fn, jnp.zeros_like(scores))
    # Through `unit` first: the readings are free of the gradient's scale, and rows without a usable gradient are 0.
    g = unit(g.astype(wide_dtype(scores)), mask=real)
    centred, squared_distances = _differences(scores, real)
    several = jnp.sum(real, axis=-1, keepdims=True) > 1
    directed = jnp.any(centred != 0, axis=-1, keepdims=True)
    if reading == "released":
        direction = jnp.where(several, -g, 0)
    elif reading == "span":
        direction = _span(g, centred, squared_distances, real)
    elif reading == "sentence":
        direction = g * squared_distances
    else:
        direction = jnp.where(directed, jnp.sign(g) if reading == "sign" else g, 0)
    return scale_to(unit(direction, mask=real), epsilon, scores.dtype)


def random_perturbation(
    key: Key[Array, ""] | UInt32[Array, "2"],
    like: Float[Array, "*shape"],
    mask: Mask,
    epsilon: Scalar,
    *,
    ball: Ball = Ball(),
) -> Float[Array, "*shape"]:
    """Perturbation in a random direction: the control of the adversarial ones.

    `r = epsilon z / ||z||` with `z ~ N(0, I)` on real entries. `z` at an index depends on the key and that index alone,
    so neither padding nor the other rows of a batch change `r`, with JAX's default generator; `rbg` keys make their
    numbers otherwise.

    Args:
      key: random key, consumed.
      like: `[B, *rest]` what is perturbed; only its shape and dtype are read.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `like`; with three axes where
        `[B, T]` fits two of them (T = E, say). None: all are real.
      epsilon: norm of the perturbation, >= 0: a float, a tracer or `[B]`.
      ball: order and axes of the norm; for order 1 or infinity the direction is `unit` of the same `z`. The norm of
        `word_at`, over all words `[T, E]` of a text, is `fa.Ball(axes=(-2, -1))`; the default is one for each word.

    Returns:
      `[B, *rest]` perturbation of `like`'s dtype, zero where the mask is false.

    Raises:
      ValueError: a mask that does not fit, an unknown order, or a Python or NumPy `epsilon` that is negative or NaN.

    Source: Kitada & Iyatomi 2021, baseline "attention RP".

    >>> import jax, jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> r = fa.random_perturbation(jax.random.key(0), jnp.zeros((1, 3)), jnp.array([[True, True, False]]), 2.0)
    >>> float(jnp.linalg.norm(r).round(3)), float(r[0, 2])
    (2.0, 0.0)
    """
    # Under shard_map the noise is the same on every shard and `like` is not: the zeros make the noise vary with it.
    noise = normal(key, like.shape).astype(wide_dtype(like)) + jnp.zeros_like(like, wide_dtype(like))
    return scale_to(unit(noise, mask=mask, ball=ball), epsilon, like.dtype)


def _differences(scores: Array, real: Array) -> tuple[Array, Array]:
    """Scores centred over real tokens and scaled to at most 1, and `n_t^2 = sum_k (s_t - s_k)^2`, both `[B, *rest, T]`.

    The highest score is taken off before the mean: differences of near scores are exact in floating point, so that
    rows of equal scores give exact zeros.
    """
    wide = scores.astype(wide_dtype(scores))
    count = jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1).astype(wide.dtype)
    highest = jnp.max(jnp.where(real, wide, -jnp.inf), axis=-1, keepdims=True, initial=-jnp.inf)
    centred = jnp.where(real, wide - jnp.where(jnp.isfinite(highest), highest, 0), 0)
    centred = jnp.where(real, centred - jnp.sum(centred, axis=-1, keepdims=True) / count, 0)
    largest = jnp.max(jnp.abs(centred), axis=-1, keepdims=True, initial=0.0)
    centred = centred / jnp.where(largest > 0, largest, 1)
    s1 = jnp.sum(centred, axis=-1, keepdims=True)
    s2 = jnp.sum(jnp.square(centred), axis=-1, keepdims=True)
    squared = jnp.where(real, count * jnp.square(centred) - 2 * centred * s1 + s2, 0)
    return centred, jnp.maximum(squared, 0)


def _span(g: Array, centred: Array, squared: Array, real: Array) -> Array:
    """`Dn (Dn^T g)` `[B, *rest, T]` in closed form, zero where `Dn^T g` is zero up to rounding."""
    count = jnp.sum(real, axis=-1, keepdims=True).astype(centred.dtype)
    has_direction = squared > 0
    inverse = jnp.where(has_direction, jax.lax.rsqrt(jnp.where(has_direction, squared, 1)), 0)
    s1 = jnp.sum(centred, axis=-1, keepdims=True)
    s2 = jnp.sum(jnp.square(centred), axis=-1, keepdims=True)
    a = jnp.sum(g * centred * inverse, axis=-1, keepdims=True)
    b = jnp.sum(g * inverse, axis=-1, keepdims=True)
    # |Dn^T g| against what its sums were made of: below a few roundings it is zero, and has no direction to keep.
    size = jnp.sum(jnp.abs(g) * inverse, axis=-1, keepdims=True) * jnp.sqrt(count)
    length = jnp.sqrt(jnp.maximum(count * a * a - 2 * a * b * s1 + b * b * s2, 0))
    nonzero = length > 4 * jnp.finfo(centred.dtype).eps * size
    direction = (centred * (count * a - b * s1) - (a * s1 - b * s2)) * inverse
    return jnp.where(nonzero & real, direction, 0)


def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers of `shape`, each a function of the key and its index alone.

    The last axis is drawn at once: JAX's default, partitionable generator makes its numbers from their places.

    >>> wide, narrow = (normal(jax.random.key(0), (2, tokens)) for tokens in (5, 3))
    >>> bool((wide[:, :3] == narrow).all())
    True
    """
    if len(shape) < 2:
        return jax.random.normal(key, shape, jnp.float32)
    return jax.vmap(lambda index: normal(jax.random.fold_in(key, index), shape[1:]))(jnp.arange(shape[0]))
