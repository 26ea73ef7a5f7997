"""Length buckets hold every text once and intact; a filler row is empty and weighs nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.data.batches import gather, make_buckets
from flax_attnat.data.dataset import Split


def split_of(lengths, seed=0):
    """Texts of random ids of the given lengths."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 1000, n).astype(np.int32) for n in lengths]
    return Split([], tokens, rng.integers(0, 2, len(tokens)).astype(np.int32))


@pytest.mark.parametrize("widths", [(16, 32, 64), (3,), (5, 6, 7), (1,)])
def test_every_text_is_in_one_bucket_and_intact(widths):
    """In the narrowest width that holds it, in the order of the split, with its label, zeros behind it."""
    split = split_of(np.random.default_rng(1).integers(0, 90, 200))
    buckets = make_buckets(split, widths)
    seen = []
    previous = 0
    for bucket in buckets:
        n, width = bucket.tokens.shape
        assert width > previous and n > 0
        assert np.all(np.diff(bucket.position) > 0)
        for row, place in enumerate(bucket.position):
            text = split.tokens[place]
            assert bucket.lengths[row] == len(text) and bucket.labels[row] == split.labels[place]
            np.testing.assert_array_equal(bucket.tokens[row, : len(text)], text)
            assert not bucket.tokens[row, len(text) :].any()
            narrower = [w for w in widths if w < width]
            assert len(text) > max(narrower, default=-1) and len(text) <= width
        seen += bucket.position.tolist()
        previous = width
    assert sorted(seen) == list(range(200))


def test_texts_beyond_the_last_width_go_to_powers_of_two():
    """Lengths at and just beyond an edge; a width that is no power of two is followed by the next one that is."""
    buckets = make_buckets(split_of([3, 4, 5, 24, 25, 32, 33, 1347]), (4, 24))
    shown = {bucket.tokens.shape[1]: bucket.lengths.tolist() for bucket in buckets}
    assert shown == {4: [3, 4], 24: [5, 24], 32: [25, 32], 64: [33], 2048: [1347]}


def test_empty_texts_and_empty_splits():
    """A text without words is kept, in the narrowest bucket; a split without texts has no buckets."""
    (bucket,) = make_buckets(split_of([0, 2]), (4, 8))
    assert bucket.lengths.tolist() == [0, 2] and bucket.tokens.shape == (2, 4) and not bucket.tokens[0].any()
    assert make_buckets(split_of([]), (4, 8)) == []


def test_gather_takes_rows_and_fills_up():
    """Rows as asked for, repeats too; -1 gives no tokens, length 0, label 0, weight 0, under jit as well."""
    split = split_of([3, 4, 1])._replace(labels=np.array([1, 0, 1], np.int32))
    (bucket,) = (jax.tree.map(jnp.asarray, b) for b in make_buckets(split, (4,)))
    batch = jax.jit(gather)(bucket, jnp.array([2, -1, 0, 0, -1]))
    for row, place in enumerate([2, None, 0, 0, None]):
        text = [] if place is None else split.tokens[place].tolist()
        assert batch.tokens[row].tolist() == text + [0] * (4 - len(text))
    assert batch.length.tolist() == [1, 0, 3, 3, 0]
    assert batch.label.tolist() == [1, 0, 1, 1, 0]
    assert batch.weight.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_queries_are_padded_by_bucket_and_go_with_their_text():
    """To the next power of two of the longest in the bucket, at least 4; an empty query is kept."""
    rng = np.random.default_rng(0)
    sizes = {3: [0, 4, 1], 7: [5, 2], 8: [8], 9: [9, 0], 20: [3]}
    pairs = [(n, q) for n, queries in sizes.items() for q in queries]
    order = rng.permutation(len(pairs))
    lengths, asked = [pairs[i][0] for i in order], [pairs[i][1] for i in order]
    split = split_of(lengths)._replace(queries=[rng.integers(1, 99, n).astype(np.int32) for n in asked])
    buckets = make_buckets(split, (4, 8, 16, 32))
    assert [bucket.query.shape for bucket in buckets] == [(3, 4), (3, 8), (2, 16), (1, 4)]
    for bucket in buckets:
        for row, place in enumerate(bucket.position):
            query = split.queries[place]
            assert bucket.query_lengths[row] == len(query)
            assert bucket.query[row].tolist() == query.tolist() + [0] * (bucket.query.shape[1] - len(query))
    bucket = jax.tree.map(jnp.asarray, buckets[2])
    batch = jax.jit(gather)(bucket, jnp.array([1, -1, 0]))
    np.testing.assert_array_equal(batch.query, np.stack([bucket.query[1], np.zeros(16), bucket.query[0]]))
    assert batch.query_length.tolist() == [bucket.query_lengths[1], 0, bucket.query_lengths[0]]


def test_texts_without_queries_have_none():
    (bucket,) = make_buckets(split_of([2, 3]), (4,))
    assert bucket.query is None and bucket.query_lengths is None
    batch = gather(jax.tree.map(jnp.asarray, bucket), jnp.array([0, -1]))
    assert batch.query is None and batch.query_length is None
