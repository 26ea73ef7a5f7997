"""Virtual adversarial perturbations (VAT): the direction that changes the prediction most, without a label."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from flax_attnat.perturbation.attention import random_perturbation
from flax_attnat.perturbation.geometry import Ball, Mask, delta_gradient, scale_to, unit
from flax_attnat.typing import LossFn, Scalar


def virtual_at(
    divergence_fn: LossFn,
    like: Float[Array, "*shape"],
    mask: Mask,
    epsilon: Scalar,
    *,
    key: Key[Array, ""] | UInt32[Array, "2"],
    xi: float = 1.0,
    steps: int = 1,
    ball: Ball = Ball(),
) -> Float[Array, "*shape"]:
    """Perturbation that moves the prediction most, by power iteration (virtual adversarial training).

    `d <- unit(grad D(xi d))`, `steps` times from a random unit `d`; then `r = epsilon d`. `D(delta)` is the divergence
    of the prediction under `delta` from the prediction without it, so its gradient at 0 is 0 and the iteration finds
    the leading eigenvector of its Hessian.

    Args:
      divergence_fn: `divergence_fn(delta) -> [B]`, e.g. `KL(p(. | s) || p(. | s + delta))` with the first argument
        under `stop_gradient`; it reads no label.
      like: `[B, *rest]` what is perturbed (scores or word vectors); only its shape and dtype are read.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `like`; with three axes where
        `[B, T]` fits two of them (T = E, say). None: all are real.
      epsilon: norm of the perturbation, >= 0: a float, a tracer or `[B]`.
      key: random key, consumed.
      xi: norm of the delta at which the gradient is taken, > 0.
      steps: power iterations, at least 1.
      ball: order and axes of the norm; that of `word_at`, over all words `[T, E]` of a text, is
        `fa.Ball(axes=(-2, -1))`, where the default is a norm for each word.

    Returns:
      `[B, *rest]` perturbation of `like`'s dtype, zero on padding and in rows without a finite gradient.

    Raises:
      ValueError: `steps` below 1, a mask that does not fit, a Python or NumPy `epsilon` that is negative or NaN, or a
        Python `xi` that is not positive and finite.

    Source: Miyato et al. 2019, algorithm 1; Kitada & Iyatomi 2022 (attention VAT).

    >>> import jax, jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> divergence = lambda delta: delta[:, 0] ** 2 + 100 * delta[:, 1] ** 2
    >>> r = fa.virtual_at(divergence, jnp.zeros((1, 2)), None, 1.0, key=jax.random.key(0), steps=4)
    >>> jnp.abs(r).round(3)
    Array([[0., 1.]], dtype=float32)
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}.")
    if isinstance(xi, int | float) and not 0 < xi < math.inf:
        raise ValueError(f"xi must be a positive, finite number; got {xi!r}.")
    direction = random_perturbation(key, like, mask, 1.0, ball=ball)
    for _ in range(steps):
        # A row that has lost its direction keeps none: at delta 0 the gradient is rounding noise.
        alive = jnp.any(direction != 0, axis=ball.axes, keepdims=True)
        g = delta_gradient(divergence_fn, scale_to(direction, xi))
        direction = unit(jnp.where(alive, g, 0), mask=mask, ball=ball)
    return scale_to(direction, epsilon)
