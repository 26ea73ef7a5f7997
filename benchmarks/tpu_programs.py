"""The training step compiled for TPUs on a machine without one: memory, operations, and the compiler's own estimate.

    pip install -e ".[tpu]"  # its libtpu wheel is the compiler; Linux
    python -m benchmarks.tpu_programs
    python -m benchmarks.tpu_programs word_iat v6e:2x2

Compiles the steps of 64 runs at SST's size (batches of 32 texts, the widths and models of configs/sst.py, 13,824 words)
for each technique and topology, each in a process of its own, and prints a table of a step of the widest batches: two
to five minutes a line.
"""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding

from configs import sst
from flax_attnat.allowed import TECHNIQUES
from flax_attnat.config import Config, parse
from flax_attnat.data.batches import Bucket
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.vocabulary import Vocabulary
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.objective import build_objective
from flax_attnat.training.mesh import BY_RUN, DATA, RUN, WHOLE, make_mesh
from flax_attnat.training.population import build_population, make_hparams, zero_sums
from flax_attnat.training.schedule import CHUNK_STEPS
from flax_attnat.training.trainer import build_trainer

RUNS, ROWS, WORDS = 64, 3_000, 13_824
HBM_GIB = {"v5e:2x4": 16, "v6e:2x2": 32}
"""Memory of a chip by topology, cloud.google.com/tpu/docs/v5e and v6e."""

# Of a chip, in GHz, as its peak gives it: 197 TFLOP/s from four units of 128 x 128.
_CLOCK = {"v5e:2x4": 1.5}

# The process looks for no TPU, leaves no logs, and does not mind one that has the library open.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}
_ROOT = Path(__file__).resolve().parents[1]
_COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)(?:-start)?\("
)


class Program(NamedTuple):
    """What the compiler says of one chip's share of a training step.

    Attributes:
      technique: one of TECHNIQUES.
      topology: name of the slice, "v5e:2x4" say.
      chips: how many there are.
      state_bytes: arguments: states, data, order of the batches.
      temporary_bytes: what else the step needs.
      flops: of the matrix products of a step of the widest, with every loop as often as it runs.
      accessed_bytes: of HBM and on-chip memory in that step, each loop body counted once.
      cycles: the sum of the compiler's estimates of that step's operations, one after another.
      collectives: instructions by which chips talk to each other, by name.
    """

    technique: str
    topology: str
    chips: int
    state_bytes: int
    temporary_bytes: int
    flops: int
    accessed_bytes: int
    cycles: int
    collectives: dict[str, int]

    @property
    def gib(self) -> float:
        """Memory of the step on each chip."""
        return (self.state_bytes + self.temporary_bytes) / 2**30


def why_not() -> str:
    """Why nothing can be compiled for a TPU here; empty where it can."""
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        return "libtpu, the TPU compiler, is not installed (the extra tpu brings it)"
    return ""


