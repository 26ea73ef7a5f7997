"""The objective that every perturbation enters: the clean loss and the loss under the perturbation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flax_attnat.perturbation.geometry import check_losses
from flax_attnat.perturbation.precision import wide_dtype
from flax_attnat.typing import LossFn, Scalar


class Aux(NamedTuple):
    """What `adversarial_loss` saw, per example.

    Attributes:
      clean: `[B]` loss without the perturbation.
      adversarial: `[B]` loss under it.
      delta_norm: `[B]` L2 norm of the perturbation.
      raised: `[B]` float, 1 where the perturbation raised the loss, else 0.

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> _, aux = fa.adversarial_loss(lambda delta: delta.sum(-1), jnp.array([[0.6, 0.8]]))
    >>> aux.delta_norm
    Array([1.], dtype=float32)
    """

    clean: Array
    adversarial: Array
    delta_norm: Array
    raised: Array


def adversarial_loss(
    loss_fn: LossFn, delta: Float[Array, "B *rest"], *, weight: Scalar = 1.0
) -> tuple[Float[Array, "B"], Aux]:
    """Clean loss plus weighted loss under a perturbation.

    `L(0) + weight * L(delta)`, per example.

    Args:
      loss_fn: `loss_fn(delta) -> [B]` losses, examples independent. What it closes over (an encoder's output, say) is
        computed once for both terms.
      delta: `[B, *rest]` perturbation.
      weight: lambda, >= 0: a float or a tracer.

    Returns:
      `[B]` losses, and `Aux(clean, adversarial, delta_norm, raised)`, each `[B]`.

    Raises:
      ValueError: losses that are not `[B]`.

    Source: Kitada & Iyatomi 2021, the objective of adversarial training.

    >>> import jax.numpy as jnp
    >>> import flax_attnat as fa
    >>> loss, aux = fa.adversarial_loss(lambda delta: (1.0 + delta).sum(-1), jnp.array([[0.5]]), weight=2.0)
    >>> loss, aux.raised
    (Array([4.], dtype=float32), Array([1.], dtype=float32))
    """
    clean = loss_fn(jnp.zeros_like(delta))
    check_losses(clean, delta)
    return weighed(clean, loss_fn(delta), delta, weight)


def weighed(clean: Array, adversarial: Array, delta: Array, weight: Scalar) -> tuple[Array, Aux]:
    """`adversarial_loss` of the two losses `[B]` at 0 and at the delta `[B, *rest]`.

    >>> loss, aux = weighed(jnp.array([1.0]), jnp.array([1.5]), jnp.array([[3.0, 4.0]]), weight=2.0)
    >>> float(loss[0]), float(aux.delta_norm[0])
    (4.0, 5.0)
    """
    wide = jax.lax.stop_gradient(delta).astype(wide_dtype(delta))
    norm = jnp.sqrt(jnp.sum(jnp.square(wide), axis=tuple(range(1, delta.ndim))))
    loss = clean + jnp.asarray(weight, clean.dtype) * adversarial
    # Two evaluations of one loss may differ in the last bit: no perturbation has raised nothing.
    raised = (adversarial > clean) & (norm > 0)
    return loss, Aux(clean, adversarial, norm, raised.astype(jnp.float32))
