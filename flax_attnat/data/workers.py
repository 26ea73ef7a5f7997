"""Cuts texts into words in processes of their own, which are handed texts and hand back numbers as lines of JSON."""

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from flax_attnat.data.errors import DataError


class Pieces(NamedTuple):
    """Some texts in words.

    Attributes:
      words: the different words, in the order of first occurrence.
      values: their numbers, one text after another.
      lengths: words of each text.
    """

    words: list[str]
    values: list[int]
    lengths: list[int]


def cut_chunk(texts: Sequence[str], cut: Callable[[str], Sequence[str]]) -> Pieces:
    """Some texts in words.

    >>> cut_chunk(["b a b", "", "a"], str.split)
    Pieces(words=['b', 'a'], values=[0, 1, 0, 1], lengths=[3, 0, 1])
    """
    words: dict[str, int] = {}
    pieces = Pieces([], [], [])
    for text in texts:
        found = cut(text)
        pieces.values.extend(words.setdefault(word, len(words)) for word in found)
        pieces.lengths.append(len(found))
    pieces.words.extend(words)
    return pieces


def cut_in_processes(
    chunks: Sequence[Sequence[str]], cut: Callable[[str], Sequence[str]], processes: int
) -> Iterator[Pieces]:
    """`cut_chunk` of every chunk, in order.

    Args:
      chunks: texts.
      cut: a function that other processes can import.
      processes: how many to start.

    Raises:
      DataError: a process died.
    """
    command = [sys.executable, "-m", __name__, cut.__module__, cut.__qualname__]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    idle: queue.Queue[Any] = queue.Queue()

    def ask(texts: Sequence[str]) -> Pieces:
        """Has one chunk cut by a process that has nothing to do."""
        worker = idle.get()
        try:
            worker.stdin.write(json.dumps(list(texts)) + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except OSError:
            answer = ""
        finally:
            idle.put(worker)
        if not answer:
            raise DataError("A process that cuts texts into words died; is there memory left? Run the command again.")
        return Pieces(*json.loads(answer))

    with ExitStack() as stack:
        for _ in range(processes):
            idle.put(stack.enter_context(_process(command, environment)))
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        stack.callback(pool.shutdown, cancel_futures=True)
        yield from pool.map(ask, chunks)


@contextlib.contextmanager
def _process(command: Sequence[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A process with pipes for lines of text; it ends when its input is closed."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii"
    )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # it may have died
                pipe.close()  # type: ignore[union-attr]
        process.wait()


def main() -> None:
    """A process: a line of texts in, a line of `Pieces` out, until there are no more."""
    module, name = sys.argv[1:]
    cut = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        print(json.dumps(cut_chunk(json.loads(line), cut)), flush=True)


if __name__ == "__main__":
    main()
