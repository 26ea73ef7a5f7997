"""What every test runs under: strict shapes, strict dtypes, full-precision products, two CPU devices."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Before jax is imported, and for the processes that tests start: programs are compiled with little effort, in a small
# part of the time. What the tests state does not depend on it.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
)
QUICKER = "--xla_cpu_use_fusion_emitters=false"


def xla_knows(flags: str) -> bool:
    """Whether a process with these flags lives: XLA ends one with a flag that its version does not have."""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


# A worker has the flags of the process that started it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    given = os.environ.get("XLA_FLAGS", "")
    tried = f"{given} {QUICK} {QUICKER}".strip()
    os.environ["XLA_FLAGS"] = tried if xla_knows(tried) else f"{given} {QUICK}".strip()

# Without an accelerator nothing is gained by looking for one, and the TPU compiler that a test uses would complain.
if not any(list(Path("/dev").glob(device)) for device in ("nvidia*", "accel*", "vfio/0", "kfd")):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest

# Shape annotations of the numeric core are checked here, and here alone; before anything imports it.
jaxtyping.install_import_hook(["flax_attnat.perturbation"], "beartype.beartype")

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)

COMPILED = "JAX_COMPILATION_CACHE_DIR"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    """One cache of compiled programs for all workers and the processes they start, for as long as the run."""
    if COMPILED not in os.environ:
        config.compiled_here = tempfile.mkdtemp(prefix="compiled-")  # type: ignore[attr-defined]
        os.environ[COMPILED] = config.compiled_here  # type: ignore[attr-defined]
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ[COMPILED])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what this process made."""
    if directory := getattr(config, "compiled_here", None):
        del os.environ[COMPILED]
        shutil.rmtree(directory, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))
