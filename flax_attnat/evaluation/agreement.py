"""How far two importances of the same words agree."""

import jax.numpy as jnp

from flax_attnat.typing import Array


def pearson(x: Array, y: Array, mask: Array) -> Array:
    """Pearson correlation of two rows over their real entries.

    Args:
      x: `[..., T]`.
      y: `[..., T]`.
      mask: `[..., T]`, true on real entries.

    Returns:
      `[...]`, NaN where it is undefined: fewer than two real entries, a row that is constant over them, or one that
      holds a value that is not finite.

    Source: Pearson 1895; averaged over sentences, it measures how far attention agrees with gradient importance.

    >>> import jax.numpy as jnp
    >>> pearson(jnp.array([1.0, 2.0, 9.0]), jnp.array([2.0, 4.0, 0.0]), jnp.array([True, True, False])).round(3)
    Array(1., dtype=float32)
    """
    x, y = _standardise(x, mask), _standardise(y, mask)
    return jnp.clip(jnp.sum(x * y, axis=-1), -1, 1)


def _standardise(x: Array, mask: Array) -> Array:
    """Rows `[..., T]` centred and of norm 1 over real entries, zero elsewhere; NaN for a row that is constant."""
    low = jnp.min(jnp.where(mask, x, jnp.inf), axis=-1, keepdims=True)
    high = jnp.max(jnp.where(mask, x, -jnp.inf), axis=-1, keepdims=True)
    spread = high - low
    # Scaled to [0, 1] first: squares of tiny weights would underflow.
    scaled = jnp.where(mask, (x - low) / jnp.where(spread > 0, spread, 1), 0)
    count = jnp.sum(mask, axis=-1, keepdims=True, dtype=scaled.dtype)
    mean = jnp.sum(scaled, axis=-1, keepdims=True) / jnp.maximum(count, 1)
    centred = jnp.where(mask, scaled - mean, 0)
    norm = jnp.sqrt(jnp.sum(jnp.square(centred), axis=-1, keepdims=True))
    return jnp.where(spread > 0, centred / jnp.where(norm > 0, norm, 1), jnp.nan)
