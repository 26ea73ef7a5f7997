"""Projected gradient ascent and robustness curves, against float64 NumPy, closed forms and what must never happen."""

import functools
import gc
import math
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import flax_attnat as fa
from flax_attnat.perturbation.attack import pgd, robustness_curve
from tests.perturbation.techniques import B, T, finite, logit, loss, problem

KEY = jax.random.key(11)
ORDERS = (1, 2, math.inf)
EPSILON = jnp.asarray([0.0, 0.1, 3.0, 20.0], jnp.float32)
ATTENTION = "attention_at"


def norm(x, order, axes=(-1,)):
    """Norm in float64 over `axes`."""
    x = np.abs(np.asarray(x).astype(np.float64))
    return {1: x.sum(axes), 2: np.sqrt((x**2).sum(axes)), math.inf: x.max(axes)}[order]


@functools.partial(jax.jit, static_argnames=("steps", "restarts", "order"))
def attack(p, epsilon, key=KEY, step_size=None, *, steps=8, restarts=1, order=2):
    """PGD on the attention loss of problem `p`."""
    loss_fn = functools.partial(loss, ATTENTION, p)
    options = {"steps": steps, "step_size": step_size, "restarts": restarts, "ball": fa.Ball(order)}
    return pgd(loss_fn, p.like, p.mask, epsilon, key=key, **options)


@jax.jit
def losses(p, delta):
    return loss(ATTENTION, p, delta)


@functools.partial(jax.jit, static_argnames=("order", "axes", "restarts"))
def attack_linear(g, epsilon, key=KEY, *, order=2, axes=(-1,), restarts=1):
    """PGD on the loss `<g, delta>`."""

    def loss_fn(delta):
        return jnp.sum(g * delta, axis=tuple(range(1, g.ndim)))

    return pgd(loss_fn, g, None, epsilon, key=key, restarts=restarts, ball=fa.Ball(order, axes))


@functools.partial(jax.jit, static_argnames=("order", "restarts"))
def random_start(like, mask, epsilon, *, order=2, restarts=2):
    """The farthest start of PGD, the random one of two: it is kept where the loss is the distance from 0, ungraded."""

    def distance(delta):
        return jax.lax.stop_gradient(jnp.sum(jnp.abs(delta), axis=-1)) + 0 * jnp.sum(delta, axis=-1)

    return pgd(distance, like, mask, epsilon, key=KEY, steps=1, restarts=restarts, ball=fa.Ball(order))


def numpy_project(x, epsilon, order):
    """Projection of one row; order 1 by bisection on the threshold."""
    if order == math.inf:
        return np.clip(x, -epsilon, epsilon)
    if order == 2:
        return x * min(1, epsilon / max(np.linalg.norm(x), 1e-300))
    if np.abs(x).sum() <= epsilon:
        return x
    low, high = 0.0, np.abs(x).max()
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(np.abs(x) - level, 0).sum() > epsilon else (low, level)
    return np.sign(x) * np.maximum(np.abs(x) - high, 0)


def numpy_pgd(s, v, sign, starts, epsilon, steps, order):
    """Ascent of `softplus(sign sum_t softmax(s + r)_t v_t)` of one row from each start, its gradient by hand."""

    def value(r):
        a = np.exp(s + r - (s + r).max())
        a /= a.sum()
        z = sign * (a * v).sum()
        return np.logaddexp(0, z), sign / (1 + np.exp(-z)) * a * (v - (a * v).sum())

    best, at = value(np.zeros_like(s))[0], np.zeros_like(s)
    for r in starts:
        for _ in range(steps + 1):
            size, g = value(r)
            if size > best:
                best, at = size, r
            peaks = np.sign(g) * np.isclose(np.abs(g), np.abs(g).max(), rtol=1e-9)
            u = {1: peaks / np.abs(peaks).sum(), 2: g / np.linalg.norm(g), math.inf: np.sign(g)}[order]
            r = numpy_project(r + 2.5 * epsilon / steps * u, epsilon, order)
    return best, at


