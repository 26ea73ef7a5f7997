"""Robustness of the attention scores of one run: accuracy under attack, what is certified, and whether the two fit.

Axes: N radii, B batch, T tokens, C classes, P classes that a prediction could change to. Texts are encoded once (also
by several of these functions, if one compiled program calls them); an attack moves their scores. Radii and restarts run
one after another, in the memory of one: their number is bounded by time alone.
A row without tokens (or with one) is predicted from the bias (and that token) whatever the scores are: attacks and
noise leave it as it is. A row whose logits are not numbers is wrong, with and without attack, and not certified.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.evaluation.readout import build_readout, margins
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.attack import OVERSHOOT, pgd
from flax_attnat.perturbation.attention import normal, random_perturbation
from flax_attnat.perturbation.certificate import certify_attention
from flax_attnat.perturbation.geometry import Ball, masked_softmax
from flax_attnat.typing import Array, Batch, Params

LINF, L2 = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0), (0.5, 1.0, 2.0, 5.0, 10.0)
"""Radii worth measuring, of order infinity and 2; a score is a logit of the attention."""

# What a logit, or a norm, may be off in float32, as a share of the largest number that it is made of, and at least.
ROUNDING, SMALLEST = 1e-5, 1e-6
# Scores that are this much lower than another have weight 0 in float32.
DROWNED, HALVINGS = 110.0, 40


class Attacked(NamedTuple):
    """Which texts of a batch, or of a split, are predicted rightly; bool.

    Attributes:
      clean: `[B]` without attack.
      attacked: `[N, B]` under the attacks at this and every smaller radius, and without; by a forward pass.
      alone: `[N, B]` under the attack at this radius alone.
      fewer: `[N, B]` under the same attack with a fourth of the steps.
      noise: `[N, B]` at one random point: uniform on the sphere (order 2) or in the box (order infinity).
      reverified: `[N, B]` whether the attack keeps to its ball and to real tokens, and the forward pass says of it what
        the search said: broken, or not.
    """

    clean: Array | np.ndarray
    attacked: Array | np.ndarray
    alone: Array | np.ndarray
    fewer: Array | np.ndarray
    noise: Array | np.ndarray
    reverified: Array | np.ndarray


def attack_scores(
    model: Model,
    params: Params,
    batch: Batch,
    key: Array,
    radii: Array | np.ndarray | Sequence[float],
    *,
    order: float,
    steps: int = 20,
    restarts: int = 4,
) -> Attacked:
    """Predictions of one run under attacks on its attention scores, at every radius.

    Projected gradient ascent on the margin, `max_(c != y) z_c - z_y`, over the ball `||r|| <= radius`.

    Args:
      model: single sequences or pairs.
      params: one run's parameters.
      batch: `[B, T]` tokens.
      key: random key, consumed.
      radii: `[N]`, >= 0, infinity included, in any order.
      order: of the norm, 2 or infinity.
      steps: gradient steps from each start.
      restarts: starts, the first at 0.

    Raises:
      ValueError: another order, or `steps` or `restarts` below 1.

    Source: Madry et al. 2018; Carlini et al. 2019, sections 3-5.
    """
    _check_order(order)
    encoded = model.encode(params, model.embed(params, batch), batch)
    scores, mask, readout = model.score(params, encoded), encoded.mask, build_readout(model, params, encoded)
    search_key, noise_key = jax.random.split(key)
    search = functools.partial(pgd, key=search_key, restarts=restarts, ball=Ball(ord=order))

    def loss_fn(delta: Array) -> Array:
        """Margins `[B]`."""
        return margins(readout(scores + delta), batch.label)

    def right(delta: Array) -> Array:
        """Whether the forward pass with `delta` `[B, T]` on the scores predicts the labels, `[B]`."""
        return _right(model.classify(params, encoded, scores + delta), batch.label)

    def at(radius: Array) -> tuple[Array, ...]:
        """The fields from `alone` on, `[B]` each."""
        worst, weaker = (search(loss_fn, scores, mask, radius, steps=n) for n in (steps, max(1, steps // 4)))
        alone, said = right(worst), _right(readout(scores + worst), batch.label)
        point = _random_point(noise_key, mask, jnp.where(jnp.isinf(radius), steps / OVERSHOOT, radius), order)
        reverified = (alone == said) & within_ball(worst, mask, radius, order=order)
        return alone, right(weaker), right(point), reverified

    clean, radii_N = right(jnp.zeros_like(scores)), jnp.asarray(radii, jnp.float32)
    alone, *others = jax.lax.map(at, radii_N)
    return Attacked(clean, _under_all(clean, alone, radii_N), alone, *others)


def certify_scores(
    model: Model, params: Params, batch: Batch, radii: Array | np.ndarray | Sequence[float], *, order: float
) -> Array | None:
    """Which predictions of one run are right, and stay so whatever is done to the scores within a ball.

    The least lead of the label over each other class, `z_y - z_c = sum_t a_t (v_ty - v_tc) + b_y - b_c`, over all
    scores of the ball must be positive. Its range over a box (order infinity) is exact but for rounding, and a
    prediction changes where one such lead ends: so what is not certified can be broken, but for leads within rounding
    of 0. The ball of order 2 is covered by the box of radius / sqrt(2): sound, not exact.

    Args:
      model: single sequences or pairs.
      params: one run's parameters.
      batch: `[B, T]` tokens.
      radii: `[N]`, >= 0, infinity included.
      order: of the norm, 2 or infinity.

    Returns:
      `[N, B]` bool; None for a pair model, whose logits are no mean under attention: not certified.

    Raises:
      ValueError: another order.
    """
    _check_order(order)
    if model.values is None:
        return None
    encoded = model.encode(params, model.embed(params, batch), batch)
    scores = model.score(params, encoded)
    leads = _leads(*model.values(params, encoded), encoded.mask, batch.label)
    box_Nx1 = jnp.asarray(radii, jnp.float32)[:, None] / (math.sqrt(2) if order == 2 else 1)
    box_NxB = jnp.broadcast_to(box_Nx1, (len(box_Nx1), len(scores)))
    return jax.lax.map(lambda box_B: _keeps(leads, scores, encoded.mask, box_B), box_NxB)


def certified_radius(model: Model, params: Params, batch: Batch) -> Array | None:
    """How far every score may move, at the least, before the prediction of one run changes, be it right or wrong.

    Args:
      model: single sequences or pairs.
      params: one run's parameters.
      batch: `[B, T]` tokens.

    Returns:
      `[B]` largest radius (order infinity) at which the prediction is certified, found by bisection from below: 0 where
      it is within rounding of another class, infinity where no scores change it, NaN where the logits are not numbers.
      None for a pair model: not certified.
    """
    if model.values is None:
        return None
    encoded = model.encode(params, model.embed(params, batch), batch)
    scores, mask = model.score(params, encoded), encoded.mask
    logits = model.classify(params, encoded, scores)
    return _radius(scores, *model.values(params, encoded), mask, logits)


def attended_radius(
    scores: Float[Array, "B T"],
    values: Float[Array, "B T C"],
    bias: Float[Array, "C"],
    mask: Bool[Array | np.ndarray, "B T"],
) -> Float[Array, "B"]:
    """How far every score of a model of your own may move, at the least, before its prediction changes.

    The largest r with `z_y > z_c` for every other class c and all scores within r of these, where
    `z = sum_t softmax(s)_t v_t + b` are the logits and y is the class of the largest; of one logit, whether it is
    above 0. A linear readout `R h + b` of attended states has the values `v_t = R h_t`.

    Args:
      scores: `[B, T]` attention scores, before the softmax.
      values: `[B, T, C]` what each token alone adds to the logits; C = 1 for one logit of two classes.
      bias: `[C]`.
      mask: `[B, T]`, true on real tokens.

    Returns:
      `[B]` largest radius (order infinity) at which the prediction is certified, found by bisection from below: 0 where
      it is within rounding of another class, infinity where no scores change it, NaN where the logits are not numbers.

    Source: the exact range of an attended value, `certify_attention`.

    >>> import jax.numpy as jnp
    >>> from flax_attnat.evaluation.robustness import attended_radius
    >>> values = jnp.array([[[3.0], [-1.0]], [[3.0], [1.0]]])
    >>> attended_radius(jnp.zeros((2, 2)), values, jnp.zeros(1), jnp.ones((2, 2), bool)).round(3)
    Array([0.549,   inf], dtype=float32)
    """
    real = jnp.asarray(mask).astype(bool)
    attended = jnp.where(real[..., None], masked_softmax(scores, real)[..., None] * values, 0)
    return _radius(scores, values, bias, real, jnp.sum(attended, axis=1) + bias[None, :])


def _radius(scores: Array, values: Array, bias: Array, mask: Array, logits: Array) -> Array:
    """`attended_radius` `[B]` of the class that logits `[B, C]` predict."""
    leads = _leads(values, bias, mask, predicted_classes(probabilities(logits)))

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        """Certified and other end `[B]` of half the interval."""
        low, high = ends
        kept = _keeps(leads, scores, mask, middle := (low + high) / 2)
        return jnp.where(kept, middle, low), jnp.where(kept, high, middle)

    highest, lowest = (jnp.max(jnp.where(mask, x, -jnp.inf), axis=-1, initial=-jnp.inf) for x in (scores, -scores))
    # From here on the worst tokens have all the weight, as at infinity.
    high = jnp.where(jnp.any(mask, axis=-1), (highest + lowest + DROWNED) / 2, 0)
    radius = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(high), high))[0]
    always = _keeps(leads, scores, mask, jnp.full_like(radius, jnp.inf))
    return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), jnp.nan, jnp.where(always, jnp.inf, radius))


def within_ball(delta: Array, mask: Array, radius: Array | float, *, order: float) -> Array:
    """Whether a change of the scores is one that an attack may make: `||delta|| <= radius`, and 0 on padding.

    Args:
      delta: `[B, T]`.
      mask: `[B, T]`, true on real tokens, which alone have a part in the norm.
      radius: scalar; may be exceeded by rounding, a share of 1e-5.
      order: of the norm, 2 or infinity.

    Returns:
      `[B]` bool, false where the norm is not a number; a row without real tokens has norm 0.

    >>> import jax.numpy as jnp
    >>> mask = jnp.array([[True, True, False]])
    >>> [bool(within_ball(jnp.array([[3.0, 4.0, x]]), mask, r, order=2)[0]) for x, r in ((0, 5), (0, 4.99), (1, 9))]
    [True, False, False]
    """
    size = jnp.abs(jnp.where(mask, delta, 0))
    norm = jnp.max(size, axis=-1, initial=0)
    if order == 2:
        # Squares of entries of size 1 do not overflow.
        unit = jnp.where(norm > 0, norm, 1)
        norm = norm * jnp.sqrt(jnp.sum((size / unit[:, None]) ** 2, axis=-1))
    return (norm <= radius * (1 + ROUNDING)) & jnp.all(mask | (delta == 0), axis=-1)


def _check_order(order: float) -> None:
    """Raises ValueError for a norm that robustness is not measured in."""
    if order not in (2, math.inf):
        raise ValueError(f"robustness is measured in balls of order 2 or infinity; got {order!r}.")


def _right(logits: Array, label: Array) -> Array:
    """Whether logits `[B, C']` predict the labels `[B]`; those with a NaN do not."""
    return (predicted_classes(probabilities(logits)) == label) & ~jnp.any(jnp.isnan(logits), axis=-1)


def _under_all(clean: Array, alone: Array, radii: Array) -> Array:
    """Whether a text is right without attack, `[B]`, and under each, `[N, B]`, up to a radius `[N]`; `[N, B]`."""
    smaller_NxN = radii[None, :] <= radii[:, None]
    return clean[None, :] & jnp.all(alone[None, :, :] | ~smaller_NxN[:, :, None], axis=1)


def _random_point(key: Array, mask: Array, radius: Array, order: float) -> Array:
    """A point `[B, T]` uniform on the sphere (order 2) or in the box of a finite radius; zero on padding."""
    like = jnp.zeros(mask.shape, jnp.float32)
    if order == 2:
        return random_perturbation(key, like, mask, radius)
    return jnp.where(mask, radius * jax.lax.erf(normal(key, like.shape) * math.sqrt(0.5)), 0)


class _Leads(NamedTuple):
    """By how much a class leads each other one, as a mean under attention.

    Attributes:
      values: `[B, P, T]` of each token alone.
      bias: `[B, P]`.
      enough: `[B, P]` the lead that rounding cannot have made; negative infinity for the class itself.
    """

    values: Array
    bias: Array
    enough: Array


def _leads(values: Array, bias: Array, mask: Array, classes: Array) -> _Leads:
    """Leads of `classes` `[B]`, from values `[B, T, C']`, the bias `[C']` and the mask `[B, T]`."""
    if values.shape[-1] == 1:
        sign = jnp.where(classes > 0, 1, -1).astype(values.dtype)[:, None]
        lead, offset = sign[:, :, None] * jnp.moveaxis(values, -1, 1), sign * bias[None, :]
        itself = jnp.zeros(offset.shape, bool)
    else:
        own = jnp.take_along_axis(values, classes[:, None, None], axis=-1) - values
        lead, offset = jnp.moveaxis(own, -1, 1), bias[classes][:, None] - bias[None, :]
        itself = classes[:, None] == jnp.arange(values.shape[-1])[None, :]
    size = jnp.max(jnp.where(mask[:, None, :], jnp.abs(lead), 0), axis=-1, initial=0.0) + jnp.abs(offset)
    return _Leads(lead, offset, jnp.where(itself, -jnp.inf, ROUNDING * size + SMALLEST))


def _keeps(leads: _Leads, scores: Array, mask: Array, radius: Array) -> Array:
    """Whether the class leads every other one for all scores within `radius` `[B]` of `scores` `[B, T]`; `[B]`."""
    shape = leads.values.shape
    box = jnp.broadcast_to(radius[:, None], shape[:2])
    least, _ = certify_attention(jnp.broadcast_to(scores[:, None, :], shape), leads.values, mask[:, None, :], box)
    return jnp.all(least + leads.bias > leads.enough, axis=-1)
