"""Length buckets: a split as whole arrays of token ids, one per padded width, kept on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flax_attnat.data.dataset import Split
from flax_attnat.typing import Array, Batch


class Bucket(NamedTuple):
    """The N texts of a split that share one padded width T.

    Attributes:
      tokens: `[N, T]` int32 word ids, 0 on padding.
      lengths: `[N]` int32.
      labels: `[N]` int32.
      position: `[N]` int32 places in the split.
    """

    tokens: Array
    lengths: Array
    labels: Array
    position: Array


def make_buckets(split: Split, widths: Sequence[int]) -> list[Bucket]:
    """Sorts a split into buckets of ascending width; empty buckets are left out.

    Args:
      split: N texts.
      widths: ascending padded widths; a text longer than the last goes to a bucket of the next power of two.

    Returns:
      NumPy-backed buckets; every text is in exactly one, in the order of the split.
    """
    lengths = np.array([len(tokens) for tokens in split.tokens], np.int32)
    edges = list(widths)
    longest = int(lengths.max(initial=0))
    while edges[-1] < longest:
        edges.append(1 << edges[-1].bit_length())
    places = np.searchsorted(np.array(edges), lengths)
    buckets = []
    for place, width in enumerate(edges):
        index = np.flatnonzero(places == place).astype(np.int32)
        if index.size:
            tokens = np.zeros((index.size, width), np.int32)
            for row, i in enumerate(index):
                tokens[row, : lengths[i]] = split.tokens[i]
            buckets.append(Bucket(tokens, lengths[index], split.labels[index], index))  # type: ignore[arg-type]
    return buckets


def gather(bucket: Bucket, rows: Array) -> Batch:
    """The batch of rows `[B]` of a bucket; a row of -1 is filler: empty, weight 0."""
    real = rows >= 0
    safe = jnp.maximum(rows, 0)
    return Batch(
        tokens=jnp.where(real[:, None], bucket.tokens[safe], 0),
        length=jnp.where(real, bucket.lengths[safe], 0),
        label=jnp.where(real, bucket.labels[safe], 0),
        weight=real.astype(jnp.float32),
    )
