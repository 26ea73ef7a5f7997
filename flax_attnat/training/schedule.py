"""Which rows each step of an epoch reads: a pure function of seed and epoch, so a run can go on from any step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Consecutive steps whose rows go to the devices at once.
CHUNK_STEPS = 16


class Plan(NamedTuple):
    """The N steps of an epoch for every run.

    Attributes:
      which: `[N]` int32 number of the bucket that each step's batch is of.
      rows: of each seed `[N, B]` int32 rows of that bucket; -1 fills up the last batch of a bucket.
    """

    which: np.ndarray
    rows: dict[int, np.ndarray]


def batches_of(size: int, batch_size: int) -> int:
    """Batches that hold `size` rows, the last one possibly short."""
    return -(-size // batch_size)


def epoch_order(epoch: int, sizes: Sequence[int], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Buckets `[N]` and batches `[N]` of an epoch's steps, an order that depends on the epoch alone.

    All runs share the shapes of their batches. Batches of all widths are shuffled one by one: after a stretch of one
    width a run is best at that width, and an epoch that ends so is measured so.

    Args:
      epoch: counted from 0.
      sizes: rows per bucket.
      batch_size: rows per batch.
    """
    counts = [batches_of(size, batch_size) for size in sizes]
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    batch = np.concatenate([np.arange(count, dtype=np.int32) for count in (0, *counts)])
    order = np.random.default_rng([1, epoch]).permutation(len(which))
    return which[order], batch[order]


def epoch_rows(seed: int, epoch: int, bucket: int, size: int, batch_size: int) -> np.ndarray:
    """Rows `[batches, B]` int32 of one bucket and epoch: a permutation by (seed, epoch, bucket), filled up with -1."""
    rows = np.full(batches_of(size, batch_size) * batch_size, -1, np.int32)
    rows[:size] = np.random.default_rng([2, seed, epoch, bucket]).permutation(size)
    return rows.reshape(-1, batch_size)


def epoch_plan(seeds: Sequence[int], epoch: int, sizes: Sequence[int], batch_size: int) -> Plan:
    """The steps of an epoch, which cover every row of every bucket once in every run."""
    which, batch = epoch_order(epoch, sizes, batch_size)
    plan = Plan(which, {})
    for seed in set(seeds):
        rows = np.empty((len(which), batch_size), np.int32)
        for bucket, size in enumerate(sizes):
            mine = which == bucket
            rows[mine] = epoch_rows(seed, epoch, bucket, size, batch_size)[batch[mine]]
        plan.rows[seed] = rows
    return plan


def chunk_of(plan: Plan, seeds: Sequence[int], first: int, steps: int = CHUNK_STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Buckets `[S]` and rows `[R, S, B]` of the steps from `first` on; beyond the epoch's last, rows of -1."""

    def filled(values: np.ndarray, filler: int) -> np.ndarray:
        """S steps of `values` `[N, ...]`."""
        found = np.full((steps, *values.shape[1:]), filler, np.int32)
        taken = values[first : first + steps]
        found[: len(taken)] = taken
        return found

    return filled(plan.which, 0), np.stack([filled(plan.rows[seed], -1) for seed in seeds])
