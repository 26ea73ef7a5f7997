"""What every test runs under: strict shapes, strict dtypes, full-precision products, two CPU devices."""

import jax
import jaxtyping

# Shape annotations of the numeric core are checked here, and here alone; before anything imports it.
jaxtyping.install_import_hook(["flax_attnat.perturbation"], "beartype.beartype")

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
