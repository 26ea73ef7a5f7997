"""Encoders: word vectors `[B, T, E]` to hidden states `[B, T, H]`, zero on padding; padding changes nothing.

All initialisers are PyTorch's: uniform within one over the square root of the fan-in.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_attnat.models.lstm import bilstm
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

    Gates in torch's order: i, f, g, o. One bias per gate, where torch trains two: their sum starts with twice the
    variance there, and a step of Adam moves it twice as far. The
    backward direction reads each row from its last real token: a state stays as it is (zero at first) while the row is
    on padding. Gradients are written by hand (`models/lstm.py`): there is no forward-mode derivative.

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
        return jnp.where(mask_BxT[..., None], bilstm(words, mask_BxT, input_kernel, recurrent_kernel, bias), 0)


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
