"""Encoders: word vectors `[B, T, E]` to hidden states `[B, T, H]`, zero on padding; padding changes nothing.

All initialisers are PyTorch's: uniform within one over the square root of the fan-in.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_attnat.typing import Array


def uniform(fan_in: int) -> Callable[..., Array]:
    """Initialiser of any shape: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), what torch.nn.Linear, Conv1d and LSTM use."""

    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        """An array of `shape`."""
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class BiLSTM(nn.Module):
    """One bidirectional LSTM layer, H = 2 x hidden_size: forward states, then backward states.

    Gates in torch's order: i, f, g, o. One bias per gate, where torch trains two of which only the sum matters. Both
    directions run in one scan over time, and the input projection is one product outside it. The backward direction
    reads each row from its last real token: time is reversed, and a state stays as it is (zero at first) while the row
    is on padding.

    Attributes:
      hidden_size: units per direction.
    """

    hidden_size: int

    @nn.compact
    def __call__(self, words_BxTxE: Array, mask_BxT: Array) -> Array:
        """States `[B, T, 2 * hidden_size]`, zero on padding."""
        size, units = words_BxTxE.shape[-1], self.hidden_size
        init = uniform(units)
        input_kernel = self.param("input_kernel", init, (2, size, 4 * units))
        recurrent_kernel = self.param("recurrent_kernel", init, (2, units, 4 * units))
        bias = self.param("bias", init, (2, 4 * units))

        # Padded words may hold anything; a zero input keeps the projection finite there.
        words = jnp.where(mask_BxT[..., None], words_BxTxE, 0)
        projected = jnp.einsum("bte,deg->dtbg", words, input_kernel) + bias[:, None, None, :]
        inputs_TxDxBxG = jnp.stack([projected[0], projected[1, ::-1]], axis=1)
        real = mask_BxT.T[:, :, None]
        real_TxDxBx1 = jnp.stack([real, real[::-1]], axis=1)

        def step(carry: tuple[Array, Array], step_input: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            """One token in both directions: carry and output are `[2, B, hidden_size]`."""
            hidden, cell = carry
            gate_input, is_real = step_input
            i, f, g, o = jnp.split(gate_input + jnp.einsum("dbh,dhg->dbg", hidden, recurrent_kernel), 4, axis=-1)
            new_cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            new_hidden = nn.sigmoid(o) * jnp.tanh(new_cell)
            hidden, cell = jnp.where(is_real, new_hidden, hidden), jnp.where(is_real, new_cell, cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((2, words.shape[0], units), words.dtype)
        _, states_TxDxBxH = jax.lax.scan(step, (zeros, zeros), (inputs_TxDxBxG, real_TxDxBx1))
        both = jnp.concatenate([states_TxDxBxH[:, 0], states_TxDxBxH[::-1, 1]], axis=-1)
        return jnp.where(mask_BxT[..., None], jnp.moveaxis(both, 0, 1), 0)


class CNN(nn.Module):
    """Convolutions of widths 1, 3, 5, 7 with ReLU, a quarter of the features each (Jain & Wallace 2019).

    Attributes:
      features: H, a multiple of 4.
    """

    features: int
    widths: tuple[int, ...] = (1, 3, 5, 7)

    @nn.compact
    def __call__(self, words_BxTxE: Array, mask_BxT: Array) -> Array:
        """States `[B, T, features]`, zero on padding."""
        words = jnp.where(mask_BxT[..., None], words_BxTxE, 0)
        parts = []
        for width in self.widths:
            init = uniform(width * words.shape[-1])
            convolution = nn.Conv(
                self.features // len(self.widths), (width,), kernel_init=init, bias_init=init, name=f"width_{width}"
            )
            parts.append(nn.relu(convolution(words)))
        return jnp.where(mask_BxT[..., None], jnp.concatenate(parts, axis=-1), 0)


class Average(nn.Module):
    """Each token by itself: affine map and tanh (Jain & Wallace's "average" encoder).

    Attributes:
      features: H.
    """

    features: int

    @nn.compact
    def __call__(self, words_BxTxE: Array, mask_BxT: Array) -> Array:
        """States `[B, T, features]`, zero on padding."""
        words = jnp.where(mask_BxT[..., None], words_BxTxE, 0)
        init = uniform(words.shape[-1])
        states = jnp.tanh(nn.Dense(self.features, kernel_init=init, bias_init=init)(words))
        return jnp.where(mask_BxT[..., None], states, 0)


def build_encoder(name: str, hidden_size: int) -> nn.Module:
    """The encoder "bilstm", "cnn" or "average" with states of H = 2 x hidden_size."""
    features = 2 * hidden_size
    if name == "bilstm":
        return BiLSTM(hidden_size)
    return CNN(features) if name == "cnn" else Average(features)
