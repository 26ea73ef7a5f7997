"""Checkpoints of a population with Orbax: atomic, the last two kept, verified before they are read.

The only module that touches Orbax. A checkpoint is one tree of arrays and one JSON object. Once it is written, sizes
and checksums of its files are written beside them: a checkpoint whose files do not match is found out before Orbax
reads it, and the one before it is used instead. Writing goes on beside the training that follows: devices wait only for
the copy to the host.
"""

import functools
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from flax_attnat.training.cluster import from_primary, is_primary, wait_for_all
from flax_attnat.training.workdir import write_atomically

KEPT = 2
SEAL = "FILES.json"


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written; the message says where and what is left."""


class Store:
    """The checkpoints of one directory, addressed by an increasing position.

    Args:
      directory: where they lie; made if it is not there.
      say: called with a sentence when a checkpoint cannot be read.
      read_only: change no file, so that another process may be training there.
    """

    def __init__(self, directory: epath.PathLike, say: Callable[[str], None], *, read_only: bool = False) -> None:
        # Orbax takes absolute paths only; a bucket's address is one.
        self._directory = epath.Path(directory if "://" in str(directory) else Path(directory).absolute())
        self._read_only = read_only
        if not read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        self.say = say
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._written: tuple[int, Future[None]] | None = None

    def positions(self) -> list[int]:
        """Positions of the finished checkpoints, ascending."""
        if not self._directory.exists():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdigit())

    def save(self, position: int, tree: Any, meta: dict[str, Any]) -> None:
        """Begins to write a checkpoint, once the one before it is written; `wait` says when it is there.

        It is written under a temporary name and renamed, and all but the last two are let go of. When this returns, the
        tree's arrays are on the host and may be donated.

        Raises:
          CheckpointError: the file system refused this checkpoint or the one before it.
        """
        self.wait()
        checkpointer = self._open()
        try:
            with _plain_files():
                response = checkpointer.save_async(position, tree, force=True, overwrite=True, custom_metadata=meta)
        except Exception as error:  # Orbax and TensorStore raise many types; all mean that nothing was saved
            checkpointer.close()
            raise self._failed(position, error) from error
        self._written = position, self._writer.submit(self._complete, position, checkpointer, response)

    def wait(self) -> None:
        """Returns when what `save` began is written, by every process.

        Raises:
          CheckpointError: the file system refused; the checkpoints before this one are as they were.
        """
        if self._written is None:
            return
        (position, written), self._written = self._written, None
        try:
            written.result()
        except Exception as error:  # as above
            raise self._failed(position, error) from error
        wait_for_all(f"saved {position}")

    def close(self) -> None:
        """Returns when nothing is being written, well or badly; nothing can be saved afterwards."""
        self._writer.shutdown()

    def _complete(self, position: int, checkpointer: Any, response: Any) -> None:
        """Waits for the files of a checkpoint and seals them."""
        with checkpointer:
            response.result()
        if is_primary():
            path = self._directory / str(position)
            write_atomically(path / SEAL, json.dumps(_checksums(path)))

    def _failed(self, position: int, error: Exception) -> CheckpointError:
        """What is said of a checkpoint that could not be written."""
        kept = [p for p in self.positions() if p != position]
        left = f"The checkpoint at position {kept[-1]} is intact" if kept else "There is no earlier checkpoint"
        return CheckpointError(
            f"Could not save a checkpoint to {self._directory}: {_first_line(error)}. {left}. Make room, or "
            "check the folder's permissions, and run the same command again: it goes on from there."
        )

    def restore(self, like: Callable[[dict[str, Any]], Any]) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is whole, as `(tree, meta)`, or None if there is none.

        Args:
          like: given the metadata before any array is read, gives the tree of ShapeDtypeStructs, with shardings, that
            the checkpoint is read as; what it raises is raised here.
        """
        positions = from_primary(self.positions)
        for position in reversed(positions):
            if from_primary(functools.partial(self._is_whole, position)):
                with self._open() as checkpointer:
                    meta = dict(checkpointer.metadata(position).custom_metadata)
                    return checkpointer.load(position, like(meta)), meta
            if is_primary():
                self._set_aside(position, last=position == positions[0])
        return None

    def _is_whole(self, position: int) -> bool:
        """Whether the files of a checkpoint are those that were written."""
        path = self._directory / str(position)
        try:
            return json.loads((path / SEAL).read_text()) == _checksums(path)
        except (OSError, ValueError):
            return False

    def _open(self) -> Any:
        """An Orbax checkpointer; only the process that trains removes leftovers of interrupted writes."""
        policies = ocp.training.preservation_policies
        policy = policies.PreserveAll() if self._read_only else policies.LatestN(KEPT)
        clean = not self._read_only
        return ocp.training.Checkpointer(self._directory, preservation_policy=policy, cleanup_tmp_directories=clean)

    def _set_aside(self, position: int, *, last: bool) -> None:
        """Says that a checkpoint cannot be read, and moves it out of the way unless nothing may be changed."""
        moved = ""
        if not self._read_only:
            aside = self._directory / f"unreadable-{position}"
            if aside.exists():
                aside.rmtree()
            (self._directory / str(position)).rename(aside)
            moved = f" It is now {aside.name}."
        then = "There is none before it." if last else "The one before it is used."
        self.say(
            f"The checkpoint {self._directory / str(position)} cannot be read: files are missing, cut short or damaged."
            f"{moved} {then}"
        )


def _plain_files() -> Any:
    """Arrays are written as they are: floats of parameters and moments hardly compress, and training waits."""
    context = ocp.Context()
    context.array.saving.use_zarr3 = context.array.saving.use_compression = False
    return context


def _checksums(path: epath.Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file of a checkpoint but the seal itself, by its path below the checkpoint."""

    def files(folder: epath.Path, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of every file below a folder."""
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                yield from files(child, f"{prefix}{child.name}/")
            elif child.name != SEAL:
                yield prefix + child.name, child.read_bytes()

    return {name: [len(content), zlib.crc32(content)] for name, content in files(path, "")}


def _first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
