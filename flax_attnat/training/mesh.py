"""Devices as a mesh of two axes: runs are shared along 'run' without communication, a batch along 'data'."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_attnat.allowed import ConfigError

RUN, DATA = "run", "data"
WHOLE = PartitionSpec()
BY_RUN = PartitionSpec(RUN)


def make_mesh(data_shards: int = 1, devices: int | None = None) -> Mesh:
    """All devices of all processes as `[run, data]`.

    Args:
      data_shards: devices that share a batch.
      devices: use the first so many only; None: all.

    Raises:
      ConfigError: the devices cannot be grouped so.
    """
    available = jax.devices()[:devices]
    if len(available) % data_shards:
        raise ConfigError(
            f"config.population.data_shards must divide the number of devices; got {data_shards} for {len(available)}."
        )
    shape = (len(available) // data_shards, data_shards)
    return jax.make_mesh(shape, (RUN, DATA), axis_types=(AxisType.Auto,) * 2, devices=available)


def padded(runs: int, mesh: Mesh) -> int:
    """The smallest number of runs, at least `runs`, that the run axis divides."""
    return -(-runs // mesh.shape[RUN]) * mesh.shape[RUN]


def over_runs(function: Callable, mesh: Mesh, *specs: PartitionSpec) -> Callable:
    """`function` on each device's share of the runs, without communication between them.

    Args:
      function: of arguments with a leading axis R where their spec is BY_RUN; every output has one.
      mesh: from `make_mesh`; its data axis is left to the compiler.
      specs: BY_RUN or WHOLE for each argument.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=BY_RUN, axis_names={RUN}, check_vma=False
    )  # varying axes are not tracked: nothing is summed over runs


def share_batch(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Arrays of a function under `over_runs`, with their axis B, at the place `axis`, shared along the data axis."""
    if mesh.shape[DATA] == 1:
        return tree
    spec = PartitionSpec(*[None] * axis, DATA)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)


def put(mesh: Mesh, spec: PartitionSpec, tree: Any) -> Any:
    """NumPy arrays, the same in every process, as arrays on the devices of the mesh."""

    def one(value: np.ndarray) -> jax.Array:
        """One array; each process fills its own devices."""
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, NamedSharding(mesh, spec), lambda index: value[index])

    with jax.transfer_guard("allow"):
        return jax.tree.map(one, tree)


def fetch(mesh: Mesh, tree: Any) -> Any:
    """Arrays of the devices as NumPy arrays, whole in every process; all processes call it together."""
    if jax.process_count() > 1:
        tree = _whole(tree, NamedSharding(mesh, WHOLE))
    return jax.device_get(tree)


@functools.partial(jax.jit, static_argnums=1)
def _whole(tree: Any, everywhere: NamedSharding) -> Any:
    """The same arrays on every device."""
    return jax.lax.with_sharding_constraint(tree, everywhere)
