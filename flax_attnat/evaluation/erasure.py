"""What becomes of a prediction when words of the text are erased (ERASER, DeYoung et al. 2020).

Erased words are taken out and the text becomes shorter; they are not masked. Of a pair, words of the passage are
erased and the query stays. Everything is for one run and one batch; `jax.vmap` over parameters serves many runs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.evaluation.agreement import descending_positions
from flax_attnat.evaluation.importance import LeaveOneOut, predict_places, predicts_label, probability_of
from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.evaluation.rationales import top_share
from flax_attnat.models.model import Model
from flax_attnat.typing import Array, Batch, Params

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""How much of a text is erased, or kept."""


class Erasure(NamedTuple):
    """Faithfulness of importances, at each of the shares.

    Attributes:
      comprehensiveness: `[..., B, 5]`, `p(x)_j - p(x without R)_j`; large where the words R are needed.
      sufficiency: `[..., B, 5]`, `p(x)_j - p(R)_j`; small where they are enough.
    """

    comprehensiveness: Array
    sufficiency: Array


class Deletion(NamedTuple):
    """How many deleted words a prediction stands.

    Attributes:
      deleted: `[B]` int32 words that were deleted when the prediction left the label; 0 where it was wrong anyway, -1
        where it stood.
      correct: `[B, most + 1]` bool, whether it is still right after at most k deletions, k = 0 ... most.
    """

    deleted: Array
    correct: Array


def erase(
    model: Model,
    params: Params,
    batch: Batch,
    probability: Array,
    importance: Array,
    left_out: LeaveOneOut | None = None,
) -> Erasure:
    """Comprehensiveness and sufficiency of importances, at each of the shares.

    R are the `ceil(share n)` most important of n words, and j is the class that is predicted for the whole text.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model.
      probability: `[B, C]` of the whole texts.
      importance: `[B, T]`, or `[S, B, T]` of several sources at once.
      left_out: from `leave_one_out`: saves the forward passes that take out one word.

    Returns:
      `Erasure` of `[B, 5]`, or `[S, B, 5]`; NaN for a text without words, for one whose probabilities are NaN, and for
      one with a word whose importance is NaN. A text of one word is erased whole, and is enough for itself.

    Source: DeYoung et al. 2020, section 4.2.
    """
    words = model.embed(params, batch)
    without = None if left_out is None else left_out.predicted
    shape = importance.shape
    sources = importance.reshape(-1, *shape[-2:])
    # One after another: on a CPU, side by side takes longer.
    found = jax.lax.map(lambda one: _erase_by(model, params, batch, words, probability, one, without), sources)
    return Erasure(*(figure.reshape(*shape[:-1], len(SHARES)) for figure in found))


def aopc(figures: Array) -> Array:
    """Area over the perturbation curve: the mean of figures `[..., 5]` over the shares, `[...]`.

    Source: DeYoung et al. 2020, section 4.2, as their code has it: the text with nothing erased is not counted.
    """
    return jnp.mean(figures, axis=-1)


def random_importance(key: Array, mask: Array) -> Array:
    """Importances drawn at random: what every other one has to beat.

    Args:
      key: random key, consumed.
      mask: `[B, T]`, true on real tokens.

    Returns:
      `[B, T]` float32 uniform in [0, 1) on real tokens, 0 elsewhere. A number depends on the key and its place alone,
      so that padding changes nothing.

    >>> import jax, jax.numpy as jnp
    >>> mask = jnp.ones((1, 3), bool)
    >>> bool((random_importance(jax.random.key(0), mask) == random_importance(jax.random.key(0), mask)).all())
    True
    """

    def row(index: Array) -> Array:
        """Numbers `[T]` of one row."""
        return jax.random.uniform(jax.random.fold_in(key, index), mask.shape[1:], jnp.float32)

    return jnp.where(mask, jax.vmap(row)(jnp.arange(mask.shape[0])), 0)


