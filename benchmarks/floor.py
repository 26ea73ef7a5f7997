"""How near our training step is to its floor: its products as fast as they are alone, and its optimiser's bytes.

    python -m benchmarks.floor
    python -m benchmarks.floor --tokens=20,60,200 --times=5 --json=FILE

Flags:
  --tokens=T[,T]   widths (default 20,60,200)
  --times=N        turns of which the median counts (default 5); a turn times every part and ten steps
  --small          tiny sizes, of which the figures mean nothing
  --json=FILE      writes the figures too

Our attention_at step against the floor: for each product of the step, its FLOPs at the rate measured in isolation for
that very shape, batched or not, whichever is faster, plus optimiser bytes at the measured in-place copy rate, all in
the same process. Parts and step are measured in turn, so that what slows the machine slows all of them. Products of a
matrix and a vector, element-wise work and the reading of words are not in the floor.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.formulas import FLOAT, TINY, parameter_bytes
from benchmarks.gpu import CHAIN, PASSES, chained
from benchmarks.work import Sizes, build_ours, medians, read_flags, repeat, save_record
from flax_attnat.compiled import compiler_options
from flax_attnat.typing import Array

STEP, UPDATE = "attention_at", "update in place"
WORK, SMALL_WORK = 10**9, 10**5  # operations that are timed together
TARGETS = {200: 0.6, 20: 0.5}  # the share at least, by T


class Product(NamedTuple):
    """Products of one shape, `[M, K] x [K, N]`, in a step.

    Attributes:
      shape: M, K and N of one.
      times: after one another.
      directions: at once, 1 or 2.
    """

    shape: tuple[int, int, int]
    times: int = 1
    directions: int = 1

    @property
    def flops(self) -> int:
        """Operations of all of them, `2 M K N` each."""
        return 2 * math.prod(self.shape) * self.times * self.directions


class Candidate(NamedTuple):
    """A way to compute a product.

    Attributes:
      name: of the product.
      form: the way, in words.
      left: shape of the left operand, `[M, K]` or `[2, M, K]`.
      right: shape of the right operand, `[K, N]` or `[2, K, N]`.
      options: of the compiler.
    """

    name: str
    form: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    options: dict[str, str] | None

    @property
    def flops(self) -> int:
        """Operations of computing it once."""
        return 2 * math.prod(self.left) * self.right[-1]


def products(sizes: Sizes) -> dict[str, Product]:
    """The matrix products of a step by name: of the BiLSTM and of the attention's inner layer, forward and backward."""
    n, rows, units, words = sizes.rows * sizes.tokens, sizes.rows, sizes.hidden, sizes.embedding
    return {
        "projection": Product((8 * units, words, n)),
        "projection, gradient of the kernel": Product((8 * units, n, words)),
        "projection, gradient of the words": Product((n, 8 * units, words)),
        "recurrence": Product((4 * units, units, rows), sizes.tokens, 2),
        "recurrence, gradient of the states": Product((units, 4 * units, rows), sizes.tokens, 2),
        "recurrence, gradient of the kernel": Product((4 * units, n, units), 1, 2),
        "attention": Product((n, 2 * units, units)),
        "attention, gradient of the kernel": Product((2 * units, n, units)),
        "attention, gradient of the states": Product((n, units, 2 * units)),
    }


def candidates(sizes: Sizes) -> dict[str, Candidate]:
    """Every way that is tried of every product, by a name of its own.

    As it is and transposed, one direction or both in a batch, compiled as the training programs are and by default.
    """
    tuned = compiler_options(jax.default_backend())
    compiled = {"": None} if tuned is None else {", compiled as in training": tuned, "": None}
    found = []
    for name, product in products(sizes).items():
        m, k, n = product.shape
        for batch in ((), (2,))[: product.directions]:
            for manner, left, right in (("A B", (m, k), (k, n)), ("B' A'", (n, k), (k, m))):
                for how, options in compiled.items():
                    form = manner + (", both directions in one" if batch else "") + how
                    found.append(Candidate(name, form, batch + left, batch + right, options))
    return {f"{one.name}: {one.form}": one for one in found}


def repetitions(candidate: Candidate, work: int) -> int:
    """How often a candidate is computed in one call, for about so many operations."""
    return max(1, round(work / candidate.flops))


