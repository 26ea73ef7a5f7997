"""Balls, unit vectors, projections and masks: what every perturbation is built from.

`B` is the batch axis (always the first), `T` tokens, `E` embedding; `*rest` any further axes. Everything is computed in
float32 or wider and returned in the dtype it came in; half-precision results are rounded toward zero, so that rounding
never carries a delta out of its ball.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Real, Shaped

from flax_attnat.perturbation.precision import round_toward_zero, wide_dtype
from flax_attnat.typing import LossFn, Scalar

Mask = Shaped[Array | np.ndarray, "..."] | None
"""True on real entries: `[B, T]`, or anything that broadcasts to what it masks; None: all are real."""


class Ball(NamedTuple):
    """The set of deltas whose norm is at most a radius.

    Attributes:
      ord: order of the norm: 1, 2 or infinity.
      axes: axes the norm runs over: `(-1,)` for `[B, T]` scores, `(-2, -1)` for `[B, T, E]` word vectors of a sentence.

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> fa.unit(jnp.array([[3.0, -4.0]]), ball=fa.Ball(ord=float("inf")))
    Array([[ 1., -1.]], dtype=float32)
    """

    ord: float = 2.0
    axes: tuple[int, ...] = (-1,)


def unit(g: Float[Array, "*shape"], *, mask: Mask = None, ball: Ball = Ball()) -> Float[Array, "*shape"]:
    """Direction of norm 1 along which a linear function of gradient `g` rises most.

    `argmax <u, g>` over `||u|| <= 1`: `g / ||g||_2` for order 2, `sign(g)` for infinity, and for order 1 the signs of
    the entries of largest magnitude, shared equally among ties. The gradient is brought to size 1 first, so that
    `unit(c g) = unit(g)` for `c` from 1e-30 to 1e30.

    Args:
      g: `[B, *rest]` gradient.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `g`; with three axes where
        `[B, T]` fits two of them (T = E, say). None: all are real.
      ball: order and axes of the norm.

    Returns:
      `[B, *rest]` of `g`'s dtype, zero where the mask is false, and zero for a row (one slice over `ball.axes`) that is
      zero or has a real entry that is not finite.

    Raises:
      ValueError: the order is none of 1, 2, infinity, or the mask does not fit.

    Source: Goodfellow et al. 2015 (order infinity), Miyato et al. 2017, equation 5 (order 2).

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> fa.unit(jnp.array([[3.0, 4.0, 9.0]]), mask=jnp.array([[True, True, False]]))
    Array([[0.6, 0.8, 0. ]], dtype=float32)
    """
    _check_ball(ball)
    real = broadcast_mask(mask, g)
    wide = jnp.where(real, g.astype(wide_dtype(g)), 0)
    largest = _largest(wide, ball.axes)
    wide = jnp.where((largest > 0) & jnp.isfinite(largest), wide, 0)
    if ball.ord == math.inf:
        direction = jnp.sign(wide)
    elif ball.ord == 1:
        peaks = jnp.where((jnp.abs(wide) == largest) | _first_largest(wide, ball.axes), jnp.sign(wide), 0)
        direction = peaks / jnp.maximum(jnp.sum(jnp.abs(peaks), axis=ball.axes, keepdims=True), 1)
    else:
        direction = _scaled(wide, ball.axes)[0]
        direction = direction / _norm2(direction, ball.axes)
    return round_toward_zero(direction, g.dtype)


def project(
    delta: Float[Array, "*shape"],
    epsilon: Scalar,
    *,
    mask: Mask = None,
    ball: Ball = Ball(),
) -> Float[Array, "*shape"]:
    """Nearest point to `delta` in the ball of radius `epsilon`, in Euclidean distance.

    `delta * min(1, epsilon / ||delta||)` for order 2, `clip(delta, -epsilon, epsilon)` for infinity, and soft
    thresholding at the level that makes the norm `epsilon` for order 1.

    Args:
      delta: `[B, *rest]`.
      epsilon: radius, >= 0: a float, a tracer or `[B]`.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `delta`; with three axes where
        `[B, T]` fits two of them (T = E, say). None: all are real.
      ball: order and axes of the norm.

    Returns:
      `[B, *rest]` of `delta`'s dtype, zero where the mask is false and in rows with a real entry that is not finite.

    Raises:
      ValueError: the order is none of 1, 2, infinity, the mask does not fit, or a Python or NumPy `epsilon` is negative
        or NaN.

    Source: Duchi et al. 2008, figure 1 (order 1).

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> fa.project(jnp.array([[3.0, 4.0]]), 1.0)
    Array([[0.6, 0.8]], dtype=float32)
    """
    _check_ball(ball)
    real = broadcast_mask(mask, delta)
    wide = jnp.where(real, delta.astype(wide_dtype(delta)), 0)
    finite = jnp.all(jnp.isfinite(wide), axis=ball.axes, keepdims=True)
    wide = jnp.where(finite, wide, 0)
    radius = _radius(epsilon, wide)
    if ball.ord == math.inf:
        inside = jnp.clip(wide, -radius, radius)
    elif ball.ord == 1:
        inside = _project_l1(wide, radius, ball.axes)
    else:
        scaled, power = _scaled(wide, ball.axes)
        norm = _norm2(scaled, ball.axes)
        # A row that is inside already is left as it is, bit for bit; the scaled row cannot overflow.
        inside = jnp.where(norm * power <= radius, wide, scaled / norm * radius)
    return round_toward_zero(inside, delta.dtype)


def masked_softmax(scores: Real[Array, "*shape"], mask: Mask, axis: int = -1) -> Float[Array, "*shape"]:
    """Softmax over the real entries alone.

    `a_t = mask_t exp(s_t) / sum_k mask_k exp(s_k)`.

    Args:
      scores: `[B, *rest]`, before the softmax; whatever stands on masked entries, NaN included, is not read.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `scores`. None: all are real.
      axis: axis to normalise.

    Returns:
      `[B, *rest]` of `scores`' dtype, float32 of integers; a row without real entries gives zeros, and its gradient is
      zero; one with NaN among them gives NaN on all of them.

    Raises:
      ValueError: a mask that does not fit.

    Source: Kitada & Iyatomi 2021, section 3 (attention over the real tokens).

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> fa.masked_softmax(jnp.array([[0.0, 0.0, 7.0]]), jnp.array([[True, True, False]]))
    Array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    real = broadcast_mask(mask, scores, axis)
    wide = scores.astype(wide_dtype(scores))
    highest = jnp.max(jnp.where(real, wide, -jnp.inf), axis=axis, keepdims=True, initial=-jnp.inf)
    highest = jax.lax.stop_gradient(jnp.where(highest > -jnp.inf, highest, 0))
    exponentials = jnp.where(real, jnp.exp(jnp.where(real, wide - highest, 0)), 0)
    total = jnp.sum(exponentials, axis=axis, keepdims=True)
    weights = jnp.where(real, exponentials / jnp.where(total == 0, 1, total), 0)
    return weights.astype(scores.dtype if jnp.issubdtype(scores.dtype, jnp.floating) else wide.dtype)


