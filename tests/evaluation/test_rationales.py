"""Agreement with marked words against scikit-learn and against counting in plain Python."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from flax_attnat.evaluation.rationales import auprc, iou_f1, token_f1, top_share

ROWS, WIDTH = 1000, 20


def figures(importance, predicted, rationale, mask):
    """Everything that agreement with marked words is measured by."""
    return {
        "auprc": auprc(importance, rationale, mask),
        "token F1": token_f1(predicted, rationale, mask),
        "IOU F1": iou_f1(predicted, rationale, mask),
        "IOU F1 at 0.8": iou_f1(predicted, rationale, mask, 0.8),
    }


measure = jax.jit(figures)


@pytest.fixture(scope="module")
def texts():
    """Importances `[1000, 20]`, half with ties, predictions and marks in runs, lengths 0 to 20; padding is full."""
    rng = np.random.default_rng(0)
    importance = rng.random((ROWS, WIDTH)).astype(np.float32)
    importance[::2] = np.round(importance[::2] * rng.integers(1, 9, (ROWS // 2, 1)))
    flips = rng.random((ROWS, WIDTH)) < rng.choice([0.1, 0.3, 0.6], (ROWS, 1))
    rationale = np.cumsum(flips, axis=-1) % 2 == 1
    predicted = rationale ^ (rng.random((ROWS, WIDTH)) < rng.choice([0.0, 0.05, 0.2, 0.5], (ROWS, 1)))
    lengths = rng.integers(0, WIDTH + 1, ROWS)
    mask = np.arange(WIDTH) < lengths[:, None]
    importance[~mask], rationale[~mask], predicted[~mask] = np.inf, True, True
    return importance, predicted, rationale, mask, lengths


def spans(flags):
    """Runs of true entries as sets of places."""
    found, previous = [], False
    for place, flag in enumerate(flags):
        if flag and not previous:
            found.append(set())
        if flag:
            found[-1].add(place)
        previous = flag
    return found


def counted_iou_f1(predicted, rationale, threshold):
    """ERASER's: a predicted span is right if the best of its intersections over unions reaches the threshold."""
    said, marked = spans(predicted), spans(rationale)
    if not marked:
        return math.nan
    right = sum(max(Fraction(len(s & m), len(s | m)) for m in marked) >= threshold for s in said)
    if right == 0:
        return 0.0
    precision, recall = right / len(said), right / len(marked)
    return 2 * precision * recall / (precision + recall)


def test_equal_scikit_learn_and_counting(texts):
    """1,000 rows to 1e-6, NaN exactly where nothing is marked; no figure exceeds 1."""
    importance, predicted, rationale, mask, lengths = texts
    ours = jax.device_get(measure(importance, predicted, rationale, mask))
    undefined = 0
    for row, n in enumerate(lengths):
        x, said, marked = importance[row, :n], predicted[row, :n], rationale[row, :n]
        if not marked.any():
            undefined += 1
            assert all(math.isnan(ours[name][row]) for name in ours)
            continue
        assert ours["auprc"][row] == pytest.approx(metrics.average_precision_score(marked, x), abs=1e-6)
        assert ours["token F1"][row] == pytest.approx(metrics.f1_score(marked, said, zero_division=0), abs=1e-6)
        expected = counted_iou_f1(said, marked, Fraction(1, 2))
        assert ours["IOU F1"][row] == pytest.approx(expected, abs=1e-6)
        assert ours["IOU F1 at 0.8"][row] == pytest.approx(counted_iou_f1(said, marked, Fraction(4, 5)), abs=1e-6)
    assert 50 < undefined < 300
    assert all(np.nanmax(ours[name]) <= 1 for name in ours)
    assert (ours["IOU F1"] != ours["IOU F1 at 0.8"]).sum() > undefined + 50


def test_every_pair_of_short_spans_is_matched_as_eraser_matches():
    """All 2^7 x 2^7 predictions and marks of seven tokens, at the smallest threshold: no span matches two others."""
    flags = (np.arange(128)[:, None] >> np.arange(7)) % 2 == 1
    predicted, rationale = np.repeat(flags, 128, axis=0), np.tile(flags, (128, 1))
    ours = np.asarray(jax.jit(iou_f1)(predicted, rationale, np.ones(predicted.shape, bool)))
    expected = [counted_iou_f1(*row, Fraction(1, 2)) for row in zip(predicted, rationale, strict=True)]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.49, 1.01, math.nan])
