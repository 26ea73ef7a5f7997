"""How far two distributions are apart: of attention over words, and of a prediction over classes."""

import math

import jax
import jax.numpy as jnp

from flax_attnat.typing import Array

# Where |p - q| / (p + q) is less, a series; its next term is below float32.
SERIES_BELOW = 0.25
TERMS = 5


def jensen_shannon(p: Array, q: Array, mask: Array) -> Array:
    """Jensen-Shannon divergence of two distributions over words, in nats.

    `JSD = (KL(p || m) + KL(q || m)) / 2` with `m = (p + q) / 2`: 0 for equal ones, exactly, and ln 2 for disjoint ones.
    It keeps its relative precision where they are close.

    Args:
      p: `[..., T]`, not negative, with sum 1 over real tokens.
      q: `[..., T]`, likewise.
      mask: `[..., T]`, true on real tokens.

    Returns:
      `[...]` in [0, ln 2]; NaN without real tokens, and where one of them has NaN. Its gradient is `log(p / m) / 2`,
      and taken to be 0 where p is 0, as it is minus infinity there unless q is 0 too.

    Source: Lin 1991; between attentions, Jain & Wallace 2019. The square of SciPy's `jensenshannon`.

    >>> import jax.numpy as jnp
    >>> jensen_shannon(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.5, 0.5]), jnp.ones(3, bool)).round(4)
    Array(0.3466, dtype=float32)
    """
    divergence = jnp.sum(_shares(jnp.where(mask, p, 0), jnp.where(mask, q, 0)), axis=-1)
    return jnp.where(jnp.any(mask, axis=-1), _at_most(divergence, math.log(2)), jnp.nan)


def total_variation(p: Array, q: Array) -> Array:
    """Total variation distance of two distributions over classes: `TVD = sum_y |p_y - q_y| / 2`.

    Args:
      p: `[..., C]`, not negative, with sum 1.
      q: `[..., C]`, likewise.

    Returns:
      `[...]` in [0, 1]; its gradient is 0 for a class of which the two are equal.

    Source: Jain & Wallace 2019.

    >>> import jax.numpy as jnp
    >>> total_variation(jnp.array([0.5, 0.25, 0.25]), jnp.array([0.25, 0.25, 0.5]))
    Array(0.25, dtype=float32)
    """
    # Unlike that of abs, the gradient of the larger of x and -x is 0 at 0.
    return _at_most(jnp.sum(jnp.maximum(p - q, q - p), axis=-1) / 2, 1)


def _at_most(value: Array, bound: float) -> Array:
    """`[...]` without what rounding adds beyond the bound; the gradient stays, which a minimum would halve there."""
    return value - jax.lax.stop_gradient(jnp.maximum(value - bound, 0))


@jax.custom_jvp
def _shares(p: Array, q: Array) -> Array:
    """What each word `[..., T]` adds to the divergence, `(p log(p / m) + q log(q / m)) / 2`, never negative."""
    total, contrast = _contrast(p, q)
    square = jnp.square(contrast)
    # Of u = contrast: ((1 + u) log(1 + u) + (1 - u) log(1 - u)) / 4 = sum_k u^(2k) / (4k (2k - 1)).
    near = jnp.zeros_like(square)
    for k in range(TERMS, 0, -1):
        near = square * (1 / (4 * k * (2 * k - 1)) + near)
    far = p * _half_log(p, total, contrast) + q * _half_log(q, total, -contrast)
    return jnp.where(jnp.abs(contrast) < SERIES_BELOW, total * near, far)


@_shares.defjvp
def _shares_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Derivative without the squares of tiny weights, which would underflow; all `[..., T]`."""
    (p, q), (dp, dq) = primals, tangents
    total, contrast = _contrast(p, q)
    return _shares(p, q), _half_log(p, total, contrast) * dp + _half_log(q, total, -contrast) * dq


def _contrast(p: Array, q: Array) -> tuple[Array, Array]:
    """`p + q`, 1 for 0, and `(p - q) / (p + q)`, all `[..., T]`."""
    total = jnp.where(p + q == 0, 1, p + q)
    return total, (p - q) / total


def _half_log(weight: Array, total: Array, contrast: Array) -> Array:
    """`log(2 weight / total) / 2` `[..., T]`, of a weight that is `(1 + contrast) / 2` of the total; 0 for weight 0."""
    there, close = weight != 0, jnp.abs(contrast) < SERIES_BELOW
    logarithm = jnp.log(jnp.where(there, 2 * weight / total, 1))
    return jnp.where(close, jnp.log1p(jnp.where(close, contrast, 0)), logarithm) / 2