def scale_to(direction: Array, epsilon: Scalar, dtype: DTypeLike | None = None) -> Array:
    """`epsilon * direction`, `[B, *rest]`, in `dtype` (the direction's own if None), under stop_gradient.

    Zero stays zero even where epsilon is infinite.

    >>> scale_to(jnp.array([[0.6, 0.8, 0.0]]), 5.0)
    Array([[3., 4., 0.]], dtype=float32)
    """
    wide = direction.astype(wide_dtype(direction))
    delta = jnp.where(wide == 0, 0, wide * _radius(epsilon, wide))
    return jax.lax.stop_gradient(round_toward_zero(delta, direction.dtype if dtype is None else dtype))


def delta_gradient(loss_fn: LossFn, at: Array) -> Array:
    """Gradient `[B, *rest]` of each example's loss `[B]` at delta `at`; as examples are independent, of their sum.

    It is a constant for gradients outside, which would ask the loss for second derivatives: kernels that have none are
    fine.

    >>> delta_gradient(lambda delta: jnp.sum(delta**2, axis=-1), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([[2., 4.],
           [6., 8.]], dtype=float32)
    """

    def total(delta: Array) -> Array:
        """Sum of the per-example losses, a scalar."""
        losses = loss_fn(delta)
        return jnp.sum(losses.astype(wide_dtype(losses)))

    return jax.grad(without_outer_gradients(total, at))(jax.lax.stop_gradient(at))