def build_candidate_call(candidate: Candidate, work: int) -> Callable[[], None]:
    """A call that computes a product over and over in one compiled loop, and waits.

    The smaller operand depends on the last result, in one element, so that nothing is left out or moved out of the
    loop.
    """
    rng = np.random.default_rng(0)
    left, right = (jnp.asarray(rng.standard_normal(at, np.float32)) for at in (candidate.left, candidate.right))
    moves_left, count = left.size < right.size, repetitions(candidate, work)
    corner = (slice(0, 1),) * left.ndim

    def loop(moved: Array, kept: Array) -> Array:
        """The smaller operand after all repetitions, shaped as before."""

        def body(_: Array, moved: Array) -> Array:
            """The smaller operand, after one product that depends on it."""
            result = jax.lax.optimization_barrier(moved @ kept if moves_left else kept @ moved)
            new = moved[corner] + 1e-30 * result[corner]
            return jax.lax.dynamic_update_slice(moved, new, (0,) * moved.ndim)

        return jax.lax.fori_loop(0, count, body, moved)

    moved, kept = (left, right) if moves_left else (right, left)
    program = jax.jit(loop, compiler_options=candidate.options)
    return lambda: jax.block_until_ready(program(moved, kept))


def build_calls(sizes: Sizes, work: int = WORK) -> dict[str, Callable[[], None]]:
    """Everything that `evaluate` asks the seconds of, by name: all candidates, the update in place, S steps of ours."""
    calls = {name: build_candidate_call(candidate, work) for name, candidate in candidates(sizes).items()}
    update = jax.jit(lambda x: x * 1.0001, donate_argnums=0)
    calls[UPDATE] = chained(update, jnp.ones(sizes.vocabulary * sizes.embedding, jnp.float32))
    return calls | {STEP: repeat(build_ours(STEP, sizes))}


def evaluate(sizes: Sizes, seconds: Mapping[str, float], work: int = WORK) -> dict[str, Any]:
    """Floor, step and their ratio from the seconds of each call, with what the floor is made of."""
    tried, parts = candidates(sizes), {}
    for name, product in products(sizes).items():
        rates = {
            one.form: one.flops * repetitions(one, work) / seconds[key]
            for key, one in tried.items()
            if one.name == name
        }
        form = max(rates, key=rates.__getitem__)
        parts[name] = {"seconds": product.flops / rates[form], "gflops": rates[form] / 1e9, "form": form}
    rate = CHAIN * 2 * FLOAT * sizes.vocabulary * sizes.embedding / seconds[UPDATE]
    optimizer = PASSES * parameter_bytes(sizes) / rate
    floor = optimizer + sum(part["seconds"] for part in parts.values())
    step = seconds[STEP] / sizes.batches
    return {
        "tokens": sizes.tokens,
        "products": parts,
        "optimizer": {"seconds": optimizer, "gigabytes_per_second": rate / 1e9},
        "floor": floor,
        "step": step,
        "share": floor / step,
    }


def measure(sizes: Sizes, times: int, work: int = WORK) -> dict[str, Any]:
    """What `evaluate` returns of the median seconds."""
    return evaluate(sizes, medians(build_calls(sizes, work), times), work)


def show(found: Mapping[str, Any]) -> None:
    """Prints what was measured at one width, and what is asked for."""
    print(f"T = {found['tokens']}")
    for name, part in found["products"].items():
        print(f"  {1000 * part['seconds']:9.3f} ms  {part['gflops']:7.1f} GFLOP/s  {name} ({part['form']})")
    optimizer = found["optimizer"]
    print(f"  {1000 * optimizer['seconds']:9.3f} ms  {optimizer['gigabytes_per_second']:7.1f} GB/s     optimiser")
    print(f"  {1000 * found['floor']:9.3f} ms  floor")
    print(f"  {1000 * found['step']:9.3f} ms  step")
    target = TARGETS.get(found["tokens"])
    wanted = "" if target is None else f" (at least {target:.0%})"
    print(f"  {found['share']:9.1%}     the floor's share of the step{wanted}", flush=True)


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    small, times = "small" in flags, int(flags.get("times", 5))
    sizes, work = (TINY, SMALL_WORK) if small else (Sizes(), WORK)
    found = []
    for tokens in map(int, flags.get("tokens", str(TINY.tokens) if small else "20,60,200").split(",")):
        found.append(measure(sizes._replace(tokens=tokens), times, work))
        show(found[-1])
    save_record(flags, {"times": times, "measured": found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
