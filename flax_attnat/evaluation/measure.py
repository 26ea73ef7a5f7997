"""Measures trained runs on one split: one line of `results.jsonl` per run, and the per-instance arrays behind it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.data.batches import gather
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.errors import DataError
from flax_attnat.evaluation import prediction
from flax_attnat.evaluation.agreement import pearson
from flax_attnat.evaluation.importance import explain_batch
from flax_attnat.training.mesh import BY_RUN, WHOLE, fetch, over_runs, put, share_batch
from flax_attnat.training.population import EVALUATION_ROWS, evaluation_rows
from flax_attnat.training.records import finite_or_none, frozen_fields, run_fields
from flax_attnat.training.saved import Trained
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Array, Batch, Params


class Measures(NamedTuple):
    """What result lines are made of, for R runs and the N texts of a split, in the order of the split.

    Attributes:
      probability: `[R, N, C]` of the classes.
      pearson: `[R, N]` correlation of attention and gradient importance, NaN where undefined.
      largest_attention: `[R, N]`.
      labels: `[N]`.
    """

    probability: np.ndarray
    pearson: np.ndarray
    largest_attention: np.ndarray
    labels: np.ndarray


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


class Block(NamedTuple):
    """What R runs say of B texts.

    Attributes:
      probability: `[R, B, C]`.
      attention: `[R, B, T]`.
      importance: `[R, B, T]`.
      pearson: `[R, B]`.
    """

    probability: Array
    attention: Array
    importance: Array
    pearson: Array


Said = TypeVar("Said")

Explain = Callable[[Params, Batch], Block]
"""`explain(params, batch)`: R on every leaf of the parameters; compiled once per width of the batch."""


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


def measure_split(
    trainer: Trainer, explain: Explain, params: Params, split: str, width: int = EVALUATION_ROWS
) -> Measures:
    """What result lines are made of, for R runs on one split; no `[R, N, T]` array is kept.

    Args:
      trainer: model and data.
      explain: from `build_explain`.
      params: parameters of R runs, R on every leaf.
      split: "train", "dev" or "test".
      width: texts at once; fewer take less memory.
    """
    labels = trainer.dataset.splits[split].labels
    runs, total = len(trainer.runs), len(labels)
    found = Measures(
        np.zeros((runs, total, len(trainer.dataset.label_names)), np.float32),
        np.zeros((runs, total), np.float32),
        np.zeros((runs, total), np.float32),
        labels,
    )
    for place, here, block in blocks(trainer, explain, params, split, width):
        parts = fetch(trainer.mesh, (block.probability, block.pearson, jnp.max(block.attention, axis=-1)))
        for array, part in zip(found, parts, strict=False):  # the labels are there
            array[:, place] = part[:runs, here]
    return found


def explain_split(trainer: Trainer, explain: Explain, params: Params, split: str) -> SplitInstances:
    """Prediction, attention, importance and their agreement for R runs on one split.

    Args:
      trainer: model and data.
      explain: from `build_explain`.
      params: parameters of R runs, R on every leaf.
      split: "train", "dev" or "test".
    """
    data = trainer.dataset.splits[split]
    widest = max(bucket.tokens.shape[1] for bucket in trainer.buckets[split])
    runs, total = len(trainer.runs), len(data.labels)
    found = SplitInstances(
        np.zeros((runs, total, len(trainer.dataset.label_names)), np.float32),
        np.zeros((runs, total, widest), np.float32),
        np.zeros((runs, total, widest), np.float32),
        np.zeros((runs, total), np.float32),
        data.labels,
        np.array([len(tokens) for tokens in data.tokens], np.int32),
    )
    for place, here, on_devices in blocks(trainer, explain, params, split):
        block = Block(*(part[:runs, here] for part in fetch(trainer.mesh, on_devices)))
        width = block.attention.shape[-1]
        found.probability[:, place] = block.probability
        found.attention[:, place, :width] = block.attention
        found.importance[:, place, :width] = block.importance
        found.pearson[:, place] = block.pearson
    return found


def build_explain(trainer: Trainer) -> Explain:
    """What the runs of a trainer say of a batch, to be compiled at its first call; serves every split."""

    def one(params: Params, batch: Batch) -> Block:
        """One run and one batch."""
        instances = explain_batch(trainer.model, params, batch)
        mask = jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]
        agreement = pearson(instances.attention, instances.importance, mask)
        return Block(instances.probability, instances.attention, instances.importance, agreement)

    def every(params: Params, batch: Batch) -> Block:
        """Every run and one batch."""
        return jax.vmap(one, in_axes=(0, None))(params, share_batch(trainer.mesh, batch, axis=0))

    return jax.jit(over_runs(every, trainer.mesh, BY_RUN, WHOLE))


def blocks(
    trainer: Trainer, explain: Callable[[Params, Batch], Said], params: Params, split: str, width: int = EVALUATION_ROWS
) -> Iterator[tuple[np.ndarray, np.ndarray, Said]]:
    """Places in a split, which rows of a block they are, and what the runs say of its rows; batch by batch."""
    cut_out = jax.jit(gather)
    for bucket in trainer.buckets[split]:
        places = fetch(trainer.mesh, bucket.position)
        for rows in evaluation_rows(len(places), width):
            batch = cut_out(bucket, put(trainer.mesh, WHOLE, rows))
            with jax.default_matmul_precision(trainer.config.training.matmul_precision):
                block = explain(params, batch)
            yield places[rows[rows >= 0]], np.flatnonzero(rows >= 0), block


def result_lines(
    trainer: Trainer, states: TrainState | Trained, split: str, found: Measures, seconds: float
) -> list[dict[str, Any]]:
    """One line of `results.jsonl` per run; a figure that is undefined is None.

    Args:
      trainer: what was trained.
      states: of its runs.
      split: "train", "dev" or "test".
      found: from `measure_split`.
      seconds: of training, all runs together.
    """
    lines = []
    groups = trainer.dataset.splits[split].groups
    small = (states.best_epoch, states.frozen_step, states.frozen_reason)
    best_epoch, frozen_step, frozen_reason = fetch(trainer.mesh, small)
    for run, what in enumerate(trainer.runs):
        correlation = found.pearson[run]
        defined = np.isfinite(correlation)
        lines.append(
            run_fields(trainer.config, what)
            | {"family": "prediction", "split": split, "n": len(found.labels), "mark": trainer.dataset.mark}
            | _prediction_fields(found.probability[run], found.labels, groups)
            | {
                "pearson": float(np.mean(correlation[defined], dtype=np.float64)) if defined.any() else None,
                "pearson_undefined": int(np.sum(~defined)),
                "largest_attention": float(np.mean(found.largest_attention[run], dtype=np.float64)),
                "best_epoch": int(best_epoch[run]),
                "seconds": round(seconds, 3),
                "population": len(trainer.runs),
                "matmul_precision": trainer.config.training.matmul_precision,
            }
            | frozen_fields(frozen_step[run], frozen_reason[run])
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
