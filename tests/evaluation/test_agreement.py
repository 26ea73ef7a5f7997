"""Pearson correlation of attention and importance against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flax_attnat.evaluation.agreement import pearson

ROWS, WIDTH = 300, 24
# A row's pattern and how it is turned into float32 weights: scale and offset.
SHAPES = {
    "weights that sum to 1": (1.0, 0.0),
    "weights so small that their squares underflow": (1e-30, 0.0),
    "weights that differ in their last digits": (1e-4, 0.5),
}

many = jax.jit(pearson)


@pytest.mark.parametrize(("scale", "offset"), SHAPES.values(), ids=SHAPES)
def test_equals_scipy(scale, offset):
    """300 rows of 2 to 24 entries, to 1e-6; what stands on padding is not read."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, WIDTH + 1, ROWS)
    mask = np.arange(WIDTH) < lengths[:, None]
    x = (offset + scale * rng.dirichlet(np.ones(WIDTH), ROWS)).astype(np.float32)
    y = (offset + scale * rng.dirichlet(np.ones(WIDTH), ROWS) + 0.3 * (x - offset)).astype(np.float32)
    x, y = np.where(mask, x, np.nan), np.where(mask, y, 7.0).astype(np.float32)
    ours = np.asarray(many(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask)))
    for row, n in enumerate(lengths):
        # SciPy in float64, on the row scaled exactly: it warns where the spread is small beside the mean.
        a, b = ((z[row, :n].astype(np.float64) - z[row, :n].min()) * 2.0**60 for z in (x, y))
        assert ours[row] == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-6)


def test_a_row_and_its_affine_image_correlate_fully():
    """Exactly within [-1, 1], as rounding may not carry a figure beyond."""
    x = jnp.asarray(np.random.default_rng(1).random((ROWS, WIDTH)), jnp.float32)
    mask = jnp.ones(x.shape, bool)
    up, down = np.asarray(many(x, 3 * x + 2, mask)), np.asarray(many(x, 1 - x, mask))
    np.testing.assert_allclose(up, 1, atol=1e-6)
    np.testing.assert_allclose(down, -1, atol=1e-6)
    assert up.max() <= 1 and down.min() >= -1


def test_undefined_rows_are_nan():
    """One token, none, constant over the real tokens (either side), and values that are not finite."""
    plain = [0.1, 0.2, 0.7]
    rows = [
        (plain, plain, 1),
        (plain, plain, 0),
        ([0.4, 0.4, 0.9], plain, 2),
        (plain, [0.0, 0.0, 0.0], 3),
        ([np.nan, 0.2, 0.7], plain, 3),
        (plain, [0.1, np.inf, 0.7], 3),
        (plain, [0.1, -np.inf, 0.7], 3),
        (plain, plain, 3),
    ]
    x, y = (jnp.asarray([row[side] for row in rows], jnp.float32) for side in (0, 1))
    mask = jnp.arange(3)[None, :] < jnp.asarray([[row[2]] for row in rows])
    together = np.asarray(pearson(x, y, mask))
    assert np.isnan(together[:-1]).all() and together[-1] == pytest.approx(1)
    np.testing.assert_array_equal(jax.vmap(pearson)(x, y, mask), together)