@pytest.mark.parametrize("order", ORDERS)
def test_it_equals_ascent_in_numpy_with_the_gradient_by_hand(order):
    """From 0, and from the same random start: losses, and for order 2 the points themselves."""
    p = problem(ATTENTION)
    for epsilon, restarts in ((0.3, 1), (2.0, 1), (0.3, 2), (2.0, 2), (6.0, 2)):
        r = attack(p, epsilon, steps=8, restarts=restarts, order=order)
        found = losses(p, r)
        # A start depends on the key, the place and the radius alone: it is that of any other loss.
        second = np.asarray(random_start(p.like, p.mask, epsilon, order=order), np.float64)
        for row in range(B):
            real = np.asarray(p.mask[row])
            s, v = (np.asarray(x[row], np.float64)[real] for x in (p.like, p.weights))
            starts = [np.zeros_like(s), second[row][real]][:restarts]
            best, at = numpy_pgd(s, v, float(p.sign[row]), starts, epsilon, 8, order)
            np.testing.assert_allclose(found[row], best, rtol=2e-5)
            if order == 2:
                np.testing.assert_allclose(r[row][real], at, atol=2e-4 * epsilon)


@pytest.mark.parametrize(("order", "axes"), [(1, (-1,)), (2, (-1,)), (math.inf, (-1,)), (2, (-2, -1)), (1, (1, 2))])
def test_on_a_linear_loss_it_meets_the_optimum(order, axes):
    """max <g, r> over the ball is epsilon ||g||_dual, attained at epsilon unit(g); a slice of the axes is a ball."""
    g = np.random.default_rng(0).normal(size=(B, T) if len(axes) == 1 else (B, T, 3)).astype(np.float32)
    dual = {1: math.inf, 2: 2, math.inf: 1}[order]
    for restarts in (1, 3):
        r = np.asarray(attack_linear(g, EPSILON, order=order, axes=axes, restarts=restarts), np.float64)
        np.testing.assert_allclose(norm(r, order, axes), EPSILON, rtol=1e-6)
        every = tuple(range(1, g.ndim))
        np.testing.assert_allclose((g * r).sum(every), np.asarray(EPSILON) * norm(g, dual, axes), rtol=2e-6)


def worst_attention(s, v, epsilon):
    """max of sum_t softmax(s + r)_t v_t over |r_t| <= epsilon, and the reached minimum, by trying every threshold."""
    order = np.argsort(-v)
    values = []
    for top in range(len(s) + 1):
        r = np.full(len(s), -epsilon)
        r[order[:top]] = epsilon
        for shift in (r, -r):
            a = np.exp(s + shift - (s + shift).max())
            values.append((a * v).sum() / a.sum())
    return min(values), max(values)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_in_the_box_it_nearly_reaches_the_exact_worst_case_of_attention_and_never_passes_it(epsilon):
    """The linear-fractional programme, in float64; a token whose value is near the mean may swing about its corner."""
    for seed in range(3):
        p = problem(ATTENTION, seed)
        found = losses(p, attack(p, epsilon, steps=20, restarts=4, order=math.inf))
        for row in range(B):
            real = np.asarray(p.mask[row])
            s, v = (np.asarray(x[row], np.float64)[real] for x in (p.like, p.weights))
            low, high = worst_attention(s, v, epsilon)
            exact = np.logaddexp(0, high if p.sign[row] > 0 else -low)
            assert found[row] <= exact * (1 + 1e-6)
            assert found[row] >= exact * (1 - 1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_the_loss_is_never_below_the_clean_one_and_more_steps_or_restarts_are_never_weaker(order):
    """Of equal step size: n steps are the first n of 2n, and n restarts the first n of more, whatever the step."""
    for seed, step_size in ((0, 0.05), (1, 1.0), (2, 30.0)):
        p = problem(ATTENTION, seed)
        weakest = losses(p, jnp.zeros_like(p.like))
        for steps, restarts in ((4, 1), (8, 1), (8, 3)):
            found = losses(p, attack(p, 2.0, KEY, step_size, steps=steps, restarts=restarts, order=order))
            assert np.all(found >= weakest * (1 - 1e-6))
            weakest = found


def test_the_starts_of_few_restarts_are_among_those_of_more():
    """Over 50 rows other starts would somewhere be nearer."""
    few, many = (random_start(jnp.zeros((50, 5)), None, 2.0, restarts=restarts) for restarts in (2, 4))
    assert np.all(norm(many, 1) >= norm(few, 1)) and np.mean(norm(many, 1) > norm(few, 1)) > 0.3


def test_restarts_leave_a_flat_place_and_a_local_maximum():
    """Row 0 has no gradient at 0; row 1 has a low hill at 0 and a high one at a distance of 3."""

    def hills(delta):
        x = delta[:, 0]
        return jnp.stack([jax.nn.relu(x[0] - 0.2), jnp.exp(-(x[1] ** 2)) + 5 * jnp.exp(-((x[1] - 3) ** 2))])

    once, often = (
        pgd(hills, jnp.zeros((2, 1)), None, 4.0, key=KEY, step_size=0.2, restarts=restarts) for restarts in (1, 12)
    )
    assert float(once[0, 0]) == 0 and abs(float(once[1, 0])) < 0.2
    np.testing.assert_allclose(often[:, 0], [4, 3], atol=0.11)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 3])
