"""Correlations of attention and importance against SciPy, top-k distances against counting in plain Python."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flax_attnat.evaluation.agreement import (
    average_ranks,
    descending_positions,
    kendall,
    pearson,
    spearman,
    top_k_distance,
    top_k_overlap,
)

ROWS, WIDTH = 300, 24
# A row's pattern and how it is turned into float32 weights: scale and offset.
SHAPES = {
    "weights that sum to 1": (1.0, 0.0),
    "weights so small that their squares underflow": (1e-30, 0.0),
    "weights that differ in their last digits": (1e-4, 0.5),
}

many = jax.jit(pearson)


@pytest.mark.parametrize(("scale", "offset"), SHAPES.values(), ids=SHAPES)
def test_equals_scipy(scale, offset):
    """300 rows of 2 to 24 entries, to 1e-6; what stands on padding is not read."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, WIDTH + 1, ROWS)
    mask = np.arange(WIDTH) < lengths[:, None]
    x = (offset + scale * rng.dirichlet(np.ones(WIDTH), ROWS)).astype(np.float32)
    y = (offset + scale * rng.dirichlet(np.ones(WIDTH), ROWS) + 0.3 * (x - offset)).astype(np.float32)
    x, y = np.where(mask, x, np.nan), np.where(mask, y, 7.0).astype(np.float32)
    ours = np.asarray(many(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask)))
    for row, n in enumerate(lengths):
        # SciPy in float64, on the row scaled exactly: it warns where the spread is small beside the mean.
        a, b = ((z[row, :n].astype(np.float64) - z[row, :n].min()) * 2.0**60 for z in (x, y))
        assert ours[row] == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-6)


def test_a_row_and_its_affine_image_correlate_fully():
    """Exactly within [-1, 1], as rounding may not carry a figure beyond."""
    x = jnp.asarray(np.random.default_rng(1).random((ROWS, WIDTH)), jnp.float32)
    mask = jnp.ones(x.shape, bool)
    up, down = np.asarray(many(x, 3 * x + 2, mask)), np.asarray(many(x, 1 - x, mask))
    np.testing.assert_allclose(up, 1, atol=1e-6)
    np.testing.assert_allclose(down, -1, atol=1e-6)
    assert up.max() <= 1 and down.min() >= -1


def test_undefined_rows_are_nan():
    """One token, none, constant over the real tokens (either side), and values that are not finite."""
    plain = [0.1, 0.2, 0.7]
    rows = [
        (plain, plain, 1),
        (plain, plain, 0),
        ([0.4, 0.4, 0.9], plain, 2),
        (plain, [0.0, 0.0, 0.0], 3),
        ([np.nan, 0.2, 0.7], plain, 3),
        (plain, [0.1, np.inf, 0.7], 3),
        (plain, [0.1, -np.inf, 0.7], 3),
        (plain, plain, 3),
    ]
    x, y = (jnp.asarray([row[side] for row in rows], jnp.float32) for side in (0, 1))
    mask = jnp.arange(3)[None, :] < jnp.asarray([[row[2]] for row in rows])
    together = np.asarray(pearson(x, y, mask))
    assert np.isnan(together[:-1]).all() and together[-1] == pytest.approx(1)
    np.testing.assert_array_equal(jax.vmap(pearson)(x, y, mask), together)


def figures(a, b, mask):
    """Everything that agreement of two rows is measured by."""
    tau, p_value = kendall(a, b, mask)
    return {
        "pearson": pearson(a, b, mask),
        "spearman": spearman(a, b, mask),
        "tau": tau,
        "p value": p_value,
        "distance": top_k_distance(a, b, mask, TOP),
        "overlap": top_k_overlap(a, b, mask, TOP),
    }


TOP = 3
measure = jax.jit(figures)


@pytest.fixture(scope="module")
def tied():
    """Rows `[1000, 24]` and lengths 3 to 24: a third without ties, a third with a few values, a third mostly zero."""
    rng = np.random.default_rng(2)
    a = rng.dirichlet(np.ones(WIDTH), 1000)
    b = rng.dirichlet(np.ones(WIDTH), 1000) + 0.5 * a * rng.integers(-1, 2, (1000, 1))
    a[333:], b[333:] = np.round(a[333:] * 30), np.round(b[333:] * rng.integers(5, 100, (667, 1)))
    a[667:] *= rng.random((333, WIDTH)) < 0.3
    lengths = rng.integers(3, WIDTH + 1, 1000)
    mask = np.arange(WIDTH) < lengths[:, None]
    a, b = np.where(mask, a, np.nan).astype(np.float32), np.where(mask, b, -7.0).astype(np.float32)
    return a, b, mask, lengths


