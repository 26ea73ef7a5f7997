"""How well importances of words find the words that people marked (ERASER, DeYoung et al. 2020).

Rows `[..., T]` are read over their real tokens, `mask [..., T]` of the same shape. Figures are of one instance each,
NaN where no real token is marked, so that it can be left out and counted.
"""

import jax
import jax.numpy as jnp

from flax_attnat.evaluation.agreement import descending_positions
from flax_attnat.typing import Array, Scalar


def auprc(importance: Array, rationale: Array, mask: Array) -> Array:
    """Area under the precision-recall curve of importance as a ranking of the marked tokens: average precision.

    `AP = sum_i (R_i - R_(i-1)) P_i`, with precision P_i and recall R_i of the tokens at least as important as the i-th
    largest value. Equal importances are one step.

    Args:
      importance: `[..., T]`.
      rationale: `[..., T]`, true on the tokens that people marked.
      mask: `[..., T]`, true on real tokens.

    Returns:
      `[...]` in [0, 1]; NaN where no token is marked, and where one has a NaN.

    Source: DeYoung et al. 2020, section 4.1; the values of `sklearn.metrics.average_precision_score`. ERASER's code
    reports it as `average_precision`; its `auprc` joins the points by straight lines instead.

    >>> import jax.numpy as jnp
    >>> rationale = jnp.array([True, False, True, False])
    >>> auprc(jnp.array([0.4, 0.3, 0.2, 0.1]), rationale, jnp.ones(4, bool)).round(4)
    Array(0.8333, dtype=float32)
    """
    axis = importance.ndim - 1
    marked = (mask & rationale).astype(jnp.int32)
    outside, value, marked = jax.lax.sort(
        ((~mask).astype(jnp.int32), jnp.where(mask, -importance, 0), marked), num_keys=2
    )
    change = (value[..., 1:] != value[..., :-1]) | (outside[..., 1:] != outside[..., :-1])
    last = jnp.concatenate([change, jnp.ones((*change.shape[:-1], 1), bool)], axis)
    found = jnp.cumsum(marked, axis=-1)
    # At the last of equal importances: what is found there, less what was found before them.
    seen = jax.lax.cummax(jnp.where(last, found, 0), axis)
    gained = jnp.where(last, found - jnp.concatenate([jnp.zeros_like(seen[..., :1]), seen[..., :-1]], axis), 0)
    tokens = jax.lax.broadcasted_iota(jnp.int32, importance.shape, axis) + 1
    precision = found.astype(jnp.float32) / tokens.astype(jnp.float32)
    area = _ratio(jnp.sum(gained.astype(jnp.float32) * precision, axis=-1), found[..., -1].astype(jnp.float32))
    unknown = jnp.any(mask & jnp.isnan(importance), axis=-1)
    return jnp.where(unknown, jnp.nan, jnp.minimum(area, 1))


def token_f1(predicted: Array, rationale: Array, mask: Array) -> Array:
    """F1 of the tokens that are said to matter against those that people marked: `2 TP / (2 TP + FP + FN)`.

    Args:
      predicted: `[..., T]`, true on the tokens said to matter.
      rationale: `[..., T]`, true on the tokens that people marked.
      mask: `[..., T]`, true on real tokens.

    Returns:
      `[...]` in [0, 1]; 0 where nothing is predicted, NaN where no token is marked.

    Source: DeYoung et al. 2020, section 4.1.

    >>> import jax.numpy as jnp
    >>> token_f1(jnp.array([True, True, False]), jnp.array([True, False, False]), jnp.ones(3, bool)).round(4)
    Array(0.6667, dtype=float32)
    """
    predicted, rationale = predicted & mask, rationale & mask
    return _f1(_count(predicted & rationale), _count(predicted), _count(rationale))


