"""How far two importances of the same words agree.

Rows `[..., T]` are compared over their real entries, `mask [..., T]` of the same shape; what stands elsewhere is not
read. A figure that is undefined is NaN, so that it can be left out and counted. Infinities have a rank like any other
number; numbers below the smallest normal float32 may count as equal. Counts are int32, for at most 46,340 entries.
Everything takes O(T) memory a row; ranks take O(T log T) time, and `kendall` and `top_k_distance`, which compare every
two entries, O(T^2), in T steps of all rows at once: for these lengths many times as fast as counting by sorts.
"""

import jax
import jax.numpy as jnp

from flax_attnat.typing import Array

# What a pair costs that one of two top-k lists holds and the other leaves out: between agreement, 0, and 1.
PENALTY = 0.5


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


def spearman(a: Array, b: Array, mask: Array) -> Array:
    """Spearman correlation of two rows over their real entries: Pearson's of their average ranks.

    Args:
      a: `[..., T]`.
      b: `[..., T]`.
      mask: `[..., T]`, true on real entries.

    Returns:
      `[...]` in [-1, 1], NaN where it is undefined: fewer than two real entries, a row that is constant over them, or
      one that holds a NaN.

    Source: Spearman 1904.

    >>> import jax.numpy as jnp
    >>> spearman(jnp.array([0.1, 0.2, 0.7]), jnp.array([1.0, 3.0, 2.0]), jnp.ones(3, bool)).round(3)
    Array(0.5, dtype=float32)
    """
    return pearson(average_ranks(a, mask), average_ranks(b, mask), mask)


def kendall(a: Array, b: Array, mask: Array) -> tuple[Array, Array]:
    """Kendall's tau-b of two rows over their real entries, and how likely chance is to bring about one as large.

    `tau = (C - D) / sqrt(A B)`, of C concordant and D discordant pairs of entries, with A and B pairs whose values in
    `a` and in `b` differ. The p value is two-sided and that of a normal law, `erfc(|C - D| / sqrt(2 v))`, with

        v = A' B' / (9 n (n - 1) (n - 2)) + 2 A B / (n (n - 1)),

    A' and B' being the ordered triples whose values are not all equal: the variance of C - D given the ties.

    Args:
      a: `[..., T]`.
      b: `[..., T]`.
      mask: `[..., T]`, true on real entries.

    Returns:
      tau: `[...]` in [-1, 1], NaN where it is undefined: fewer than two real entries, a row that is constant over
        them, or one that holds a NaN.
      p value: `[...]` in [0, 1], NaN where tau is. Of two entries it is erfc(1 / sqrt(2)) = 0.317.

    Source: Kendall 1970, chapters 3 and 4; the values of `scipy.stats.kendalltau(a, b, method="asymptotic")`.

    >>> import jax.numpy as jnp
    >>> tau, p_value = kendall(jnp.array([1.0, 2.0, 3.0, 3.0]), jnp.array([1.0, 3.0, 2.0, 4.0]), jnp.ones(4, bool))
    >>> print(f"{tau:.3f}, {p_value:.3f}")
    0.548, 0.279
    """
    count = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    (below_a, equal_a), (below_b, equal_b) = (_ties(x, mask) for x in (a, b))
    concordant, discordant = _orders(below_a, below_b, mask)
    surplus = (concordant - discordant).astype(jnp.float32)
    (pairs_a, triples_a), (pairs_b, triples_b) = (_differing(equal, count, mask) for equal in (equal_a, equal_b))
    n = jnp.maximum(count, 3).astype(jnp.float32)  # of two entries, no triple differs
    pairs = jnp.maximum(count * (count - 1), 1).astype(jnp.float32)
    variance = triples_a * triples_b / (9 * n * (n - 1) * (n - 2)) + pairs_a * pairs_b / (2 * pairs)
    defined = (pairs_a > 0) & (pairs_b > 0) & ~_any_nan(a, mask) & ~_any_nan(b, mask)
    tau = jnp.clip(2 * surplus / jnp.sqrt(jnp.where(defined, pairs_a * pairs_b, 1)), -1, 1)
    p_value = jax.scipy.special.erfc(jnp.abs(surplus) / jnp.sqrt(jnp.where(defined, 2 * variance, 1)))
    return jnp.where(defined, tau, jnp.nan), jnp.where(defined, p_value, jnp.nan)


