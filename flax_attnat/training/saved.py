"""What is saved of a population: checkpoints while it is trained, the best parameters when it is finished."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding

from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.objective import StepSums
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.cluster import is_primary, wait_for_all
from flax_attnat.training.mesh import BY_RUN, WHOLE
from flax_attnat.training.population import zero_sums
from flax_attnat.training.runs import Cohort, cohort_name
from flax_attnat.training.schedule import batches_of
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer
from flax_attnat.training.workdir import WorkdirError, remove_lines
from flax_attnat.typing import Array, Params


class Position(NamedTuple):
    """Where training stands.

    Attributes:
      epoch: epochs that are done.
      step: steps of the next epoch that are done.
      seconds: spent training so far, over all starts.
    """

    epoch: int
    step: int
    seconds: float


class Carry(NamedTuple):
    """The arrays that a checkpoint holds.

    Attributes:
      states: population state, R on every leaf.
      sums: sums of the epoch under way, each `[R]`.
      neighbours: `[R, V, K]` of word_iat, else None.
    """

    states: TrainState
    sums: StepSums
    neighbours: Array | None


class Trained(NamedTuple):
    """What is left of a population when it is finished, R on every leaf.

    Attributes:
      best_params: parameters of each run's best epoch.
      best_epoch: int32, that epoch, counted from 1; 0 if there is none.
      frozen_step: int32, the step at which the run was frozen, or -1.
      frozen_reason: int32, index into FROZEN_REASONS.
    """

    best_params: Params
    best_epoch: Array
    frozen_step: Array
    frozen_reason: Array


def checkpoints(
    trainer: Trainer, workdir: epath.PathLike, say: Callable[[str], None], *, read_only: bool = False
) -> Store:
    """The checkpoints of a population in training."""
    return Store(_folder(workdir, "checkpoints", trainer.cohort), say, read_only=read_only)


def start(trainer: Trainer, store: Store) -> tuple[Carry, Position, list[dict[str, Any]]] | None:
    """Carry, position and metric lines of the newest whole checkpoint, or None without one."""
    found = _load(trainer, store, _abstract_carry(trainer))
    if found is None:
        return None
    carry, meta = found
    here = dict(trainer.mesh.shape)
    if meta["mesh"] != here:
        store.say(
            f"The checkpoint was made on a mesh of {meta['mesh']} devices and this one is {here}: training goes on from"
            " the same state, with figures that may differ by rounding from those of an uninterrupted training."
        )
    return carry, Position(*meta["position"]), meta["history"]


def save(trainer: Trainer, store: Store, tree: Any, position: Position, history: Sequence[dict[str, Any]] = ()) -> None:
    """Begins to write a checkpoint with everything that a later start needs; `store.wait()` ends it."""
    meta = {
        "position": list(position),
        "history": list(history),
        "vocabulary": vocabularies.to_json(trainer.dataset.vocabulary),
        "labels": list(trainer.dataset.label_names),
        "pair": trainer.dataset.splits["train"].queries is not None,
        "data": trainer.checksums,
        "cohort": cohort_name(trainer.cohort),
        "mesh": dict(trainer.mesh.shape),
        "filled": len(trainer.seeds),
    }
    store.save(position.epoch * steps_per_epoch(trainer) + position.step, tree, meta)


def finish(trainer: Trainer, workdir: epath.PathLike, states: TrainState, seconds: float) -> Trained:
    """Keeps what a finished population is measured by, in `trained/`."""
    trained = Trained(states.best_params, states.best_epoch, states.frozen_step, states.frozen_reason)
    store = Store(_folder(workdir, "trained", trainer.cohort), print)
    save(trainer, store, trained, Position(trainer.config.training.epochs, 0, seconds))
    store.wait()
    return trained


def remove_checkpoints(workdir: epath.PathLike, cohort: Cohort) -> None:
    """Lets go of what a population in training has saved."""
    _remove(_folder(workdir, "checkpoints", cohort))


def forget(workdir: epath.PathLike, cohort: Cohort) -> None:
    """Lets go of everything that a population has left in a workdir."""
    _remove(_folder(workdir, "checkpoints", cohort))
    _remove(_folder(workdir, "trained", cohort))
    if is_primary():
        for kind in ("metrics", "results"):
            remove_lines(workdir, kind, cohort_name(cohort))


def _remove(folder: epath.Path) -> None:
    """Removes a folder, if it is there, once no process reads it any more."""
    wait_for_all(f"removing {folder}")
    if is_primary() and folder.exists():
        folder.rmtree()
    wait_for_all(f"removed {folder}")


def restore(
    trainer: Trainer, workdir: epath.PathLike, say: Callable[[str], None]
) -> tuple[TrainState | Trained, dict[str, Any]] | None:
    """What a population's newest whole checkpoint holds, and its metadata, or None without one; changes no file.

    Returns:
      `Trained` of a population that is finished, else the states where training stands.
    """
    finished = restore_trained(trainer, workdir, say)
    if finished is not None:
        return finished
    found = _load(trainer, checkpoints(trainer, workdir, say, read_only=True), _abstract_carry(trainer))
    return None if found is None else (found[0].states, found[1])


def restore_trained(
    trainer: Trainer, workdir: epath.PathLike, say: Callable[[str], None]
) -> tuple[Trained, dict[str, Any]] | None:
    """What is kept of a finished population, and its metadata, or None if it is not finished; changes no file."""
    states = _abstract_carry(trainer).states
    like = Trained(states.best_params, states.best_epoch, states.frozen_step, states.frozen_reason)
    return _load(trainer, Store(_folder(workdir, "trained", trainer.cohort), say, read_only=True), like)


def train_sizes(trainer: Trainer) -> list[int]:
    """Rows of each training bucket."""
    return [bucket.tokens.shape[0] for bucket in trainer.buckets["train"]]


def steps_per_epoch(trainer: Trainer) -> int:
    """Steps of an epoch over all buckets."""
    return sum(batches_of(size, trainer.config.training.batch_size) for size in train_sizes(trainer))


def _folder(workdir: epath.PathLike, kind: str, cohort: Cohort) -> epath.Path:
    """Where a population's checkpoints or final parameters lie."""
    return epath.Path(workdir) / kind / cohort_name(cohort)