def without_outer_gradients(function: LossFn, at: Array) -> LossFn:
    """`function` of a delta like `at` `[B, *rest]`, with all that it closes over under stop_gradient.

    >>> outer = lambda x: without_outer_gradients(lambda delta: x * delta, jnp.ones(1))(jnp.ones(1))[0]
    >>> float(jax.grad(outer)(3.0))
    0.0
    """
    # `jax.closure_convert` would keep what each function closes over, and would not see that it has changed.
    traced = jax.make_jaxpr(lambda delta: function(delta))(at)
    constants = jax.lax.stop_gradient(traced.consts)
    return lambda delta: jax.core.eval_jaxpr(traced.jaxpr, constants, delta)[0]


def check_losses(losses: Array, like: Array) -> None:
    """Raises ValueError for losses that are not one a row of a delta `like` `[B, *rest]`; of `[T]`, one alone will do.

    >>> check_losses(jnp.zeros(2), jnp.zeros((2, 3)))
    >>> check_losses(jnp.zeros(()), jnp.zeros((2, 3)))
    Traceback (most recent call last):
    ...
    ValueError: loss_fn must return one loss a row, of shape (2,); it returned shape ().
    """
    if losses.shape != like.shape[:1] and not (losses.ndim == 0 and like.ndim == 1):
        raise ValueError(
            f"loss_fn must return one loss a row, of shape {like.shape[:1]}; it returned shape {losses.shape}."
        )


def broadcast_mask(mask: Mask, like: Array, axis: int | None = None) -> Array:
    """`mask` as booleans of as many axes as `like` `[B, *rest]` that broadcast to it.

    A `[B, T]` mask gains axes behind T if it fits the first axes of `like` (word vectors `[B, T, E]`), or between B and
    T if it fits the first and the last (scores `[B, heads, Q, T]`). Where both fit the three axes of `like`, `axis`
    says which one is of tokens, and without it the mask is refused, as is one of two axes of which the first is not of
    rows (`[Q, T]`, unless B = Q: that is read as `[B, T]`). B or T of a mask may be 1. Any other mask broadcasts as
    NumPy does.

    >>> broadcast_mask(jnp.array([[True, False]]), like=jnp.zeros((1, 2, 300))).shape
    (1, 2, 1)
    """
    if mask is None:
        return jnp.ones((1,) * like.ndim, bool)
    mask = jnp.asarray(mask).astype(bool)
    if mask.ndim == 2 and like.ndim > 2:
        if mask.shape[0] not in (1, like.shape[0]):
            raise ValueError(
                f"a mask of shape {mask.shape} has no axis of the {like.shape[0]} rows of a delta of shape"
                f" {like.shape}: pass [B, T], or queries by keys with the axes before them, mask[None] for [B, Q, T]."
            )
        first, ends = (mask.shape[1] in (1, like.shape[place]) for place in (1, -1))
        if first and ends and mask.shape[1] > 1:
            if axis is None and like.ndim == 3:
                raise ValueError(
                    f"a mask of shape {mask.shape} fits two axes of a delta of shape {like.shape}: pass"
                    " mask[:, :, None] for words [B, T, E], or mask[:, None, :] for scores [B, heads, T]."
                )
            ends = axis is None or axis % like.ndim != 1
        if ends:
            mask = mask.reshape((mask.shape[0],) + (1,) * (like.ndim - 2) + (mask.shape[1],))
        elif first:
            mask = mask.reshape(mask.shape + (1,) * (like.ndim - 2))
    try:
        fits = jnp.broadcast_shapes(mask.shape, like.shape) == like.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"a mask of shape {mask.shape} does not fit a delta of shape {like.shape}: pass [B, T], or a mask with as "
            "many axes as the delta."
        )
    return mask.reshape((1,) * (like.ndim - mask.ndim) + mask.shape)


def _first_largest(x: Float[Array, "*shape"], axes: tuple[int, ...]) -> Bool[Array, "*shape"]:
    """True on the first largest absolute value over `axes`.

    Where a compiler computes `x` twice, with other rounding, no entry equals the maximum; this one is found.
    """
    last = tuple(range(x.ndim - len(axes), x.ndim))
    if not x.size:
        return jnp.zeros(x.shape, bool)
    moved = jnp.moveaxis(jnp.abs(x), axes, last)
    flat = moved.reshape((*moved.shape[: x.ndim - len(axes)], math.prod(x.shape[axis] for axis in axes)))
    first = jnp.argmax(flat, axis=-1, keepdims=True) == jax.lax.broadcasted_iota(jnp.int32, flat.shape, flat.ndim - 1)
    return jnp.moveaxis(first.reshape(moved.shape), last, axes)


