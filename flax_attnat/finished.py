"""The runs of a workdir that are trained to the end: which there are, which one is meant, what is left of them."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from flax_attnat.ablation import parts
from flax_attnat.config import Config
from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.data.catalogue import text_rules
from flax_attnat.data.load import name_classes
from flax_attnat.data.vocabulary import Vocabulary
from flax_attnat.models.model import Model
from flax_attnat.reporting.tables import predictions
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.records import run_fields
from flax_attnat.training.runs import Cohort, cohort_name
from flax_attnat.training.saved import Trained
from flax_attnat.training.trainer import build_model
from flax_attnat.training.workdir import WorkdirError, read_config, read_lines
from flax_attnat.typing import Params

# Runs in a message.
LISTED = 20


class Found(NamedTuple):
    """A finished run.

    Attributes:
      part: its population.
      place: its place in it.
      fields: what names it, as in the lines of `results.jsonl`.
    """

    part: Cohort
    place: int
    fields: dict[str, Any]


class Left(NamedTuple):
    """What a finished population has left of R runs.

    Attributes:
      params: of their best epochs, R on every leaf, NumPy.
      labels: names of the classes, by id.
      vocabulary: the words by id.
      pair: whether a text has a query.
    """

    params: Params
    labels: tuple[str, ...]
    vocabulary: Vocabulary
    pair: bool


def finished(workdir: epath.Path) -> list[Found]:
    """The runs that are trained to the end, in the order of the configuration.

    Raises:
      WorkdirError: there is none, or it is no workdir.
    """
    there = [
        Found(part, place, run_fields(part.config, run))
        for part in parts(workdir, read_config(workdir))
        if _store(workdir, part, []).positions()
        for place, run in enumerate(part.runs)
    ]
    if not there:
        raise WorkdirError(f"{workdir} holds no run that is trained to the end: train it first with launch.train.")
    return there


def find_best(workdir: epath.Path, there: Sequence[Found]) -> Found:
    """The only run, or the one whose `config.training.selection` is largest on dev, the first of several.

    Raises:
      WorkdirError: no run has that figure; one that was frozen does not compete.
    """
    if len(there) == 1:
        return there[0]
    figure, names = there[0].part.config.training.selection, there[0].fields
    scores = {
        tuple(line[name] for name in names): line[figure]
        for line in predictions(read_lines(workdir, "results"))
        if line["split"] == "dev" and line["frozen_step"] is None
    }
    competing = [(found, value) for found in there if (value := scores.get(tuple(found.fields.values()))) is not None]
    if not competing:
        raise WorkdirError(f"no run of {workdir} has a dev {figure} to be chosen by: say which one. {_list(there)}")
    return max(competing, key=lambda each: each[1])[0]


def find_only(workdir: epath.Path, there: Sequence[Found], run: Mapping[str, Any]) -> Found:
    """The one run that has these values.

    Raises:
      WorkdirError: there is none, or there are several, or runs have no such value; the message lists them.
      TypeError: `run` is no mapping.
    """
    if not isinstance(run, Mapping):
        raise TypeError(f'run must be a mapping such as {{"technique": "attention_at", "seed": 1}}; got {run!r}.')
    names = there[0].fields
    if unknown := [str(name) for name in run if name not in names]:
        raise WorkdirError(f"runs are named by {', '.join(names)}; got {', '.join(unknown)}. {_list(there)}")
    fit = [found for found in there if all(found.fields[name] == value for name, value in run.items())]
    if len(fit) == 1:
        return fit[0]
    raise WorkdirError(
        f"{len(fit) or 'none'} of the {len(there)} runs of {workdir} have {dict(run)}: give values of exactly one."
        f" {_list(fit or there)}"
    )


def restore(workdir: epath.Path, part: Cohort) -> Left:
    """What a finished population has left; the data set is not read.

    Raises:
      WorkdirError: the checkpoint is damaged.
    """
    said = list[str]()
    store = _store(workdir, part, said)
    try:
        found, pair = store.restore(functools.partial(_like, part.config, False)), False
    except (KeyError, ValueError):  # Orbax, of other arrays: older metadata do not say that texts have queries
        found, pair = store.restore(functools.partial(_like, part.config, True)), True
    if found is None:
        raise WorkdirError(f"{' '.join(said)} Train it again, in another --workdir.")
    trained, meta = found
    vocabulary = vocabularies.from_json(meta["vocabulary"])
    return Left(trained.best_params, tuple(meta["labels"]), vocabulary, meta.get("pair", pair))


def restored_model(config: Config, labels: Sequence[str], vocabulary: Vocabulary, *, pair: bool) -> Model:
    """The model of a run, from what its checkpoint says of the data.

    Args:
      config: of one technique.
      labels: names of the classes, by id.
      vocabulary: the words by id.
      pair: whether a text has a query.
    """
    entity_classes = name_classes(vocabulary, labels) if text_rules(config.dataset)[1] else None
    return build_model(config, vocabulary, classes=len(labels), pair=pair, entity_classes=entity_classes)


def _like(config: Config, pair: bool, meta: Mapping[str, Any]) -> Trained:
    """The arrays of a checkpoint as NumPy's: the devices get some runs only, and need not be those of the training."""
    vocabulary = vocabularies.from_json(meta["vocabulary"])
    model = restored_model(config, meta["labels"], vocabulary, pair=meta.get("pair", pair))
    number = np.zeros((), np.int32)
    one = Trained._make([jax.eval_shape(model.init, jax.random.key(0)), number, number, number])
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (meta["filled"], *leaf.shape)), one)


def _store(workdir: epath.Path, part: Cohort, said: list[str]) -> Store:
    """What is kept of a finished population, to be read only; what is wrong with it is said into a list."""
    return Store(workdir / "trained" / cohort_name(part), said.append, read_only=True)


def _list(there: Sequence[Found]) -> str:
    """Runs by the values in which they differ, one per line."""
    varied = [name for name in there[0].fields if len({found.fields[name] for found in there}) > 1]
    lines = [str({name: found.fields[name] for name in varied or ("technique", "seed")}) for found in there]
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n  ".join(["The runs are:", *lines[:LISTED], *more])
