"""Runs the suites over a split: every measure of every run, text by text."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_attnat.data.batches import gather
from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.evaluation import robustness, stages
from flax_attnat.evaluation.stages import Arrays
from flax_attnat.training.mesh import WHOLE, fetch, put
from flax_attnat.training.population import EVALUATION_ROWS, evaluation_rows
from flax_attnat.training.trainer import Trainer
from flax_attnat.typing import Array, Batch, Params

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
      arrays: by suite and name, `[R, N, ...]`; those ending in `_tokens` are `[R, W]`, the W words of all texts in a
        row.
      lengths: `[N]` words of each text.
      seconds: by stage, compilation included.
      rationale_share: of the words of a text that people marked, in the mean; None without rationales.
    """

    arrays: dict[str, dict[str, np.ndarray]]
    lengths: np.ndarray
    seconds: dict[str, float]
    rationale_share: float | None


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
    lengths = np.array([len(tokens) for tokens in trainer.dataset.splits[split].tokens], np.int32)
    columns = {suite: _Columns(trainer, lengths) for suite in suites}
    marked = _rationales(trainer.dataset, split) if "faithfulness" in suites else None
    measure: dict[str, Callable[[_Rows, Arrays, _Clock], Arrays]] = {
        "interpretability": _interpretability,
        "faithfulness": partial(_faithfulness, marked),
        "robustness": partial(_robustness, options),
    }
    done = 0
    for places, here, batch, place in _batches(trainer, split, width):
        described = clock("describe", compiled.describe, params, batch)
        for suite in suites:
            rows = _Rows(trainer, compiled, params, batch, place, places, here)
            columns[suite].add(places, here, measure[suite](rows, described, clock))
        done += len(places)
        progress(done)
    arrays = {suite: each.arrays for suite, each in columns.items()}
    return Found(arrays, lengths, clock.seconds, marked.share if marked else None)


class _Rows(NamedTuple):
    """What is measured at once.

    Attributes:
      trainer: of the runs.
      compiled: the stages.
      params: of R runs.
      batch: the texts.
      place: number of the batch, on the devices.
      places: of its texts in the split.
      here: the rows of the batch that they are.
    """

    trainer: Trainer
    compiled: Stages
    params: Params
    batch: Batch
    place: Array
    places: np.ndarray
    here: np.ndarray


def _interpretability(rows: _Rows, described: Arrays, clock: "_Clock") -> Arrays:
    """Attention and importances of the words, their agreement, and other attentions."""
    kept = ("probability", "attention_tokens", "gradient_tokens", "leave_one_out_tokens")
    arrays = {name: described[name] for name in kept}
    arrays |= clock("agree", rows.compiled.agree, described, rows.batch)
    return arrays | clock("intervene", rows.compiled.intervene, rows.params, rows.batch, rows.place)


def _faithfulness(marked: "_Marked | None", rows: _Rows, described: Arrays, clock: "_Clock") -> Arrays:
    """Erasure, and what people marked."""
    arrays = clock("erase", rows.compiled.erase, rows.params, rows.batch, described, rows.place)
    if marked is None:
        return arrays
    flags = np.zeros(rows.batch.tokens.shape, bool)
    for row, place in zip(rows.here, rows.places, strict=True):
        flags[row, list(marked.places[place])] = True
    rationale, share = put(rows.trainer.mesh, WHOLE, (flags, np.float32(marked.share)))
    find = rows.compiled.find_rationales
    return arrays | clock("rationales", find, described, rows.batch, rows.place, rationale, share)


def _robustness(options: Options, rows: _Rows, described: Arrays, clock: "_Clock") -> Arrays:
    """Attacks on the scores, and deleted words."""
    radii = put(rows.trainer.mesh, WHOLE, tuple(np.array(of, np.float32) for of in (options.linf, options.l2)))
    arrays = clock("attack", rows.compiled.attack, rows.params, rows.batch, rows.place, *radii)
    return arrays | clock("delete", rows.compiled.delete, rows.params, rows.batch, described)


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
    """Arrays of batches `[R, B, ...]`, put in their places of `[R, N, ...]`, those of words of `[R, W]`."""

    def __init__(self, trainer: Trainer, lengths: np.ndarray) -> None:
        self._trainer, self._lengths = trainer, lengths
        self._first = np.cumsum(lengths) - lengths
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, places: np.ndarray, here: np.ndarray, arrays: Arrays) -> None:
        """The rows `here` of a batch, which stand at `places` in the split."""
        runs = len(self._trainer.runs)
        for name, array in fetch(self._trainer.mesh, arrays).items():
            of_words = name.endswith("_tokens")
            if name not in self.arrays:
                rest = (int(self._lengths.sum()),) if of_words else (len(self._lengths), *array.shape[2:])
                self.arrays[name] = np.zeros((runs, *rest), array.dtype)
            rows = array[:runs, here]
            if of_words:
                word = np.arange(rows.shape[-1])[None, :]
                real = word < self._lengths[places][:, None]
                self.arrays[name][:, (self._first[places][:, None] + word)[real]] = rows[:, real]
            else:
                self.arrays[name][:, places] = rows


class _Marked(NamedTuple):
    """What people marked in a split.

    Attributes:
      places: for each text, the places of its marked tokens.
      share: of the tokens of a training text that are marked, in the mean over texts that have any.
    """

    places: list[tuple[int, ...]]
    share: float


def _rationales(dataset: Dataset, split: str) -> _Marked | None:
    """The rationales of a split; None where no text has one."""
    places = _marked_places(dataset.splits[split])
    if not any(places):
        return None
    # What a source may choose is not learnt from the texts that it is measured on, where others have rationales.
    for data in (dataset.splits["train"], dataset.splits[split]):
        marked = zip(_marked_places(data), data.tokens, strict=True)
        shares = [len(chosen) / len(tokens) for chosen, tokens in marked if chosen]
        if shares:
            break
    return _Marked(places, float(np.mean(shares)))


def _marked_places(data: Split) -> list[tuple[int, ...]]:
    """The places of the marked words of each text; a word that was cut off has none."""
    return [
        tuple(place for place in record.rationale or () if place < len(tokens))
        for record, tokens in zip(data.records, data.tokens, strict=True)
    ]


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
