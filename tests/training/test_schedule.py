"""The schedule is a pure function of seed and epoch that leaves no row out and mixes the widths."""

import numpy as np
import pytest

from flax_attnat.training.schedule import CHUNK_STEPS, batches_of, chunk_of, epoch_order, epoch_plan, epoch_rows

SIZES, BATCH = (1000, 1, 7, 333), 8
STEPS = sum(batches_of(size, BATCH) for size in SIZES)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_covers_every_batch_of_every_bucket_once(epoch):
    which, batch = epoch_order(epoch, SIZES, BATCH)
    expected = [(bucket, number) for bucket, size in enumerate(SIZES) for number in range(-(-size // BATCH))]
    assert sorted(zip(which.tolist(), batch.tolist(), strict=True)) == expected
    assert not len(epoch_order(epoch, (), BATCH)[0])


def test_every_run_sees_every_row_once_and_only_the_last_batch_is_short():
    """The last batch of a bucket is filled up with -1 behind its real rows; runs of one seed see the same."""
    plan, (which, batch) = epoch_plan((5, 2, 5), 3, SIZES, BATCH), epoch_order(3, SIZES, BATCH)
    np.testing.assert_array_equal(plan.which, which)
    for seed in (5, 2):
        for bucket, size in enumerate(SIZES):
            mine = which == bucket
            found = plan.rows[seed][mine][np.argsort(batch[mine])]
            np.testing.assert_array_equal(found, epoch_rows(seed, 3, bucket, size, BATCH))
            assert sorted(found.ravel()[:size].tolist()) == list(range(size)) and (found.ravel()[size:] == -1).all()
    assert (plan.rows[5] != plan.rows[2]).mean() > 0.8


def test_chunks_are_the_plan_cut_up():
    seeds = [5, 2, 5]
    plan = epoch_plan(seeds, 0, SIZES, BATCH)
    chunks = [chunk_of(plan, seeds, first) for first in range(0, STEPS, CHUNK_STEPS)]
    assert {(which.shape, rows.shape) for which, rows in chunks} == {((CHUNK_STEPS,), (3, CHUNK_STEPS, BATCH))}
    which, rows = (np.concatenate(parts, axis) for parts, axis in zip(zip(*chunks, strict=True), (0, 1), strict=True))
    assert STEPS % CHUNK_STEPS, "the last chunk is filled up"
    np.testing.assert_array_equal(which[:STEPS], plan.which)
    for run, seed in enumerate(seeds):
        np.testing.assert_array_equal(rows[run, :STEPS], plan.rows[seed])
    assert (which[STEPS:] == 0).all() and (rows[:, STEPS:] == -1).all()


def test_widths_are_mixed():
    """A batch says nothing of the next one's width: long stretches of one width train another model."""
    sizes = (2000, 2000, 2000, 2000)
    for epoch in range(5):
        which, _ = epoch_order(epoch, sizes, BATCH)
        assert np.mean(which[1:] == which[:-1]) < 0.32
        quarters = np.array_split(which, 4)
        assert min(np.bincount(quarter, minlength=4).min() for quarter in quarters) > 0.5 * len(quarters[0]) / 4


def test_the_order_differs_between_epochs_and_knows_no_seed():
    """All runs of a population share shapes: the order is an argument of the epoch alone, and the same at each call."""
    orders = [tuple(map(tuple, epoch_order(epoch, SIZES, BATCH))) for epoch in range(20)]
    assert orders == [tuple(map(tuple, epoch_order(epoch, SIZES, BATCH))) for epoch in range(20)]
    assert len(set(orders)) == 20


def test_rows_differ_between_seeds_epochs_and_buckets():
    """No two of 5 x 5 x 5 permutations of 50 rows are equal, and none depends on the batch size."""
    keys = [(seed, epoch, bucket) for seed in range(5) for epoch in range(5) for bucket in range(5)]
    permutations = {tuple(epoch_rows(*key, 50, 10).ravel()) for key in keys}
    assert len(permutations) == len(keys)
    np.testing.assert_array_equal(epoch_rows(1, 2, 3, 50, 10).ravel(), epoch_rows(1, 2, 3, 50, 25).ravel())
    assert epoch_rows(2**31 - 1, 0, 0, 3, 3).size == 3


def test_golden_values_of_seed_0_epoch_0():
    """Recorded with NumPy 2: a generator that draws otherwise would silently change what every run trains on."""
    assert epoch_rows(0, 0, 0, 10, 4).tolist() == [[2, 0, 7, 6], [9, 5, 3, 4], [8, 1, -1, -1]]
    assert epoch_rows(0, 0, 1, 5, 4).tolist() == [[4, 2, 3, 1], [0, -1, -1, -1]]
    which, batch = epoch_order(0, (10, 7), 2)
    assert which.tolist() == [1, 0, 0, 0, 0, 1, 1, 1, 0]
    assert batch.tolist() == [2, 0, 1, 4, 2, 0, 3, 1, 3]