def compile_apart(technique: str, topology: str, *, data_shards: int = 1, quick: bool = False) -> Program:
    """A training step compiled in a process of its own, which alone loads the TPU library.

    Args:
      technique: one of TECHNIQUES.
      topology: a key of HBM_GIB.
      data_shards: chips that share a batch.
      quick: with the least effort, for checks; not for the figures of a table.

    Raises:
      RuntimeError: it could not be compiled; the message is what the process said last.
    """
    words = [technique, topology, str(data_shards), str(int(quick))]
    command = [sys.executable, "-m", "benchmarks.tpu_programs", "--one", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        command, env=kept | _ENVIRONMENT, cwd=_ROOT, capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{technique} was not compiled for {topology}: {done.stderr[-2000:]}")
    return Program(**json.loads(done.stdout.splitlines()[-1]))


def compile_here(technique: str, topology: str, data_shards: int = 1, quick: bool = False) -> Program:
    """A training step compiled in this process."""
    devices: np.ndarray = np.array(topologies.get_topology_desc(topology_name=topology, platform="tpu").devices)
    mesh = Mesh(devices.reshape(-1, data_shards), (RUN, DATA), axis_types=(AxisType.Auto,) * 2)
    config = dataclasses.replace(parse(sst.get_config()), technique=technique)
    traced = _trace_steps(config, mesh)
    if quick:  # a slower program of the same kind, in a fifth of the time
        jax.config.update("jax_optimization_level", "O0")
    compiled = traced.lower().compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return Program(
        technique=technique,
        topology=topology,
        chips=devices.size,
        state_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes,
        flops=_matmul_flops(traced.jaxpr.jaxpr),
        accessed_bytes=int(compiled.cost_analysis()["bytes accessed"]),
        cycles=_step_cycles(text),
        collectives=count_collectives(text),
    )


def random_texts(widths: Sequence[int]) -> Dataset:
    """Random texts of SST's size and vocabulary, as many of each width."""
    random = np.random.default_rng(0)
    tokens = [random.integers(2, WORDS, widths[row % len(widths)]).astype(np.int32) for row in range(ROWS)]
    labels = (np.arange(ROWS) % 2).astype(np.int32)
    split = Split([Record((), int(label)) for label in labels], tokens, labels)
    vocabulary = Vocabulary(tuple(f"w{n}" for n in range(WORDS)), np.full(WORDS, 10, np.int64))
    return Dataset("sst", dict.fromkeys(("train", "dev", "test"), split), vocabulary, ("no", "yes"), "synthetic")


def _trace_steps(config: Config, mesh: Mesh) -> Any:
    """The program of a chunk of steps for RUNS runs over a mesh of devices that need not be there."""
    metric, valid = METRICS[config.training.selection], np.arange(WORDS) > 1
    trainer = build_trainer(config, random_texts(config.data.bucket_widths), None, metric, mesh=make_mesh(devices=1))
    objective = build_objective(config, trainer.model, 1.0)
    population = build_population(config, trainer.model, objective, metric, valid, mesh)

    def abstract(tree: Any, spec: Any) -> Any:
        """Shapes, dtypes and places without arrays."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)), tree)

    seeds = np.zeros(RUNS, np.int32)
    states = jax.eval_shape(population.init, seeds)
    neighbours = jax.eval_shape(population.refresh, states.params)
    buckets: tuple[Bucket, ...] = tuple(trainer.buckets["train"])
    rows = np.zeros((RUNS, CHUNK_STEPS, config.training.batch_size), np.int32)
    hparams = make_hparams([trainer.runs[0]] * RUNS)
    with jax.default_matmul_precision(config.training.matmul_precision):
        return population.run_chunk.trace(  # type: ignore[attr-defined]
            *abstract((states, zero_sums(RUNS)), BY_RUN),
            *abstract((buckets, np.zeros(CHUNK_STEPS, np.int32)), WHOLE),
            abstract(rows, BY_RUN),
            *abstract((np.int32(0), np.int32(0)), WHOLE),
            *abstract((hparams, seeds, neighbours), BY_RUN),
        )


def _matmul_flops(jaxpr: Any) -> int:
    """Operations of the matrix products of a program: of the dearest branch of a choice, and of the steps of one."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * int(np.prod(equation.outvars[0].aval.shape) * np.prod([left[axis] for axis in contracted]))
        inner = [_matmul_flops(part) for part in _inner(equation.params)]
        once = max(inner) if equation.primitive.name == "cond" else sum(inner)
        total += once * equation.params.get("length", 1)  # a loop of unknown length is that of the steps
    return total


def _inner(parameters: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an equation."""
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one


def _step_cycles(text: str) -> int:
    """Estimated cycles of one step of a compiled chunk, of its dearest width: the body of the loop over steps."""
    bodies: dict[str, list[str]] = {}
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?(%\S+) \(.*\{$", line):
            name = "ENTRY" if found[1] else found[2]
            bodies[name] = []
        elif line.startswith(" "):
            bodies[name].append(line)

    def loops(name: str) -> Iterator[tuple[int, str]]:
        """How often each loop of a computation runs (once where that is not known), and its body."""
        for line in bodies[name]:
            if found := re.search(r" while\(.*condition=(%[^\s,]+), body=(%[^\s,]+)", line):
                bounds = [int(n) for n in re.findall(r" constant\((\d+)\)", "\n".join(bodies[found[1]]))]
                yield max(bounds, default=1), found[2]

    def choices(name: str) -> Iterator[list[str]]:
        """The branches of each choice of a computation."""
        for line in bodies[name]:
            if found := re.search(r" conditional\(.*branch_computations=\{([^}]+)\}", line):
                yield found[1].split(", ")

    def cycles(name: str) -> int:
        """Of one pass through a computation, loops and the dearest branch of a choice included."""
        own = sum(int(n) for line in bodies[name] for n in re.findall(r'"estimated_cycles":"(\d+)"', line))
        own += sum(times * cycles(body) for times, body in loops(name))
        return own + sum(max(map(cycles, branches)) for branches in choices(name))

    return sum(cycles(body) for _, body in loops("ENTRY"))


def count_collectives(text: str) -> dict[str, int]:
    """Instructions of a compiled program by which devices talk to each other, by name.

    >>> count_collectives("%sum = f32[8] all-reduce-start(%x), metadata={op_name='all-reduce'}")
    {'all-reduce': 1}
    """
    found = _COLLECTIVE.findall(text)
    return {name: found.count(name) for name in sorted(set(found))}


def main(argv: Sequence[str]) -> int:
    """Prints the table of the technique and topology named, or of all."""
    if argv[1:2] == ["--one"]:
        technique, topology, data_shards, quick = argv[2:]
        program = compile_here(technique, topology, int(data_shards), bool(int(quick)))
        print(json.dumps(program._asdict()))
        return 0
    if reason := why_not():
        print(f"error: {reason}.", file=sys.stderr)
        return 2
    print("| technique | topology | runs per chip | GiB per chip | GFLOP", end=" | ")
    print("GB accessed | million cycles | ms | collectives |")
    print("|---|---|---|---|---|---|---|---|---|")
    for topology in argv[2:3] or HBM_GIB:
        for technique in argv[1:2] or TECHNIQUES:
            program = compile_apart(technique, topology)
            figures = (program.flops / 1e9, program.accessed_bytes / 1e9, program.cycles / 1e6)
            clock = _CLOCK.get(topology)
            milliseconds = f"{program.cycles / clock / 1e6:.1f}" if clock else "n/a"
            print(
                f"| {technique} | {topology} | {RUNS // program.chips} | {program.gib:.1f} of {HBM_GIB[topology]} |",
                " | ".join(f"{figure:.1f}" for figure in figures),
                f"| {milliseconds} | {sum(program.collectives.values())} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