def average_ranks(x: Array, mask: Array) -> Array:
    """Ranks of real entries from 1, the smallest, to their number; equal ones share the mean of theirs.

    Args:
      x: `[..., T]`.
      mask: `[..., T]`, true on real entries.

    Returns:
      `[..., T]` float32, 0 where there is no real entry; NaN in a row that holds a NaN.

    Source: Kendall 1945; `scipy.stats.rankdata`.

    >>> import jax.numpy as jnp
    >>> average_ranks(jnp.array([5.0, 2.0, 2.0, 9.0]), jnp.array([True, True, True, False]))
    Array([3. , 1.5, 1.5, 0. ], dtype=float32)
    """
    below, equal = _ties(x, mask)
    ranks = below.astype(jnp.float32) + (equal + 1).astype(jnp.float32) / 2
    return jnp.where(mask, jnp.where(_any_nan(x, mask)[..., None], jnp.nan, ranks), 0)


def top_k_distance(a: Array, b: Array, mask: Array, k: int) -> Array:
    """How far apart two rows rank their k largest entries, 0 for alike and 1 for as far as can be.

    K^(p) of Fagin, Kumar & Sivakumar with p = 1/2. Of every two entries in the union of the two lists of k it counts 1
    where the lists order them differently, an entry outside a list standing behind all in it, and p where one list
    holds both and the other neither. The sum is divided by the largest that n real entries allow, which is
    `c (c - 1) / 2 + 2 c z + z^2 + p z (z - 1)`, z = min(k, n - k), c = k - z: that of disjoint lists if n >= 2 k, that
    of opposite orders if k = n.

    Args:
      a: `[..., T]`.
      b: `[..., T]`.
      mask: `[..., T]`, true on real entries.
      k: at least 1; the number of real entries where there are fewer. Of equal entries, the earlier one ranks higher
        in both rows, so that they agree on ties that they share.

    Returns:
      `[...]` in [0, 1], NaN where it is undefined: fewer than two real entries, or a row that holds a NaN.

    Source: Fagin, Kumar & Sivakumar 2003, "Comparing top k lists". Jain & Wallace 2019 released code for it with
    p = 1/2 that gives other figures: it leaves out the pairs of which each list holds one, counts those that both lists
    hold about twice, and divides by the square of the number of entries in the union.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([0.4, 0.3, 0.2, 0.1]), jnp.array([0.4, 0.1, 0.3, 0.2])
    >>> top_k_distance(a, b, jnp.ones(4, bool), k=2).round(3)
    Array(0.2, dtype=float32)
    """
    size, place_a, place_b = _top_k(a, b, mask, k)
    alone = jnp.sum(mask & (place_a < size[..., None]) & (place_b >= size[..., None]), axis=-1, dtype=jnp.int32)
    _, discordant = _orders(place_a, place_b, mask)
    distance = discordant.astype(jnp.float32) + PENALTY * _ordered_pairs(alone)
    most = jnp.minimum(size, jnp.sum(mask, axis=-1, dtype=jnp.int32) - size)
    shared = size - most
    mixed = (2 * shared * most + most * most).astype(jnp.float32)
    furthest = _ordered_pairs(shared) / 2 + mixed + PENALTY * _ordered_pairs(most)
    defined = (furthest > 0) & ~_any_nan(a, mask) & ~_any_nan(b, mask)
    return jnp.where(defined, distance / jnp.where(defined, furthest, 1), jnp.nan)


def top_k_overlap(a: Array, b: Array, mask: Array, k: int) -> Array:
    """Share of entries that are among the k largest in both rows: `|top_k(a) & top_k(b)| / k`.

    Args:
      a: `[..., T]`.
      b: `[..., T]`.
      mask: `[..., T]`, true on real entries.
      k: at least 1; the number n of real entries where there are fewer. Of equal entries, the earlier one ranks
        higher in both rows.

    Returns:
      `[...]` in [0, 1], 1 where n <= k; NaN without a real entry and in a row that holds a NaN.

    >>> import jax.numpy as jnp
    >>> top_k_overlap(jnp.array([0.4, 0.3, 0.2, 0.1]), jnp.array([0.4, 0.1, 0.3, 0.2]), jnp.ones(4, bool), k=2)
    Array(0.5, dtype=float32)
    """
    size, place_a, place_b = _top_k(a, b, mask, k)
    both = jnp.sum(mask & (jnp.maximum(place_a, place_b) < size[..., None]), axis=-1).astype(jnp.float32)
    defined = (size > 0) & ~_any_nan(a, mask) & ~_any_nan(b, mask)
    return jnp.where(defined, both / jnp.maximum(size, 1).astype(jnp.float32), jnp.nan)