def test_a_threshold_that_counts_spans_twice_is_refused(threshold):
    """With what was given."""
    flags = jnp.ones(3, bool)
    with pytest.raises(ValueError, match=rf"0\.5 to 1; got {threshold}"):
        iou_f1(flags, flags, flags, threshold)


def test_neither_padding_nor_other_rows_change_a_figure(texts):
    """Wider rows, one row at a time, and vmap over runs of the same marks."""
    importance, predicted, rationale, mask = (array[:8] for array in texts[:4])
    together = jax.device_get(measure(importance, predicted, rationale, mask))
    wide = [
        np.pad(x, ((0, 0), (0, 4)), constant_values=fill)
        for x, fill in zip((importance, predicted, rationale, mask), (np.nan, True, True, False), strict=True)
    ]
    single = [jax.device_get(measure(*row)) for row in zip(importance, predicted, rationale, mask, strict=True)]
    twice = np.stack([importance, 2 * importance]), np.stack([predicted, predicted])
    runs = jax.jit(jax.vmap(figures, in_axes=(0, 0, None, None)))(*twice, rationale, mask)
    for name, expected in together.items():
        np.testing.assert_allclose(measure(*wide)[name], expected, rtol=1e-6)
        np.testing.assert_allclose([row[name] for row in single], expected, rtol=1e-6)
        np.testing.assert_allclose(runs[name], [expected, expected], rtol=1e-6)


def test_edge_rows():
    """All marked is 1; all tied is the share that is marked; nothing predicted is 0; one token; a NaN is not ranked."""
    yes, no = jnp.ones(4, bool), jnp.zeros(4, bool)
    some = jnp.array([True, False, False, False])
    values = jnp.array([0.1, 0.2, 0.3, 0.4])
    assert float(auprc(values, yes, yes)) == 1
    assert float(auprc(jnp.full(4, 0.25), some, yes)) == 0.25
    assert float(token_f1(no, some, yes)) == float(iou_f1(no, some, yes)) == 0
    assert [float(figure) for figure in figures(values, yes, yes, some).values()] == [1, 1, 1, 1]
    assert np.isnan(auprc(values.at[2].set(jnp.nan), some, yes))
    assert all(np.isnan(figure) for figure in figures(values, yes, yes, no).values())


def test_top_share_takes_the_ceiling_of_the_written_share():
    """For 1 to 300 tokens and ERASER's shares: as many as decimals say, the most important, all before any other."""
    rng = np.random.default_rng(1)
    lengths = np.arange(1, 301)
    mask = np.arange(300) < lengths[:, None]
    importance = np.round(rng.random((300, 300)) * 50).astype(np.float32)
    pick = jax.jit(jax.vmap(top_share, in_axes=(None, None, 0)))
    shares = ["0", "0.01", "0.05", "0.1", "0.2", "0.5", "0.7", "1"]
    ours = np.asarray(pick(importance, mask, jnp.array([float(share) for share in shares])))
    assert not (ours & ~mask).any()
    for share, chosen in zip(shares, ours, strict=True):
        wanted = [max(1, math.ceil(Fraction(share) * int(n))) for n in lengths]
        assert chosen.sum(-1).tolist() == wanted
        for row in (0, 9, 99, 299):
            best = np.argsort(-importance[row, : lengths[row]], kind="stable")[: wanted[row]]
            assert set(np.flatnonzero(chosen[row])) == set(best)


def test_top_share_of_no_token_is_none():
    """And NaN comes last."""
    values = jnp.array([jnp.nan, 0.1, 0.1, -jnp.inf])
    assert not top_share(values, jnp.zeros(4, bool), 0.5).any()
    assert top_share(values, jnp.ones(4, bool), 0.75).tolist() == [False, True, True, True]
    assert top_share(values, jnp.ones(4, bool), 0.1).tolist() == [False, True, False, False]
