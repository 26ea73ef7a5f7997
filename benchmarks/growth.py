"""Memory of a run beside the sum of its parts, and how the seconds of a step grow with each size.

    python -m benchmarks.growth
    python -m benchmarks.growth --times=9 --figure=growth.svg --json=FILE
    python -m benchmarks.growth --only=memory

Flags:
  --times=N        turns of which the median counts (default 5); a turn is two steps of each program
  --only=WHAT      memory or time; both without it
  --figure=FILE    draws the times as four panels, SVG or PNG by its ending
  --quick          tiny sizes, of which the figures mean nothing
  --json=FILE      writes the figures too

Attention AT, H = 128, E = 300. Memory is what the compiled program of R runs says that it takes, over R; nothing is
run. Times: B = 32, T = 60, V = 13,824 and R = 1, from which one size at a time departs; the exponent p is that of the
least-squares fit log(seconds) = p log(size) + c. Products are in float32, without TF32.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from benchmarks.formulas import TINY, part_bytes
from benchmarks.work import Sizes, build_ours, medians, random_texts, read_flags, repeat, save_record
from flax_attnat.objective import Hparams
from flax_attnat.training.mesh import WHOLE, make_mesh
from flax_attnat.training.population import Population, zero_sums

MOST_OF_PARTS = 1.2
NAMES = {"tokens": "T", "rows": "B", "runs": "R", "vocabulary": "V"}


class Plan(NamedTuple):
    """What is measured.

    Attributes:
      base: sizes of one run, from which one at a time departs.
      growth: by size, the values that it takes; `runs` is R.
      memory_tokens: T of the programs whose memory is asked.
      memory_runs: R of these.
    """

    base: Sizes
    growth: Mapping[str, Sequence[int]]
    memory_tokens: Sequence[int]
    memory_runs: Sequence[int]


def plan(*, quick: bool) -> Plan:
    """All sizes, or with `quick` a few tiny ones."""
    growth: dict[str, Sequence[int]]
    if quick:
        growth = {"tokens": (6, 12), "rows": (2, 4), "runs": (1, 2), "vocabulary": (500, 1000)}
        return Plan(TINY, growth, (6,), (2,))
    growth = {
        "tokens": (20, 60, 200, 760),
        "rows": (8, 32, 128),
        "runs": (1, 4, 16, 32) if jax.default_backend() == "cpu" else (1, 4, 16, 64, 256),
        "vocabulary": (10_000, 30_000, 100_000),
    }
    return Plan(Sizes(tokens=60, batches=2), growth, (20, 60, 200), (1, 4, 16))


def trace_chunk(population: Population, sizes: Sizes, runs: int) -> Any:
    """The program that trains R runs for S steps, traced for arguments that need not be there."""
    seeds = np.zeros(runs, np.int32)
    states = jax.eval_shape(population.init, seeds)
    neighbours = jax.eval_shape(population.refresh, states.params)
    # Where they lie when build_ours calls it, so that this is the very program whose seconds are measured.
    whole = NamedSharding(make_mesh(devices=1), WHOLE)
    states = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), states)
    hparams = Hparams(*(np.ones(runs, np.float32) for _ in Hparams._fields))  # type: ignore[arg-type]
    rows = np.zeros((runs, sizes.batches, sizes.rows), np.int32)
    which, where = np.zeros(sizes.batches, np.int32), (np.int32(0), np.int32(0))
    return population.run_chunk.trace(  # type: ignore[attr-defined]
        states, zero_sums(runs), (random_texts(sizes).bucket,), which, rows, *where, hparams, seeds, neighbours
    )


def program_bytes(population: Population, sizes: Sizes, runs: int) -> int:
    """Bytes that the program of R runs takes: arguments, results and temporaries, less what they share."""
    said = trace_chunk(population, sizes, runs).lower().compile().memory_analysis()
    used = said.argument_size_in_bytes + said.output_size_in_bytes + said.temp_size_in_bytes
    return int(used - said.alias_size_in_bytes)


def measure_memory(wanted: Plan) -> list[dict[str, Any]]:
    """For each T and R: bytes of a run as compiled, those of its parts, and the first over the sum of these."""
    found = []
    for tokens in wanted.memory_tokens:
        sizes = wanted.base._replace(tokens=tokens)
        population = build_ours("attention_at", sizes, min(wanted.memory_runs)).population
        expected = part_bytes(sizes)
        for runs in wanted.memory_runs:
            taken = program_bytes(population, sizes, runs) / runs
            ratio = taken / sum(expected.values())
            found.append({"tokens": tokens, "runs": runs, "bytes": taken, "parts": expected, "ratio": ratio})
    return found


def fit_power(x: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Exponent p and constant c of the least-squares fit `log(seconds) = p log(x) + c`.

    >>> p, c = fit_power([1, 2, 4], [3, 12, 48])
    >>> round(p, 6), round(float(np.exp(c)), 6)
    (2.0, 3.0)
    """
    exponent, constant = np.polyfit(np.log(x), np.log(seconds), 1)
    return float(exponent), float(constant)


