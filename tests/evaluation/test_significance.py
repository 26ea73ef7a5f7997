"""Bootstrap intervals and comparisons, the paired t test and Holm's correction, against SciPy and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from flax_attnat.evaluation.significance import (
    bootstrap_means,
    holm,
    mean_of,
    paired_bootstrap,
    paired_bootstrap_mean,
    paired_seeds,
    summaries,
    summary,
)

NAN = math.nan


def interval(values, **options):
    """Ends of the interval of the mean."""
    found = summary(values, **options)
    return found["low"], found["high"]


def f1(labels, predicted):
    """F1 of class 1 by counting."""
    true = np.sum((labels == 1) & (predicted == 1))
    return 2 * true / max(np.sum(labels == 1) + np.sum(predicted == 1), 1)


def test_interval_is_that_of_the_normal_law_for_many_values():
    """Mean 3 of 4,000 values: 1.96 standard errors to either side, within the noise of 4,000 samples."""
    values = np.random.default_rng(0).normal(3, 2, 4_000)
    low, high = interval(values, resamples=4_000)
    error = values.std(ddof=1) / math.sqrt(len(values))
    np.testing.assert_allclose([low, high], values.mean() + np.array([-1.96, 1.96]) * error, atol=0.1 * error)
    narrow = interval(values, resamples=4_000, level=0.5)
    np.testing.assert_allclose(narrow, values.mean() + np.array([-0.674, 0.674]) * error, atol=0.1 * error)


def test_intervals_cover_the_mean_as_often_as_they_say():
    """Of 400 samples of 60 from a skewed law, 95 % (a little less, as known of percentile intervals)."""
    rng = np.random.default_rng(1)
    intervals = np.array([interval(rng.exponential(size=60), resamples=400, seed=k) for k in range(400)])
    assert 0.90 < np.mean((intervals[:, 0] < 1) & (intervals[:, 1] > 1)) < 0.97


def test_resamples_have_the_law_of_all_27_ways_to_draw_three():
    """Means of three values drawn from themselves: every multiset with its multinomial probability."""
    values = np.array([0.0, 1.0, 5.0])
    found = bootstrap_means(values[None, :], resamples=60_000)[0]
    expected = [sum(draw) / 3 for draw in itertools.product(values, repeat=3)]
    for mean in set(expected):
        share = np.mean(np.abs(found - mean) < 1e-9)
        assert share == pytest.approx(np.mean(np.array(expected) == mean), abs=0.01)


def test_measures_share_their_draws_and_undefined_values_are_left_out():
    """The same examples for every row: a row and its double, and one with a value in an example in ten."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 500))
    values[1] = 2 * values[0] + 1
    values[2] = np.where(rng.random(500) < 0.1, values[0], NAN)
    means = bootstrap_means(values, seed=4)
    np.testing.assert_allclose(means[1], 2 * means[0] + 1, atol=1e-12)
    np.testing.assert_allclose(means.mean(axis=1), np.nanmean(values, axis=1), atol=0.02)
    np.testing.assert_allclose(interval(values[2], seed=4), np.quantile(means[2], [0.025, 0.975]), rtol=1e-12)
    error = np.nanstd(values[2]) / math.sqrt(np.sum(~np.isnan(values[2])))
    assert means[2].std() == pytest.approx(error, rel=0.1)
    assert interval(values[0], seed=4) == interval(values[0], seed=4)
    assert interval(values[0], seed=4) != interval(values[0], seed=5)
    # More draws than are made at once.
    assert bootstrap_means(np.ones((2, 3_000)), resamples=701).tolist() == [[1.0] * 701] * 2


def test_without_values_nothing_is_defined():
    for nothing in (np.full(5, NAN), np.zeros(0)):
        assert summary(nothing) == {
            **dict.fromkeys(("mean", "sd", "low", "high")),
            "n": 0,
            "undefined": len(nothing),
        }
        assert mean_of(nothing) is None
    assert summaries({}) == {}
    assert interval(np.array([NAN, 2.0, NAN])) == (2.0, 2.0)


