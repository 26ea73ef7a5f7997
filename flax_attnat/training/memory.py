"""How many runs fit the devices, by what the compiled program says of itself."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from flax_attnat.training.cluster import largest
from flax_attnat.training.mesh import BY_RUN, DATA, WHOLE, padded
from flax_attnat.training.population import EVALUATION_ROWS, make_hparams, zero_sums
from flax_attnat.training.schedule import CHUNK_STEPS
from flax_attnat.training.trainer import Trainer

Worked = TypeVar("Worked")

# How errors of XLA name it.
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class TooLarge(RuntimeError):
    """The devices ran out of memory, and there is no smaller way."""


class OutOfMemory(RuntimeError):
    """The devices of a process ran out of memory, and every process knows."""


# What is left to the rest: evaluation, the other buckets' programs, the Python process.
_SHARE = 0.85
_CGROUP = Path("/sys/fs/cgroup")


def agreed(mesh: Mesh, work: Callable[[], Worked]) -> Worked:
    """What `work()` gives in each process; all of them call it together, and go on or fail together.

    Raises:
      OutOfMemory: the memory was too small in one of them or several. Where processes wait for each other inside the
        work (a batch shared among them), the error of the one that it happened to is left as it is.
    """
    if mesh.shape[DATA] > jax.local_device_count():
        return work()
    error = None
    try:
        worked = work()
    except jax.errors.JaxRuntimeError as raised:
        if OUT_OF_MEMORY not in str(raised):
            raise
        error = raised
    if largest(error is not None)[0]:
        raise OutOfMemory(f"{OUT_OF_MEMORY} in {'this' if error else 'another'} process") from error
    return worked


def with_fewer_rows(work: Callable[[int], Worked]) -> Worked:
    """What `work(rows)` gives, rows being how many texts it puts on the devices at once: fewer if the memory is small.

    Raises:
      TooLarge: the memory is too small for a single text.
    """
    for rows in (EVALUATION_ROWS, EVALUATION_ROWS // 8, 1):
        try:
            return work(rows)
        except jax.errors.JaxRuntimeError as raised:
            if OUT_OF_MEMORY not in str(raised):
                raise
            error = raised
    raise TooLarge(
        "the devices ran out of memory with a single text at once. Train fewer runs at once with"
        " --config.population.max_runs, or use several devices."
    ) from error


def most_runs(trainer: Trainer) -> int:
    """The largest number of the trainer's runs whose training step fits one device's share of the memory.

    The program is compiled for all runs, and for fewer as long as it asks for too much. All processes
    call it together, and agree on the smallest memory that any of them has.
    """
    limit, runs = -largest(-(available_bytes() or math.inf))[0], len(trainer.runs)
    while math.isfinite(limit) and runs > 1:
        try:
            needed = needed_bytes(trainer, runs)
        except jax.errors.JaxRuntimeError as error:  # TPU's compiler refuses what does not fit
            if OUT_OF_MEMORY not in str(error):
                raise
            needed = 2 * int(limit)
        if needed is None or needed <= limit:
            break
        runs = max(1, min(runs - 1, int(runs * limit / needed)))
    return runs


def needed_bytes(trainer: Trainer, runs: int) -> int | None:
    """Bytes on each device that training `runs` runs takes, with the copy that saving makes; None if unknown."""
    count, config, mesh = padded(runs, trainer.mesh), trainer.config, trainer.mesh

    def abstract(tree: Any, spec: Any) -> Any:
        """Shapes, dtypes and places without arrays."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)), tree)

    seeds = np.zeros(count, np.int32)
    states = jax.eval_shape(trainer.population.init, seeds)
    neighbours = jax.eval_shape(trainer.population.refresh, states.params)
    rows = np.zeros((count, CHUNK_STEPS, config.training.batch_size), np.int32)
    hparams = make_hparams([trainer.runs[0]] * count)
    with jax.default_matmul_precision(config.training.matmul_precision):
        lowered = trainer.population.run_chunk.lower(  # type: ignore[attr-defined]
            abstract(states, BY_RUN),
            abstract(zero_sums(count), BY_RUN),
            *abstract((tuple(trainer.buckets["train"]), np.zeros(CHUNK_STEPS, np.int32)), WHOLE),
            abstract(rows, BY_RUN),
            *abstract((np.int32(0), np.int32(0)), WHOLE),
            *abstract((hparams, seeds, neighbours), BY_RUN),
        )
        analysis = lowered.compile().memory_analysis()
    if analysis is None:
        return None
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states)) // mesh.shape["run"]
    used = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return used - analysis.alias_size_in_bytes + state


def available_bytes() -> int | None:
    """Bytes that training may use on each device of this process; None where nothing says how much there is."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        free = _free_host_bytes()
        # Processes of one machine share its memory; how many of them do is not known, so all might.
        return None if free is None else int(_SHARE * free / jax.local_device_count() / jax.process_count())
    stats = device.memory_stats() or {}
    return int(_SHARE * (stats["bytes_limit"] - stats["bytes_in_use"])) if "bytes_limit" in stats else None


def _free_host_bytes() -> int | None:
    """Free memory of this machine, or of the container that holds this process; None where neither is stated."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # A limit of "max" is none; files read once are given back when memory is short.
        found.append(int(limit) - int(used) + int(counts["inactive_file"]))
    return min(found, default=None)
