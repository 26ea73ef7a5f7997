"""Agreement of attention with gradients and certified accuracy of many runs: what takes one pass over a text.

A part of the suites, without what takes a pass for every word or a search: for searches over many settings.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from flax_attnat.evaluation import agreement, importance, robustness
from flax_attnat.evaluation.measure import blocks
from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.evaluation.significance import mean_of
from flax_attnat.evaluation.stages import compiled
from flax_attnat.models.model import Model
from flax_attnat.training.mesh import fetch
from flax_attnat.training.population import EVALUATION_ROWS
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Array, Batch, Params

# Largest changes of a score at which accuracy is certified.
RADII = (0.25, 0.5, 1.0, 2.0)
SIGNIFICANT = 0.05
KINDS = {"gradient": "one_hot", "gradient_attached": "attached", "gradient_norm": "norm"}
"""What attention is compared with, and the field of `importance.Gradients` that it is."""


def describe(model: Model, params: Params, batch: Batch, *, radii: Sequence[float] = RADII) -> dict[str, Array]:
    """Figures of one run and B texts, `[B]` each; `certified` is `[B, N]` by radius, and missing of pair models."""
    found = importance.gradient_importances(model, params, batch)
    mask = jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]
    columns = {"right": predicted_classes(found.probability) == batch.label}
    for name, field in KINDS.items():
        row = getattr(found, field)
        columns[f"pearson_{name}"] = agreement.pearson(found.attention, row, mask)
        columns[f"kendall_{name}"], columns[f"kendall_p_{name}"] = agreement.kendall(found.attention, row, mask)
    columns |= _sizes(model, params, batch)
    certified = robustness.certify_scores(model, params, batch, radii, order=float("inf"))
    return columns if certified is None else columns | {"certified": certified.T}


def _sizes(model: Model, params: Params, batch: Batch) -> dict[str, Array]:
    """How large is what is perturbed, `[B]` each: norm of the scores less their mean, and of the word vectors."""
    words, perturbed = model.embed(params, batch), model.tokens(batch)[1]
    encoded = model.encode(params, words, batch)
    scores, real = model.score(params, encoded), encoded.mask
    centred = jnp.where(real, scores - jnp.mean(scores, axis=-1, keepdims=True, where=real), 0)
    return {
        "score_norm": jnp.sqrt(jnp.sum(jnp.square(centred), axis=-1)),
        "word_norm": jnp.sqrt(jnp.sum(jnp.square(jnp.where(perturbed[..., None], words, 0)), axis=(1, 2))),
    }


def build_brief(trainer: Trainer) -> Callable[[Params, Batch], dict[str, Array]]:
    """`describe` for the R runs of a trainer, to be compiled at its first call; serves every split."""

    def one(params: Params, batch: Batch) -> dict[str, Array]:
        """One run."""
        return describe(trainer.model, params, batch)

    return compiled(trainer, one, True, False)


def brief_lines(
    trainer: Trainer,
    brief: Callable[[Params, Batch], dict[str, Array]],
    params: Params,
    split: str,
    *,
    width: int = EVALUATION_ROWS,
) -> list[dict[str, Any]]:
    """Means over the texts of a split, one dictionary for each run; a figure without any text is None.

    Args:
      trainer: of the R runs.
      brief: from `build_brief`.
      params: R on every leaf.
      split: its name.
      width: texts at once.

    Returns:
      For each importance `pearson_`, `kendall_` and `significant_` (the share of texts with p <= .05), with
      `undefined_`, how many texts have no correlation; `score_norm` and `word_norm`, the norms of the scores (less
      their mean) and of the word vectors that a word technique perturbs, in the mean over texts; `certified`, the
      accuracy that no change of the scores within each of `radii` takes away, or None.
    """
    parts: list[dict[str, np.ndarray]] = []
    for _, here, found in blocks(trainer, brief, params, split, width):
        parts.append({name: array[:, here] for name, array in fetch(trainer.mesh, found).items()})
    columns = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return [_line({name: array[run] for name, array in columns.items()}) for run in range(len(trainer.runs))]


def _line(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """The means of one run."""
    line: dict[str, Any] = {name: mean_of(rows[name]) for name in ("score_norm", "word_norm")} | {"certified": None}
    for name in KINDS:
        known = rows[f"kendall_p_{name}"][np.isfinite(rows[f"kendall_p_{name}"])]
        line |= {f"{measure}_{name}": mean_of(rows[f"{measure}_{name}"]) for measure in ("pearson", "kendall")}
        line[f"significant_{name}"] = mean_of(known <= SIGNIFICANT)
        line[f"undefined_{name}"] = int(np.sum(~np.isfinite(rows[f"pearson_{name}"])))
    if "certified" in rows:
        line |= {"radii": list(RADII), "certified": [mean_of(column) for column in rows["certified"].T]}
    return line
