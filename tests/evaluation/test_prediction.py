"""Prediction figures against scikit-learn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from flax_attnat.evaluation import prediction
from flax_attnat.evaluation.prediction import MOST_EXAMPLES, count_predictions

RUNS, EXAMPLES = 60, 41


def figures(probability, label):
    """Counts, accuracy, F1 and AUC."""
    counts = count_predictions(probability, label)
    return counts, prediction.accuracy(counts), prediction.f1(counts), prediction.auc(counts)


many = jax.jit(jax.vmap(figures))


@pytest.fixture(scope="module")
def runs():
    """Probabilities `[R, N]` with many ties, some at 0.5 itself and some NaN, and labels; two runs have one class."""
    rng = np.random.default_rng(0)
    probability = (rng.integers(0, 11, (RUNS, EXAMPLES)) / 10).astype(np.float32)
    probability[: RUNS // 2] = rng.random((RUNS // 2, EXAMPLES))
    probability[::7, :5] = np.nan
    labels = (rng.random((RUNS, EXAMPLES)) < rng.random((RUNS, 1))).astype(np.int32)
    labels[0], labels[1] = 0, 1
    probability[2], labels[2] = 0.1, np.arange(EXAMPLES) % 2  # nothing is said to be positive
    probability[3], labels[3] = labels[3], labels[3]
    return probability, labels


def test_figures_equal_scikit_learn_with_ties_nan_and_missing_classes(runs):
    """Counts exactly, figures to float32; NaN ranks below every number; the AUC of one class is NaN."""
    probability, labels = runs
    counts, accuracy, f1, auc = many(jnp.asarray(probability), jnp.asarray(labels))
    undefined = 0
    for run in range(RUNS):
        label, score = labels[run], np.nan_to_num(probability[run], nan=-1.0)
        said = (score > 0.5).astype(int)
        (tn, fp), (fn, tp) = metrics.confusion_matrix(label, said, labels=[0, 1])
        ours = (counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative)
        assert [int(count[run]) for count in ours] == [tp, fp, fn, tn]
        assert accuracy[run] == pytest.approx(metrics.accuracy_score(label, said), rel=1e-6)
        assert f1[run] == pytest.approx(metrics.f1_score(label, said, zero_division=0), rel=1e-6)
        if len(set(label)) == 2:
            assert auc[run] == pytest.approx(metrics.roc_auc_score(label, score), rel=1e-6)
        else:
            assert math.isnan(auc[run])
            undefined += 1
    assert undefined >= 2
    assert float(auc[3]) == float(accuracy[3]) == float(f1[3]) == 1.0
    assert float(f1[2]) == 0.0 and float(auc[2]) == 0.5


def test_without_a_positive_example_or_prediction_f1_is_zero(runs):
    """As scikit-learn's `zero_division=0`; accuracy stays defined, and without any example nothing is."""
    counts, accuracy, f1, auc = figures(jnp.zeros(5), jnp.zeros(5, jnp.int32))
    assert float(accuracy) == 1.0 and float(f1) == 0.0 and math.isnan(auc) and int(counts.true_negative) == 5
    _, accuracy, f1, auc = figures(jnp.zeros(0), jnp.zeros(0, jnp.int32))
    assert math.isnan(accuracy) and math.isnan(auc) and float(f1) == 0.0


def test_the_pairs_of_the_largest_split_fit_and_more_are_refused():
    """30,000 x 30,000 pairs all won are counted exactly; one example more is a ValueError."""
    label = (np.arange(MOST_EXAMPLES) % 2).astype(np.int32)
    counts = jax.jit(count_predictions)(jnp.asarray(label, jnp.float32), jnp.asarray(label))
    assert int(counts.twice_won) == 2 * 30_000**2
    assert float(prediction.auc(counts)) == 1.0
    with pytest.raises(ValueError, match=r"at most 60000 examples; got 60001"):
        count_predictions(jnp.zeros(MOST_EXAMPLES + 1), jnp.zeros(MOST_EXAMPLES + 1, jnp.int32))


def test_selection_metrics_are_the_figures(runs):
    probability, labels = (jnp.asarray(x[5]) for x in runs)
    _, accuracy, _, auc = figures(probability, labels)
    both = jnp.stack([1 - probability, probability], axis=-1)
    assert float(prediction.METRICS["auc"](both, labels)) == float(auc)
    assert float(prediction.METRICS["accuracy"](both, labels)) == float(accuracy)


def test_accuracy_of_several_classes_equals_scikit_learn():
    """The first of equal probabilities; a row that holds a NaN counts as class 0."""
    rng = np.random.default_rng(0)
    probability = (rng.integers(0, 4, (200, 5)) / 10).astype(np.float32)
    labels = rng.integers(0, 5, 200).astype(np.int32)
    broken = probability.copy()
    broken[::3, 2] = np.nan
    said = np.where(np.isnan(broken).any(-1), 0, broken.argmax(-1))
    for values, classes in ((probability, probability.argmax(-1)), (broken, said)):
        ours = jax.jit(prediction.METRICS["accuracy"])(jnp.asarray(values), jnp.asarray(labels))
        assert float(ours) == pytest.approx(metrics.accuracy_score(labels, classes), rel=1e-6)
        np.testing.assert_array_equal(prediction.predicted_classes(jnp.asarray(values)), classes)
    assert math.isnan(prediction.share_right(jnp.zeros((0, 5)), jnp.zeros(0, jnp.int32)))


def test_two_classes_are_predicted_as_they_are_counted():
    """Also where the two probabilities of a logit near zero round to 0.5 and less."""
    probability = jnp.array([[0.49999997, 0.5], [0.5, 0.5], [0.5, 0.49999997], [jnp.nan, jnp.nan], [0.4, 0.6]])
    np.testing.assert_array_equal(prediction.predicted_classes(probability), [0, 0, 0, 0, 1])
    counts = count_predictions(probability[:, 1], jnp.ones(5, jnp.int32))
    share = prediction.share_right(probability, jnp.ones(5, jnp.int32))
    assert float(share) == float(prediction.accuracy(counts)) == pytest.approx(0.2)
