"""A population on an NVIDIA GPU: run-steps a second beside the PyTorch peer, and how near that is to the hardware.

    python -m benchmarks.gpu
    XLA_PYTHON_CLIENT_MEM_FRACTION=.92 python -m benchmarks.gpu --runs=256 --json=FILE
    JAX_PLATFORMS=cpu python -m benchmarks.gpu --small

Flags:
  --runs=R     runs of the population (default 256, with --small 2); halved for as long as the memory is too small
  --times=N    turns of which the median counts (default 5); a turn is ten steps
  --small      tiny sizes on any device, of which the figures mean nothing
  --json=FILE  writes the figures too

Attention AT, B = 32, H = 128, E = 300, V = 13,824, at T = 200 and T = 20. The peer trains one run after another on the
same GPU. Both multiply in float32, without TF32. Then the time of SST's epsilon figure is estimated.
"""

import functools
import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.formulas import FLOAT, TINY, parameter_bytes, step_flops
from benchmarks.work import Sizes, build_ours, medians, random_texts, read_flags, repeat, save_record
from flax_attnat.training.memory import OUT_OF_MEMORY
from flax_attnat.training.schedule import CHUNK_STEPS

PRECISION = "float32 (no TF32)"
# Over the peer and of the roofline at the wider width; of the bandwidth that the table's update needs at the narrower.
TIMES_PEER, OF_ROOFLINE, OF_BANDWIDTH = 100, 0.3, 0.5
PASSES = 9  # gradient, parameters and three moments are read, all but the gradient written
CHAIN = 10  # calls that are waited for together


class Plan(NamedTuple):
    """What is measured.

    Attributes:
      sizes: of one run.
      tokens: T, the widest first.
      product: rows and columns of the matrices whose product gives the peak rate.
      copied: floats of the array whose update in place gives the rate of the memory.
      figure: techniques of the epsilon figure, and the runs of each.
      steps: steps of an epoch by width.
      epochs: of each run.
      chunk: steps that are measured of each width.
    """

    sizes: Sizes = Sizes()
    tokens: tuple[int, ...] = (200, 20)
    product: int = 8192
    copied: int = 2**28
    # Twelve epsilons and five seeds; vanilla has no epsilon.
    figure: Mapping[str, int] = {
        "vanilla": 5,
        **dict.fromkeys(("attention_rp", "attention_at", "attention_iat", "word_at", "word_iat"), 60),
    }
    # SST's 6,356 training texts of more than five words, in batches of 32.
    steps: Mapping[int, int] = {16: 88, 32: 100, 64: 12}
    epochs: int = 8
    chunk: int = CHUNK_STEPS


SMALL = Plan(TINY, (TINY.tokens,), 128, 2**16, {"attention_at": 2}, {TINY.tokens: 3}, 2, TINY.batches)


def chained(function: Callable[..., Any], start: Any) -> Callable[[], None]:
    """A call that applies a function of one array to its own result CHAIN times, and waits."""
    held = [start]

    def call() -> None:
        """CHAIN applications, further from where the last call stopped."""
        for _ in range(CHAIN):
            held[0] = function(held[0])
        jax.block_until_ready(held[0])

    return call


def hardware(plan: Plan, times: int) -> dict[str, float]:
    """What this device reaches: operations a second in a large product, bytes a second in an update in place."""
    # Random, as some devices multiply equal numbers faster; of a scale that ever more products keep.
    matrix = jax.random.normal(jax.random.key(0), (plan.product, plan.product)) / plan.product**0.5
    product = functools.partial(jax.jit(jnp.matmul), matrix)
    update = jax.jit(lambda x: x + 1, donate_argnums=0)
    calls = {"product": chained(product, matrix), "update": chained(update, jnp.zeros(plan.copied, jnp.float32))}
    seconds = medians(calls, times)
    return {
        "flops": CHAIN * 2 * plan.product**3 / seconds["product"],
        "bytes": CHAIN * 2 * FLOAT * plan.copied / seconds["update"],
    }


def fitting(technique: str, sizes: Sizes, runs: int) -> tuple[int, Callable[[], None], float]:
    """The most of R, R / 2, ... runs that the memory holds, a call that trains them, and the seconds of its first."""
    while True:
        found = _attempt(technique, sizes, runs, last=runs == 1)
        if found is not None:
            return runs, *found
        runs //= 2
        print(f"  the memory is too small; {technique} with {runs} runs", flush=True)


def _attempt(technique: str, sizes: Sizes, runs: int, *, last: bool) -> tuple[Callable[[], None], float] | None:
    """A call that trains S steps and the seconds of its first; None where the memory is too small."""
    try:
        call = repeat(build_ours(technique, sizes, runs))
        began = time.perf_counter()
        call()
        return call, time.perf_counter() - began
    except jax.errors.JaxRuntimeError as error:
        if last or OUT_OF_MEMORY not in str(error):
            raise
        return None


