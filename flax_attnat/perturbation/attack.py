"""Attacks that measure robustness: projected gradient ascent, and accuracy under it at growing radii.

`B` batch, `T` tokens, `*rest` the axes of a delta after B, `N` radii, `C` classes. Training takes one step (the other
modules of this folder); an attack takes many, starts again elsewhere, and keeps the worst point that it has met.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from flax_attnat.perturbation.attention import normal
from flax_attnat.perturbation.geometry import (
    Ball,
    Mask,
    broadcast_mask,
    check_losses,
    project,
    scale_to,
    unit,
    without_outer_gradients,
)
from flax_attnat.perturbation.precision import round_toward_zero, wide_dtype
from flax_attnat.typing import LossFn, Scalar

OVERSHOOT = 2.5
"""Length of all default steps together, in radii: enough to reach any point of the ball from any other, and turn."""


class RobustnessCurve(NamedTuple):
    """Accuracy without attack and under attacks of growing radius; of one batch.

    For a whole split, concatenate the per-example fields over its batches and take their means.

    Attributes:
      epsilons: `[N]` radii, in the order they were given.
      clean: accuracy without attack, a scalar.
      attacked: `[N]` accuracy under attack at each radius; never rises with the radius, never exceeds `clean`.
      correct_clean: `[B]` bool, the prediction without attack is the label.
      correct_attacked: `[N, B]` bool, it still is under the attacks at this and every smaller radius.

    >>> import jax.numpy as jnp
    >>> from flax_attnat.perturbation.attack import robustness_curve
    >>> logits = lambda delta: jnp.stack([jnp.zeros(2), jnp.array([1.0, 3.0]) + delta.sum(-1)], axis=-1)
    >>> loss_fn = lambda delta: -logits(delta)[:, 1]
    >>> curve = robustness_curve(logits, loss_fn, jnp.zeros((2, 1)), None, jnp.array([1, 1]), [0.5, 2.0, 4.0])
    >>> curve.correct_attacked
    Array([[ True,  True],
           [False,  True],
           [False, False]], dtype=bool)
    """

    epsilons: Array
    clean: Array
    attacked: Array
    correct_clean: Array
    correct_attacked: Array


def pgd(
    loss_fn: LossFn,
    like: Float[Array, "*shape"],
    mask: Mask,
    epsilon: Scalar,
    *,
    steps: int = 20,
    step_size: Scalar | None = None,
    key: Key[Array, ""] | UInt32[Array, "2"] | None = None,
    restarts: int = 1,
    ball: Ball = Ball(),
) -> Float[Array, "*shape"]:
    """Worst perturbation in a ball that projected gradient ascent finds.

    `r <- project(r + step_size unit(grad L(r)), epsilon)`, `steps` times from 0 and, for every further restart, from a
    point drawn uniformly from the ball. Each example keeps the delta of largest loss among all points visited, 0
    included, so that its loss is never below the clean one. What has been found is a lower bound of the worst case,
    never a proof of robustness. Memory does not grow with steps or restarts, and no second derivative is taken.

    Args:
      loss_fn: `loss_fn(delta) -> [B]` losses, examples independent. To change predictions among more than two classes,
        a margin (largest other logit minus the label's) finds more than the cross-entropy.
      like: `[B, *rest]` what is perturbed (scores or word vectors); only its shape and dtype are read.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `like`; with three axes where
        `[B, T]` fits two of them (T = E, say). None: all are real.
      epsilon: radius of the ball, >= 0: a float, a tracer or `[B]`. An infinite radius projects nothing, and 0.4 steps
        stands for it in the default step size (then 1) and the random starts (0.4 steps of `step_size`).
      steps: gradient steps from each start, at least 1; a start costs `steps + 1` gradients.
      step_size: norm of a step, > 0: a float, a tracer or `[B]`. None: `2.5 epsilon / steps`.
      key: random key, consumed; needed for more than one restart. The first n of m restarts are those of n alone.
      restarts: number of starts, at least 1.
      ball: order and axes of the norm; that of `word_at`, over all words `[T, E]` of a text, is
        `fa.Ball(axes=(-2, -1))`, where the default is a norm for each word.

    Returns:
      `[B, *rest]` perturbation of `like`'s dtype, of norm at most epsilon, zero where the mask is false, constant for
      gradients (`stop_gradient`). It is 0 where nothing raised the loss and where the clean loss is not finite. A loss
      that is not finite is never the largest; an ascent stands still where its gradient is zero or not finite.

    Raises:
      ValueError: `steps` or `restarts` below 1, restarts without a key, a Python `step_size` that is not positive and
        finite, losses that are not `[B]`, a mask that does not fit, an unknown order, or a Python or NumPy `epsilon`
        that is negative or NaN.

    Source: Madry et al. 2018, section 2.1; Carlini et al. 2019 (many steps, restarts, every iterate a candidate).

    >>> import jax, jax.numpy as jnp
    >>> from flax_attnat.perturbation.attack import pgd
    >>> scores, values = jnp.zeros((1, 3)), jnp.array([2.0, 1.0, 0.0])
    >>> loss_fn = lambda delta: jax.nn.softmax(scores + delta) @ values
    >>> r = pgd(loss_fn, scores, None, 3.0, key=jax.random.key(0), restarts=2)
    >>> r.round(1), loss_fn(r).round(2)
    (Array([[ 2.4, -1. , -1.4]], dtype=float32), Array([1.93], dtype=float32))
    """
    _check_search(steps, step_size, key, restarts)
    real = broadcast_mask(mask, like)
    zero = jnp.zeros_like(like, wide_dtype(like))
    # A gradient with respect to epsilon, through the steps, would ask for second derivatives of the loss.
    epsilon = jax.lax.stop_gradient(epsilon) if isinstance(epsilon, jax.Array) else epsilon
    step, reach = _step_and_reach(epsilon, step_size, steps, zero.dtype)
    losses_at = without_outer_gradients(loss_fn, jnp.zeros_like(like))

    def visit(worst: _Worst, delta: Array) -> tuple[_Worst, Array]:
        """The worst point up to `delta` `[B, *rest]`, and the gradient there."""
        narrow = round_toward_zero(delta, like.dtype)
        losses, pull_back = jax.vjp(losses_at, narrow)
        return _worse(worst, losses, narrow), pull_back(jnp.ones_like(losses))[0]

    def climb(carry: tuple[Array, Array, _Worst], _: None) -> tuple[tuple[Array, Array, _Worst], None]:
        """One step along a gradient of the step before."""
        # The gradient is carried, thus stored: a compiler that made it twice, rounded in two ways, within a step could
        # find no entry of it equal to its largest (order 1).
        delta, g, worst = carry
        uphill = scale_to(unit(g, mask=real, ball=ball), step, delta.dtype)
        delta = project(delta + uphill, epsilon, mask=real, ball=ball)
        worst, g = visit(worst, delta)
        return (delta, g, worst), None

    def ascend(worst: _Worst, index: Array) -> tuple[_Worst, None]:
        """The ascent from start `index`."""
        start = zero
        if key is not None and restarts > 1:
            point = _uniform(jax.random.fold_in(key, index), zero, real, ball)
            start = jnp.where(index == 0, zero, project(scale_to(point, reach), epsilon, mask=real, ball=ball))
        worst, g = visit(worst, start)
        return jax.lax.scan(climb, (start, g, worst), length=steps)[0][-1], None

    clean = losses_at(jnp.zeros_like(like))
    check_losses(clean, like)
    clean = jnp.where(jnp.isfinite(clean), clean, jnp.inf)  # nothing is larger
    worst = _Worst(clean.astype(wide_dtype(clean)), jnp.zeros_like(like))
    return jax.lax.stop_gradient(jax.lax.scan(ascend, worst, jnp.arange(restarts))[0].delta)


def robustness_curve(
    predict_fn: Callable[[Array], Array],
    loss_fn: LossFn,
    like: Float[Array, "B *rest"],
    mask: Mask,
    labels: Int[Array | np.ndarray, "..."],
    epsilons: Sequence[float] | Float[Array | np.ndarray, "N"],
    *,
    attack: Callable[..., Array] = pgd,
    key: Key[Array, ""] | UInt32[Array, "2"] | None = None,
) -> RobustnessCurve:
    """Accuracy under attack as a function of the attack's radius.

    `attacked(epsilon) = mean_b [predict(r_b(e)) = label_b for every given e <= epsilon, and for 0]`: an example is
    broken at a radius if it is wrong without attack, or if a perturbation found at this or any smaller radius makes it
    wrong. A perturbation that fits in a small ball fits in a larger one, so the curve cannot rise with the radius
    through a weak attack at the larger one. Each perturbation is judged by a forward pass of its own.

    Args:
      predict_fn: `predict_fn(delta)`: `[B]` integer or boolean classes, or `[B, C]` logits or probabilities, of which
        the largest is the class; a row with NaN among them is wrong.
      loss_fn: `loss_fn(delta) -> [B]` losses that the attack raises, examples independent.
      like: `[B, *rest]` what is perturbed; only its shape and dtype are read.
      mask: true on real entries; `[B, T]` or anything that broadcasts to `like`; with three axes where
        `[B, T]` fits two of them (T = E, say). None: all are real.
      labels: `[B]` classes.
      epsilons: `[N]` radii, >= 0, in any order; all run in one compiled program, one after another.
      attack: `attack(loss_fn, like, mask, epsilon) -> delta`, a delta within its ball; options by `functools.partial`.
      key: random key, consumed; where given, the attack at every radius is called with `key=key`.

    Returns:
      `RobustnessCurve`: accuracies, and per example what is correct, so that certified <= attacked <= clean can be
      checked row by row.

    Raises:
      ValueError: a prediction of another kind, labels that are not `[B]`, a Python or NumPy radius that is negative or
        NaN, or what the attack raises.

    Source: Carlini et al. 2019, sections 3-5 (curves over the radius, per-example worst case); Madry et al. 2018.

    >>> import jax.numpy as jnp
    >>> from flax_attnat.perturbation.attack import robustness_curve
    >>> margin = lambda delta: jnp.array([1.0, 3.0]) + delta.sum(-1)
    >>> labels, loss_fn = jnp.array([1, 1]), lambda delta: -margin(delta)
    >>> curve = robustness_curve(lambda d: margin(d) > 0, loss_fn, jnp.zeros((2, 1)), None, labels, [0.0, 2.0, 4.0])
    >>> curve.attacked
    Array([1. , 0.5, 0. ], dtype=float32)
    """
    _check_radii(epsilons)
    radii_N = jnp.asarray(epsilons, wide_dtype(like))
    labels_B = jnp.asarray(labels, jnp.int32)
    options = {} if key is None else {"key": key}

    def correct(delta: Array) -> Array:
        """Whether the prediction under `delta` `[B, *rest]` is the label, `[B]`."""
        classes_B = _classes(predict_fn(delta))
        if classes_B.shape != labels_B.shape:
            raise ValueError(f"labels must be one a prediction, {classes_B.shape}; their shape is {labels_B.shape}.")
        return classes_B == labels_B

    clean_B = correct(jnp.zeros_like(like))
    held_NxB = jax.lax.map(lambda epsilon: correct(attack(loss_fn, like, mask, epsilon, **options)), radii_N)
    within_NxN = radii_N[None, :] <= radii_N[:, None]
    held_NxB = jnp.all(held_NxB[None, :, :] | ~within_NxN[:, :, None], axis=1) & clean_B[None, :]
    return RobustnessCurve(radii_N, jnp.mean(clean_B), jnp.mean(held_NxB, axis=-1), clean_B, held_NxB)


class _Worst(NamedTuple):
    """The point of largest loss so far.

    Attributes:
      loss: `[B]` loss there, float32 or wider.
      delta: `[B, *rest]` the point.
    """

    loss: Array
    delta: Array


def _worse(worst: _Worst, losses: Array, delta: Array) -> _Worst:
    """`worst`, with the rows of `losses` `[B]` and `delta` `[B, *rest]` where the loss is finite and larger."""
    losses = losses.astype(worst.loss.dtype)
    wins = jnp.isfinite(losses) & (losses > worst.loss)
    rows = wins.reshape(wins.shape + (1,) * (delta.ndim - 1))
    return _Worst(jnp.where(wins, losses, worst.loss), jnp.where(rows, delta, worst.delta))


def _step_and_reach(epsilon: Scalar, step_size: Scalar | None, steps: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Norm of a step, and radius that random starts are drawn from; both finite, scalars or `[B]`."""
    radius = jnp.asarray(epsilon, dtype)
    endless = jnp.isinf(radius)
    step = jnp.where(endless, 1, radius * (OVERSHOOT / steps)) if step_size is None else jnp.asarray(step_size, dtype)
    return step, jnp.where(endless, step * (steps / OVERSHOOT), radius)


def _uniform(key: Array, like: Array, real: Array, ball: Ball) -> Array:
    """Points uniform in the unit ball, `[B, *rest]` as `like` `[B, *rest]`; zero where `real` is false.

    Entries of density `exp(-|x|^p)`, over the p-norm of themselves and of an exponential number more (Barthe et al.
    2005). A value depends on the key and the real entries' places alone: padding and other rows do not move it.
    """
    entries, first, second = jax.random.split(key, 3)
    z = jnp.where(real, normal(entries, like.shape).astype(like.dtype), 0)
    if ball.ord == math.inf:
        return jax.lax.erf(z * math.sqrt(0.5))
    slices = jnp.sum(z, axis=ball.axes, keepdims=True).shape
    radial = (jnp.square(normal(first, slices)) + jnp.square(normal(second, slices))).astype(like.dtype)
    if ball.ord == 1:
        laplace = -jnp.sign(z) * jnp.log(jax.lax.erfc(jnp.abs(z) * math.sqrt(0.5)))
        return laplace / (jnp.sum(jnp.abs(laplace), axis=ball.axes, keepdims=True) + radial / 2)
    return z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=ball.axes, keepdims=True) + radial)


