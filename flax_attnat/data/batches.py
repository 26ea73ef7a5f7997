"""Length buckets: a split as whole arrays of token ids, one per padded width, kept on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flax_attnat.data.dataset import Split
from flax_attnat.typing import Array, Batch

# Queries are padded to at least this width.
LEAST_QUERY_WIDTH = 4


class Bucket(NamedTuple):
    """The N texts of a split that share one padded width T, and their queries, padded to one width Q.

    Attributes:
      tokens: `[N, T]` int32 word ids, 0 on padding.
      lengths: `[N]` int32.
      labels: `[N]` int32.
      position: `[N]` int32 places in the split.
      query: `[N, Q]` int32 word ids of the queries, 0 on padding; None for single sequences.
      query_lengths: `[N]` int32; None for single sequences.
    """

    tokens: Array
    lengths: Array
    labels: Array
    position: Array
    query: Array | None = None
    query_lengths: Array | None = None


def make_buckets(split: Split, widths: Sequence[int]) -> list[Bucket]:
    """Sorts a split into buckets of ascending width; empty buckets are left out.

    Args:
      split: N texts, with or without queries.
      widths: ascending padded widths; a text longer than the last goes to a bucket of the next power of two.

    Returns:
      NumPy-backed buckets; every text is in exactly one, in the order of the split. Queries decide no bucket: they are
      padded to the next power of two (at least 4) of the longest in theirs.
    """
    lengths = np.array([len(tokens) for tokens in split.tokens], np.int32)
    edges = list(widths)
    longest = int(np.max(lengths, initial=0))
    while edges[-1] < longest:
        edges.append(1 << edges[-1].bit_length())
    places = np.searchsorted(np.array(edges), lengths)
    buckets = []
    for place, width in enumerate(edges):
        index = np.flatnonzero(places == place).astype(np.int32)
        if index.size:
            tokens = _padded([split.tokens[i] for i in index], width)
            queries = _queries(split.queries, index)
            buckets.append(Bucket(tokens, lengths[index], split.labels[index], index, *queries))  # type: ignore[arg-type]
    return buckets


def _queries(queries: Sequence[np.ndarray] | None, index: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The queries `[N, Q]` at the places `index` and their lengths `[N]`; None twice where there are none."""
    if queries is None:
        return None, None
    lengths = np.array([len(queries[i]) for i in index], np.int32)
    width = LEAST_QUERY_WIDTH
    while width < np.max(lengths):
        width *= 2
    return _padded([queries[i] for i in index], width), lengths


def _padded(texts: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Texts of ids as `[N, width]` int32, zeros behind each."""
    rows = np.zeros((len(texts), width), np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


def gather(bucket: Bucket, rows: Array) -> Batch:
    """The batch of rows `[B]` of a bucket; a row of -1 is filler: empty, with an empty query, weight 0."""
    real = rows >= 0
    safe = jnp.maximum(rows, 0)
    if bucket.query is None or bucket.query_lengths is None:
        query = query_length = None
    else:
        query = jnp.where(real[:, None], bucket.query[safe], 0)
        query_length = jnp.where(real, bucket.query_lengths[safe], 0)
    return Batch(
        tokens=jnp.where(real[:, None], bucket.tokens[safe], 0),
        length=jnp.where(real, bucket.lengths[safe], 0),
        label=jnp.where(real, bucket.labels[safe], 0),
        weight=real.astype(jnp.float32),
        query=query,
        query_length=query_length,
    )
