"""What is said to the compiler, of which no number depends but by rounding: what to write, and how to compile."""

import os
from typing import TypeVar

import jax

Tree = TypeVar("Tree")

LEVEL = "xla_backend_optimization_level"


def computed_once(tree: Tree) -> Tree:
    """The same arrays; on a CPU they are written to memory here, and not computed again by whatever reads them.

    For a CPU, XLA fuses element-wise work into each of its readers and gives every fusion one output: what several
    read is computed several times, from all that it depends on. Compilers for GPUs and TPUs write several outputs in
    one pass, which this would hinder.
    """
    return jax.lax.platform_dependent(tree, cpu=jax.lax.optimization_barrier, default=lambda same: same)


def compiler_options(platform: str) -> dict[str, str | int] | None:
    """What the programs of training and evaluation are compiled with on "cpu"; nothing on other platforms.

    Without YNNPACK XLA takes Eigen for its products: as fast on wide ones, faster on those of a recurrent step. LLVM's
    first level makes programs as fast as its third or faster, sooner; a level that XLA_FLAGS names is left as it is.
    """
    if platform != "cpu":
        return None
    level = {} if LEVEL in os.environ.get("XLA_FLAGS", "") else {LEVEL: 1}
    return {"xla_cpu_experimental_ynn_fusion_type": ""} | level
