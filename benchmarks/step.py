"""Seconds of a training step: each technique beside vanilla, one run beside many, and ours beside the PyTorch peer.

    python -m benchmarks.step
    python -m benchmarks.step --tokens=20,200 --times=15 --json=FILE

Flags:
  --tokens=T[,T]   widths (default 20,60,200)
  --times=N        turns of which the median counts (default 9); a turn is ten steps of each
  --runs=R         runs of the population (default 16; 0 for none)
  --only=NAME[;NAME]  of what is listed, these and vanilla only
  --json=FILE      writes the figures too

B = 32, H = 128, E = 300, V = 13,824, random texts of T / 2 to T words. All are measured in turn in one process, so that
ratios mean something; seconds mean little elsewhere. Without torch (the extra `bench`) the peer is left out.
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.work import Sizes, build_ours, medians, random_texts, ratios, read_flags, repeat, save_record
from flax_attnat.config import OptimizerConfig, WordConfig

TECHNIQUES = ("vanilla", "attention_rp", "attention_at", "attention_iat", "word_at")


def measure(sizes: Sizes, runs: int, times: int, only: Sequence[str] = ()) -> dict[str, float]:
    """Median seconds of a step by name; of a population, seconds of a step of one of its runs."""
    builders: dict[str, Callable[[], Callable[[], None]]] = {
        name: functools.partial(_ours, name, sizes) for name in TECHNIQUES
    }
    builders["word_at, not normalised"] = functools.partial(_ours, "word_at", sizes, word=WordConfig(normalise=False))
    lazy = OptimizerConfig(lazy_embedding=True)
    builders["attention_at, lazy"] = functools.partial(_ours, "attention_at", sizes, optimizer=lazy)
    if runs:
        builders[f"attention_at, {runs} runs"] = functools.partial(_ours, "attention_at", sizes, runs)
    if importlib.util.find_spec("torch"):
        builders["PyTorch"] = functools.partial(_peer, sizes, False)
        builders["PyTorch, compiled"] = functools.partial(_peer, sizes, True)
    calls = {name: build() for name, build in builders.items() if not only or name in ("vanilla", *only)}
    seconds = {name: value / sizes.batches for name, value in medians(calls, times).items()}
    return {name: value / (runs if name.endswith("runs") else 1) for name, value in seconds.items()}


def _ours(technique: str, sizes: Sizes, runs: int = 1, **fields: Any) -> Callable[[], None]:
    """S steps of ours."""
    return repeat(build_ours(technique, sizes, runs, **fields))


def _peer(sizes: Sizes, compiled: bool) -> Callable[[], None]:
    """S steps of the peer."""
    import torch

    from benchmarks.torch_reference import batches, build_peer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    params = jax.tree.map(lambda leaf: np.array(leaf[0]), build_ours("attention_at", sizes).states.params)
    step, given = build_peer(sizes, params, 1.0, compiled=compiled), batches(random_texts(sizes))
    return functools.partial(_run, step, given)


def _run(step: Callable[..., Any], given: Sequence[Any]) -> None:
    """One step for each batch."""
    for batch in given:
        step(*batch)


def compared(seconds: dict[str, float]) -> dict[str, float]:
    """The ratios that are worth a look, larger than 1 where the first is slower."""
    pairs = [(name, "vanilla") for name in seconds if name in TECHNIQUES[1:] or name.startswith("word_at,")]
    others = ("runs", "lazy", "PyTorch", "PyTorch, compiled")
    pairs += [(name, "attention_at") for name in seconds if name.endswith(others)]
    return ratios(seconds, [pair for pair in pairs if set(pair) <= set(seconds)])


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    runs, times = int(flags.get("runs", 16)), int(flags.get("times", 9))
    only = [name.strip() for name in flags["only"].split(";")] if "only" in flags else []
    found = []
    for tokens in map(int, flags.get("tokens", "20,60,200").split(",")):
        seconds = measure(Sizes(tokens=tokens), runs, times, only)
        found.append({"tokens": tokens, "seconds": seconds, "ratios": compared(seconds)})
        print(f"T = {tokens}")
        for name, value in seconds.items():
            print(f"  {1000 * value:9.2f} ms  {name}")
        for name, value in found[-1]["ratios"].items():
            print(f"  {value:9.2f}     {name}", flush=True)
    save_record(flags, {"times": times, "measured": found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
