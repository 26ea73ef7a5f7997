"""Checkpoints of a population with Orbax: atomic, the last two kept, verified when read.

The only module that touches Orbax. A checkpoint is one tree of arrays and one JSON object; a checksum of every array
goes into the JSON, so that a damaged file is found out when it is read and the checkpoint before it is used instead.
"""

import contextlib
import gc
import logging
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

KEPT = 2


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written; the message says where and what is left."""


class Store:
    """The checkpoints of one directory, addressed by an increasing position.

    Args:
      directory: where they lie; made if it is not there.
      say: called with a sentence when a checkpoint cannot be read.
    """

    def __init__(self, directory: epath.PathLike, say: Callable[[str], None]) -> None:
        self._directory = epath.Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._say = say

    def positions(self) -> list[int]:
        """Positions of the finished checkpoints, ascending."""
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdigit())

    def save(self, position: int, tree: Any, meta: dict[str, Any]) -> None:
        """Writes one checkpoint under a temporary name, renames it, and lets go of all but the last two.

        Raises:
          CheckpointError: the file system refused; the checkpoints before this one are as they were.
        """
        meta = meta | {"checksums": _checksums(tree)}
        try:
            with self._open() as checkpointer:
                checkpointer.save(position, tree, force=True, overwrite=True, custom_metadata=meta)
        except Exception as error:  # Orbax and TensorStore raise many types; all mean that nothing was saved
            kept = [p for p in self.positions() if p != position]
            left = f"The checkpoint at position {kept[-1]} is intact" if kept else "There is no earlier checkpoint"
            raise CheckpointError(
                f"Could not save a checkpoint to {self._directory}: {_first_line(error)}. {left}. Make room, or "
                "check the folder's permissions, and run the same command again: it goes on from there."
            ) from error

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is whole, as `(tree, meta)`, or None if there is none.

        Args:
          like: tree of arrays or ShapeDtypeStructs that the checkpoint must match.
        """
        abstract = jax.tree.map(_abstract, like)
        for position in reversed(self.positions()):
            try:
                with _quiet_tasks(), self._open() as checkpointer:
                    meta = dict(checkpointer.metadata(position).custom_metadata)
                    tree = checkpointer.load(position, abstract)
                damaged = [k for k, v in _checksums(tree).items() if meta["checksums"].get(k) != v]
                if damaged:
                    raise ValueError(f"the data of {damaged[0]} do not match their checksum")
                return tree, meta
            except Exception as error:  # whatever is wrong with this one, the one before may be whole
                self._set_aside(position, _first_line(error))
        return None

    def read_meta(self) -> dict[str, Any] | None:
        """The JSON of the newest checkpoint whose JSON can be read, or None; no array is read."""
        for position in reversed(self.positions()):
            try:
                with self._open() as checkpointer:
                    return dict(checkpointer.metadata(position).custom_metadata)
            except Exception as error:  # as in restore
                self._set_aside(position, _first_line(error))
        return None

    def _open(self) -> Any:
        """An Orbax checkpointer on the directory; leftovers of interrupted writes are removed."""
        policy = ocp.training.preservation_policies.LatestN(KEPT)
        return ocp.training.Checkpointer(self._directory, preservation_policy=policy, cleanup_tmp_directories=True)

    def _set_aside(self, position: int, why: str) -> None:
        """Moves a checkpoint that cannot be read out of the way, and says so."""
        aside = self._directory / f"unreadable-{position}"
        if aside.exists():
            aside.rmtree()
        (self._directory / str(position)).rename(aside)
        self._say(
            f"The checkpoint {self._directory / str(position)} cannot be read ({why}); it is now {aside.name}, and "
            "the one before it is used."
        )


@contextlib.contextmanager
def _quiet_tasks() -> Iterator[None]:
    """Keeps asyncio from logging, one screen per array, the reads that fail beside the one whose error is raised."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            yield
        finally:
            gc.collect()  # the tasks log, and warn that nobody awaited them, when they are collected
            logger.setLevel(level)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of an array leaf."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of every leaf, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): zlib.crc32(np.asarray(leaf).tobytes()) for path, leaf in leaves}


def _first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