def why_no_peer() -> str | None:
    """Why the peer is left out, or None."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (the extra bench)"
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "this torch finds no GPU"
    return None


def build_peer_call(sizes: Sizes) -> Callable[[], None]:
    """A call that trains S steps of one run of the peer, and waits for them."""
    import torch

    from benchmarks.torch_reference import batches, build_peer

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    params = jax.tree.map(lambda leaf: np.array(leaf[0]), build_ours("attention_at", sizes).states.params)
    step, given = build_peer(sizes, params, 1.0, device=device), batches(random_texts(sizes), device)

    def call() -> None:
        """S steps."""
        for batch in given:
            step(*batch)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def measure_width(sizes: Sizes, runs: int, times: int, rates: Mapping[str, float], *, peer: bool) -> dict[str, Any]:
    """Run-steps a second of the population and the peer at one width, and shares of what the hardware would reach.

    The gradients must be there before the update, so that the time of the products and of the update add up.
    """
    runs, call, _ = fitting("attention_at", sizes, runs)
    calls = {"ours": call} | ({"peer": build_peer_call(sizes)} if peer else {})
    rate = {name: sizes.batches / seconds for name, seconds in medians(calls, times).items()}
    rate["ours"] *= runs
    products = step_flops(sizes) / rates["flops"]
    update = PASSES * parameter_bytes(sizes) / rates["bytes"]
    table = PASSES * FLOAT * sizes.vocabulary * sizes.embedding / rates["bytes"]
    return {
        "tokens": sizes.tokens,
        "runs": runs,
        "run_steps_per_second": rate["ours"],
        "peer_steps_per_second": rate.get("peer"),
        "ratio": rate["ours"] / rate["peer"] if peer else None,
        "flops": step_flops(sizes),
        "products_ms": 1000 * products,
        "update_ms": 1000 * update,
        "roofline_share": (products + update) * rate["ours"],
        "bandwidth_share": table * rate["ours"],
    }


def estimate_figure(plan: Plan, times: int) -> dict[str, dict[str, float]]:
    """Estimated seconds of the epsilon figure, by technique: of its steps, of compiling, of finding neighbours.

    A chunk of each width is measured for all runs of a technique and multiplied; data, dev and measuring are left out.
    """
    found = {}
    for technique, wanted in plan.figure.items():
        seconds = {"steps": 0.0, "compiling": 0.0}
        for tokens, steps in plan.steps.items():
            sizes = plan.sizes._replace(tokens=tokens, batches=plan.chunk)
            runs, call, first = fitting(technique, sizes, wanted)
            chunk = medians({technique: call}, times)[technique]
            seconds["steps"] += plan.epochs * steps * chunk / plan.chunk * (wanted / runs)
            seconds["compiling"] += max(0.0, first - chunk)
        found[technique] = seconds | {"neighbours": plan.epochs * _refresh_seconds(technique, plan, wanted)}
        print(f"  {technique:13}  {sum(found[technique].values()) / 60:8.2f} min", flush=True)
    return found


def _refresh_seconds(technique: str, plan: Plan, runs: int) -> float:
    """Seconds of finding the neighbours of every word anew, once an epoch; 0 where none are read."""
    if technique != "word_iat":
        return 0.0
    ours = build_ours(technique, plan.sizes._replace(tokens=16))

    def call() -> None:
        """The neighbours of one run, as runs are taken one at a time."""
        jax.block_until_ready(ours.population.refresh(ours.states.params))

    return runs * medians({technique: call}, 3)[technique]


def show_width(found: Mapping[str, Any]) -> None:
    """Prints what was measured at one width, and what is asked for."""
    print(f"T = {found['tokens']}, {found['runs']} runs")
    print(f"  {found['run_steps_per_second']:12,.1f}  run-steps a second")
    if found["ratio"] is not None:
        print(f"  {found['peer_steps_per_second']:12,.1f}  steps a second, PyTorch, one run after another")
        print(f"  {found['ratio']:12,.1f}  times PyTorch (at T = 200 at least {TIMES_PEER})")
    print(
        f"  {found['roofline_share']:12.1%}  of the roofline (at T = 200 at least {OF_ROOFLINE:.0%}): "
        f"{found['products_ms']:.3f} ms of products, {found['update_ms']:.3f} ms of update a run-step"
    )
    print(
        f"  {found['bandwidth_share']:12.1%}  of the bandwidth that {PASSES} passes over the table need "
        f"(at T = 20 at least {OF_BANDWIDTH:.0%})",
        flush=True,
    )


def measure(plan: Plan, runs: int, times: int) -> dict[str, Any]:
    """Everything, printed on the way."""
    reason = why_no_peer()
    if reason:
        print(f"PyTorch is left out: {reason}.")
    rates = hardware(plan, times)
    print(f"{rates['flops'] / 1e12:.2f} TFLOP/s in a product of {plan.product} x {plan.product}, ", end="")
    print(f"{rates['bytes'] / 1e9:.1f} GB/s in an update in place", flush=True)
    widths = []
    for tokens in plan.tokens:
        sizes = plan.sizes._replace(tokens=tokens)
        widths.append(measure_width(sizes, runs, times, rates, peer=reason is None))
        show_width(widths[-1])
    print("SST's epsilon figure, estimated:", flush=True)
    figure = estimate_figure(plan, times)
    minutes = sum(sum(seconds.values()) for seconds in figure.values()) / 60
    print(f"  {'all':13}  {minutes:8.2f} min, estimated", flush=True)
    return {"rates": rates, "widths": widths, "figure": figure, "estimated_minutes": minutes, "peer_left_out": reason}


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    plan = SMALL if "small" in flags else Plan()
    runs, times = int(flags.get("runs", 2 if "small" in flags else 256)), int(flags.get("times", 5))
    device = jax.devices()[0].device_kind
    torch = importlib.util.find_spec("torch") and importlib.metadata.version("torch")
    record: dict[str, Any] = {
        "device": device,
        "jax": jax.__version__,
        "torch": torch,
        "precision": PRECISION,
        "times": times,
    }
    print(f"{device}, jax {jax.__version__}, torch {torch}, products in {PRECISION}, {plan.sizes}", flush=True)
    with jax.default_matmul_precision("float32"):
        record |= {"sizes": plan.sizes._asdict()} | measure(plan, runs, times)
    save_record(flags, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
