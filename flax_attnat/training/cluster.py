"""Several processes that train together: how they find each other, who writes, and what they must agree on."""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# Seconds without a sign of life after which a process counts as dead, and the others stop.
HEARTBEAT_SECONDS = 30

# Where one of these says more than one, jax.distributed.initialize() finds the others by itself.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


class ClusterError(RuntimeError):
    """Processes that cannot train together; the message says why and what to do."""


def detected(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several by its environment: a Slurm step, Open MPI, or a Cloud TPU."""
    if any(environment.get(name, "").isdigit() and int(environment[name]) > 1 for name in _COUNTS):
        return True
    platforms = environment.get("JAX_PLATFORMS", "tpu")
    attached = any(Path(device).exists() for device in _TPU_DEVICES)
    return "tpu" in platforms and attached and importlib.util.find_spec("libtpu") is not None


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes, before any computation; alone, where nothing says that there are others.

    Args:
      coordinator: address of process 0, HOST:PORT; None: found by itself on a cluster.
      processes: how many there are; 1: this one alone, whatever the environment says.
      process: number of this one, from 0.

    Raises:
      ClusterError: the three are not given together, or the others cannot be reached.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if processes == 1 and not (given[0] or given[2]):
        return
    if any(given) and not all(given):
        raise ClusterError("--coordinator, --num_processes and --process_id belong together: give all three or none.")
    if not any(given) and not detected():
        return
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes=processes,
            process_id=process,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise ClusterError(
            f"the other processes cannot be reached ({str(error).splitlines()[0]}). Check that all are started with the"
            " same --coordinator and --num_processes; --num_processes=1 trains on this machine alone."
        ) from error


def is_primary() -> bool:
    """Whether this process writes the files that only one may write."""
    return jax.process_index() == 0


def largest(*values: float) -> list[float]:
    """The largest of each value over all processes; all of them call it together."""
    if jax.process_count() == 1:
        return list(values)
    return np.max(multihost_utils.process_allgather(np.array(values, np.float32)), axis=0).tolist()


def from_primary(ask: Callable[[], Any]) -> Any:
    """What `ask()`, which only the first process calls, gives there, in every process; it must fit JSON."""
    if jax.process_count() == 1:
        return ask()
    said = np.frombuffer(json.dumps(ask() if is_primary() else None).encode(), np.uint8)
    size = int(largest(said.size if is_primary() else 0)[0])
    padded = np.zeros(size, np.uint8)
    padded[: said.size if is_primary() else 0] = said if is_primary() else 0
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode())


def wait_for_all(what: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
