"""Measures trained runs on one split: one line of `results.jsonl` per run, and the per-instance arrays behind it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.data.batches import Bucket, gather
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.errors import DataError
from flax_attnat.evaluation import prediction
from flax_attnat.evaluation.agreement import pearson
from flax_attnat.evaluation.importance import Instances, explain_batch
from flax_attnat.models.model import Model
from flax_attnat.training.population import evaluation_rows
from flax_attnat.training.records import finite_or_none, frozen_fields, run_fields
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Array, Params


class SplitInstances(NamedTuple):
    """What R runs say of the N texts of a split, in the order of the split; rows are padded to the widest bucket.

    Attributes:
      probability: `[R, N, C]` of the classes.
      attention: `[R, N, T]` weights.
      importance: `[R, N, T]` gradient importance.
      pearson: `[R, N]` correlation of the two, NaN where undefined.
      labels: `[N]`.
      lengths: `[N]`.
    """

    probability: np.ndarray
    attention: np.ndarray
    importance: np.ndarray
    pearson: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray


def check_measurable(dataset: Dataset, splits: Sequence[str]) -> None:
    """Makes sure, before anything is trained, that the figures of some splits can be counted.

    Raises:
      DataError: a split of two classes has more texts than the AUC is counted for.
    """
    for name in splits if len(dataset.label_names) == 2 else ():
        if (size := len(dataset.splits[name].labels)) > prediction.MOST_EXAMPLES:
            raise DataError(
                f"{dataset.name}: the split {name} has {size:,} texts, and the AUC of two classes is counted for at"
                f" most {prediction.MOST_EXAMPLES:,}. Measure fewer; of your own files, give a smaller one with"
                " --config.data.dev=FILE or --config.data.test=FILE."
            )


def explain_split(trainer: Trainer, params: Params, split: str) -> SplitInstances:
    """Prediction, attention, importance and their agreement for R runs on one split.

    Args:
      trainer: model and data.
      params: parameters of R runs, R on every leaf.
      split: "train", "dev" or "test".
    """
    buckets = trainer.buckets[split]
    total = sum(bucket.tokens.shape[0] for bucket in buckets)
    widest = max(bucket.tokens.shape[1] for bucket in buckets)
    runs = jax.tree.leaves(params)[0].shape[0]
    found = SplitInstances(
        np.zeros((runs, total, len(trainer.dataset.label_names)), np.float32),
        np.zeros((runs, total, widest), np.float32),
        np.zeros((runs, total, widest), np.float32),
        np.zeros((runs, total), np.float32),
        trainer.dataset.splits[split].labels,
        np.array([len(tokens) for tokens in trainer.dataset.splits[split].tokens], np.int32),
    )
    explain = jax.jit(lambda params, bucket: _explain_bucket(trainer.model, params, bucket))
    for bucket in buckets:
        with jax.default_matmul_precision(trainer.config.training.matmul_precision):
            instances, agreement = jax.device_get(explain(params, bucket))
        place, width = np.asarray(bucket.position), bucket.tokens.shape[1]
        found.probability[:, place] = instances.probability
        found.attention[:, place, :width] = instances.attention
        found.importance[:, place, :width] = instances.importance
        found.pearson[:, place] = agreement
    return found


def _explain_bucket(model: Model, params: Params, bucket: Bucket) -> tuple[Instances, Array]:
    """`Instances` with leading axes `[R, N]`, and their Pearson correlation `[R, N]`, for one bucket."""
    size = bucket.tokens.shape[0]

    def one(params: Params, rows: Array) -> tuple[Instances, Array]:
        """One run and one batch."""
        batch = gather(bucket, rows)
        instances = explain_batch(model, params, batch)
        mask = jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]
        return instances, pearson(instances.attention, instances.importance, mask)

    out = jax.lax.map(lambda rows: jax.vmap(one, in_axes=(0, None))(params, rows), evaluation_rows(size))
    # [batches, R, B, ...] -> [R, N, ...]
    return jax.tree.map(
        lambda x: jnp.moveaxis(x, 1, 0).reshape((x.shape[1], x.shape[0] * x.shape[2], *x.shape[3:]))[:, :size], out
    )


def result_lines(
    trainer: Trainer, states: TrainState, split: str, found: SplitInstances, seconds: float
) -> list[dict[str, Any]]:
    """One line of `results.jsonl` per run; a figure that is undefined is None."""
    lines = []
    groups = trainer.dataset.splits[split].groups
    for run, seed in enumerate(trainer.config.seeds):
        correlation = found.pearson[run]
        defined = np.isfinite(correlation)
        lines.append(
            run_fields(trainer.config, seed)
            | {"split": split, "n": len(found.labels), "mark": trainer.dataset.mark}
            | _prediction_fields(found.probability[run], found.labels, groups)
            | {
                "pearson": float(np.mean(correlation[defined], dtype=np.float64)) if defined.any() else None,
                "pearson_undefined": int(np.sum(~defined)),
                "largest_attention": float(np.mean(found.attention[run].max(axis=-1), dtype=np.float64)),
                "best_epoch": int(states.best_epoch[run]),
                "seconds": round(seconds, 3),
                "matmul_precision": trainer.config.training.matmul_precision,
            }
            | frozen_fields(states, run)
        )
    return lines


def _prediction_fields(
    probability: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None
) -> dict[str, float | None]:
    """Figures of one run's `[N, C]` probabilities: F1 and AUC of two classes, accuracy, and that of each group."""
    f1 = auc = None
    if probability.shape[1] == 2:
        counts = prediction.count_predictions(jnp.asarray(probability[:, 1]), jnp.asarray(labels))
        f1, auc = finite_or_none(prediction.f1(counts)), finite_or_none(prediction.auc(counts))

    def accuracy(rows: np.ndarray | slice) -> float | None:
        """Of some rows."""
        return finite_or_none(prediction.share_right(jnp.asarray(probability[rows]), jnp.asarray(labels[rows])))

    fields = {"f1": f1, "accuracy": accuracy(slice(None)), "auc": auc}
    names = np.array(groups or (), str)
    return fields | {f"accuracy_{name}": accuracy(names == name) for name in sorted(set(groups or ())) if name}