def test_random_starts_are_uniform_in_the_ball(order, size):
    """In n dimensions P(norm <= rho epsilon) = rho^n; Kolmogorov-Smirnov at 1.95 / sqrt(N) has p = 0.001. Signs too."""
    count, epsilon = 4000, 2.5
    mask = np.arange(5) < size
    start = np.asarray(random_start(jnp.zeros((count, 5)), mask[None], epsilon, order=order), np.float64)
    np.testing.assert_array_equal(start[:, size:], 0)
    volume = np.sort((norm(start, order) / epsilon) ** size)
    assert volume[-1] <= 1 + 1e-5
    assert np.abs(volume - (np.arange(count) + 0.5) / count).max() < 1.95 / math.sqrt(count)
    assert np.abs((start[:, :size] > 0).mean(0) - 0.5).max() < 3.3 * 0.5 / math.sqrt(count)


def test_pgd_beats_noise_of_the_same_norm():
    """On average over 40 rows and 8 draws each; single steps lie between."""
    gains = []
    for seed in range(10):
        p = problem(ATTENTION, seed)
        clean, epsilon = losses(p, jnp.zeros_like(p.like)), jnp.full(B, 1.0)
        noise = [fa.random_perturbation(key, p.like, p.mask, epsilon) for key in jax.random.split(KEY, 8)]
        step = one_step(p, epsilon)
        found = [losses(p, step), losses(p, attack(p, epsilon, steps=20))]
        gains.append([np.mean([losses(p, r) - clean for r in noise]), *(np.mean(x - clean) for x in found)])
    noise, step, many = np.mean(gains, axis=0)
    assert abs(noise) < step / 4 and many > step * 1.02


@jax.jit
def one_step(p, epsilon):
    return fa.attention_at(functools.partial(loss, ATTENTION, p), p.like, p.mask, epsilon)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_norm_mask_dtype_and_epsilon_0(order, dtype):
    p = problem(ATTENTION, dtype=dtype)
    r = attack(p, EPSILON, restarts=3, order=order)
    assert r.dtype == dtype and r.shape == p.like.shape
    np.testing.assert_array_equal(np.asarray(r, np.float32)[~np.asarray(p.mask)], 0)
    np.testing.assert_array_equal(np.asarray(r[0], np.float32), 0)
    assert np.all(norm(r, order) <= np.asarray(EPSILON, np.float64) * (1 + 1e-6))
    assert np.all(norm(r, order)[1:] > 0)


@pytest.mark.parametrize("order", ORDERS)
def test_an_infinite_radius_takes_steps_of_its_own_and_projects_nothing(order):
    """Steps of norm 1 by default: 20 leave the unit ball far behind and nearly select the worst value of a row."""
    p = problem(ATTENTION)
    epsilon = jnp.asarray([jnp.inf, 1.0, jnp.inf, 1.0])
    r = attack(p, epsilon, steps=20, restarts=2, order=order)
    finite_only = attack(p, jnp.ones(B), steps=20, restarts=2, order=order)
    np.testing.assert_array_equal(r[1::2], finite_only[1::2])
    assert np.all(np.isfinite(r)) and np.all(norm(r, order)[::2] > 3)
    for row in (0, 2):
        values = np.asarray(p.weights[row], np.float64)[np.asarray(p.mask[row])] * float(p.sign[row])
        clean, found = losses(p, jnp.zeros_like(p.like))[row], losses(p, r)[row]
        bound = np.logaddexp(0, values.max())
        assert found <= bound * (1 + 1e-6)
        assert found - clean > 0.7 * (bound - clean)


