"""Runs the suites over a split: every measure of every run, text by text."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_attnat.data.batches import gather
from flax_attnat.evaluation import robustness, stages
from flax_attnat.evaluation.stages import Arrays
from flax_attnat.training.mesh import WHOLE, fetch, put
from flax_attnat.training.population import EVALUATION_ROWS, evaluation_rows
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Batch, Params

SUITES = ("interpretability", "faithfulness", "robustness")
"""In the order in which they are run and shown."""


class Options(NamedTuple):
    """How the attacks on the scores are made.

    Attributes:
      linf: radii of the attacks under the largest change of a score.
      l2: radii under the Euclidean norm.
      steps: gradient steps from each start.
      restarts: starts, one after another: more of them take more time, not more memory.
    """

    linf: tuple[float, ...] = robustness.LINF
    l2: tuple[float, ...] = robustness.L2
    steps: int = 20
    restarts: int = 4

    def fields(self) -> dict[str, Any]:
        """As result lines have them; JSON knows no infinity."""
        radii = {"radii_linf": self.linf, "radii_l2": self.l2}
        texts = {name: [r if math.isfinite(r) else "inf" for r in values] for name, values in radii.items()}
        return texts | {"steps": self.steps, "restarts": self.restarts}


class Found(NamedTuple):
    """What the suites say of R runs and the N texts of a split, in the order of the split.

    Attributes:
      arrays: by suite and name, `[R, N, ...]`; those ending in `_tokens` are `[R, N, T]`, 0 on padding.
      seconds: by stage, compilation included.
    """

    arrays: dict[str, dict[str, np.ndarray]]
    seconds: dict[str, float]


class Stages(NamedTuple):
    """The stages of one model, compiled at their first call for each width and number of runs.

    Attributes:
      describe: `(params, batch)`, what the others read.
      agree: `(described, batch)`.
      intervene: `(params, batch, place)`.
      erase: `(params, batch, described, place)`.
      find_rationales: `(described, batch, place, rationale, share)`.
      attack: `(params, batch, place, linf, l2)`.
      delete: `(params, batch, described)`.
    """

    describe: Callable[..., Arrays]
    agree: Callable[..., Arrays]
    intervene: Callable[..., Arrays]
    erase: Callable[..., Arrays]
    find_rationales: Callable[..., Arrays]
    attack: Callable[..., Arrays]
    delete: Callable[..., Arrays]


def build_stages(trainer: Trainer, options: Options = Options()) -> Stages:
    """Compiles nothing yet. Serves every trainer of the same model, whatever trained its parameters."""
    model, own, shared = trainer.model, True, False

    def build(stage: Callable[..., Arrays], *by_run: bool) -> Callable[..., Arrays]:
        """A stage for R runs."""
        return stages.compiled(trainer, stage, *by_run)

    attack = partial(stages.attack, model, steps=options.steps, restarts=options.restarts)
    return Stages(
        describe=build(partial(stages.describe, model), own, shared),
        agree=build(stages.agree, own, shared),
        intervene=build(partial(stages.intervene, model), own, shared, shared),
        erase=build(partial(stages.erase, model), own, shared, own, shared),
        find_rationales=build(stages.find_rationales, own, shared, shared, shared, shared),
        attack=build(attack, own, shared, shared, shared, shared),
        delete=build(partial(stages.delete, model), own, shared, own),
    )


def run_suites(
    trainer: Trainer,
    compiled: Stages,
    params: Params,
    split: str,
    suites: Sequence[str],
    options: Options = Options(),
    *,
    width: int = EVALUATION_ROWS,
    progress: Callable[[int], None] = lambda rows: None,
) -> Found:
    """Every measure of some suites, for R runs on one split.

    Args:
      trainer: model and data.
      compiled: from `build_stages`, with the same options.
      params: parameters of R runs, R on every leaf.
      split: "train", "dev" or "test".
      suites: some of SUITES.
      options: of the attacks.
      width: texts at once; fewer take less memory.
      progress: told how many texts have been measured, after each batch.
    """
    clock = _Clock()
    found: dict[str, _Columns] = {suite: _Columns(trainer, split) for suite in suites}
    marked = _rationales(trainer, split)
    radii = [put(trainer.mesh, WHOLE, np.array(values, np.float32)) for values in (options.linf, options.l2)]
    for places, here, batch, place in _batches(trainer, split, width):
        described = clock("describe", compiled.describe, params, batch)
        if "interpretability" in suites:
            keep = ("probability", "attention_tokens", "gradient_tokens", "leave_one_out_tokens")
            arrays = {name: described[name] for name in keep}
            arrays |= clock("agree", compiled.agree, described, batch)
            arrays |= clock("intervene", compiled.intervene, params, batch, place)
            found["interpretability"].add(places, here, arrays)
        if "faithfulness" in suites:
            arrays = clock("erase", compiled.erase, params, batch, described, place)
            if marked is not None:
                rows = _rows_of(marked, places, here, batch)
                rationale, share = put(trainer.mesh, WHOLE, (rows, np.float32(marked.share)))
                arrays |= clock("rationales", compiled.find_rationales, described, batch, place, rationale, share)
            found["faithfulness"].add(places, here, arrays)
        if "robustness" in suites:
            arrays = clock("attack", compiled.attack, params, batch, place, *radii)
            arrays |= clock("delete", compiled.delete, params, batch, described)
            found["robustness"].add(places, here, arrays)
        progress(len(places))
    return Found({suite: columns.arrays for suite, columns in found.items()}, clock.seconds)


class _Clock:
    """Calls stages and adds up the seconds of each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, stage: Callable[..., Arrays], *arguments: Any) -> Arrays:
        """What a stage gives, when it is done."""
        began = time.monotonic()
        arrays = jax.block_until_ready(stage(*arguments))
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        return arrays


