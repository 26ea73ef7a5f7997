"""Two techniques compared over texts and over seeds, and p values corrected over data sets."""

import numpy as np
import pytest
from scipy import stats

from flax_attnat.evaluation.comparison import Measured, compare, correct

TEXTS = 400
LABELS = np.arange(TEXTS) % 2


def measured(technique: str, right: float, seeds: tuple[int, ...] = (0, 1, 2), agreement: float = 0.3) -> Measured:
    """Runs that are right on a share of the texts, others for each seed, with accuracies that are those of the rows."""
    rng = np.random.default_rng(len(technique))
    correct_rows = rng.random((len(seeds), TEXTS)) < right
    said = np.where(correct_rows, LABELS, 1 - LABELS)
    probability = np.stack([1 - said, said], axis=-1).astype(np.float32)
    pearson = rng.normal(agreement, 0.1, (len(seeds), TEXTS))
    pearson[:, :7] = np.nan
    f1 = [float(2 * np.sum(row & LABELS) / (np.sum(row) + np.sum(LABELS))) for row in said]
    figures = {"f1": f1, "accuracy": list(correct_rows.mean(axis=1))}
    fields = {"dataset": "sst", "split": "test", "technique": technique, "reading": None, "epsilon": 1.0, "lambda": 1.0}
    fields |= {"learning_rate": 0.001, "weight_decay": 1e-5}
    return Measured(fields, seeds, probability, pearson, LABELS, figures)


def test_what_differs_is_found_and_what_does_not_is_not() -> None:
    better, plain = measured("attention_at", 0.9, agreement=0.5), measured("vanilla", 0.7)
    lines = {line["figure"]: line for line in compare(better, plain)}
    assert list(lines) == ["f1", "accuracy", "pearson"]
    for figure, line in lines.items():
        seeds = [of.figures.get(figure, np.nanmean(of.pearson, axis=1)) for of in (better, plain)]
        means = [np.mean(of) for of in seeds]
        assert line["difference"] == pytest.approx(means[0] - means[1], abs=1e-6)
        assert line["low"] < line["difference"] < line["high"] and line["p_value"] < 0.001
        t_test = stats.ttest_rel(*seeds)
        assert line["p_value_seeds"] == pytest.approx(t_test.pvalue, rel=1e-6)
        assert line["seeds"] == 3 and line["against"] == "vanilla"
    assert lines["f1"]["n"] == TEXTS and lines["pearson"]["n"] == TEXTS - 7
    same = {line["figure"]: line for line in compare(measured("word_iat", 0.7), plain)}
    assert all(line["p_value"] > 0.01 and line["low"] < 0 < line["high"] for line in same.values())


def test_seeds_that_one_of_them_lacks_are_left_out() -> None:
    wide, narrow = measured("attention_at", 0.9, seeds=(0, 1, 2)), measured("vanilla", 0.7, seeds=(2, 5))
    (line, *_) = compare(wide, narrow)
    assert line["seeds"] == 1 and line["effect"] is None and line["p_value_seeds"] is None
    assert line["difference"] == pytest.approx(wide.figures["f1"][2] - narrow.figures["f1"][0], abs=1e-6)
    assert compare(measured("attention_at", 0.9, seeds=(7,)), narrow) == []


def test_a_figure_that_one_of_them_lacks_is_left_out() -> None:
    uniform = measured("uniform", 0.7)
    uniform = uniform._replace(pearson=np.full_like(uniform.pearson, np.nan))
    assert [line["figure"] for line in compare(uniform, measured("vanilla", 0.7))] == ["f1", "accuracy"]


def test_p_values_are_corrected_over_data_sets_by_hand() -> None:
    """.01, .03 and .04 of three data sets: 3 x .01, 2 x .03, and .04 raised to what comes before."""
    plain = {"technique": "attention_at", "reading": None, "against": "vanilla", "figure": "f1", "split": "test"}
    lines = [
        plain | {"dataset": d, "p_value": p, "p_value_seeds": None}
        for d, p in zip("abc", (0.01, 0.03, 0.04), strict=True)
    ]
    alone = plain | {"dataset": "a", "figure": "accuracy", "p_value": 0.02, "p_value_seeds": 0.5}
    found = correct([*lines, alone])
    assert [line["p_holm"] for line in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [line["p_holm_seeds"] for line in found] == [None, None, None, 0.5]
    assert [line["datasets"] for line in found] == [3, 3, 3, 1]