def iou_f1(predicted: Array, rationale: Array, mask: Array, threshold: float = 0.5) -> Array:
    """F1 of the spans that are said to matter, a span being found where it overlaps a marked one enough.

    A span is a longest run of true tokens. A predicted span counts where its intersection with a marked span is at
    least `threshold` of their union, in tokens: `F1 = 2 M / (S + G)`, of M such spans among S predicted, and G marked.

    Args:
      predicted: `[..., T]`, true on the tokens said to matter.
      rationale: `[..., T]`, true on the tokens that people marked.
      mask: `[..., T]`, true on real tokens.
      threshold: from 0.5, where no span can match two others, to 1.

    Returns:
      `[...]` in [0, 1]; 0 where nothing is predicted, NaN where no token is marked.

    Raises:
      ValueError: a threshold below 0.5 or above 1.

    Source: DeYoung et al. 2020, section 4.1 (IOU F1), of one instance. ERASER's figure of a data set is the F1 of its
    mean precision and mean recall, which the mean of these is not.

    >>> import jax.numpy as jnp
    >>> rationale = jnp.array([True, True, False, True])
    >>> iou_f1(jnp.array([True, False, False, False]), rationale, jnp.ones(4, bool)).round(4)
    Array(0.6667, dtype=float32)
    """
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"spans are matched at a threshold from 0.5 to 1; got {threshold}.")
    predicted, rationale = predicted & mask, rationale & mask
    start, end = _spans(predicted)
    marked_start, marked_end = _spans(rationale)
    shared = jnp.minimum(end, marked_end) - jnp.maximum(start, marked_start)
    union = (end - start) + (marked_end - marked_start) - shared
    both = predicted & rationale
    share = shared.astype(jnp.float32) / jnp.where(both, union, 1).astype(jnp.float32)
    token = jax.lax.broadcasted_iota(jnp.int32, predicted.shape, predicted.ndim - 1)
    # Every two spans that meet are counted at the first token that they share.
    matched = both & (token == jnp.maximum(start, marked_start)) & (share >= threshold)
    return _f1(_count(matched), _count(predicted & (token == start)), _count(rationale & (token == marked_start)))


def top_share(importance: Array, mask: Array, share: Scalar) -> Array:
    """Which real tokens are the most important `ceil(share n)` of n, and at least one.

    Args:
      importance: `[..., T]`; a NaN is less than every number, and of equal ones the earlier is taken first.
      mask: `[..., T]`, true on real tokens.
      share: from 0 to 1, a number or a scalar array. A product within a millionth above a whole number is that number,
        so that 0.1 of 30 tokens is 3, whatever 0.1 is in binary.

    Returns:
      `[..., T]` bool.

    Source: the discrete rationales of DeYoung et al. 2020, section 4; for AOPC, the shares .01, .05, .1, .2 and .5.

    >>> import jax.numpy as jnp
    >>> top_share(jnp.array([0.2, 0.1, 0.5, 0.2]), jnp.array([True, True, True, False]), 0.5)
    Array([ True, False,  True, False], dtype=bool)
    """
    tokens = jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.int32)
    wanted = jnp.ceil(tokens.astype(jnp.float32) * jnp.asarray(share, jnp.float32) * (1 - 1e-6))
    return mask & (descending_positions(importance, mask) < jnp.maximum(wanted, 1).astype(jnp.int32))


def _spans(inside: Array) -> tuple[Array, Array]:
    """First token, and the one after the last, of the run that holds each true token of `[..., T]`; int32."""
    axis = inside.ndim - 1
    token = jax.lax.broadcasted_iota(jnp.int32, inside.shape, axis)
    # A run begins behind the last false token before it, and ends at the first one after it.
    start = jax.lax.cummax(jnp.where(inside, 0, token + 1), axis)
    return start, jax.lax.cummin(jnp.where(inside, inside.shape[-1], token), axis, reverse=True)


def _count(flags: Array) -> Array:
    """Number of true entries of `[..., T]`, `[...]` float32."""
    return jnp.sum(flags, axis=-1, dtype=jnp.int32).astype(jnp.float32)


def _f1(found: Array, predicted: Array, marked: Array) -> Array:
    """`2 found / (predicted + marked)` of counts `[...]`, NaN where nothing is marked."""
    return jnp.where(marked > 0, _ratio(2 * found, predicted + marked), jnp.nan)


def _ratio(part: Array, whole: Array) -> Array:
    """`part / whole` of `[...]` float32, NaN where `whole` is 0."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)