def compare(a, b, n, ours):
    """One row of figures against SciPy in float64; true if they are defined."""
    x, y = a[:n].astype(np.float64), b[:n].astype(np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert all(math.isnan(ours[name]) for name in ("pearson", "spearman", "tau", "p value"))
        return False
    tau = stats.kendalltau(x, y, method="asymptotic")
    assert ours["tau"] == pytest.approx(tau.statistic, abs=1e-6)
    assert ours["p value"] == pytest.approx(tau.pvalue, abs=1e-5)
    assert ours["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-6)
    assert ours["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)
    return True


def test_rank_statistics_equal_scipy_with_ties(tied):
    """1,000 rows: tau-b, rho and r to 1e-6, the p value to 1e-5; a constant row is NaN."""
    a, b, mask, lengths = tied
    ours = jax.device_get(measure(a, b, mask))
    defined = [compare(a[row], b[row], n, {name: ours[name][row] for name in ours}) for row, n in enumerate(lengths)]
    assert 900 < sum(defined) < 1000


def test_long_rows_equal_scipy():
    """4,000 entries, among them one that differs from all others, where float32 sums of cubes would cancel."""
    rng = np.random.default_rng(3)
    a = np.stack([rng.random(4000), rng.integers(0, 5, 4000), np.eye(1, 4000)[0], np.eye(1, 4000)[0]])
    b = np.stack([rng.random(4000) + 0.02 * a[0], rng.integers(0, 3, 4000), np.eye(1, 4000, 7)[0], rng.random(4000)])
    a, b = a.astype(np.float32), b.astype(np.float32)
    ours = jax.device_get(measure(a, b, np.ones(a.shape, bool)))
    assert all(compare(a[row], b[row], 4000, {name: ours[name][row] for name in ours}) for row in range(4))


def test_average_ranks_equal_scipy(tied):
    """Exactly, 0 outside; infinities are ranked, and a NaN makes its row NaN."""
    a, _, mask, lengths = tied
    ours = np.asarray(average_ranks(jnp.asarray(a), jnp.asarray(mask)))
    for row, n in enumerate(lengths):
        np.testing.assert_array_equal(ours[row, :n], stats.rankdata(a[row, :n]))
        assert not ours[row, n:].any()
    odd = jnp.array([[1.0, -jnp.inf, jnp.inf, 0.0, -0.0], [1.0, jnp.nan, 0.0, 2.0, 3.0]])
    ranks = np.asarray(average_ranks(odd, jnp.ones(odd.shape, bool)))
    np.testing.assert_array_equal(ranks[0], [4, 1, 5, 2.5, 2.5])
    assert np.isnan(ranks[1]).all()


def order(x):
    """Entries from the largest, the earlier first of equals."""
    return sorted(range(len(x)), key=lambda i: (-x[i], i))


def fagin(a, b, k):
    """K^(1/2) of Fagin, Kumar & Sivakumar 2003, by their four cases."""
    top_a, top_b = order(a)[:k], order(b)[:k]
    total = 0.0
    for i, j in itertools.combinations(set(top_a) | set(top_b), 2):
        in_a, in_b = {i, j} & set(top_a), {i, j} & set(top_b)
        if len(in_a) == len(in_b) == 2:  # both lists hold both
            total += (top_a.index(i) < top_a.index(j)) != (top_b.index(i) < top_b.index(j))
        elif len(in_a) + len(in_b) == 3:  # one list holds both, the other one of them
            (only,), both = (in_a, top_b) if len(in_a) == 1 else (in_b, top_a)
            total += both.index(only) > both.index(i + j - only)
        elif len(in_a) == len(in_b) == 1:  # each list holds one
            total += 1
        else:  # one list holds both, the other neither
            total += 0.5
    return total


@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 2), (5, 1), (5, 2), (5, 3), (5, 4), (4, 4), (4, 9)])
def test_top_k_distance_is_the_share_of_the_furthest_that_a_row_allows(n, k):
    """Every order of n entries against one: Fagin's K^(1/2) over its largest value, from 0 to 1."""
    a = list(range(n))
    orders = list(itertools.permutations(a))
    raw = np.array([fagin(a, b, k) for b in orders])
    b = np.pad(np.array(orders, np.float32), ((0, 0), (0, 2)), constant_values=9)
    mask = np.arange(n + 2) < np.full((len(orders), 1), n)
    first = np.broadcast_to(np.pad(np.array(a, np.float32), (0, 2)), b.shape)
    ours = np.asarray(top_k_distance(jnp.asarray(first), jnp.asarray(b), jnp.asarray(mask), k))
    np.testing.assert_allclose(ours, raw / raw.max(), atol=1e-6)
    assert ours[0] == 0 and ours.max() == 1


