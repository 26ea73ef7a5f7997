"""What becomes of a prediction when its attention is another: permuted, adversarial, or that of another seed.

Axes: K candidates, S seeds of one technique. Other attentions over the same hidden states cost the readout alone; the
encoder runs once. A prediction changes by the total variation of its probabilities, |dp| of two classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from optax import OptState

from flax_attnat.evaluation.divergence import jensen_shannon, total_variation
from flax_attnat.evaluation.readout import Readout, build_readout
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.attention import normal
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.training.optimizer import scale_by_torch_amsgrad
from flax_attnat.typing import Array, Batch, Params, Scalar

# Of the scores that candidates start from; what they pay for a change of the prediction beyond the free one.
START_DEVIATION = 3.0
FREE_CHANGE = 0.01
PENALTY = 500.0

EDGES = (0.25, 0.5, 0.75)
"""Where the bins of the largest attention weight end, but for the last."""


class AdversarialAttention(NamedTuple):
    """The attention farthest from the model's own that leaves the prediction as it is, as far as one was found.

    Attributes:
      divergence: `[B]` Jensen-Shannon divergence between the two, in [0, ln 2].
      change: `[B]` total variation between the two predictions.
      attention: `[B, T]` its weights; the model's own where the divergence is 0 or undefined.
    """

    divergence: Array
    change: Array
    attention: Array


def permute_attention(model: Model, params: Params, batch: Batch, key: Array, *, permutations: int = 100) -> Array:
    """How much predictions change, in the median, when attention weights are dealt out at random.

    Args:
      model: the functions of a classifier.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model.
      key: random key, consumed. The permutations of a text follow from it, the text's row in the batch and its length;
        neither padding nor the other rows change them.
      permutations: how many, at least 1, each of the weights of the real tokens.

    Returns:
      `[B]` in [0, 1], the median over permutations of the total variation; exactly 0 where real tokens have equal
      scores, as in a text of one token. NaN in an empty row and where the prediction is not a number.

    Raises:
      ValueError: fewer than one permutation.

    Source: Jain & Wallace 2019, section 4.2.1.
    """
    if permutations < 1:
        raise ValueError(f"a median needs at least 1 permutation; got {permutations}.")
    scores, mask, readout, probability = _read(model, params, batch)

    def change(index: Array) -> Array:
        """What permutation `index` changes, `[B]`."""
        order = _random_order(jax.random.fold_in(key, index), mask)
        permuted = jnp.take_along_axis(scores, order, axis=-1, mode="promise_in_bounds")
        # Scores that stay as they are change nothing, however the compiler rounds the two predictions.
        same = jnp.all((permuted == scores) | ~mask, axis=-1)
        return jnp.where(same, 0, total_variation(probabilities(readout(permuted)), probability))

    median = jnp.median(jax.lax.map(change, jnp.arange(permutations)), axis=0)
    return jnp.where(_defined(mask, probability), median, jnp.nan)


def adversarial_attention(
    model: Model,
    params: Params,
    batch: Batch,
    key: Array,
    *,
    candidates: int = 5,
    steps: int = 500,
    learning_rate: Scalar = 0.01,
    allowed: Scalar = 0.05,
) -> AdversarialAttention:
    """The attention that differs most from the model's own and yet gives the same prediction.

    K candidates start from scores 3 N(0, 1) and minimise, by Adam (AMSGrad) and for each text,

        sum_k [-JSD(a_k, a) + 500 max(d_k - 0.01, 0)] - (1 / K^2) sum_kk' JSD(a_k, a_k'),

    a being the model's own attention and d_k the sum over classes of |dp|, of two classes |dp| alone. Of the candidates
    that change the prediction by at most `allowed` at the end, the one of the largest divergence is returned; the
    model's own attention is a candidate too.

    Args:
      model: the functions of a classifier.
      params: one run's parameters.
      batch: `[B, T]` tokens, with queries for a pair model.
      key: random key, consumed. The start of a candidate at a token follows from it, the row in the batch and the
        token's place, so that neither padding nor the other rows change a result, but for rounding.
      candidates: K, at least 1.
      steps: of the optimiser.
      learning_rate: of the optimiser.
      allowed: largest total variation of the probabilities (of two classes, |dp|).

    Returns:
      `AdversarialAttention`; a text of one token has divergence and change 0. Both are NaN in an empty row and where
      the prediction is not a number.

    Raises:
      ValueError: fewer than one candidate.

    Source: Jain & Wallace 2019, section 4.2.2, with the constants and the optimiser of their released code.
    """
    if candidates < 1:
        raise ValueError(f"at least 1 candidate is needed; got {candidates}.")
    scores, mask, readout, probability = _read(model, params, batch)
    own = masked_softmax(scores, mask)
    optimiser = scale_by_torch_amsgrad()

    def weigh(scores: Array) -> tuple[Array, Array]:
        """Attention `[B, T]` of one candidate and the total variation of its prediction `[B]`."""
        return masked_softmax(scores, mask), total_variation(probabilities(readout(scores)), probability)

    def loss(scores_KxBxT: Array) -> Array:
        """Sum of the objectives of all texts, which are independent."""
        weights, change = jax.vmap(weigh)(scores_KxBxT)
        return jnp.sum(_objective(weights, change if probability.shape[-1] == 2 else 2 * change, own))

    def descend(_: int, carry: tuple[Array, OptState]) -> tuple[Array, OptState]:
        """One step of all candidates of all texts."""
        scores_KxBxT, state = carry
        updates, state = optimiser.update(jax.grad(loss)(scores_KxBxT), state)
        return scores_KxBxT - learning_rate * jnp.asarray(updates), state

    # Their code adds the logarithm of the uniform attention, a shift that a softmax does not see.
    start = START_DEVIATION * normal(key, (candidates, *scores.shape))
    found, _ = jax.lax.fori_loop(0, steps, descend, (start, optimiser.init(start)))
    weights, change = jax.vmap(weigh)(found)
    chosen = _choose(weights, change, own, mask, allowed)
    defined = _defined(mask, probability)
    return chosen._replace(
        divergence=jnp.where(defined, chosen.divergence, jnp.nan), change=jnp.where(defined, chosen.change, jnp.nan)
    )


def seed_divergence(attention: Array, mask: Array) -> Array:
    """How far the attention of each seed is from that of the others, in the mean over these.

    Args:
      attention: `[S, B, T]` weights of the same texts under models that differ in their seed alone.
      mask: `[B, T]`, true on real tokens.

    Returns:
      `[S, B]` Jensen-Shannon divergences in [0, ln 2]. A seed whose weights have a NaN is left out of the means of the
      others; NaN where nothing is left: for that seed itself, for a single seed, in an empty row.

    Source: Wiegreffe & Pinter 2019, variance over random seeds.

    >>> import jax.numpy as jnp
    >>> attention = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    >>> seed_divergence(attention, jnp.ones((1, 2), bool)).round(3)[:, 0]
    Array([0.347, 0.347, 0.693], dtype=float32)
    """
    seeds = jnp.arange(attention.shape[0])

    def mean_to_others(seed: Array) -> Array:
        """Of one seed, `[B]`."""
        divergence = jensen_shannon(attention[seed][None], attention, mask[None])
        counted = (seeds != seed)[:, None] & ~jnp.isnan(divergence)
        count = jnp.sum(counted, axis=0, dtype=divergence.dtype)
        total = jnp.sum(jnp.where(counted, divergence, 0), axis=0)
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)

    return jax.lax.map(mean_to_others, seeds)


def by_largest_attention(values: np.ndarray, largest: np.ndarray) -> list[dict[str, float | int | None]]:
    """A figure of texts in four bins of their largest attention weight: [0, .25), [.25, .5), [.5, .75), [.75, 1].

    Args:
      values: `[N]`, such as the changes of predictions; texts with a NaN are left out.
      largest: `[N]` largest attention weights; likewise.

    Returns:
      Four dictionaries with the bounds `from` and `to`, the number of texts `n`, and their `median` and `mean`, None in
      a bin without texts.

    Source: the bins of Jain & Wallace 2019, section 4.2.

    >>> bins = by_largest_attention(np.array([0.5, 0.1, 0.2]), np.array([0.2, 1.0, 0.75]))
    >>> bins[3]["n"], round(bins[3]["mean"], 2), bins[1]["mean"]
    (2, 0.15, None)
    """
    known = ~(np.isnan(values) | np.isnan(largest))
    place = np.digitize(largest, EDGES)
    bins: list[dict[str, float | int | None]] = []
    for index, (low, high) in enumerate(zip((0.0, *EDGES), (*EDGES, 1.0), strict=True)):
        inside = np.asarray(values, np.float64)[known & (place == index)]
        middle, mean = (float(np.median(inside)), float(np.mean(inside))) if inside.size else (None, None)
        bins.append({"from": low, "to": high, "n": int(inside.size), "median": middle, "mean": mean})
    return bins


def _read(model: Model, params: Params, batch: Batch) -> tuple[Array, Array, Readout, Array]:
    """Scores `[B, T]`, mask `[B, T]`, the readout, and what it makes of these scores, probabilities `[B, C]`."""
    encoded = model.encode(params, model.embed(params, batch), batch)
    scores, readout = model.score(params, encoded), build_readout(model, params, encoded)
    return scores, encoded.mask, readout, probabilities(readout(scores))


def _defined(mask: Array, probability: Array) -> Array:
    """Which rows `[B]` have a real token, in `mask [B, T]`, and a prediction `[B, C]` that is a number."""
    return jnp.any(mask, axis=-1) & ~jnp.any(jnp.isnan(probability), axis=-1)


def _random_order(key: Array, mask: Array) -> Array:
    """Places `[B, T]` int32 of the real tokens in a random order, then those of the padding; `mask [B, T]`.

    Random words are sorted that end in the place of their token: four times as fast as sorting places by words. Of two
    tokens whose words begin alike, one pair in sixty million in a text of forty, the earlier goes first.
    """
    rows, size = mask.shape
    ending = (size - 1).bit_length()
    last = np.uint32(2**ending - 1)
    words = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row), (size,)))(jnp.arange(rows))
    places = jnp.arange(size, dtype=jnp.uint32)[None]
    words = (jnp.where(mask, words, ~np.uint32(0)) & ~last) | places
    return (jnp.sort(words, axis=-1) & last).astype(jnp.int32)


def _objective(weights: Array, change: Array, own: Array) -> Array:
    """What candidates minimise, `[B]`, from their attentions `[K, B, T]`, their costs d `[K, B]` and `own [B, T]`.

    `JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2`: one logarithm per mixture, whose gradient needs no other.
    """
    count = weights.shape[0]
    entropy = _entropy(weights)
    from_own = _entropy((weights + own[None]) / 2) - (entropy + _entropy(own)[None]) / 2
    mixed = jnp.zeros_like(entropy)
    for other in jax.lax.stop_gradient(weights):
        mixed += _entropy((weights + other[None]) / 2)
    # Of all ordered pairs: twice what one of two candidates can do, the other held constant, is what both can.
    mixed = 2 * mixed - jax.lax.stop_gradient(mixed)
    apart = mixed / count**2 - entropy / count
    return jnp.sum(PENALTY * jnp.maximum(change - FREE_CHANGE, 0) - from_own - apart, axis=0)


def _entropy(weights: Array) -> Array:
    """Entropy in nats, `[...]`, of `[..., T]`; a weight of 0 adds nothing, and has the gradient 0."""
    return jnp.sum(jax.scipy.special.entr(jnp.where(weights > 0, weights, 1)), axis=-1)


def _choose(weights: Array, change: Array, own: Array, mask: Array, allowed: Scalar) -> AdversarialAttention:
    """The farthest from `own [B, T]` among allowed attentions `[K, B, T]` of changes `[K, B]`, or it; `mask [B, T]`."""
    gain = jnp.where(change <= allowed, jensen_shannon(weights, own[None], mask[None]), 0)
    best = jnp.argmax(gain, axis=0)[None]
    divergence = jnp.take_along_axis(gain, best, axis=0)[0]
    farther = divergence > 0
    return AdversarialAttention(
        jnp.where(farther, divergence, 0),
        jnp.where(farther, jnp.take_along_axis(change, best, axis=0)[0], 0),
        jnp.where(farther[:, None], jnp.take_along_axis(weights, best[:, :, None], axis=0)[0], own),
    )
