"""Gradient importance against finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.evaluation.importance import explain_batch
from tests.evaluation import reference
from tests.models.small import as_batch, small

TEXTS = [[3, 5, 4, 9, 2], [7, 2, 7], [6], []]


def explained(encoder, width=6, padding=0, edit=lambda params: params):
    """Parameters, three times their usual size, and what `explain_batch` says of TEXTS."""
    _, model = small("vanilla", encoder)
    params = edit(jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0))))
    batch = as_batch(TEXTS, [1, 0, 1, 0], [1.0] * len(TEXTS), width, padding)
    return params, jax.device_get(jax.jit(lambda p, b: explain_batch(model, p, b))(params, batch))


@pytest.mark.parametrize("encoder", ["average", "bilstm"])
def test_equals_finite_differences_with_attention_held_constant(encoder):
    """`tau_t = |sum_e w_te dp/dw_te|`, normalised (Jain & Wallace 2019, section 4.1); 1 on the only token of a text."""
    params, found = explained(encoder)
    exact_params = reference.as_float64(jax.device_get(params))
    for row, text in enumerate(TEXTS[:3]):
        probability, attention, importance = reference.explain(exact_params, text)
        n = len(text)
        assert found.probability[row] == pytest.approx(probability, rel=1e-5)
        np.testing.assert_allclose(found.attention[row, :n], attention, rtol=1e-5)
        np.testing.assert_allclose(found.importance[row, :n], importance, atol=1e-5)
        assert found.importance[row].sum() == pytest.approx(1, abs=1e-6)
        assert not found.importance[row, n:].any() and not found.attention[row, n:].any()
    attached = reference.explain(exact_params, TEXTS[0], detached=False)[2]
    assert np.abs(attached - found.importance[0, :5]).max() > 1e-2  # the other definition is told apart
    assert not found.importance[3].any() and not found.attention[3].any()  # a text without words


def test_a_row_without_gradient_gives_zeros():
    """An output that reads nothing has no gradient: importance 0, attention as ever, nothing NaN."""

    def deaf(params):
        """Zero output weights."""
        return params | {"output": jax.tree.map(jnp.zeros_like, params["output"])}

    _, found = explained("average", edit=deaf)
    np.testing.assert_array_equal(found.importance, 0)
    np.testing.assert_array_equal(found.probability, 0.5)
    np.testing.assert_allclose(found.attention.sum(axis=-1), [1, 1, 1, 0], rtol=1e-6)


def test_padding_changes_nothing():
    """Two more columns, and any word in them, leave every real token's figures as they were."""
    _, narrow = explained("bilstm")
    _, wide = explained("bilstm", width=8, padding=11)
    np.testing.assert_allclose(wide.probability, narrow.probability, rtol=1e-6)
    for a, b in ((wide.attention, narrow.attention), (wide.importance, narrow.importance)):
        np.testing.assert_allclose(a[:, :6], b, rtol=1e-5, atol=1e-7)
        assert not a[:, 6:].any()