@pytest.mark.parametrize("figure", ["f1", "accuracy"])
def test_paired_bootstrap_against_one_resample_at_a_time(figure):
    """The observed difference by counting; the interval as wide as that of 2,000 samples drawn and counted singly."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 300)
    a, b = (np.where(rng.random((seeds, 300)) < wrong, 1 - labels, labels) for seeds, wrong in ((3, 0.15), (2, 0.2)))
    count = f1 if figure == "f1" else lambda labels, predicted: np.mean(labels == predicted)

    def difference(rows):
        """Of the mean figures over seeds, on some examples."""
        return np.mean([count(labels[rows], x[rows]) for x in a]) - np.mean([count(labels[rows], x[rows]) for x in b])

    found = paired_bootstrap(labels, a, b, figure=figure)
    assert found.difference == pytest.approx(difference(np.arange(300)), abs=1e-12) and found.n == 300
    singly = np.array([difference(rng.integers(0, 300, 300)) for _ in range(2_000)])
    np.testing.assert_allclose((found.low, found.high), np.quantile(singly, [0.025, 0.975]), atol=0.006)
    assert found.p_value == pytest.approx(2 * min(np.mean(singly <= 0), np.mean(singly >= 0)), abs=0.04)
    swapped = paired_bootstrap(labels, b, a, figure=figure)
    np.testing.assert_allclose(swapped[:4], (-found.difference, -found.high, -found.low, found.p_value), atol=1e-12)


def test_paired_bootstrap_p_values():
    """1 for techniques that are alike, whatever the order of their seeds; 2 / 10,001 where every sample agrees."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 200)
    runs = rng.integers(0, 3, (7, 200))
    same = paired_bootstrap(labels, runs, runs[::-1], figure="accuracy")
    assert same.p_value == 1 and abs(same.difference) < 1e-12
    wrong = np.where(np.arange(200) % 4 == 0, (labels + 1) % 3, labels)
    better = paired_bootstrap(labels, labels[None, :], wrong[None, :], figure="accuracy")
    assert better.difference == 0.25 and better.p_value == 2 / 10_001 and 0 < better.low < 0.25 < better.high
    # Of alike techniques one test in twenty is significant.
    p_values = []
    for seed in range(300):
        truth = rng.integers(0, 2, 150)
        a, b = (np.where(rng.random((1, 150)) < 0.3, 1 - truth, truth) for _ in range(2))
        p_values.append(paired_bootstrap(truth, a, b, figure="accuracy", resamples=500, seed=seed).p_value)
    assert 0.01 < np.mean(np.array(p_values) <= 0.05) < 0.1


def test_f1_of_a_class_that_nobody_has_or_predicts_is_0():
    """As the figure itself is defined; samples without it count as 0 too."""
    nobody, first = np.zeros(4, int), np.eye(1, 4, dtype=int)
    none = paired_bootstrap(nobody, nobody[None, :], nobody[None, :])
    assert none == (0, 0, 0, 1, 4)
    assert paired_bootstrap(first[0], first, nobody[None, :], resamples=200).difference == 1
    for empty in (
        paired_bootstrap(np.zeros(0, int), np.zeros((2, 0), int), np.zeros((2, 0), int)),
        paired_bootstrap(nobody, np.zeros((0, 4), int), nobody[None, :]),
    ):
        assert all(math.isnan(x) for x in empty[:4])


def test_paired_bootstrap_of_means_uses_examples_that_both_define():
    """The interval of the mean difference: 1.96 standard errors; p near that of the t test."""
    rng = np.random.default_rng(5)
    a = rng.normal(size=800)
    b = a - 0.02 + rng.normal(scale=0.3, size=800)
    a[:50], b[30:90] = NAN, NAN
    both = ~np.isnan(a) & ~np.isnan(b)
    found = paired_bootstrap_mean(a, b)
    between = (a - b)[both]
    error = between.std(ddof=1) / math.sqrt(both.sum())
    assert found.n == both.sum() == 710 and found.difference == pytest.approx(between.mean(), abs=1e-15)
    ends = between.mean() + np.array([-1.96, 1.96]) * error
    np.testing.assert_allclose((found.low, found.high), ends, atol=0.1 * error)
    assert found.p_value == pytest.approx(stats.ttest_rel(a[both], b[both]).pvalue, abs=0.03)
    one, none = (paired_bootstrap_mean(np.array([1.0, NAN]), np.array([x, 2.0])) for x in (0.5, NAN))
    assert one.difference == 0.5 and one.n == 1 and math.isnan(one.p_value) and math.isnan(one.low)
    assert none.n == 0 and math.isnan(none.difference)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 8, 30, 31])
@pytest.mark.parametrize("shift", [0.0, 0.5, 4.0])
def test_paired_seeds_equals_scipy(seeds, shift):
    rng = np.random.default_rng(seeds)
    a, b = rng.normal(shift, 1, seeds), rng.normal(0, 1, seeds)
    found, exact = paired_seeds(a, b), stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(exact.pvalue, rel=1e-9, abs=2e-15)
    assert found.effect * math.sqrt(seeds) == pytest.approx(exact.statistic, rel=1e-12)
    assert found.difference == pytest.approx(np.mean(a - b), abs=1e-15) and found.n == seeds
    swapped = paired_seeds(b, a)
    assert swapped.effect == pytest.approx(-found.effect) and swapped.p_value == pytest.approx(found.p_value, abs=1e-15)