def test_neither_padding_nor_the_rest_of_the_batch_matters():
    """Row 0 in its batch, among other rows one of which has no finite loss, and alone with 3 more padding columns."""
    p, epsilon = problem(ATTENTION), jnp.full(B, 0.5)
    expected = attack(p, epsilon, restarts=3)[0]
    others = problem(ATTENTION, seed=3)
    others = others._replace(sign=others.sign.at[1].set(jnp.nan))
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]), p, others)._replace(table=p.table)
    np.testing.assert_array_equal(attack(mixed, epsilon, restarts=3)[0], expected)
    alone = problem(ATTENTION, width=T + 3)
    alone = jax.tree.map(lambda a: a[:1], alone)._replace(table=p.table)
    result = attack(alone, epsilon[:1], restarts=3)[0]
    np.testing.assert_allclose(result[:T], expected, atol=5e-6)
    np.testing.assert_array_equal(result[T:], 0)


@pytest.mark.parametrize("sign", [0.0, np.nan, np.inf])
def test_a_row_without_a_usable_loss_is_zero_and_leaves_the_others_alone(sign):
    """`sign` 0 makes the loss flat; NaN makes it NaN; inf makes it infinite or zero, its gradient infinite or NaN."""
    p = problem(ATTENTION)
    expected = np.asarray(attack(p, EPSILON, restarts=3)).copy()
    expected[1] = 0
    np.testing.assert_array_equal(attack(p._replace(sign=p.sign.at[1].set(sign)), EPSILON, restarts=3), expected)


def test_a_loss_that_is_not_finite_never_wins():
    """Beyond 0.5 the losses are NaN, inf and -inf: the best of what lies before is kept."""

    def loss_fn(delta):
        x = delta[:, 0]
        return jnp.where(x > 0.5, jnp.array([jnp.nan, jnp.inf, -jnp.inf]), x)

    r = pgd(loss_fn, jnp.zeros((3, 1)), None, 1.0, step_size=0.125, steps=20, key=KEY, restarts=4)
    np.testing.assert_array_equal(r, np.full((3, 1), 0.5))


def test_nothing_wins_where_the_clean_loss_is_minus_infinity():
    r = pgd(lambda d: jnp.log(jnp.maximum(d.sum(-1), 0.0)), jnp.zeros((4, 3)), None, 1.0, key=KEY, restarts=8)
    np.testing.assert_array_equal(r, np.zeros((4, 3)))


def test_vmap_scan_and_scalars_give_the_rows_of_one_call():
    """A `[B]` epsilon equals one number a row; a vmap over runs and a scan over epsilon equal one call each."""
    p, one = problem(ATTENTION), functools.partial(attack, steps=4, restarts=2)
    expected = one(p, EPSILON)
    scanned = jax.lax.scan(lambda _, epsilon: (None, one(p, epsilon)), None, EPSILON)[1]
    for result in (scanned, np.stack([one(p, epsilon) for epsilon in EPSILON])):
        np.testing.assert_allclose(result[jnp.arange(B), jnp.arange(B)], expected, rtol=1e-4, atol=1e-5)
    keys = jax.random.split(KEY, B)
    runs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(problem(ATTENTION, seed) for seed in range(B)))
    together = jax.vmap(one)(runs, EPSILON, keys)
    for seed in range(B):
        alone = one(problem(ATTENTION, seed), EPSILON[seed], keys[seed])
        np.testing.assert_allclose(together[seed], alone, rtol=1e-4, atol=1e-5)


def test_a_new_radius_step_or_key_does_not_trace_again():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def call(p, epsilon, step_size, key):
        loss_fn = functools.partial(loss, ATTENTION, p)
        return pgd(loss_fn, p.like, p.mask, epsilon, step_size=step_size, steps=3, key=key, restarts=2)

    sizes = [norm(call(problem(ATTENTION), epsilon, 2 * epsilon, jax.random.key(7)), 2) for epsilon in (0.5, 1.0, 2.0)]
    assert np.all(np.diff(sizes, axis=0) > 0)


@jax.custom_vjp
def once_differentiable(x):
    return jnp.tanh(x)


@jax.custom_jvp
def derivative(x):
    return 1 - jnp.square(jnp.tanh(x))


@derivative.defjvp
def no_second_derivative(primals, tangents):
    raise AssertionError("a second derivative was taken")


once_differentiable.defvjp(lambda x: (jnp.tanh(x), x), lambda x, ct: (ct * derivative(x),))


