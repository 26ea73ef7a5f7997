"""Which rows are trained on when: a pure function of the seed and the epoch, so that resuming needs no random state."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Consecutive steps of one bucket whose rows go to the devices at once.
CHUNK_STEPS = 16


class Chunk(NamedTuple):
    """A few consecutive batches of one bucket.

    Attributes:
      bucket: its number.
      first: its first batch within the bucket's epoch.
      steps: how many batches.
    """

    bucket: int
    first: int
    steps: int


def batches_of(size: int, batch_size: int) -> int:
    """Batches that hold `size` rows, the last one possibly short."""
    return -(-size // batch_size)


def epoch_chunks(epoch: int, sizes: Sequence[int], batch_size: int) -> list[Chunk]:
    """The chunks of one epoch, in an order that depends on the epoch alone: all runs share shapes.

    Args:
      epoch: counted from 0.
      sizes: rows per bucket.
      batch_size: rows per batch.

    Returns:
      Chunks that cover every batch of every bucket once.
    """
    chunks = [
        Chunk(bucket, first, min(CHUNK_STEPS, batches_of(size, batch_size) - first))
        for bucket, size in enumerate(sizes)
        for first in range(0, batches_of(size, batch_size), CHUNK_STEPS)
    ]
    order = np.random.default_rng([1, epoch]).permutation(len(chunks))
    return [chunks[i] for i in order]


def epoch_rows(seed: int, epoch: int, bucket: int, size: int, batch_size: int) -> np.ndarray:
    """Rows `[batches, B]` int32 of one bucket and epoch: a permutation by (seed, epoch, bucket), filled up with -1."""
    rows = np.full(batches_of(size, batch_size) * batch_size, -1, np.int32)
    rows[:size] = np.random.default_rng([2, seed, epoch, bucket]).permutation(size)
    return rows.reshape(-1, batch_size)


def chunk_rows(seeds: Sequence[int], epoch: int, chunk: Chunk, size: int, batch_size: int) -> np.ndarray:
    """Rows `[R, CHUNK_STEPS, B]` int32 of one chunk for every run; steps beyond `chunk.steps` are -1 and never run."""
    rows = np.full((len(seeds), CHUNK_STEPS, batch_size), -1, np.int32)
    for seed in set(seeds):
        batches = epoch_rows(seed, epoch, chunk.bucket, size, batch_size)[chunk.first : chunk.first + chunk.steps]
        for run in (run for run, other in enumerate(seeds) if other == seed):
            rows[run, : chunk.steps] = batches
    return rows