def test_paired_seeds_by_a_printed_table():
    """The 97.5 % points of Student's law: 12.706, 4.303, 2.776 and 2.262 for 1, 2, 4 and 9 degrees of freedom."""
    for freedom, t in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)):
        n = freedom + 1
        between = np.arange(n) - freedom / 2
        between = between / between.std(ddof=1) + t / math.sqrt(n)
        assert paired_seeds(between, np.zeros(n)).p_value == pytest.approx(0.05, abs=5e-5)


def test_paired_seeds_that_cannot_be_compared():
    """One pair, none, differences all equal (up to rounding, of float32 too); a pair with a NaN is left out."""
    for a, b, n in (
        ([0.5], [0.25], 1),
        ([0.8, NAN], [0.7, 0.6], 1),
        ([0.3, 0.4, 0.5], [0.1, 0.2, 0.3], 3),
        ([], [], 0),
        (np.float32([1400, 1411, 1390]) / np.float32(1726), np.float32([1390, 1401, 1380]) / np.float32(1726), 3),
    ):
        found = paired_seeds(np.array(a), np.array(b))
        assert found.n == n and math.isnan(found.p_value) and math.isnan(found.effect)
        assert math.isnan(found.difference) == (n == 0)
    a, b = np.array([0.8, NAN, 0.9, 0.7]), np.array([0.7, 0.2, 0.85, 0.72])
    assert paired_seeds(a, b) == paired_seeds(a[[0, 2, 3]], b[[0, 2, 3]])


def test_holm_by_hand_and_by_definition():
    """0.01, 0.02, 0.03 times 4, 3, 2 keep their order; NaN does not count. Then as statsmodels has it."""
    np.testing.assert_allclose(holm(np.array([0.02, NAN, 0.01, 0.03, 0.9])), [0.06, NAN, 0.04, 0.06, 0.9], rtol=1e-12)
    assert np.isnan(holm(np.full(3, NAN))).all() and holm(np.zeros(0)).shape == (0,)
    rng = np.random.default_rng(6)
    for _ in range(200):
        p_values = rng.random(rng.integers(1, 12)).round(1) ** 2
        rank = np.argsort(p_values)
        largest = np.maximum.accumulate(p_values[rank] * np.arange(len(p_values), 0, -1))
        expected = np.empty_like(p_values)
        expected[rank] = np.where(largest > 1, 1, largest)
        found = holm(p_values)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert (found >= p_values).all() and (found <= 1).all()
        # Rejecting step by step, from the smallest on, until one is too large.
        rejected = set()
        for step, place in enumerate(rank):
            if p_values[place] * (len(rank) - step) > 0.05:
                break
            rejected.add(place)
        assert rejected == set(np.flatnonzero(found <= 0.05))


def test_summary_is_what_a_result_line_holds():
    """Mean, deviation over n - 1, interval and counts; nothing in it that JSON lacks."""
    values = np.array([0.5, NAN, 1.0, 0.0, math.inf])
    found = summary(values)
    assert found["mean"] == 0.5 and found["sd"] == 0.5 and (found["n"], found["undefined"]) == (3, 2)
    assert 0 <= found["low"] < found["high"] <= 1
    assert {type(x) for x in found.values()} == {float, int}


def test_summaries_are_those_of_each_measure():
    """Of 20 measures with gaps, and one without a value: as if each were alone, and as NumPy has it."""
    rng = np.random.default_rng(7)
    values = rng.normal(1, 1, (20, 700))
    values[rng.random(values.shape) < np.linspace(0, 0.9, 20)[:, None]] = NAN
    values[13], values[4, :3] = NAN, math.inf
    rows = {f"measure {k}": row for k, row in enumerate(values)}
    found = summaries(rows, seed=2, level=0.9)
    assert list(found) == list(rows) and found["measure 13"]["mean"] is None
    for name, row in rows.items():
        assert summary(row, seed=2, level=0.9) == summaries({"x": row}, seed=2, level=0.9)["x"]
        alone = summary(row, seed=2, level=0.9)
        for figure, value in found[name].items():
            assert value == (None if alone[figure] is None else pytest.approx(alone[figure], rel=1e-12))
        finite = row[np.isfinite(row)]
        assert (found[name]["n"], found[name]["undefined"]) == (len(finite), 700 - len(finite))
        assert found[name]["mean"] == mean_of(row)
        if len(finite):
            assert mean_of(row) == pytest.approx(np.mean(finite)) and found[name]["sd"] == pytest.approx(
                finite.std(ddof=1)
            )
    # Counts and flags are values as well.
    assert summaries({"count": np.arange(3), "flag": np.array([True, False, False])})["count"]["mean"] == 1
    assert mean_of(np.array([[True, False], [False, False]])) == 0.25
    with pytest.raises(ValueError, match="same shape"):
        summaries({"a": np.zeros(2), "b": np.zeros(3)})