def test_the_attack_is_a_constant_for_whatever_made_it_and_takes_no_second_derivative():
    """Gradients are exactly 0, epsilon's included, through a loss whose backward pass cannot be differentiated."""
    p = finite(problem(ATTENTION))

    def total(like, weights, epsilon, step_size):
        def loss_fn(delta):
            return once_differentiable(p.sign * logit(ATTENTION, p._replace(like=like, weights=weights), delta))

        r = pgd(loss_fn, like, p.mask, epsilon, step_size=step_size, steps=3, key=KEY, restarts=2)
        return jnp.sum(r * jnp.cos(jnp.arange(r.size, dtype=r.dtype)).reshape(r.shape))

    value, gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(p.like, p.weights, EPSILON, 0.3)
    assert value != 0
    for g in gradient:
        np.testing.assert_array_equal(g, 0)


def test_memory_does_not_grow_with_restarts_or_steps():
    """What XLA sets aside for a batch of 64 x 128, by its own account."""

    @functools.partial(jax.jit, static_argnames=("steps", "restarts"))
    def call(s, v, steps, restarts):
        def loss_fn(delta):
            return jnp.sum(fa.masked_softmax(s + delta, None) * v, axis=-1)

        return pgd(loss_fn, s, None, 1.0, steps=steps, key=KEY, restarts=restarts)

    x = jax.ShapeDtypeStruct((64, 128), jnp.float32)
    few, many = (
        call.lower(x, x, **options).compile().memory_analysis().temp_size_in_bytes
        for options in ({"steps": 2, "restarts": 2}, {"steps": 40, "restarts": 40})
    )
    assert few * 0.9 < many < few * 1.1


def test_shard_map_over_rows_equals_the_call_on_the_rows():
    """The noise is indexed by the row in its shard, so that with restarts only the first shard could be compared."""
    p = finite(problem(ATTENTION))
    p = p._replace(mask=jnp.ones_like(p.mask))
    mesh = jax.make_mesh((min(2, jax.device_count()),), ("rows",), axis_types=(AxisType.Auto,))
    specs = p._replace(**{field: P() if field == "table" else P("rows") for field in p._fields})

    def sharded(restarts):
        def call(p, epsilon):
            loss_fn = functools.partial(loss, ATTENTION, p)
            return pgd(loss_fn, p.like, None, epsilon, steps=8, key=KEY, restarts=restarts)

        return jax.jit(jax.shard_map(call, mesh=mesh, in_specs=(specs, P("rows")), out_specs=P("rows")))

    np.testing.assert_allclose(sharded(1)(p, EPSILON), attack(p, EPSILON), rtol=1e-4, atol=1e-5)
    jax.eval_shape(sharded(2), p, EPSILON)  # what varies over shards is checked here


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"restarts": 2}, "2 restarts begin at random points: pass key="),
        ({"restarts": 0}, "at least 1; got 20 and 0"),
        ({"steps": 0}, "at least 1; got 0 and 1"),
        ({"step_size": 0.0}, "step_size must be a positive"),
        ({"step_size": math.inf}, "step_size must be a positive"),
        ({"ball": fa.Ball(3.0)}, "must be 1, 2 or infinity"),
        ({"epsilon": -1.0}, "epsilon must be a number"),
        ({"epsilon": math.nan}, "epsilon must be a number"),
        ({"mask": np.ones((2, 3))}, "does not fit"),
    ],
)
def test_what_cannot_be_run_is_refused(options, said):
    arguments = {"mask": None, "epsilon": 1.0} | options
    with pytest.raises(ValueError, match=said):
        pgd(lambda delta: jnp.sum(delta, axis=-1), jnp.zeros((1, 2)), **arguments)


def test_an_eager_attack_is_on_the_model_as_it_is_and_keeps_nothing_of_it():
    """A loss that reads attributes is read anew by every call; what it holds is free afterwards."""

    class Linear:
        def __init__(self, weight):
            self.weight = jnp.asarray(weight)

        def loss(self, delta):
            return delta @ self.weight

    def found(model):
        adversarial = fa.attention_at(model.loss, jnp.zeros((1, 2)), None, 1.0)
        return np.asarray(pgd(model.loss, jnp.zeros((1, 2)), None, 1.0, steps=1)), np.asarray(adversarial)

    model = Linear([3.0, 4.0])
    for sign in (1, -1):
        model.weight = sign * jnp.array([3.0, 4.0])
        for r in found(model):
            np.testing.assert_allclose(r, [[0.6 * sign, 0.8 * sign]], rtol=1e-6)
    held = weakref.ref(model)
    del model
    gc.collect()
    assert held() is None


