"""Seconds of the exact certificate by number of tokens: the cost of T log T, not of T squared.

    python -m benchmarks.certificate
    python -m benchmarks.certificate 64 1024

Random scores and values, 8 rows, a quarter of their tokens padding. The fastest of a few calls of the compiled program,
and what each doubling of T costs beside 2 (1 + 1 / log2 T), the cost of T log T.
"""

import math
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from flax_attnat.perturbation.certificate import certify_attention

ROWS, EPSILON = 8, 1.0
LENGTHS = tuple(2**power for power in range(6, 17))
CALLS = 15


def measure(tokens: int) -> tuple[float, float]:
    """Seconds to compile, and the seconds of the fastest call."""
    rng = np.random.default_rng(0)
    scores, values = (rng.normal(size=(ROWS, tokens)).astype(np.float32) for _ in range(2))
    mask = np.broadcast_to(np.arange(tokens) < tokens - tokens // 4, scores.shape)
    arguments = jax.device_put((scores, values, mask, np.float32(EPSILON)))
    began = time.monotonic()
    program = jax.jit(certify_attention).lower(*arguments).compile()
    compiling = time.monotonic() - began
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - began)
    return compiling, min(seconds)


def main(argv: Sequence[str]) -> int:
    """Measures the lengths named, or 64, 128, ... 65,536."""
    print(f"{ROWS} rows on {jax.devices()[0].device_kind}")
    print("   tokens    seconds  doubling  T log T  compiling")
    previous = None
    for tokens in map(int, argv[1:] or LENGTHS):
        compiling, seconds = measure(tokens)
        doubling = expected = " " * 4
        if previous is not None and tokens == 2 * previous[0]:
            doubling, expected = f"{seconds / previous[1]:4.2f}", f"{2 * (1 + 1 / math.log2(previous[0])):4.2f}"
        print(f"{tokens:9,}  {seconds:9.6f}      {doubling}     {expected}  {compiling:7.2f} s", flush=True)
        previous = (tokens, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
