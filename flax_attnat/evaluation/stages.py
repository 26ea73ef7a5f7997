"""The measures of the suites, of one run and one batch, and compiled for R runs.

A stage gives arrays by name, a row per text: `[B, ...]` of one run, `[R, B, ...]` compiled. Names that end in
`_tokens` have the axis T last.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flax_attnat.evaluation import agreement, erasure, importance, interventions, rationales, robustness
from flax_attnat.models.model import Model
from flax_attnat.training.mesh import BY_RUN, WHOLE, over_runs
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Array, Batch, Params

Arrays = dict[str, Array]
"""Arrays by name, one row per text."""

# Entries compared by top-k measures.
TOP_K = 5

# What attention and gradients are compared with, by name: the two rows of every figure of agreement.
PAIRS = {
    "gradient": ("attention", "gradient"),
    "gradient_attached": ("attention", "gradient_attached"),
    "gradient_norm": ("attention", "gradient_norm"),
    "leave_one_out": ("attention", "leave_one_out"),
    "gradient_leave_one_out": ("gradient", "leave_one_out"),
}
SOURCES = ("attention", "gradient", "leave_one_out", "random")
"""Importances whose faithfulness is measured."""


def describe(model: Model, params: Params, batch: Batch) -> Arrays:
    """Prediction, attention, the three gradient importances, and what deleting each token leaves."""
    found = importance.gradient_importances(model, params, batch)
    left_out = importance.leave_one_out(model, params, batch)
    return {
        "probability": left_out.probability,
        "attention_tokens": found.attention,
        "gradient_tokens": found.one_hot,
        "gradient_attached_tokens": found.attached,
        "gradient_norm_tokens": found.norm,
        "leave_one_out_tokens": left_out.change,
        "without_predicted_tokens": left_out.predicted,
        "without_label_tokens": left_out.label,
        "without_right_tokens": left_out.right,
    }


def agree(described: Arrays, batch: Batch) -> Arrays:
    """Every figure of agreement of every pair of importances, `[B]` each, and the largest attention.

    Where all of several words are alike, what is compared by top k is NaN, as is the overlap where all words are among
    them. Of some equal words the earlier one is ranked higher.
    """
    mask = _mask(batch)
    some = batch.length > 0
    found = {"largest_attention": jnp.where(some, jnp.max(described["attention_tokens"], axis=-1), jnp.nan)}
    for name, rows in PAIRS.items():
        a, b = (described[f"{row}_tokens"] for row in rows)
        ranked_a, ranked_b = (_ranked(row, mask) for row in (a, b))
        overlap = agreement.top_k_overlap(ranked_a, ranked_b, mask, TOP_K)
        tau, p_value = agreement.kendall(a, b, mask)
        found |= {
            f"pearson_{name}": agreement.pearson(a, b, mask),
            f"spearman_{name}": agreement.spearman(a, b, mask),
            f"kendall_{name}": tau,
            f"kendall_p_{name}": p_value,
            f"top_k_overlap_{name}": jnp.where(batch.length > TOP_K, overlap, jnp.nan),
            f"top_k_distance_{name}": agreement.top_k_distance(ranked_a, ranked_b, mask, TOP_K),
        }
    return found


def intervene(model: Model, params: Params, batch: Batch, place: Array) -> Arrays:
    """Permuted and adversarial attention, `[B]` each; `place` is the number of the batch, a scalar."""
    permutation_key, adversarial_key = jax.random.split(_key(place, 0))
    found = interventions.adversarial_attention(model, params, batch, adversarial_key)
    return {
        "permutation": interventions.permute_attention(model, params, batch, permutation_key),
        "adversarial_divergence": found.divergence,
        "adversarial_change": found.change,
    }


def erase(model: Model, params: Params, batch: Batch, described: Arrays, place: Array) -> Arrays:
    """Comprehensiveness and sufficiency of each source, `[B, 5]` each."""
    sources = _ranked(_sources(described, batch, place), _mask(batch)[None])
    found = erasure.erase(model, params, batch, described["probability"], sources, _left_out(described))
    columns: Arrays = {}
    for row, name in enumerate(SOURCES):
        columns[f"comprehensiveness_{name}"] = found.comprehensiveness[row]
        columns[f"sufficiency_{name}"] = found.sufficiency[row]
    return columns


def find_rationales(described: Arrays, batch: Batch, place: Array, rationale: Array, share: Array) -> Arrays:
    """How well each source finds what people marked `[B, T]`, `[B]` each.

    Args:
      described: from `describe`.
      batch: the texts.
      place: number of the batch, a scalar; its random source is that of `erase`.
      rationale: `[B, T]`, true on marked tokens.
      share: scalar, of the tokens of a text that count as found by a source.
    """
    mask, found = _mask(batch), {}
    for name, row in zip(SOURCES, _sources(described, batch, place), strict=True):
        chosen, known = rationales.top_share(row, mask, share), ~jnp.any(jnp.isnan(_ranked(row, mask)), axis=-1)
        found[f"auprc_{name}"] = rationales.auprc(row, rationale, mask)
        found[f"token_f1_{name}"] = jnp.where(known, rationales.token_f1(chosen, rationale, mask), jnp.nan)
        found[f"iou_f1_{name}"] = jnp.where(known, rationales.iou_f1(chosen, rationale, mask), jnp.nan)
    return found


def attack(
    model: Model, params: Params, batch: Batch, place: Array, linf: Array, l2: Array, *, steps: int, restarts: int
) -> Arrays:
    """Whether each text stays right under attacks, noise, and all perturbations, `[B, N]` each, by radius `[N]`."""
    columns: Arrays = {}
    for norm, order, radii in (("linf", math.inf, linf), ("l2", 2, l2)):
        attacked = robustness.attack_scores(
            model, params, batch, _key(place, 2), radii, order=order, steps=steps, restarts=restarts
        )
        found = attacked._asdict()
        columns["clean"] = found.pop("clean")
        certified = robustness.certify_scores(model, params, batch, radii, order=order)
        found |= {} if certified is None else {"certified": certified}
        columns |= {f"{name}_{norm}": value.T for name, value in found.items()}
    radius = robustness.certified_radius(model, params, batch)
    return columns if radius is None else columns | {"certified_radius": radius}


def delete(model: Model, params: Params, batch: Batch, described: Arrays) -> Arrays:
    """Greedy deletion of words: whether each text stays right, `[B, 1 + most]`, and how many it took."""
    found = erasure.delete_words(model, params, batch, _left_out(described))
    return {"deletion_correct": found.correct, "deletion_count": found.deleted}


def compiled(trainer: Trainer, stage: Callable[..., Arrays], *by_run: bool) -> Callable:
    """A stage of one run as one of R runs, to be compiled at its first call for each width.

    Args:
      trainer: of the runs; its mesh shares them.
      stage: one of the functions above, of its arguments in order.
      by_run: for each argument, whether it has a leading axis R.
    """

    def every(*arguments: Any) -> Arrays:
        """All runs."""
        axes = tuple(0 if own else None for own in by_run)
        return jax.vmap(stage, in_axes=axes)(*arguments)

    return jax.jit(over_runs(every, trainer.mesh, *(BY_RUN if own else WHOLE for own in by_run)))


def _key(place: Array, stream: int) -> Array:
    """The random key of a batch; the same for every run."""
    return jax.random.fold_in(jax.random.key(stream), place)


def _mask(batch: Batch) -> Array:
    """`[B, T]`, true on real tokens."""
    return jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]


def _sources(described: Arrays, batch: Batch, place: Array) -> Array:
    """The importances `[S, B, T]` of SOURCES."""
    random = erasure.random_importance(_key(place, 1), _mask(batch))
    return jnp.stack([described.get(f"{name}_tokens", random) for name in SOURCES])


def _ranked(row: Array, mask: Array) -> Array:
    """Importances `[..., B, T]`, NaN in texts where all of several words are alike, so that none is on top."""
    low = jnp.min(jnp.where(mask, row, jnp.inf), axis=-1, keepdims=True)
    high = jnp.max(jnp.where(mask, row, -jnp.inf), axis=-1, keepdims=True)
    several = jnp.sum(mask, axis=-1, keepdims=True) > 1
    return jnp.where((low == high) & several, jnp.nan, row)


def _left_out(described: Arrays) -> importance.LeaveOneOut:
    """What `describe` knows of each deleted word."""
    return importance.LeaveOneOut(
        probability=described["probability"],
        change=described["leave_one_out_tokens"],
        predicted=described["without_predicted_tokens"],
        label=described["without_label_tokens"],
        right=described["without_right_tokens"],
    )
