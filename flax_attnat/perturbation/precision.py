"""The dtypes that perturbations are computed and returned in."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array


def wide_dtype(x: Array) -> jnp.dtype:
    """float64 for float64, float32 for everything narrower: the dtype that norms of `x` (any shape) are computed in.

    >>> wide_dtype(jnp.ones((2, 3), jnp.bfloat16))
    dtype('float32')
    """
    return jnp.dtype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def round_toward_zero(x: Array, dtype: DTypeLike) -> Array:
    """`x` (any shape) in a dtype that may be narrower, never larger in magnitude than it was.

    >>> float(jnp.float32(0.999).astype(jnp.bfloat16)), float(round_toward_zero(jnp.float32(0.999), jnp.bfloat16))
    (1.0, 0.99609375)
    """
    narrow = x.astype(dtype)
    if jnp.finfo(dtype).bits >= jnp.finfo(x.dtype).bits:
        return narrow
    return jnp.where(
        jnp.abs(narrow.astype(x.dtype)) > jnp.abs(x), jnp.nextafter(narrow, jnp.zeros_like(narrow)), narrow
    )
