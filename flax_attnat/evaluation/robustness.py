"""Robustness of the attention scores of one run: accuracy under attack, what is certified, and whether the two fit.

Axes: N radii, B batch, T tokens, C classes, P classes that a prediction could change to. Texts are encoded once (also
by several of these functions, if one compiled program calls them); an attack moves their scores. Radii and restarts run
one after another, in the memory of one: their number is bounded by time alone.
A row without tokens (or with one) is predicted from the bias (and that token) whatever the scores are: attacks and
noise leave it as it is. A row whose logits are not numbers is wrong, with and without attack, and not certified.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.evaluation.prediction import predicted_classes
from flax_attnat.evaluation.readout import build_readout, margins
from flax_attnat.models.model import Model, probabilities
from flax_attnat.perturbation.attack import OVERSHOOT, pgd
from flax_attnat.perturbation.attention import normal, random_perturbation
from flax_attnat.perturbation.certificate import certify_attention
from flax_attnat.perturbation.geometry import Ball
from flax_attnat.typing import Array, Batch, Params

LINF, L2 = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0), (0.5, 1.0, 2.0, 5.0, 10.0)
"""Radii worth measuring, of order infinity and 2; a score is a logit of the attention."""

# What a logit may be off in float32, as a share of the largest number that it is a mean of, and at least.
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
      reverified: `[N, B]` whether the forward pass says of the attack what the search said: broken, or not.
    """

    clean: Array | np.ndarray
    attacked: Array | np.ndarray
    alone: Array | np.ndarray
    fewer: Array | np.ndarray
    noise: Array | np.ndarray
    reverified: Array | np.ndarray


class Check(NamedTuple):
    """One condition that a sound evaluation of robustness meets.

    Attributes:
      name: the condition.
      held: whether it is met.
      detail: the counts it was decided by.
    """

    name: str
    held: bool
    detail: str


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
    scores, ball = model.score(params, encoded), Ball(ord=order)
    readout = build_readout(model, params, encoded)
    search_key, noise_key = jax.random.split(key)

    def right(delta: Array) -> Array:
        """Whether the forward pass with `delta` `[B, T]` on the scores predicts the labels, `[B]`."""
        return _right(model.classify(params, encoded, scores + delta), batch.label)

    def loss_fn(delta: Array) -> Array:
        """Margins `[B]`."""
        return margins(readout(scores + delta), batch.label)

    def search(radius: Array, steps: int) -> Array:
        """The worst change of the scores `[B, T]` that some steps find."""
        return pgd(loss_fn, scores, encoded.mask, radius, steps=steps, key=search_key, restarts=restarts, ball=ball)

    def at(radius: Array) -> tuple[Array, ...]:
        """The fields from `alone` on, `[B]` each."""
        worst = search(radius, steps)
        alone, said = right(worst), _right(readout(scores + worst), batch.label)
        point = _random_point(noise_key, encoded.mask, jnp.where(jnp.isinf(radius), steps / OVERSHOOT, radius), ball)
        return alone, right(search(radius, max(1, steps // 4))), right(point), alone == said

    radii_N = jnp.asarray(radii, jnp.float32)
    clean = right(jnp.zeros_like(scores))
    alone, fewer, noise, reverified = jax.lax.map(at, radii_N)
    smaller_NxN = radii_N[None, :] <= radii_N[:, None]
    attacked = clean[None, :] & jnp.all(alone[None, :, :] | ~smaller_NxN[:, :, None], axis=1)
    return Attacked(clean, attacked, alone, fewer, noise, reverified)


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
    leads = _leads(*model.values(params, encoded), mask, predicted_classes(probabilities(logits)))

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


def checks(radii: Sequence[float] | np.ndarray, found: Attacked, certified: np.ndarray | None) -> list[Check]:
    """What must hold of one run's figures if they measure robustness rather than weak attacks.

    Steps, radii and noise are compared by the accuracy under the attack at each radius alone; what is certified,
    attacked and clean, text by text.

    Args:
      radii: `[N]`, in any order.
      found: NumPy arrays of a whole split, B its texts.
      certified: `[N, B]` bool; None: not certified, which is checked as if nothing were.

    Source: Carlini et al. 2019, sections 3-5.
    """
    found = Attacked(*(np.asarray(x) for x in found))
    alone, fewer, noise = (np.sum(x, axis=-1) for x in (found.alone, found.fewer, found.noise))
    ranked = alone[np.argsort(np.asarray(radii, np.float64), kind="stable")]
    unseen = np.sum(~found.reverified)
    broken = 0 if certified is None else np.sum(certified & ~found.attacked)
    revived = np.sum(found.attacked & ~found.clean[None, :])

    def at_radii(name: str, fine: np.ndarray) -> Check:
        """A comparison made once a radius."""
        return Check(name, bool(fine.all()), f"not so at {np.sum(~fine)} of {len(fine)} radii")

    proof = f"{broken} certified but broken, {revived} wrong only without attack, of {np.size(found.alone)}"
    return [
        at_radii("more steps are never weaker", alone <= fewer),
        at_radii("a larger radius is never safer", np.diff(ranked, prepend=ranked[:1]) <= 0),
        at_radii("random noise is weaker than the attack", noise >= alone),
        Check(
            "a forward pass sees what the attack saw", bool(unseen == 0), f"{unseen} of {np.size(found.alone)} do not"
        ),
        Check("certified <= attacked <= clean", bool(broken + revived == 0), proof),
    ]


def protocol(found: Sequence[Check]) -> list[str]:
    """Sentences about the `checks` that one run's figures violate; empty where all hold."""
    return [f"The check '{check.name}' does not hold: {check.detail}." for check in found if not check.held]


def check_lines(found: Sequence[Check]) -> list[str]:
    """One line a check, with its counts."""
    return [f"{'holds' if check.held else 'VIOLATED':<8}  {check.name}: {check.detail}" for check in found]


def _check_order(order: float) -> None:
    """Raises ValueError for a norm that robustness is not measured in."""
    if order not in (2, math.inf):
        raise ValueError(f"robustness is measured in balls of order 2 or infinity; got {order!r}.")


def _right(logits: Array, label: Array) -> Array:
    """Whether logits `[B, C']` predict the labels `[B]`; those with a NaN do not."""
    return (predicted_classes(probabilities(logits)) == label) & ~jnp.any(jnp.isnan(logits), axis=-1)


def _random_point(key: Array, mask: Array, radius: Array, ball: Ball) -> Array:
    """A point `[B, T]` uniform on the sphere (order 2) or in the box of a finite radius; zero on padding."""
    like = jnp.zeros(mask.shape, jnp.float32)
    if ball.ord == 2:
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
    size = jnp.max(jnp.where(mask[:, None, :], jnp.abs(lead), 0), axis=-1) + jnp.abs(offset)
    return _Leads(lead, offset, jnp.where(itself, -jnp.inf, ROUNDING * size + SMALLEST))


def _keeps(leads: _Leads, scores: Array, mask: Array, radius: Array) -> Array:
    """Whether the class leads every other one for all scores within `radius` `[B]` of `scores` `[B, T]`; `[B]`."""
    shape = leads.values.shape
    box = jnp.broadcast_to(radius[:, None], shape[:2])
    least, _ = certify_attention(jnp.broadcast_to(scores[:, None, :], shape), leads.values, mask[:, None, :], box)
    return jnp.all(least + leads.bias > leads.enough, axis=-1)