def descending_positions(x: Array, mask: Array) -> Array:
    """Position of each entry from the largest, 0, on; of equal ones the earlier is first.

    Args:
      x: `[..., T]`; a NaN comes behind every number.
      mask: `[..., T]`, true on real entries; the others come behind these.

    Returns:
      `[..., T]` int32, a permutation of 0 ... T - 1.

    >>> import jax.numpy as jnp
    >>> descending_positions(jnp.array([0.1, 0.4, 0.4, 0.9]), jnp.array([True, True, True, False]))
    Array([2, 0, 1, 3], dtype=int32)
    """
    place = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    _, _, index = jax.lax.sort(((~mask).astype(jnp.int32), jnp.where(mask, -x, 0), place), num_keys=2)
    return jax.lax.sort((index, place), num_keys=1)[1]


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


def _any_nan(x: Array, mask: Array) -> Array:
    """Whether a real entry of rows `[..., T]` is NaN, `[...]`."""
    return jnp.any(mask & jnp.isnan(x), axis=-1)


def _ties(x: Array, mask: Array) -> tuple[Array, Array]:
    """For entries `[..., T]`: how many real ones are smaller, and how many are equal, itself included; int32."""
    size, axis = x.shape[-1], x.ndim - 1
    place = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    outside, value, index = jax.lax.sort(((~mask).astype(jnp.int32), jnp.where(mask, x, 0), place), num_keys=2)
    edge = jnp.ones((*x.shape[:-1], 1), bool)
    change = (value[..., 1:] != value[..., :-1]) | (outside[..., 1:] != outside[..., :-1])
    first, last = jnp.concatenate([edge, change], axis), jnp.concatenate([change, edge], axis)
    below = jax.lax.cummax(jnp.where(first, place, 0), axis)
    end = jax.lax.cummin(jnp.where(last, place + 1, size), axis, reverse=True)
    _, below, end = jax.lax.sort((index, below, end), num_keys=1)
    return below, end - below


def _differing(equal: Array, count: Array, mask: Array) -> tuple[Array, Array]:
    """Ordered pairs, and triples, of real entries that are not all equal, `[...]` float32, from `equal [..., T]`."""
    # Sums of what differs: the difference of all and of equal ones would cancel in float32.
    others = jnp.where(mask, count[..., None] - equal, 0).astype(jnp.float32)
    either = jnp.where(mask, count[..., None] + equal - 3, 0).astype(jnp.float32)
    return jnp.sum(others, axis=-1), jnp.sum(others * either, axis=-1)


def _orders(x: Array, y: Array, mask: Array) -> tuple[Array, Array]:
    """Pairs `[...]` of real entries that int32 rows from 0 on, `[..., T]`, order alike, and differently."""
    axis, size = x.ndim - 1, x.shape[-1]
    # No entry outside is smaller, or larger, than another.
    larger, smaller = jnp.where(mask, x, -1), jnp.where(mask, x, jnp.iinfo(jnp.int32).max)

    def add(place: Array, counts: tuple[Array, Array]) -> tuple[Array, Array]:
        """Adds the pairs of which the entry at one place is the smaller one in `x`."""
        below = jax.lax.dynamic_index_in_dim(smaller, place, axis) < larger
        other = jax.lax.dynamic_index_in_dim(y, place, axis)
        alike, differently = counts
        alike += jnp.sum(below & (other < y), axis=-1, dtype=jnp.int32)
        return alike, differently + jnp.sum(below & (other > y), axis=-1, dtype=jnp.int32)

    # Zeros that vary over the shards of a shard_map as what is added to them does.
    none = jnp.sum((larger - larger) + (y - y), axis=-1, dtype=jnp.int32)
    return jax.lax.fori_loop(0, size, add, (none, none))


def _top_k(a: Array, b: Array, mask: Array, k: int) -> tuple[Array, Array, Array]:
    """Size `[...]` of the top-k lists, and positions `[..., T]` in either, the size outside of it."""
    size = jnp.minimum(jnp.sum(mask, axis=-1, dtype=jnp.int32), k)
    place_a, place_b = (jnp.minimum(descending_positions(x, mask), size[..., None]) for x in (a, b))
    return size, place_a, place_b


def _ordered_pairs(count: Array) -> Array:
    """`n (n - 1)` as float32."""
    return (count * (count - 1)).astype(jnp.float32)
