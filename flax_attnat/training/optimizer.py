"""torch.optim.Adam(amsgrad=True, weight_decay=...) as an optax chain, with the parameter groups of the paper."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from flax_attnat.compiled import computed_once
from flax_attnat.config import OptimizerConfig
from flax_attnat.typing import Array, Params, Scalar


class AmsgradState(NamedTuple):
    """State of `scale_by_torch_amsgrad`.

    Attributes:
      step: int32 scalar, steps taken.
      mu: first moment, shaped as the parameters.
      nu: second moment, likewise.
      nu_max: largest second moment so far, without bias correction, likewise.
    """

    step: Array
    mu: Params
    nu: Params
    nu_max: Params


def scale_by_torch_amsgrad(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam with amsgrad as torch computes it: the maximum is taken before the bias correction.

    `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, `vmax = max(vmax, v)`,
    `update = (m / (1 - b1^t)) / (sqrt(vmax) / sqrt(1 - b2^t) + eps)`.

    `optax.scale_by_amsgrad` corrects `v` first: the two agree at the first step and drift from there.

    Args:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator.

    Returns:
      An optax transformation; its state is `AmsgradState`. Its update takes `good`, a bool scalar: where it is false
      the state stays as it was, whatever the gradient.

    Source: Reddi et al. 2018, algorithm 2, in the order of operations of torch.optim.Adam.

    >>> import jax.numpy as jnp
    >>> transform = scale_by_torch_amsgrad()
    >>> update, state = transform.update(jnp.array([0.5]), transform.init(jnp.array([1.0])))
    >>> update.round(3)
    Array([1.], dtype=float32)
    """

    def init(params: Params) -> AmsgradState:
        """Zero moments, each leaf an array of its own so that buffers can be donated."""
        moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(3)]
        return AmsgradState(jnp.zeros((), jnp.int32), *moments)

    def update(
        grads: Params, state: AmsgradState, params: Params | None = None, *, good: Array | bool = True, **_: Any
    ) -> tuple[Params, AmsgradState]:
        """Update direction (to be scaled by minus the learning rate) and the next state."""
        step = state.step + 1
        steps = step.astype(jnp.float32)
        # 1 - b^t through expm1: in float32 the subtraction would lose five digits of 1 - 0.999.
        correction1 = -jnp.expm1(steps * math.log(b1))
        correction2 = -jnp.expm1(steps * math.log(b2))

        def pass_over(function: Callable[..., Array], old: Params, *others: Params) -> Params:
            """One pass over a moment: `function` of its leaves, or the old ones."""
            return computed_once(
                jax.tree.map(lambda leaf, *more: jnp.where(good, function(leaf, *more), leaf), old, *others)
            )

        grads = computed_once(grads)
        mu = pass_over(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = pass_over(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        nu_max = pass_over(jnp.maximum, state.nu_max, nu)
        root = jnp.sqrt(correction2)
        updates = jax.tree.map(lambda m, v: (m / correction1) / (jnp.sqrt(v) / root + eps), mu, nu_max)
        return updates, AmsgradState(jnp.where(good, step, state.step), mu, nu, nu_max)

    return optax.GradientTransformationExtraArgs(init, update)


def build_optimizer(
    config: OptimizerConfig, learning_rate: Scalar, weight_decay: Scalar
) -> optax.GradientTransformationExtraArgs:
    """The whole chain: L2 added to the gradient, amsgrad, minus the learning rate.

    The L2 term goes to the encoder and the output, to the embedding table unless `decay_embedding` is off, and to the
    attention parameters only if `decay_attention` is on.

    Args:
      config: which groups carry L2.
      learning_rate: scalar, may be traced: a new value compiles nothing.
      weight_decay: scalar, may be traced.

    Returns:
      An optax transformation over parameters with the groups embedding, encoder, attention, output.
    """
    decayed = {
        "embedding": config.decay_embedding,
        "encoder": True,
        "attention": config.decay_attention,
        "output": True,
    }

    def groups(params: Params) -> Params:
        """True on every leaf whose group carries L2."""
        return {name: jax.tree.map(lambda _, name=name: decayed[name], group) for name, group in params.items()}

    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=groups),
        scale_by_torch_amsgrad(),
        optax.scale_by_learning_rate(learning_rate),
    )