def delete_words(model: Model, params: Params, batch: Batch, left_out: LeaveOneOut, *, most: int = 5) -> Deletion:
    """Deletes words one after another until the prediction is no longer the label.

    Words go in the order in which deleting each alone lowers the probability of the label, the most harmful first, of
    equal ones the earlier. The last word of a text is never deleted, so that texts of one word, or of none, stand.

    Args:
      model: its functions.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model; its labels are read.
      left_out: from `leave_one_out`; where a probability is NaN, the prediction counts as wrong.
      most: words that may be deleted.

    Returns:
      `Deletion`.

    Source: the greedy search by word importance ranking of Gao et al. 2018 and Jin et al. 2020, with deletion as the
    only edit; unlike TextAttack's `GreedyWordSwapWIR`, no deletion that raises the probability is taken back.
    """
    mask = _real(batch)
    words = model.embed(params, batch)
    position = descending_positions(-left_out.label, mask)
    right = predicts_label(left_out.probability, batch.label)
    correct = [right]
    for count in range(1, most + 1):
        if count == 1:
            stands = jnp.any((position == 0) & left_out.right, axis=-1)
        elif count < mask.shape[1]:
            shorter = _predict(model, params, batch, words, mask & (position >= count), mask.shape[1] - count)
            stands = predicts_label(shorter, batch.label)
        right = right & (stands | (batch.length <= count))
        correct.append(right)
    survived = jnp.sum(jnp.stack(correct, axis=-1), axis=-1, dtype=jnp.int32)
    return Deletion(jnp.where(right, -1, survived), jnp.stack(correct, axis=-1))


def _erase_by(
    model: Model,
    params: Params,
    batch: Batch,
    words: Array,
    probability: Array,
    importance: Array,
    without: Array | None,
) -> Erasure:
    """`Erasure` of `[B, 5]` by one source's importance `[B, T]`; `without` is `LeaveOneOut.predicted`."""
    mask = _real(batch)
    predicted = predicted_classes(probability)
    whole = probability_of(probability, predicted)
    unknown = jnp.any(mask & jnp.isnan(importance), axis=-1) | (batch.length == 0)
    found: dict[bytes, tuple[Array, Array]] = {}
    figures = []
    for share in SHARES:
        counts, left = _counts(share, mask.shape[1])
        # Shares that choose the same number of words of every text choose the same words.
        if counts.tobytes() not in found:
            top = top_share(importance, mask, share)
            if without is not None and counts.max() == 1:
                rest = jnp.sum(jnp.where(top, without, 0), axis=-1)
            else:
                rest = probability_of(_predict(model, params, batch, words, mask & ~top, left), predicted)
            alone = probability_of(_predict(model, params, batch, words, top, int(counts.max())), predicted)
            found[counts.tobytes()] = (whole - rest, whole - alone)
        figures.append(found[counts.tobytes()])
    by_kind = zip(*figures, strict=True)
    return Erasure(*(jnp.where(unknown[:, None], jnp.nan, jnp.stack(kind, axis=-1)) for kind in by_kind))


def _counts(share: float, size: int) -> tuple[np.ndarray, int]:
    """How many words `top_share` takes of 0 ... T, `[T + 1]`, and the most that it leaves, at least 1."""
    texts = np.arange(size + 1)
    counts = np.minimum(np.maximum(np.ceil(texts * share * (1 - 1e-6)), 1), texts).astype(np.int32)
    return counts, max(int(np.max(texts - counts)), 1)


def _predict(model: Model, params: Params, batch: Batch, words: Array, keep: Array, width: int) -> Array:
    """Class probabilities `[B, C]` of the texts that the real words in `keep` `[B, T]` make, at most `width` each."""
    keep = keep & _real(batch)
    places = jnp.argsort(~keep, axis=-1, stable=True)[:, :width]
    return predict_places(model, params, batch, words, places, jnp.sum(keep, axis=-1, dtype=jnp.int32))


def _real(batch: Batch) -> Array:
    """`[B, T]`, true on real tokens, of the passage in a pair."""
    return jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]
