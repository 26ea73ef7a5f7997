"""Metrics of a workdir as TensorBoard's scalars: one point per run, figure and epoch, in one event file per run.

A file is made anew from `metrics/` when a process first hears of its run, and grows by an epoch at a time: whatever was
interrupted, resumed from an older checkpoint, or trained without TensorBoard, every epoch is in it once.
"""

import struct
import time
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from flax_attnat.config import Config
from flax_attnat.training.loop import Progress
from flax_attnat.training.records import run_fields
from flax_attnat.training.runs import Cohort, cohort_name
from flax_attnat.training.workdir import WorkdirError, read_lines, write_atomically

FOLDER = "tensorboard"
PREFIX = "events.out.tfevents."
NAMES = ("technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay", "seed")
VARIED = ("learning_rate", "weight_decay")


def check_available(workdir: epath.PathLike) -> None:
    """Makes sure that scalars can be written for a workdir, before anything is trained.

    Args:
      workdir: need not be there yet.

    Raises:
      WorkdirError: the workdir is in a bucket, whose objects cannot grow.
      ImportError: tensorboardX is not installed; the message says how to install it.
    """
    if "://" in str(workdir):
        raise WorkdirError(
            f"TensorBoard's files cannot be written to {workdir}, whose objects cannot grow: give a folder as workdir,"
            " or train without --tensorboard; the same figures are in metrics.jsonl."
        )
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"TensorBoard's files are written by tensorboardX, which cannot be imported ({error}): install it by"
            ' pip install "flax_attnat[tensorboard]", or in a checkout by pip install ".[tensorboard]".'
        ) from error


def run_name(fields: Mapping[str, Any], varied: Collection[str] = VARIED) -> str:
    """The folder of a run, safe for every file system; within a workdir, no two runs have the same.

    Args:
      fields: what names the run, as in a line of `metrics.jsonl`; what is None is left out.
      varied: which of learning_rate and weight_decay differ between the runs of the workdir.

    >>> run_name({"technique": "attention_at", "reading": None, "epsilon": 5.0, "lambda": 1.0, "seed": 3}, ())
    'attention_at-epsilon_5-lambda_1-seed_3'
    """
    told = {name: fields[name] for name in NAMES if name in varied or name not in VARIED}
    figures = [f"{name}_{str(told[name]).removesuffix('.0')}" for name in list(told)[2:] if told[name] is not None]
    return "-".join([told["technique"], *([told["reading"]] if told["reading"] else []), *figures])


class Scalars:
    """Writes what training reports, as it comes.

    Args:
      workdir: a folder with `metrics/`; gets `tensorboard/<run>/`, made where it is not there.
      config: what is trained in it.

    Raises:
      WorkdirError, ImportError: as `check_available`.
    """

    def __init__(self, workdir: epath.PathLike, config: Config) -> None:
        check_available(workdir)
        self._workdir = epath.Path(workdir)
        swept = {"learning_rate": config.sweep.learning_rates, "weight_decay": config.sweep.weight_decays}
        self._varied = tuple(name for name, values in swept.items() if len(values) > 1)
        self._begun: set[str] = set()
        self._files: dict[str, epath.Path] = {}

    def update(self, part: Cohort, progress: Progress | None) -> None:
        """Takes one report on a population, made after its metrics were written; None: it is finished.

        Raises:
          WorkdirError: a line of the metrics was changed or cut short.
          OSError: the file system refused.
        """
        if cohort_name(part) not in self._begun:
            self._begun.add(cohort_name(part))
            self._write_anew(part)
        elif progress is not None:
            for line in progress.metrics or ():
                with self._files[self._name(line)].open("ab") as file:
                    file.write(_records(line))

    def _name(self, line: Mapping[str, Any]) -> str:
        """The folder of a line's run."""
        return run_name(line, self._varied)

    def _write_anew(self, part: Cohort) -> None:
        """What the metrics hold of a population; a TensorBoard that is open forgets what it has read of it."""
        runs = [self._name(run_fields(part.config, run)) for run in part.runs]
        records = {name: _start() for name in runs}
        for line in read_lines(self._workdir, "metrics"):
            if (name := self._name(line)) in records:
                records[name] += _records(line)
        for name, content in records.items():
            folder = self._workdir / FOLDER / name
            for old in folder.glob(f"{PREFIX}*") if folder.exists() else ():
                old.unlink()
            # TensorBoard reads files in the order of their names, and looks for new ones only.
            self._files[name] = folder / f"{PREFIX}{int(time.time())}"
            write_atomically(self._files[name], content)


def _start() -> bytes:
    """The records that begin a file: its version, and that points read from an earlier one are void."""
    from tensorboardX.proto import event_pb2

    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return _record(file_version="brain.Event:2") + _record(session_log=start)


def _records(line: Mapping[str, Any]) -> bytes:
    """One record with every number of a metrics line but those that name the run, at its epoch."""
    from tensorboardX.proto import summary_pb2

    numbers = {
        name: value
        for name, value in line.items()
        if name not in (*NAMES, "epoch") and isinstance(value, int | float) and not isinstance(value, bool)
    }
    values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
    return _record(step=line["epoch"], summary=summary_pb2.Summary(value=values))


def _record(**fields: Any) -> bytes:
    """An event as a record of a file: length, checksum of the length, event, checksum of the event."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    event = event_pb2.Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(event))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), event, struct.pack("<I", masked_crc32c(event))])
