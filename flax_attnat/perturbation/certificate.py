"""The exact range of an attention-weighted mean when every score may move by epsilon: a certificate, not an attack.

`T` tokens, `...` any axes before them. A row is one sequence.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flax_attnat.perturbation.geometry import Mask, broadcast_mask, check_epsilon, masked_softmax
from flax_attnat.perturbation.precision import wide_dtype
from flax_attnat.typing import Scalar


class _Group(NamedTuple):
    """Tokens merged into one; weights are kept relative to the highest, so that scores of any size fit.

    Attributes:
      peak: `[..., T]` highest score of the group; the lowest finite number for an empty group.
      mass: `[..., T]` `sum_t exp(s_t - peak)`, at least 1; 0 for an empty group.
      mean: `[..., T]` mean of the values under these weights.
    """

    peak: Array
    mass: Array
    mean: Array


def certify_attention(
    scores: Float[Array, "*rows T"],
    values: Float[Array, "*rows T"],
    mask: Mask,
    epsilon: Scalar,
) -> tuple[Float[Array, "*rows"], Float[Array, "*rows"]]:
    r"""Exact range of an attention-weighted mean over all perturbations of the scores of size epsilon.

    The least and the greatest `z(r) = sum_t softmax(s + r)_t v_t` over `|r_t| <= epsilon`. `z` is a linear-fractional
    function of the weights `e^{r_t}`, so its maximum is at a corner: `r = +epsilon` on the tokens of largest value and
    `-epsilon` on the rest, the minimum the other way round. Every cut of the tokens sorted by value is tried,
    in O(T log T). With `v_t = o . h_t`, and the output bias added, this is the range of the single-sequence logit.

    Softmax ignores a common shift, and half the range of `r` is at most `||r||_2 / sqrt(2)`. So the range for
    `epsilon / sqrt(2)` contains that of the L2 ball of radius `epsilon`: a sound certificate, not an exact one.

    The bounds are not rounded outward in float32: they are exact to `1e-6 + 1e-7 epsilon` times the range of the
    values, and one rounding of the values themselves. They stay inside that range and around `z(0)`. Their gradients
    are those of `z` at the worst `r`, which moves with epsilon alone.

    Args:
      scores: `[..., T]` attention scores, before the softmax; whatever stands on masked entries is not read.
      values: `[..., T]` what is averaged; masked entries are not read.
      mask: true on real tokens; `[..., T]` or anything that broadcasts to `scores`. None: all are real.
      epsilon: largest change of a score, >= 0, infinity included: a float, a tracer or `[...]`, one a row.

    Returns:
      `(lower, upper)`, each `[...]` of the dtype of `values`, computed in float32 or wider; half precision is rounded
      outward. Rows without real tokens give (0, 0); rows with a real score or value that is not finite, or a range
      of them that is not, or a traced epsilon that is negative or NaN, give (NaN, NaN).

    Raises:
      ValueError: scores and values differ in shape, the mask or epsilon does not fit, or a Python or NumPy `epsilon` is
        negative or NaN.

    Source: Charnes & Cooper 1962 (linear-fractional programming).

    >>> import jax.numpy as jnp
    >>> from flax_attnat.perturbation.certificate import certify_attention
    >>> scores, values = jnp.zeros((1, 3)), jnp.array([[2.0, 1.0, 0.0]])
    >>> lower, upper = certify_attention(scores, values, None, 0.5)
    >>> round(float(lower[0]), 3), round(float(upper[0]), 3)
    (0.636, 1.364)
    """
    if scores.shape != values.shape:
        raise ValueError(f"scores and values must have one shape; they have {scores.shape} and {values.shape}.")
    dtype = jnp.promote_types(wide_dtype(scores), wide_dtype(values))
    real = jnp.broadcast_to(broadcast_mask(mask, scores, axis=-1), scores.shape)
    radius = _row_radius(epsilon, scores.shape[:-1], dtype)
    s, v = (jnp.where(real, x.astype(dtype), 0) for x in (scores, values))
    usable = (radius >= 0) & _has_range(s, real) & _has_range(v, real)
    s, v, radius = (jnp.where(usable, x, 0) for x in (s, v, radius))
    order = jnp.argsort(jnp.where(real, v, jnp.inf), axis=-1)
    s, v, real = (jnp.take_along_axis(x, order, axis=-1) for x in (s, v, real))
    bounds = _sorted_range(s, v, real, 2 * radius)
    lower, upper = (jnp.where(usable, bound, jnp.nan)[..., 0] for bound in bounds)
    return _round_to(lower, values.dtype, -jnp.inf), _round_to(upper, values.dtype, jnp.inf)


def _sorted_range(s: Array, v: Array, real: Array, gap: Array) -> tuple[Array, Array]:
    """Least and greatest mean `[..., 1]` of values in ascending order, padding last; `gap` `[..., 1]` is 2 epsilon."""
    # Differences from the ends cost no digits where the values share an offset, and are exact at the ends. The scores
    # are shifted before the gap is taken off, for the same reason.
    least, most = jax.lax.stop_gradient(_ends(v, real))
    s = s - jax.lax.stop_gradient(_ends(s, real)[1])
    rank = jnp.arange(s.shape[-1]).reshape((1,) * (s.ndim - 1) + (-1,))

    def mean(x: Array, favoured: Array) -> Array:
        """Mean `[..., 1]` of `x` `[..., T]` when the scores that are not favoured are lower by the gap."""
        weights = masked_softmax(jnp.where(favoured, s, s - gap), real)
        return jnp.sum(jnp.where(real, weights * x, 0), axis=-1, keepdims=True)

    head, tail = _best_cuts(*jax.lax.stop_gradient((s, v - least, real, gap)))
    plain = _between(least, least + mean(v - least, rank >= 0), most)
    lower = _between(least, least + mean(v - least, rank < head), plain)
    upper = _between(plain, most - mean(most - v, rank >= tail), most)
    return jnp.where(gap > 0, lower, plain), jnp.where(gap > 0, upper, plain)


def _ends(x: Array, real: Array) -> tuple[Array, Array]:
    """Least and greatest real entry `[..., 1]` of `x` `[..., T]`, 0 in rows without one; NaN is kept."""
    some = jnp.any(real, axis=-1, keepdims=True)
    least = jnp.min(jnp.where(real, x, jnp.inf), axis=-1, keepdims=True, initial=jnp.inf)
    most = jnp.max(jnp.where(real, x, -jnp.inf), axis=-1, keepdims=True, initial=-jnp.inf)
    return jnp.where(some, least, 0), jnp.where(some, most, 0)


def _has_range(x: Array, real: Array) -> Array:
    """Whether the real entries of `x` `[..., T]` are finite, and their range too: `[..., 1]`."""
    least, most = _ends(x, real)
    return jnp.isfinite(most - least)


def _between(low: Array, x: Array, high: Array) -> Array:
    """`x` clipped, all `[..., 1]`, with the gradient of `x`: it passes the ends by rounding alone."""
    return jax.lax.stop_gradient(jnp.clip(x, low, high)) + (x - jax.lax.stop_gradient(x))


def _best_cuts(s: Array, v: Array, real: Array, gap: Array) -> tuple[Array, Array]:
    """Sizes `[..., 1]` of the first part: where favouring it gives the least mean, and the rest the greatest.

    Both parts of every cut are sums over their own tokens: no sum is the difference of two others.
    """
    tokens = _Group(jnp.where(real, s, jnp.finfo(s.dtype).min), real.astype(s.dtype), v)
    first = _running(tokens)
    rest = _Group(*(jnp.flip(x, axis=-1) for x in _running(_Group(*(jnp.flip(x, axis=-1) for x in tokens)))))
    low = _merge(first, rest._replace(peak=rest.peak - gap))
    high = _merge(first._replace(peak=first.peak - gap), rest)
    # A part without tokens says nothing: with an infinite gap the other counts for nothing either.
    head = jnp.argmin(jnp.where(low.mass > 0, low.mean, jnp.inf), axis=-1, keepdims=True)
    tail = jnp.argmax(jnp.where(high.mass > 0, high.mean, -jnp.inf), axis=-1, keepdims=True)
    return head, tail


def _running(tokens: _Group) -> _Group:
    """Groups `[..., T + 1]` of the first 0, 1, ..., T tokens `[..., T]`.

    Each step of a loop doubles how far the groups reach back. `associative_scan` does less work, but is unrolled, and
    takes many times longer to compile.
    """
    length, axis = tokens.peak.shape[-1], tokens.peak.ndim - 1

    def after_blanks(groups: _Group, count: int) -> _Group:
        """`[..., count + T]`: empty groups, then those given."""
        blanks = (float(jnp.finfo(groups.peak.dtype).min), 0.0, 0.0)
        before = [(0, 0)] * axis + [(count, 0)]
        return _Group(*(jnp.pad(x, before, constant_values=of) for x, of in zip(groups, blanks, strict=True)))

    def double(step: Array, groups: _Group) -> _Group:
        """Groups `[..., T]` that reach back twice as far: each merged with the one that ends where it begins."""
        start = length - jnp.left_shift(1, step)
        before = (jax.lax.dynamic_slice_in_dim(x, start, length, axis=axis) for x in after_blanks(groups, length))
        return _merge(_Group(*before), groups)

    groups = jax.lax.fori_loop(0, max(length - 1, 0).bit_length(), double, tokens)
    return after_blanks(groups, 1)


def _merge(a: _Group, b: _Group) -> _Group:
    """One group `[..., T]` of the tokens of two."""
    peak = jnp.maximum(a.peak, b.peak)
    of_a, of_b = a.mass * jnp.exp(a.peak - peak), b.mass * jnp.exp(b.peak - peak)
    mass = of_a + of_b
    divisor = jnp.where(mass > 0, mass, 1)
    return _Group(peak, mass, a.mean * (of_a / divisor) + b.mean * (of_b / divisor))


def _row_radius(epsilon: Scalar, rows: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """`epsilon`, a scalar or one value a row, as `[..., 1]`."""
    check_epsilon(epsilon)
    radius = jnp.asarray(epsilon, dtype)
    if radius.shape not in ((), rows):
        raise ValueError(f"epsilon must be a scalar or one value a row, {rows}; its shape is {radius.shape}.")
    return jnp.broadcast_to(radius, rows)[..., None]


def _round_to(x: Array, dtype: jnp.dtype, side: float) -> Array:
    """`x` (any shape) in a dtype that may be narrower, rounded toward `side` (an infinity); gradients pass through."""
    narrow = x.astype(dtype)
    if jnp.finfo(dtype).bits >= jnp.finfo(x.dtype).bits:
        return narrow
    passed = narrow.astype(x.dtype) > x if side < 0 else narrow.astype(x.dtype) < x
    fixed = jax.lax.stop_gradient(narrow)
    step = jnp.nextafter(fixed, jnp.full_like(fixed, side)) - fixed
    return narrow + jnp.where(passed, step, 0)