def _largest(x: Array, axes: tuple[int, ...]) -> Array:
    """Largest magnitude of `x` over `axes`, kept as 1."""
    return jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0.0)


def _scaled(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """`x` over a power of two that brings its largest entry over `axes` into [1, 4), and that power.

    The division is exact, and squares of the result neither overflow nor vanish. A row of zeros has power 1.
    """
    largest = _largest(x, axes)
    largest = jnp.where(largest > 0, largest, 1)
    # Compilers may multiply by the reciprocal of the power: the bound keeps that a normal number.
    power = jnp.minimum(largest / (2 * jnp.frexp(largest)[0]), 1 / float(jnp.finfo(x.dtype).tiny))
    return x / power, power


def _norm2(x: Array, axes: tuple[int, ...]) -> Array:
    """Euclidean norm of `x` over `axes`, kept as 1; 1 for a row of zeros, so that it may divide."""
    squares = jnp.sum(jnp.square(x), axis=axes, keepdims=True)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1))


def _project_l1(x: Array, radius: Array, axes: tuple[int, ...]) -> Array:
    """Projection of `x` `[B, *rest]` on the L1 ball over `axes`: soft thresholding at the level found by sorting.

    Depths below the largest magnitude are sorted in place of the magnitudes: the level's distance from the largest,
    `(radius + sum of the k smallest depths) / k`, is then a sum without cancellation, whatever the radius.
    """
    if not x.size:
        return x
    kept = [axis for axis in range(x.ndim) if axis not in {a % x.ndim for a in axes}]
    order = kept + [axis for axis in range(x.ndim) if axis not in kept]
    moved = jnp.transpose(jnp.abs(x), order)
    magnitude = moved.reshape((*moved.shape[: len(kept)], -1))
    radius = jnp.transpose(jnp.broadcast_to(radius, jnp.sum(x, axis=axes, keepdims=True).shape), order)
    radius = radius.reshape((*magnitude.shape[:-1], 1))
    depth = jnp.max(magnitude, axis=-1, keepdims=True) - magnitude
    ascending = jnp.sort(depth, axis=-1)
    levels = (radius + jnp.cumsum(ascending, axis=-1)) / jnp.cumsum(jnp.ones_like(depth), axis=-1)
    count = jnp.maximum(jnp.sum(ascending < levels, axis=-1, keepdims=True), 1)
    shrunk = jnp.clip(jnp.take_along_axis(levels, count - 1, axis=-1) - depth, 0, magnitude)
    norm = jnp.sum(shrunk, axis=-1, keepdims=True)
    shrunk = jnp.where(norm > radius, shrunk * (radius / jnp.where(norm > 0, norm, 1)), shrunk)
    shrunk = jnp.where(jnp.sum(magnitude, axis=-1, keepdims=True) <= radius, magnitude, shrunk)
    return jnp.sign(x) * jnp.transpose(shrunk.reshape(moved.shape), sorted(range(x.ndim), key=order.__getitem__))


def _radius(epsilon: Scalar, like: Array) -> Array:
    """`epsilon`, a scalar or `[B]`, in the dtype of `like` `[B, *rest]` and broadcasting to it."""
    check_epsilon(epsilon)
    radius = jnp.asarray(epsilon, like.dtype)
    if radius.ndim > 1 or (radius.ndim == 1 and radius.shape[0] != like.shape[0]):
        raise ValueError(
            f"epsilon must be a scalar or one value a row ({like.shape[0]} rows); its shape is {radius.shape}."
        )
    return radius.reshape(radius.shape + (1,) * (like.ndim - radius.ndim)) if radius.ndim else radius


def check_epsilon(epsilon: Scalar) -> None:
    """Raises ValueError for a Python or NumPy epsilon, of any shape, that is negative or NaN somewhere.

    >>> check_epsilon(np.float32(-1.0))
    Traceback (most recent call last):
    ...
    ValueError: epsilon must be a number that is not negative; got np.float32(-1.0).
    """
    if isinstance(epsilon, int | float | np.generic | np.ndarray) and not np.all(np.asarray(epsilon) >= 0):
        raise ValueError(f"epsilon must be a number that is not negative; got {epsilon!r}.")


def _check_ball(ball: Ball) -> None:
    """Raises ValueError for an order that is not offered."""
    if ball.ord not in (1, 2, math.inf):
        raise ValueError(f"Ball.ord must be 1, 2 or infinity; got {ball.ord!r}.")
