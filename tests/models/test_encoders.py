"""Encoders against NumPy, and what padding may not do to them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.models.encoders import CNN, Average, BiLSTM
from flax_attnat.typing import Array, Params
from tests.training.reference import bilstm, float64

SIZE, HIDDEN, WIDTH = 5, 4, 9
LENGTHS = np.array([9, 4, 1, 0])
ENCODERS: dict[str, Any] = {"bilstm": BiLSTM(HIDDEN), "cnn": CNN(2 * HIDDEN), "average": Average(2 * HIDDEN)}


def words_and_mask(width: int = WIDTH) -> tuple[Array, Array]:
    """Random words `[B, width, E]`, on padding too, and the mask of rows of the lengths above."""
    words = np.random.default_rng(0).normal(size=(len(LENGTHS), WIDTH, SIZE)).astype(np.float32)
    return jnp.asarray(words[:, :width]), jnp.asarray(np.arange(width)[None, :] < LENGTHS[:, None])


def initial(encoder: nn.Module, seed: int = 0) -> Params:
    """Parameters of an encoder, at twice their initial size so that no activation is nearly linear."""
    blank = (jnp.zeros((1, 1, SIZE)), jnp.ones((1, 1), bool))
    params = jax.jit(encoder.init)(jax.random.key(seed), *blank)["params"]
    return jax.tree.map(lambda p: 2 * p, params)


def test_bilstm_equals_a_loop_over_each_sentence_in_float64() -> None:
    """Both directions: the backward one starts at each row's last real token."""
    words, mask = words_and_mask()
    params = initial(ENCODERS["bilstm"])
    ours = np.asarray(jax.jit(ENCODERS["bilstm"].apply)({"params": params}, words, mask))
    for row, n in enumerate(LENGTHS):
        exact, _ = bilstm(float64(params), np.asarray(words, np.float64)[row, :n])
        np.testing.assert_allclose(ours[row, :n], exact, atol=1e-6)
        assert not ours[row, n:].any()


def test_final_states_of_both_directions_have_read_the_whole_sentence_and_nothing_before_it() -> None:
    """The forward state at t depends on words 0..t, the backward state on t..n-1."""
    words, mask = words_and_mask()
    encoder, row, n = ENCODERS["bilstm"], 1, LENGTHS[1]
    params = {"params": initial(encoder)}

    def first_unit_of_each(words: Array) -> Array:
        """Sum of the states `[B, T, 2]` over the units of a direction."""
        return encoder.apply(params, words, mask).reshape(*mask.shape, 2, HIDDEN).sum(-1)

    jacobian = np.asarray(jax.jit(jax.jacrev(first_unit_of_each))(words))[row, :, :, row]
    reaches = np.abs(jacobian).max(-1) > 0  # state at t, direction, word
    t, word = np.arange(WIDTH)[:, None], np.arange(WIDTH)[None, :]
    real = (t < n) & (word < n)
    np.testing.assert_array_equal(reaches[:, 0], real & (word <= t))
    np.testing.assert_array_equal(reaches[:, 1], real & (word >= t))


def test_cnn_equals_a_sum_over_windows_in_float64() -> None:
    """Zeros stand outside the sentence, on its padding as beyond its ends."""
    words, mask = words_and_mask()
    params = initial(ENCODERS["cnn"])
    ours = np.asarray(jax.jit(ENCODERS["cnn"].apply)({"params": params}, words, mask))
    exact_params = float64(params)
    for row, n in enumerate(LENGTHS):
        sentence = np.asarray(words, np.float64)[row, :n]
        for place, width in enumerate((1, 3, 5, 7)):
            kernel, bias = exact_params[f"width_{width}"]["kernel"], exact_params[f"width_{width}"]["bias"]
            for t in range(n):
                total = bias + sum(
                    sentence[t + k - width // 2] @ kernel[k] for k in range(width) if 0 <= t + k - width // 2 < n
                )
                np.testing.assert_allclose(ours[row, t, 2 * place : 2 * place + 2], np.maximum(total, 0), atol=1e-6)
        assert not ours[row, n:].any()


def test_average_is_an_affine_map_and_tanh_of_each_token() -> None:
    words, mask = words_and_mask()
    params = initial(ENCODERS["average"])
    dense = float64(params["Dense_0"])
    exact = np.tanh(np.asarray(words, np.float64) @ dense["kernel"] + dense["bias"]) * np.asarray(mask)[..., None]
    np.testing.assert_allclose(ENCODERS["average"].apply({"params": params}, words, mask), exact, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_receives_no_gradient_and_may_hold_anything(name: str) -> None:
    """NaN on padding changes neither states nor gradients, and no gradient reaches it."""
    encoder, (words, mask) = ENCODERS[name], words_and_mask()
    params = initial(encoder)

    def total(params: Params, words: Array) -> tuple[Array, Array]:
        """A sum in which every state has its own weight, and the states."""
        states = encoder.apply({"params": params}, words, mask)
        return jnp.sum(states * jnp.cos(jnp.arange(states.size, dtype=jnp.float32)).reshape(states.shape)), states

    evaluate = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    plain = evaluate(params, words)
    dirty = evaluate(params, jnp.where(mask[..., None], words, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, dirty, plain)
    of_words = np.abs(np.asarray(plain[1][1])).max(-1)
    np.testing.assert_array_equal(of_words > 0, mask)


@pytest.mark.parametrize("name", ENCODERS)
def test_width_changes_no_state(name: str) -> None:
    """A row of four tokens has the same states in a batch four or nine wide."""
    encoder = ENCODERS[name]
    params = {"params": initial(encoder)}
    wide, narrow = (jax.jit(encoder.apply)(params, *(x[1:] for x in words_and_mask(w))) for w in (WIDTH, 4))
    np.testing.assert_allclose(wide[:, :4], narrow, rtol=1e-6, atol=1e-7)
    assert not np.any(wide[:, 4:])


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        # BiLSTM: the units of a direction, what torch.nn.LSTM uses; the others: the inputs of one output.
        ("bilstm", {"input_kernel": 50, "recurrent_kernel": 50, "bias": 50}),
        ("cnn", {f"width_{w}/{leaf}": 40 * w for w in (1, 3, 5, 7) for leaf in ("kernel", "bias")}),
        ("average", {"Dense_0/kernel": 40, "Dense_0/bias": 40}),
    ],
)
def test_initial_parameters_are_uniform_within_one_over_the_root_of_the_fan_in(name: str, bounds: dict) -> None:
    encoder = {"bilstm": BiLSTM(50), "cnn": CNN(100), "average": Average(100)}[name]
    blank = (jnp.zeros((1, 1, 40)), jnp.ones((1, 1), bool))
    params = jax.jit(encoder.init)(jax.random.key(0), *blank)["params"]
    found = {"/".join(str(k.key) for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert found.keys() == bounds.keys()
    for leaf, fan_in in bounds.items():
        scaled = np.asarray(found[leaf]).ravel() * fan_in**0.5
        assert np.abs(scaled).max() <= 1
        # A uniform variable on (-1, 1) has mean 0 and variance 1/3, within five standard errors.
        assert abs(scaled.mean()) < 5 * (1 / 3 / scaled.size) ** 0.5
        assert abs(np.mean(scaled**2) - 1 / 3) < 5 * (4 / 45 / scaled.size) ** 0.5