class _Columns:
    """Arrays of batches `[R, B, ...]`, put in their places of `[R, N, ...]`."""

    def __init__(self, trainer: Trainer, split: str) -> None:
        self._trainer = trainer
        self._widest = max(bucket.tokens.shape[1] for bucket in trainer.buckets[split])
        self._texts = len(trainer.dataset.splits[split].labels)
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, places: np.ndarray, here: np.ndarray, arrays: Arrays) -> None:
        """The rows `here` of a batch, which stand at `places` in the split."""
        runs = len(self._trainer.runs)
        for name, array in fetch(self._trainer.mesh, arrays).items():
            if name not in self.arrays:
                rest = (self._widest,) if name.endswith("_tokens") else array.shape[2:]
                self.arrays[name] = np.zeros((runs, self._texts, *rest), array.dtype)
            rows = array[:runs, here]
            if name.endswith("_tokens"):
                self.arrays[name][:, places, : rows.shape[-1]] = rows
            else:
                self.arrays[name][:, places] = rows


class _Marked(NamedTuple):
    """What people marked in a split.

    Attributes:
      places: for each text, the places of its marked tokens.
      share: of the tokens that are marked, averaged over texts that have any.
    """

    places: list[tuple[int, ...]]
    share: float


def _rationales(trainer: Trainer, split: str) -> _Marked | None:
    """The rationales of a split; None where no text has one."""
    data = trainer.dataset.splits[split]
    places = [
        tuple(place for place in record.rationale or () if place < len(tokens))
        for record, tokens in zip(data.records, data.tokens, strict=True)
    ]
    shares = [len(marked) / len(tokens) for marked, tokens in zip(places, data.tokens, strict=True) if marked]
    return _Marked(places, float(np.mean(shares))) if shares else None


def _rows_of(marked: _Marked, places: np.ndarray, here: np.ndarray, batch: Batch) -> np.ndarray:
    """`[B, T]`, true on the marked tokens of the texts of a batch."""
    rows = np.zeros(batch.tokens.shape, bool)
    for row, place in zip(here, places, strict=True):
        rows[row, list(marked.places[place])] = True
    return rows


def _batches(trainer: Trainer, split: str, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, Batch, Any]]:
    """Places in a split, the rows of a batch that they are, the batch, and its number, from which it draws its keys.

    Texts of a bucket go from short to long, so that loops over the tokens of a batch end early.
    """
    cut_out, number = jax.jit(gather), 0
    for bucket in trainer.buckets[split]:
        places, lengths = fetch(trainer.mesh, (bucket.position, bucket.lengths))
        order = np.argsort(lengths, kind="stable").astype(np.int32)
        for slots in evaluation_rows(len(places), width):
            rows = np.where(slots >= 0, order[slots], -1).astype(np.int32)
            batch = cut_out(bucket, put(trainer.mesh, WHOLE, rows))
            yield places[rows[rows >= 0]], np.flatnonzero(rows >= 0), batch, put(trainer.mesh, WHOLE, np.int32(number))
            number += 1