def measure_growth(wanted: Plan, times: int) -> dict[str, dict[str, Any]]:
    """For each size: its values, the median seconds of a step at each, and the exponent and constant of their fit."""

    def point(name: str, value: int) -> tuple[Sizes, int]:
        """Sizes and R where one size departs from the base."""
        return (wanted.base, value) if name == "runs" else (wanted.base._replace(**{name: value}), 1)

    points = {point(name, value) for name, values in wanted.growth.items() for value in values}
    # All of them in turn: what slows the machine for a while bends no curve.
    calls = {str(where): repeat(build_ours("attention_at", *where)) for where in sorted(points)}
    seconds = {name: value / wanted.base.batches for name, value in medians(calls, times).items()}
    found = {}
    for name, values in wanted.growth.items():
        measured = [seconds[str(point(name, value))] for value in values]
        exponent, constant = fit_power(values, measured)
        found[name] = {"values": list(values), "seconds": measured, "exponent": exponent, "constant": constant}
    return found


def draw(growth: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes a panel for each size: what was measured, the fit, and its exponent, on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    from flax_attnat.reporting.plot import PALETTE, style

    with style():
        figure = Figure(figsize=(5.5, 4.4), layout="constrained")
        for axes, (name, found) in zip(figure.subplots(2, 2).flat, growth.items(), strict=True):
            values = np.array(found["values"], float)
            fitted = np.exp(found["constant"]) * values ** found["exponent"]
            measured = 1000 * np.array(found["seconds"])
            axes.loglog(values, 1000 * fitted, color=PALETTE[0], linewidth=0.8)
            axes.loglog(values, measured, "o", color=PALETTE[2])
            axes.set_title(f"exponent of {NAMES[name]}: {found['exponent']:.2f}")
            axes.set(xlabel=f"{NAMES[name]} ({name})", ylabel="ms a step")
            axes.set_xticks(values, [f"{value:,.0f}" for value in values])
            # So wide that one of the ticks 1, 2, 5, 10, ... is in sight, however flat the line.
            axes.set_ylim(measured.min() / 1.6, measured.max() * 1.6)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(NullLocator())
        # Without the day, so that the same figures give the same file.
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)


def show_memory(memory: Sequence[Mapping[str, Any]]) -> None:
    """Prints a line for each T and R."""
    print(f"MB of a run (compiled / parts; at most {MOST_OF_PARTS:g})")
    for found in memory:
        taken, expected = found["bytes"] / 1e6, sum(found["parts"].values()) / 1e6
        verdict = "" if found["ratio"] <= MOST_OF_PARTS else "  too much"
        print(
            f"  T = {found['tokens']:3}  R = {found['runs']:3}  {taken:9.2f} / {expected:9.2f} = "
            f"{found['ratio']:5.2f}{verdict}"
        )


def show_growth(growth: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a block for each size."""
    for name, found in growth.items():
        print(f"{name}: seconds of a step grow as {NAMES[name]} ^ {found['exponent']:.2f}")
        for value, seconds in zip(found["values"], found["seconds"], strict=True):
            print(f"  {NAMES[name]} = {value:7,}  {1000 * seconds:10.2f} ms")


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    times, only, wanted = int(flags.get("times", 5)), flags.get("only"), plan(quick="quick" in flags)
    device = jax.devices()[0].device_kind
    sizes = {"base": wanted.base._asdict(), "growth": {name: list(values) for name, values in wanted.growth.items()}}
    record: dict[str, Any] = {"device": device, "jax": jax.__version__, "times": times, "sizes": sizes}
    record["precision"] = "float32 (no TF32)"
    print(f"{device}, jax {jax.__version__}, base {wanted.base}", flush=True)
    with jax.default_matmul_precision("float32"):
        if only != "time":
            record["memory"] = measure_memory(wanted)
            show_memory(record["memory"])
        if only != "memory":
            record["growth"] = measure_growth(wanted, times)
            show_growth(record["growth"])
    if "figure" in flags and "growth" in record:
        draw(record["growth"], Path(flags["figure"]))
    save_record(flags, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