def _classes(prediction: Array) -> Array:
    """Class ids `[B]` from ids `[B]`, or from scores `[B, C > 1]`: -1, which is no class, for scores with a NaN."""
    if prediction.ndim == 2 and prediction.shape[-1] > 1:
        best = jnp.argmax(prediction, axis=-1).astype(jnp.int32)
        return jnp.where(jnp.any(jnp.isnan(prediction), axis=-1), -1, best)
    if prediction.ndim == 1 and not jnp.issubdtype(prediction.dtype, jnp.floating):
        return prediction.astype(jnp.int32)
    raise ValueError(
        "predict_fn must return [B] integer or boolean classes, or [B, C] scores of two or "
        f"more; it returned {prediction.dtype} of shape {prediction.shape}. For one logit a row, return logit > 0, [B]."
    )


def _check_search(steps: int, step_size: Scalar | None, key: Array | None, restarts: int) -> None:
    """Raises ValueError for a search that cannot be run."""
    if steps < 1 or restarts < 1:
        raise ValueError(f"steps and restarts must be at least 1; got {steps} and {restarts}.")
    if restarts > 1 and key is None:
        raise ValueError(f"{restarts} restarts begin at random points: pass key=, or restarts=1 to begin at 0 alone.")
    if isinstance(step_size, int | float) and not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be a positive, finite number; got {step_size!r}.")


def _check_radii(epsilons: Sequence[float] | Array | np.ndarray) -> None:
    """Raises ValueError for a radius that is negative or NaN, where the radii are no JAX array."""
    if isinstance(epsilons, jax.Array):
        return
    wrong = [epsilon for epsilon in epsilons if isinstance(epsilon, int | float | np.number) and not epsilon >= 0]
    if wrong:
        raise ValueError(f"every radius must be a number that is not negative; got {wrong[0]!r}.")