def test_losses_that_are_not_one_a_row_are_refused():
    """A mean over the rows would climb for all of them at once; one example under vmap has one loss."""
    rows = jnp.zeros((2, 3))
    for loss_fn in (lambda delta: jnp.mean(delta), lambda delta: jnp.sum(delta, axis=-1, keepdims=True)):
        with pytest.raises(ValueError, match=r"one loss a row, of shape \(2,\)"):
            pgd(loss_fn, rows, None, 1.0)
    alone = jax.vmap(lambda like: pgd(jnp.sum, like, None, 1.0))(rows)
    np.testing.assert_allclose(alone, pgd(lambda delta: jnp.sum(delta, axis=-1), rows, None, 1.0), rtol=1e-6)


RADII = [0.0, 0.1, 0.4, 1.0, 3.0]
MARGIN = jnp.asarray(np.random.default_rng(4).normal(size=(16,)) + 0.7, jnp.float32)
G = jnp.asarray(np.random.default_rng(5).normal(size=(16, T)), jnp.float32)
LABELS = np.random.default_rng(6).integers(0, 2, 16)


def linear_logits(delta):
    """`[16, 2]` logits whose difference, label minus other, is `MARGIN - <G, delta>`."""
    margin = jnp.where(LABELS == 1, 1.0, -1.0) * (MARGIN - jnp.sum(G * delta, axis=-1))
    return jnp.stack([-margin / 2, margin / 2], axis=-1)


def linear_loss(delta):
    return jnp.sum(G * delta, axis=-1) - MARGIN


def linear_curve(radii=RADII, predict=linear_logits, attack=fa.attention_at, **options):
    """The curve of the linear classifier; on it, one step of order 2 is the worst case."""
    call = jax.jit(
        lambda radii: robustness_curve(predict, linear_loss, G, None, LABELS, radii, attack=attack, **options)
    )
    return call(jnp.asarray(radii))


@pytest.mark.parametrize("order", ORDERS)
def test_the_curve_of_a_linear_classifier_is_exact(order):
    """Row b is correct at epsilon if and only if its margin exceeds epsilon ||g_b||_dual."""
    curve = linear_curve(attack=functools.partial(pgd, ball=fa.Ball(order)))
    dual = {1: math.inf, 2: 2, math.inf: 1}[order]
    expected = np.asarray(MARGIN)[None] > np.asarray(RADII)[:, None] * norm(G, dual)[None]
    np.testing.assert_array_equal(curve.correct_attacked, expected)
    np.testing.assert_array_equal(curve.correct_clean, np.asarray(MARGIN) > 0)
    np.testing.assert_allclose(curve.attacked, expected.mean(1), rtol=1e-6)
    np.testing.assert_allclose(curve.clean, np.mean(np.asarray(MARGIN) > 0), rtol=1e-6)
    np.testing.assert_allclose(curve.epsilons, RADII, rtol=1e-6)
    assert 0 < curve.attacked[-1] + curve.attacked[2] < curve.clean < 1


def test_a_larger_radius_is_never_safer_whatever_the_attack_and_the_order_of_radii():
    """An attack that gives up beyond 0.5: what broke at 0.4 stays broken; radii may come in any order."""

    def gives_up(loss_fn, like, mask, epsilon):
        return fa.attention_at(loss_fn, like, mask, jnp.where(epsilon > 0.5, 0.0, epsilon))

    curve, full = linear_curve(attack=gives_up), linear_curve()
    np.testing.assert_array_equal(curve.correct_attacked[:3], full.correct_attacked[:3])
    np.testing.assert_array_equal(curve.correct_attacked[3:], full.correct_attacked[jnp.asarray([2, 2])])
    places = [3, 0, 4, 2, 1]
    shuffled = linear_curve([RADII[place] for place in places], attack=gives_up)
    np.testing.assert_array_equal(shuffled.correct_attacked, curve.correct_attacked[jnp.asarray(places)])