def _abstract_carry(trainer: Trainer) -> Carry:
    """Shapes, dtypes and places of a carry; computes nothing."""
    states = jax.eval_shape(trainer.population.init, trainer.seeds)
    sums = jax.eval_shape(lambda: zero_sums(len(trainer.seeds)))
    carry = Carry(states, sums, jax.eval_shape(trainer.population.refresh, states.params))
    place = NamedSharding(trainer.mesh, BY_RUN)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), carry)


def _load(trainer: Trainer, store: Store, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """The newest whole checkpoint, provided that it belongs to this configuration and these data."""
    runs = len(trainer.seeds)

    def as_saved(meta: dict[str, Any]) -> Any:
        """What lies there; of another number of runs, because of another mesh, on every device whole."""
        _check_owner(trainer, meta)
        if meta["filled"] == runs:
            return like
        place = NamedSharding(trainer.mesh, WHOLE)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((meta["filled"], *leaf.shape[1:]), leaf.dtype, sharding=place), like
        )

    found = store.restore(as_saved)
    if found is None or found[1]["filled"] == runs:
        return found
    tree, meta = found
    rows = np.minimum(np.arange(runs), len(trainer.runs) - 1)
    fill = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf[rows], tree), out_shardings=NamedSharding(trainer.mesh, BY_RUN)
    )
    return fill(tree), meta


def _check_owner(trainer: Trainer, meta: dict[str, Any]) -> None:
    """Raises WorkdirError for checkpoints of another configuration, vocabulary, set of classes, texts or labels."""
    if meta["cohort"] != cohort_name(trainer.cohort):
        raise WorkdirError(
            f"the checkpoints were made by another configuration ({meta['cohort']}, and this one is "
            f"{cohort_name(trainer.cohort)}). Give another --workdir."
        )
    then, now = vocabularies.from_json(meta["vocabulary"]).words, trainer.dataset.vocabulary.words
    if then != now:
        place = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
        raise WorkdirError(
            f"the checkpoints were made with a vocabulary of {len(then):,} words and the data have {len(now):,}; they "
            f"differ from word {place} on. Point config.data.raw_dir at the data it was trained on, or give another "
            "--workdir."
        )
    if meta["labels"] != list(trainer.dataset.label_names):
        raise WorkdirError(
            f"the checkpoints were made for the classes {', '.join(meta['labels'])} and the data have "
            f"{', '.join(trainer.dataset.label_names)}. Give the data it was trained on, or another --workdir."
        )
    for name, here in trainer.checksums.items():
        there = meta.get("data", {}).get(name, here)  # older checkpoints do not say
        if there != here:
            raise WorkdirError(
                f"the checkpoints were made with other texts or labels of the split {name} ({there['texts']:,} texts,"
                f" CRC-32 {there['crc32']}; here {here['texts']:,}, {here['crc32']}). Give the data it was trained on,"
                " or another --workdir."
            )