def test_top_k_equals_counting_with_ties(tied):
    """1,000 rows against plain Python, ties to the earlier entry: order, distance and overlap."""
    a, b, mask, lengths = tied
    positions = np.asarray(descending_positions(jnp.asarray(a), jnp.asarray(mask)))
    ours = jax.device_get(measure(a, b, mask))
    for row, n in enumerate(lengths):
        x, y = a[row, :n], b[row, :n]
        far = max(TOP - (n - TOP), 0)  # as few as two lists can share
        alone = TOP - far
        furthest = far * (far - 1) / 2 + 2 * far * alone + alone**2 + 0.5 * alone * (alone - 1)
        assert ours["distance"][row] == pytest.approx(fagin(x, y, TOP) / furthest, abs=1e-6)
        assert ours["overlap"][row] == pytest.approx(len(set(order(x)[:TOP]) & set(order(y)[:TOP])) / TOP, abs=1e-6)
        assert np.argsort(positions[row])[:n].tolist() == order(x)


def test_of_two_entries_the_p_value_is_that_of_one_standard_deviation():
    """C - D is 1 or -1 and has variance 1; SciPy divides by zero here."""
    tau, p_value = kendall(jnp.array([0.1, 0.9]), jnp.array([3.0, 2.0]), jnp.ones(2, bool))
    assert float(tau) == -1 and float(p_value) == pytest.approx(2 * stats.norm.sf(1), abs=1e-6)


def test_undefined_rank_figures_are_nan():
    """No token, one, constant rows, NaN; overlap alone says something of one token, and ties have an order in top-k."""
    plain = [0.1, 0.2, 0.7, 0.0]
    rows = {
        "none": (plain, plain, 0),
        "one": (plain, plain, 1),
        "constant": ([0.4, 0.4, 0.4, 9.0], plain, 3),
        "all tied": ([0.4] * 4, [0.1] * 4, 4),
        "NaN": ([0.1, np.nan, 0.2, 0.3], plain, 4),
        "defined": (plain, plain, 4),
    }
    a, b = (jnp.array([row[side] for row in rows.values()], jnp.float32) for side in (0, 1))
    mask = jnp.arange(4)[None, :] < jnp.array([[row[2]] for row in rows.values()])
    found = measure(a, b, mask)
    missing = {name: [row for row, value in zip(rows, found[name], strict=True) if np.isnan(value)] for name in found}
    correlations = ["none", "one", "constant", "all tied", "NaN"]
    assert all(missing[name] == correlations for name in ("pearson", "spearman", "tau", "p value"))
    assert missing["distance"] == ["none", "one", "NaN"] and missing["overlap"] == ["none", "NaN"]
    assert [float(found[name][5]) for name in ("tau", "distance", "overlap")] == [1, 0, 1]
    assert float(found["overlap"][1]) == 1 and float(found["distance"][3]) == 0


def test_neither_padding_nor_other_rows_change_a_figure(tied):
    """Wider rows, one row at a time and vmap over runs agree with the batch."""
    a, b, mask, _ = (array[:6] for array in tied)
    together = jax.device_get(measure(a, b, mask))
    wide = [np.pad(array, ((0, 0), (0, 5)), constant_values=fill) for array, fill in ((a, 3), (b, np.inf), (mask, 0))]
    single = [jax.device_get(measure(a[row], b[row], mask[row])) for row in range(6)]
    runs = jax.jit(jax.vmap(figures, in_axes=(0, 0, None)))(np.stack([a, b]), np.stack([b, a]), mask)
    for name, expected in together.items():
        np.testing.assert_allclose(measure(*wide)[name], expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose([row[name] for row in single], expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(runs[name], [expected, expected], rtol=1e-6, atol=1e-7)