def test_a_larger_radius_is_never_safer_on_attention():
    """And certified by the exact worst case in the box <= attacked <= clean, row by row."""
    for seed in range(3):
        p = problem(ATTENTION, seed)

        @jax.jit
        def call(p):
            sign = jnp.where(jnp.arange(B) % 2 == 1, 1.0, -1.0)
            p = p._replace(sign=-sign)
            options = {"attack": functools.partial(pgd, restarts=2, ball=fa.Ball(math.inf)), "key": KEY}
            labels = jnp.arange(B) % 2
            loss_fn = functools.partial(loss, ATTENTION, p)
            return robustness_curve(
                lambda delta: logit(ATTENTION, p, delta) > 0, loss_fn, p.like, p.mask, labels, RADII, **options
            )

        curve = call(p)
        held = np.asarray(curve.correct_attacked)
        assert np.all(held[1:] <= held[:-1]) and np.all(np.diff(curve.attacked) <= 0)
        np.testing.assert_array_equal(held[0], curve.correct_clean)
        for row in range(B):
            real = np.asarray(p.mask[row])
            s, v = (np.asarray(x[row], np.float64)[real] for x in (p.like, p.weights))
            for place, epsilon in enumerate(RADII):
                low, high = worst_attention(s, v, epsilon)
                certified = low > 1e-6 if row % 2 == 1 else high < -1e-6
                assert certified <= held[place, row] <= curve.correct_clean[row]


def test_a_success_is_a_changed_prediction_and_not_a_raised_loss():
    """The loss has nothing to do with the prediction, which only the second column moves."""

    def predict(delta):
        return (delta[:, 1] > 0.5).astype(jnp.int32)

    labels = jnp.array([0, 0, 1])  # the last row is wrong without attack, and the second attack makes it right
    for column, broken in ((0, False), (1, True)):
        for radii in ([0.4, 2.0], [2.0]):
            curve = robustness_curve(predict, lambda d, c=column: d[:, c], jnp.zeros((3, 2)), None, labels, radii)
            held = [[True, True, False], [not broken, not broken, False]]
            np.testing.assert_array_equal(curve.correct_attacked, held[-len(radii) :])


def test_predictions_may_be_logits_probabilities_ids_or_booleans():
    expected = linear_curve().correct_attacked
    for predict in (
        lambda delta: jax.nn.softmax(linear_logits(delta)),
        lambda delta: jnp.argmax(linear_logits(delta), axis=-1),
        lambda delta: linear_logits(delta)[:, 1] > 0,
    ):
        np.testing.assert_array_equal(linear_curve(predict=predict).correct_attacked, expected)


def test_a_row_with_nan_among_its_scores_is_wrong_and_one_logit_a_row_is_refused():
    """argmax would return the place of the NaN, which may be the label."""
    curve = linear_curve(predict=lambda delta: linear_logits(delta).at[jnp.arange(16), LABELS].set(jnp.nan))
    assert float(curve.clean) == 0 and np.all(np.asarray(curve.attacked) == 0)
    with pytest.raises(ValueError, match=r"returned float32 of shape \(16,\).*logit > 0"):
        linear_curve(predict=lambda delta: linear_logits(delta)[:, 0])
    with pytest.raises(ValueError, match=r"returned float32 of shape \(16, 1\).*logit > 0"):
        linear_curve(predict=lambda delta: linear_logits(delta)[:, :1])


@pytest.mark.parametrize("radii", [[0.1, -1.0], np.array([math.nan], np.float32)])
def test_a_radius_that_is_negative_or_nan_is_refused(radii):
    with pytest.raises(ValueError, match="every radius"):
        robustness_curve(linear_logits, linear_loss, G, None, LABELS, radii)


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS[:1], LABELS[:4]])
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels must be one a prediction, \(16,\); their shape is"):
        robustness_curve(linear_logits, linear_loss, G, None, labels, RADII)


def test_all_radii_share_one_program():
    """The loss is traced as often for 12 radii as for 2."""
    counts = []
    for radii in (RADII[:2], np.linspace(0.1, 3.0, 12)):
        seen = []

        def counted(delta, seen=seen):
            seen.append(delta)
            return linear_loss(delta)

        curve = functools.partial(robustness_curve, linear_logits, counted, G, None, LABELS, radii)
        assert jax.eval_shape(curve).attacked.shape == (len(radii),)
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0


def test_the_key_goes_to_the_attack_only_where_there_is_one():
    """Noise takes a key and one step takes none; noise breaks fewer rows."""

    def noise(loss_fn, like, mask, epsilon, *, key):
        return fa.random_perturbation(key, like, mask, epsilon)

    weaker, one_step = linear_curve(attack=noise, key=KEY), linear_curve()
    assert np.all(np.asarray(weaker.correct_attacked) >= np.asarray(one_step.correct_attacked))
    assert float(weaker.attacked[3]) > float(one_step.attacked[3])
