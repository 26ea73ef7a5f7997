"""How well a model predicts: sums and counts first, figures from them.

Axes: N examples, C classes. `Counts` and what is made of them are for two classes, by the probability of class 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from flax_attnat.typing import Array

# Twice the number of won pairs must fit an int32.
MOST_EXAMPLES = 60_000


class Counts(NamedTuple):
    """Sums over examples, int32 scalars.

    Attributes:
      true_positive, false_positive, false_negative, true_negative: at `probability > 0.5`.
      twice_won: pairs (positive, negative) ranked rightly count 2, ties 1: twice the Mann-Whitney statistic.
    """

    true_positive: Array
    false_positive: Array
    false_negative: Array
    true_negative: Array
    twice_won: Array


def count_predictions(probability: Array, label: Array) -> Counts:
    """Counts of one run over one split.

    Args:
      probability: `[N]` of class 1; a value that is not a number counts as class 0, and ranks below every number.
      label: `[N]` 0 or 1.

    Returns:
      `Counts` of int32 scalars.

    Raises:
      ValueError: more than 60,000 examples, whose pairs an int32 cannot count.
    """
    if label.shape[0] > MOST_EXAMPLES:
        raise ValueError(f"the AUC is counted in int32, for at most {MOST_EXAMPLES} examples; got {label.shape[0]}.")
    positive, said = label == 1, probability > 0.5
    score = jnp.where(jnp.isnan(probability), -jnp.inf, probability)
    # Among the sorted scores of the negatives, how many are below a score, and how many not above it.
    negatives = jnp.sort(jnp.where(positive, jnp.inf, score))
    below = jnp.searchsorted(negatives, score, side="left")
    not_above = jnp.minimum(jnp.searchsorted(negatives, score, side="right"), jnp.sum(~positive))
    return Counts(
        true_positive=jnp.sum(positive & said, dtype=jnp.int32),
        false_positive=jnp.sum(~positive & said, dtype=jnp.int32),
        false_negative=jnp.sum(positive & ~said, dtype=jnp.int32),
        true_negative=jnp.sum(~positive & ~said, dtype=jnp.int32),
        twice_won=jnp.sum(jnp.where(positive, below + not_above, 0), dtype=jnp.int32),
    )


def accuracy(counts: Counts) -> Array:
    """Share of right predictions, scalar; NaN without examples."""
    total = counts.true_positive + counts.false_positive + counts.false_negative + counts.true_negative
    return _ratio(counts.true_positive + counts.true_negative, total)


def f1(counts: Counts) -> Array:
    """F1 of class 1, `2 TP / (2 TP + FP + FN)`, scalar; 0 where the class is neither there nor predicted."""
    errors = counts.false_positive + counts.false_negative
    return jnp.nan_to_num(_ratio(2 * counts.true_positive, 2 * counts.true_positive + errors))


def auc(counts: Counts) -> Array:
    """Area under the ROC curve, the share of (positive, negative) pairs ranked rightly; NaN if one class is missing."""
    positive = counts.true_positive + counts.false_negative
    negative = counts.false_positive + counts.true_negative
    return _ratio(counts.twice_won, 2 * positive * negative)


def predicted_classes(probability: Array) -> Array:
    """Predicted classes `[N]` int32 of `[N, C]`: the most probable, the first of equals; class 0 if one is NaN."""
    if probability.shape[-1] == 2:
        # As `count_predictions` has it: the two probabilities of a logit near 0 may round to either order.
        return (probability[:, 1] > 0.5).astype(jnp.int32)
    known = ~jnp.any(jnp.isnan(probability), axis=-1)
    return jnp.where(known, jnp.argmax(probability, axis=-1), 0).astype(jnp.int32)


def share_right(probability: Array, label: Array) -> Array:
    """Accuracy of `[N, C]` probabilities against labels `[N]`, scalar; NaN without examples."""
    return _ratio(jnp.sum(predicted_classes(probability) == label, dtype=jnp.int32), jnp.asarray(label.shape[0]))


METRICS: dict[str, Callable[[Array, Array], Array]] = {
    "auc": lambda probability, label: auc(count_predictions(probability[:, 1], label)),
    "accuracy": share_right,
}
"""What training may select by: `metric(probability [N, C], label [N]) -> scalar`; the AUC is that of two classes."""


def _ratio(part: Array, whole: Array) -> Array:
    """`part / whole` as float32, NaN where `whole` is 0."""
    whole = whole.astype(jnp.float32)
    return jnp.where(whole > 0, part.astype(jnp.float32) / jnp.where(whole > 0, whole, 1), jnp.nan)
