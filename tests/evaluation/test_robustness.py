"""Attacked and certified predictions against every corner of the ball in float64, and by hand."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.evaluation.checks import checks
from flax_attnat.evaluation.robustness import (
    attack_scores,
    attended_radius,
    certified_radius,
    certify_scores,
    within_ball,
)
from flax_attnat.models.build import build
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.typing import Encoded
from tests.evaluation import reference
from tests.models import reference as pairs
from tests.models.small import VOCABULARY, as_batch, initial, random_batch, random_pairs, small, small_pair
from tests.training.reference import float64

INF, NAN = math.inf, math.nan
RADII = np.array([0.0, 0.1, 0.4, 1.0, 3.0, INF], np.float32)
FIELDS = ("clean", "attacked", "alone", "fewer", "noise", "reverified")


@functools.cache
def single(classes):
    """A single-sequence model, and parameters under which no class is always predicted."""
    config, _ = small("vanilla", "average")
    model = build(config.model, EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY)), classes=classes)
    params = dict(initial(model, 1))
    logits = model.classify(params, encoded := encode(model, params, texts(classes)), model.score(params, encoded))
    output = params["output"]
    params["output"] = {"kernel": 8 * output["kernel"], "bias": 8 * (output["bias"] - jnp.mean(logits, axis=0))}
    params["attention"] = jax.tree.map(lambda x: 2 * x, params["attention"])
    return model, params


def texts(classes, count=60):
    """Texts of 0 to 6 words, and labels of all classes."""
    batch = random_batch(5, [n % 7 for n in range(count)], width=7)
    return batch._replace(label=jnp.asarray(np.random.default_rng(0).integers(0, classes, count), jnp.int32))


def encode(model, params, batch):
    """`Encoded` of a batch."""
    return model.encode(params, model.embed(params, batch), batch)


@functools.partial(jax.jit, static_argnames=("model", "order"))
def measured(model, params, batch, radii, order):
    """`Attacked` and what is certified."""
    found = attack_scores(model, params, batch, jax.random.key(3), radii, order=order, restarts=3)
    return found, certify_scores(model, params, batch, radii, order=order)


first_change = jax.jit(certified_radius, static_argnames="model")


def exact_scores_and_values(model, params, batch):
    """Scores `[n]` up to a shift, and values `[n, C']`, of every text in float64."""
    exact = reference.as_float64(jax.device_get(params))
    for row, length in zip(np.asarray(batch.tokens), np.asarray(batch.length), strict=True):
        words = exact["embedding"]["table"][row[:length]]
        states = reference.states(exact, words) @ exact["output"]["kernel"] + exact["output"]["bias"]
        yield np.log(reference.attention(exact, words)) if length else np.zeros(0), states, exact["output"]["bias"]


def predictions(scores, values, bias, deltas):
    """Classes `[M]` that a text has under changes `[M, n]` of its scores; the bias is among the values already."""
    if not len(scores):
        logits = np.broadcast_to(bias, (1, len(bias)))
    else:
        weights = np.exp(scores + deltas - (scores + deltas).max(-1, keepdims=True))
        logits = weights / weights.sum(-1, keepdims=True) @ values
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(-1)


def robust_at_corners(model, params, batch, radii, scale=lambda n: 1.0):
    """`[N, B]` whether a text is right at 0 and at every corner of the box of each radius; infinity stands for 60."""
    found = []
    for label, (scores, values, bias) in zip(
        np.asarray(batch.label), exact_scores_and_values(model, params, batch), strict=True
    ):
        n = len(scores)
        corners = np.array([*itertools.product([-1.0, 1.0], repeat=n), [0.0] * n])
        radius = [min(float(r), 60.0) * scale(n) for r in radii]
        found.append([(predictions(scores, values, bias, r * corners) == label).all() for r in radius])
    return np.array(found).T


@pytest.mark.parametrize("classes", [2, 3])
def test_certified_is_what_no_corner_of_the_box_changes_and_attacks_come_close(classes):
    """A mean under attention is extreme at a corner: 60 texts, up to 64 corners each, six radii."""
    model, params = single(classes)
    batch = texts(classes)
    found, certified = jax.device_get(measured(model, params, batch, RADII, INF))
    robust = robust_at_corners(model, params, batch, RADII)
    np.testing.assert_array_equal(certified, robust)
    assert not np.any(robust & ~found.attacked) and not np.any(found.attacked & ~found.clean)
    # From 0.1 to 3 the attack finds nearly all there is to find, and there is something to find.
    broken, missed = np.sum(found.clean & ~robust[1:5]), np.sum(found.attacked[1:5] & ~robust[1:5])
    assert missed <= 0.1 * broken and broken > 10
    assert 10 < certified.sum() < certified.size - 10 and found.reverified.all()
    assert all(check.held for check in checks(RADII, found, certified))


@pytest.mark.parametrize("classes", [2, 3])
def test_in_the_ball_of_order_2_certificates_are_sound_and_exact_for_two_words(classes):
    """Against 400 points of each sphere; two scores count by their difference alone, at most sqrt(2) radius."""
    model, params = single(classes)
    batch = texts(classes)
    found, certified = jax.device_get(measured(model, params, batch, RADII, 2))
    assert not np.any(certified & ~found.attacked) and not np.any(found.attacked & ~found.clean)
    two = np.asarray(batch.length) == 2
    robust = robust_at_corners(model, params, batch, RADII, lambda n: 1 / math.sqrt(2))
    np.testing.assert_array_equal(certified[:, two], robust[:, two])
    np.testing.assert_array_equal(found.attacked[:5, two], robust[:5, two])
    rng = np.random.default_rng(1)
    for row, exact in enumerate(exact_scores_and_values(model, params, batch)):
        directions = rng.normal(size=(400, len(exact[0])))
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
        for radius, proven in zip(RADII[:5], certified[:5, row], strict=True):
            right = predictions(*exact, radius * directions) == batch.label[row]
            assert right.all() or not proven
    assert all(check.held for check in checks(RADII, found, certified))


@functools.cache
def by_hand():
    """Scores 0 and values 2 and -1 over two words, `z = 3 a_1 - 1`: class 0 once `s_2 - s_1 > ln 2`."""
    values = jnp.array([[[2.0], [-1.0]]])

    def classify(params, encoded, scores, key=None):
        """Logits of the softmax in full."""
        return jnp.einsum("bt,btc->bc", jax.nn.softmax(scores, axis=-1), encoded.states)

    return Model(
        init=lambda key: {},
        table=lambda params: values[0],
        tokens=lambda batch: (batch.tokens, batch.tokens > 0),
        embed=lambda params, batch, key=None: values,
        encode=lambda params, words, batch: Encoded(words, batch.tokens > 0),
        score=lambda params, encoded: jnp.zeros(encoded.mask.shape),
        classify=classify,
        values=lambda params, encoded: (encoded.states, jnp.zeros(1)),
    )


@pytest.mark.parametrize(("order", "border"), [(INF, math.log(2) / 2), (2, math.log(2) / math.sqrt(2))])
def test_a_model_by_hand_breaks_where_the_difference_of_scores_is_ln_2(order, border):
    radii = np.array([0.99 * border, 1.02 * border, 0.5 * border, 20.0], np.float32)
    right, wrong = (as_batch([[3, 4]], [label], [1.0], 2) for label in (1, 0))
    found, certified = measured(by_hand(), {}, right, radii, order)
    assert found.clean.all()
    np.testing.assert_array_equal(found.attacked[:, 0], [True, False, True, False])
    np.testing.assert_array_equal(certified[:, 0], [True, False, True, False])
    never, uncertified = measured(by_hand(), {}, wrong, radii, order)
    assert not never.clean.any() and not never.attacked.any() and not uncertified.any()
    # The prediction's radius does not ask whether it is right.
    for batch in (right, wrong):
        np.testing.assert_allclose(first_change(by_hand(), {}, batch), [math.log(2) / 2], rtol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_certified_radius_is_where_the_first_corner_changes_the_prediction(classes):
    """Just inside of it no corner does, just outside one does; infinite where none does with all weight on one word."""
    model, params = single(classes)
    batch = texts(classes)
    encoded = encode(model, params, batch)
    logits = np.asarray(model.classify(params, encoded, model.score(params, encoded)))
    predicted = logits.argmax(-1) if classes > 2 else (logits[:, 0] > 0).astype(int)
    batch = batch._replace(label=jnp.asarray(predicted, jnp.int32))
    radius = np.asarray(first_change(model, params, batch))
    endless = robust_at_corners(model, params, batch, [INF])[0]
    np.testing.assert_array_equal(np.isinf(radius), endless)
    assert endless[np.asarray(batch.length) < 2].all() and 10 < np.sum(endless) < 50
    for row in np.flatnonzero(~endless):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], batch)
        around = robust_at_corners(model, params, alone, [radius[row] * 0.999 - 1e-4, radius[row] * 1.001 + 1e-4])
        np.testing.assert_array_equal(around[:, 0], [True, False])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_radius_of_scores_and_values_of_ones_own_is_the_same(classes):
    """Without a model: from what a linear readout of attended states is made of; padding is not read."""
    model, params = single(classes)
    batch = texts(classes)
    encoded = encode(model, params, batch)
    scores, (values, bias) = model.score(params, encoded), model.values(params, encoded)
    poison = (jnp.where(encoded.mask, scores, jnp.nan), jnp.where(encoded.mask[..., None], values, jnp.nan))
    found = jax.jit(attended_radius)(*poison, bias, encoded.mask)
    np.testing.assert_allclose(found, first_change(model, params, batch), rtol=1e-4, atol=1e-5)
    assert np.isnan(attended_radius(scores.at[0, 0].set(jnp.nan), values, bias, jnp.ones_like(encoded.mask))[0])


def test_radius_0_and_rows_that_attention_cannot_change():
    """Nothing moves at 0. A text without words, or with one, is certified at infinity where it is right."""
    model, params = single(2)
    batch = texts(2)
    for order in (2, INF):
        found, certified = jax.device_get(measured(model, params, batch, RADII, order))
        for field in (found.attacked, found.alone, found.fewer, found.noise, certified):
            np.testing.assert_array_equal(field[0], found.clean)
        short = np.asarray(batch.length) < 2
        for field in (found.attacked, found.noise, certified):
            np.testing.assert_array_equal(field[:, short], np.broadcast_to(found.clean[short], (6, short.sum())))
        assert 0 < found.clean[short].sum() < short.sum()


def test_radii_come_in_any_order_and_attacked_is_cumulative():
    """Each radius is attacked as if it were alone; `attacked` then joins what is not larger."""
    model, params = single(3)
    batch = texts(3)
    order = np.array([3, 0, 5, 2, 4, 1])
    (found, certified), (mixed, shuffled) = (
        jax.device_get(measured(model, params, batch, radii, 2)) for radii in (RADII, RADII[order])
    )
    for field in FIELDS[1:]:
        np.testing.assert_array_equal(getattr(mixed, field), getattr(found, field)[order])
    np.testing.assert_array_equal(shuffled, certified[order])
    np.testing.assert_array_equal(found.attacked, found.clean & np.logical_and.accumulate(found.alone))


@pytest.mark.parametrize("entities", [False, True])
def test_a_pair_model_is_attacked_and_not_certified(entities):
    """Two words of a passage leave one weight to choose: a fine grid of it is the truth, in float64."""
    _, model = small_pair("vanilla", "average", entities=entities)
    params = initial(model)
    params = params | {"output": jax.tree.map(lambda x: 4 * x, params["output"])}
    rng = np.random.default_rng(2)
    rows = [random_pairs(seed) for seed in range(12)]
    batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    tokens = rng.choice([3, 4, 5, 9], (48, 7)) * (np.arange(7) < 2)[None, :]
    batch = batch._replace(tokens=jnp.asarray(tokens, jnp.int32), length=jnp.full((48,), 2, jnp.int32))
    radii = np.array([0.0, 0.3, 1.0, 4.0], np.float32)
    found, certified = jax.device_get(measured(model, params, batch, radii, INF))
    assert certified is None and certified_radius(model, params, batch) is None
    exact, table = float64(params), float64(params)["embedding"]["table"]
    robust = np.zeros((4, 48), bool)
    for row in range(48):
        words = table[tokens[row, :2]]
        asked = table[np.asarray(batch.query)[row, : int(batch.query_length[row])]]
        scores, _ = pairs.forward_words(exact, words, asked)
        named = {{3: 0, 4: 1, 9: 1, 5: 2}[word] for word in tokens[row, :2]}
        possible = np.array([not entities or c in named for c in range(3)])
        for place, radius in enumerate(radii):
            gap = scores[0] - scores[1] + 2 * radius * np.linspace(-1, 1, 201)
            logits = [pairs.forward_words(exact, words, asked, np.array([w, 1 - w]))[1] for w in 1 / (1 + np.exp(-gap))]
            robust[place, row] = (np.where(possible, logits, -INF).argmax(-1) == batch.label[row]).all()
    # The margin has local maxima along the line: a text or two may hold out.
    assert not np.any(robust & ~found.attacked) and np.sum(found.attacked & ~robust) <= 3
    assert np.sum(found.clean & ~robust[-1]) > 1 and robust[-1].sum() > 1 and found.reverified.all()
    assert all(check.held for check in checks(radii, found, certified))


def test_a_run_without_numbers_is_wrong_throughout_and_leaves_the_others_alone():
    """Two runs of a BiLSTM under vmap, of which the second was frozen with a NaN in its output layer."""
    _, model = small("vanilla", "bilstm")
    params, batch = initial(model), random_batch(1, (6, 2, 0, 1, 5, 4))
    frozen = params | {"output": jax.tree.map(lambda x: x * jnp.nan, params["output"])}
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, frozen)
    keys, radii = jnp.stack([jax.random.key(3)] * 2), RADII[1:]

    def one(params, key):
        """Everything that is measured of a run."""
        found = attack_scores(model, params, batch, key, radii, order=2, steps=8, restarts=2)
        return found, certify_scores(model, params, batch, radii, order=2), certified_radius(model, params, batch)

    every = jax.jit(jax.vmap(one))
    found, certified, radius = jax.device_get(every(both, keys))
    twice = jax.device_get(every(jax.tree.map(lambda x: jnp.stack([x, x]), params), keys))
    for field, expected in zip((*found, certified, radius), (*twice[0], *twice[1:]), strict=True):
        np.testing.assert_array_equal(field[0], expected[0])
        np.testing.assert_array_equal(expected[0], expected[1])
    for field in FIELDS[:-1]:
        assert not getattr(found, field)[1].any()
    assert not certified[1].any() and np.isnan(radius[1]).all() and found.reverified.all()
    assert found.clean[0].any() and certified[0].any() and not np.isnan(radius[0]).any()


@pytest.mark.parametrize("order", [2, INF])
def test_noise_is_uniform_on_the_sphere_or_in_the_box(order):
    """A model that predicts class 1 up to a size of the change: its norm, or twice the mean of a uniform magnitude."""

    def classify(params, encoded, scores, key=None):
        """1 less the size, one logit."""
        magnitude = jnp.where(encoded.mask, jnp.abs(scores), 0)[:, :1000]
        most = jnp.sqrt(jnp.sum(magnitude**2, -1)) if order == 2 else 2 * jnp.mean(magnitude, -1)
        return (1 - most)[:, None]

    model = by_hand()._replace(classify=classify, values=None, embed=lambda *_: jnp.zeros((1, 1004, 1)))
    batch = as_batch([[3] * 1000], [1], [1.0], 1004)
    radii = np.array([0.0, 0.95, 1.05], np.float32)
    found, _ = measured(model, {}, batch, radii, order)
    np.testing.assert_array_equal(found.noise[:, 0], [True, True, False])


def test_padding_is_not_read():
    """A word behind the end of every text: the same random starts and noise, and the same figures."""
    model, params = single(3)
    batch = texts(3)
    real = jnp.arange(7)[None, :] < batch.length[:, None]
    filled = batch._replace(tokens=jnp.where(real, batch.tokens, 11))
    found, other = (jax.tree.leaves(measured(model, params, x, RADII, INF)) for x in (batch, filled))
    for ours, theirs in zip(found, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_norms_are_refused():
    model, params = single(2)
    for function in (functools.partial(attack_scores, key=jax.random.key(0)), certify_scores):
        with pytest.raises(ValueError, match="order 2 or infinity; got 1"):
            function(model, params, texts(2), radii=RADII, order=1)


@pytest.mark.parametrize("order", [2, INF])
def test_a_change_outside_of_the_ball_or_on_padding_is_not_allowed(order):
    """Norms by NumPy in float64, a little to either side of the radius; padding counts by being 0, not by its size."""
    rng = np.random.default_rng(3)
    mask = np.arange(9)[None, :] < np.array([0, 1, 4, 9])[:, None]
    delta = np.where(mask, rng.normal(size=(4, 9)), 0)
    norm = np.linalg.norm(delta, ord=order, axis=-1)
    for size in (1e-25, 1.0, 1e25):
        for factor, expected in ((1 - 1e-6, True), (1 + 5e-6, True), (1 + 2e-5, False), (3.0, False)):
            scaled = jnp.asarray(delta * (size * factor / np.where(norm > 0, norm, 1))[:, None], jnp.float32)
            found = within_ball(scaled, jnp.asarray(mask), jnp.float32(size), order=order)
            np.testing.assert_array_equal(found, [True, expected, expected, expected])
    padded = jnp.asarray(np.where(mask, delta, 1e-30), jnp.float32)
    found = within_ball(padded, jnp.asarray(mask), jnp.float32(INF), order=order)
    np.testing.assert_array_equal(found, [False, False, False, True])
    unreal = jnp.asarray(np.where(mask & (np.arange(9) == 3)[None, :], NAN, delta), jnp.float32)
    found = within_ball(unreal, jnp.asarray(mask), jnp.float32(INF), order=order)
    np.testing.assert_array_equal(found, [True, True, False, False])
    assert within_ball(jnp.zeros((2, 0)), jnp.zeros((2, 0), bool), jnp.float32(0), order=order).all()


def test_attacks_at_what_is_no_radius_are_not_reverified():
    """No change of the scores is within a negative distance, or one that is not a number."""
    model, params = single(2)
    found, _ = measured(model, params, texts(2), np.array([0.5, -1.0, NAN], np.float32), INF)
    np.testing.assert_array_equal(np.all(found.reverified, axis=1), [True, False, False])
    assert not np.any(found.reverified[1:])
