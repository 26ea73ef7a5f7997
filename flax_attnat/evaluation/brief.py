"""Prediction, agreement of attention with gradients, certified accuracy: what takes one pass over a text.

A part of the suites, without what takes a pass for every word or a search: for searches over many settings.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.compiled import compiler_options
from flax_attnat.evaluation import agreement, importance, robustness
from flax_attnat.evaluation.measure import Measures, blocks
from flax_attnat.evaluation.significance import mean_of
from flax_attnat.models.model import Model
from flax_attnat.training.mesh import BY_RUN, WHOLE, fetch, over_runs
from flax_attnat.training.population import EVALUATION_ROWS
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Array, Batch, Encoded, Params

# Largest changes of a score at which accuracy is certified.
RADII = (0.25, 0.5, 1.0, 2.0)
SIGNIFICANT = 0.05
KINDS = {"gradient": "one_hot", "gradient_attached": "attached", "gradient_norm": "norm"}
"""What attention is compared with, and the field of `importance.Gradients` that it is."""

Brief = Callable[[Params, Batch], dict[str, Array]]
"""`brief(params, batch)`: arrays by name, `[R, B, ...]`; R on every leaf of the parameters."""


def describe(
    model: Model, params: Params, batch: Batch, *, kinds: Sequence[str] = tuple(KINDS), radii: Sequence[float] = RADII
) -> dict[str, Array]:
    """Figures of one run and B texts, `[B]` each; `certified` is `[B, N]` by radius, and missing of pair models."""
    found, encoded = importance.gradients_and_encoding(model, params, batch)
    mask = jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]
    columns = {"probability": found.probability, "largest_attention": jnp.max(found.attention, axis=-1)}
    for name in kinds:
        row = getattr(found, KINDS[name])
        columns[f"pearson_{name}"] = agreement.pearson(found.attention, row, mask)
        columns[f"kendall_{name}"], columns[f"kendall_p_{name}"] = agreement.kendall(found.attention, row, mask)
    words = model.embed(params, batch)
    columns |= _sizes(model, params, batch, words, encoded)
    # Encoded once for all.
    there = model._replace(embed=lambda params, batch: words, encode=lambda params, words, batch: encoded)
    certified = robustness.certify_scores(there, params, batch, radii, order=float("inf"))
    return columns if certified is None else columns | {"certified": certified.T}


def _sizes(model: Model, params: Params, batch: Batch, words: Array, encoded: Encoded) -> dict[str, Array]:
    """How large is what is perturbed, `[B]` each: norm of the scores less their mean, and of the word vectors."""
    perturbed = model.tokens(batch)[1]
    scores, real = model.score(params, encoded), encoded.mask
    centred = jnp.where(real, scores - jnp.mean(scores, axis=-1, keepdims=True, where=real), 0)
    return {
        "score_norm": jnp.sqrt(jnp.sum(jnp.square(centred), axis=-1)),
        "word_norm": jnp.sqrt(jnp.sum(jnp.square(jnp.where(perturbed[..., None], words, 0)), axis=(1, 2))),
    }


def build_brief(trainer: Trainer, kinds: Sequence[str] = tuple(KINDS)) -> Brief:
    """`describe` for the R runs of a trainer, to be compiled at its first call; serves every split.

    Args:
      trainer: of the runs.
      kinds: some of KINDS; `gradient_attached` takes a backward pass of its own.
    """
    platform = trainer.mesh.devices.flat[0].platform

    def every(params: Params, batch: Batch) -> dict[str, Array]:
        """Every run; on a CPU, which one run fills, one after another."""

        def one(params: Params) -> dict[str, Array]:
            """One run."""
            return describe(trainer.model, params, batch, kinds=kinds)

        return jax.lax.map(one, params) if platform == "cpu" else jax.vmap(one)(params)

    return jax.jit(over_runs(every, trainer.mesh, BY_RUN, WHOLE), compiler_options=compiler_options(platform))


def measure_brief(
    trainer: Trainer, brief: Brief, params: Params, split: str, *, width: int = EVALUATION_ROWS
) -> tuple[Measures, list[dict[str, Any]]]:
    """What result lines are made of, and more figures of each run: means over texts, None without any.

    Args:
      trainer: of the R runs.
      brief: from `build_brief`.
      params: R on every leaf.
      split: its name.
      width: texts at once.

    Returns:
      `Measures`, and for each run a dictionary: for each importance `pearson_`, `kendall_` and `significant_` (share of
      texts with p <= .05), with `undefined_`, how many texts have no correlation; `score_norm` and `word_norm`, the
      norms of the scores (less their mean) and of the word vectors that a word technique perturbs, in the mean over
      texts; `certified`, the accuracy that no change of the scores within each of `radii` takes away, or None.
    """
    labels, runs = trainer.dataset.splits[split].labels, len(trainer.runs)
    columns: dict[str, np.ndarray] = {}
    for places, here, found in blocks(trainer, brief, params, split, width):
        for name, array in fetch(trainer.mesh, found).items():
            if name not in columns:
                columns[name] = np.zeros((runs, len(labels), *array.shape[2:]), array.dtype)
            columns[name][:, places] = array[:runs, here]
    first = next(name for name in columns if name.startswith("pearson_"))
    measures = Measures(columns["probability"], columns[first], columns["largest_attention"], labels)
    return measures, [_line({name: array[run] for name, array in columns.items()}) for run in range(runs)]


def _line(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """The means of one run."""
    line: dict[str, Any] = {name: mean_of(rows[name]) for name in ("score_norm", "word_norm")} | {"certified": None}
    for name in (name for name in KINDS if f"pearson_{name}" in rows):
        known = rows[f"kendall_p_{name}"][np.isfinite(rows[f"kendall_p_{name}"])]
        line |= {f"{measure}_{name}": mean_of(rows[f"{measure}_{name}"]) for measure in ("pearson", "kendall")}
        line[f"significant_{name}"] = mean_of(known <= SIGNIFICANT)
        line[f"undefined_{name}"] = int(np.sum(~np.isfinite(rows[f"pearson_{name}"])))
    if "certified" in rows:
        line |= {"radii": list(RADII), "certified": [mean_of(column) for column in rows["certified"].T]}
    return line
