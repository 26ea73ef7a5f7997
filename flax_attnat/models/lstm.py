"""A bidirectional LSTM with its gradient written by hand: both directions in one loop over time.

Arrays are laid out as `[2, F, T, B]`, direction by feature by token by row: a step's products are then of a wide
kernel and a narrow state, `[4H, H] x [H, B]`, which run about twice as fast on a CPU as `[B, H] x [H, 4H]`; and the
projection of all words before the loop, and every sum over tokens after it, is one product over `T x B` columns.

Nothing is kept for the gradient but activated gates, cells and states. The gates are written over the projected
inputs that they come from, and their gradients over the gates. The gradient of the recurrent kernel is one product
after the loop; differentiation by JAX adds a product of every step to an array of its size inside it.

`D` is 2 (forward, backward), `G` 4H gates in the order i, f, g, o, `H` units of a direction.
"""

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.compiled import computed_once
from flax_attnat.typing import Array

# Which of the gates i, f, g, o is the tanh; the others are sigmoids.
_TANH = np.array([False, False, True, False])


def bilstm(words_BxTxE: Array, mask_BxT: Array, input_kernel: Array, recurrent_kernel: Array, bias: Array) -> Array:
    """States `[B, T, 2H]`, forward then backward, of one layer; a state stays as it is while its row is on padding.

    `z = W x_t + U h_{t-1} + b`, `c_t = sigmoid(z_f) c_{t-1} + sigmoid(z_i) tanh(z_g)`, `h_t = sigmoid(z_o) tanh(c_t)`.

    Args:
      words_BxTxE: word vectors.
      mask_BxT: true on real tokens.
      input_kernel: W of both directions, `[2, E, 4H]`.
      recurrent_kernel: U, `[2, H, 4H]`.
      bias: b, `[2, 4H]`.

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    rows, tokens, _ = words_BxTxE.shape
    columns = jnp.swapaxes(words_BxTxE, 0, 1).reshape(tokens * rows, -1)
    kernel_GxE = jnp.swapaxes(input_kernel, 1, 2).reshape(-1, columns.shape[-1])
    projected = jnp.einsum("ge,ne->gn", kernel_GxE, columns).reshape(2, -1, tokens, rows)
    states = _recur(projected, jnp.swapaxes(recurrent_kernel, 1, 2), bias, mask_BxT.T)
    return jnp.transpose(states, (3, 2, 0, 1)).reshape(rows, tokens, -1)


@jax.custom_vjp
def _recur(projected_DxGxTxB: Array, kernel_DxGxH: Array, bias_DxG: Array, mask_TxB: Array) -> Array:
    """States `[2, H, T, B]`."""
    return _forward(projected_DxGxTxB, kernel_DxGxH, bias_DxG, mask_TxB)[2]


def _forward(projected: Array, kernel: Array, bias: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Activated gates `[2, 4H, T, B]`, cells and states `[2, H, T, B]`."""
    tokens, rows = mask.shape
    blank = jnp.zeros((2, kernel.shape[-1], rows), projected.dtype)
    kept = jnp.zeros((2, kernel.shape[-1], tokens, rows), projected.dtype)

    def step(t: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        """Token t forward, token T - 1 - t backward."""
        hidden, cell, gates, cells, states = carry
        real = _read(mask[None, None], t)
        inputs = _read(gates, t) + bias[:, :, None] + jnp.einsum("dgh,dhb->dgb", kernel, hidden)
        activated = computed_once(_activate(inputs))
        i, f, g, o = jnp.split(activated, 4, axis=1)
        cell = computed_once(jnp.where(real, f * cell + i * g, cell))
        hidden = computed_once(jnp.where(real, o * jnp.tanh(cell), hidden))
        return hidden, cell, _write(gates, activated, t), _write(cells, cell, t), _write(states, hidden, t)

    return jax.lax.fori_loop(0, tokens, step, (blank, blank, projected, kept, kept))[2:]


def _activate(inputs_DxGxB: Array) -> Array:
    """Gates of their inputs; as one function, `sigmoid(z) = (1 + tanh(z / 2)) / 2`."""
    size = inputs_DxGxB.shape[1] // 4
    scale = np.repeat(np.where(_TANH, 1, 0.5), size).astype(inputs_DxGxB.dtype)[None, :, None]
    return scale * jnp.tanh(scale * inputs_DxGxB) + (1 - scale)


def _backward_step(
    real: Array, gates: Array, cell: Array, cell_before: Array, d_hidden: Array, d_cell: Array
) -> tuple[Array, Array]:
    """Gradients of the gates' inputs `[2, 4H, B]` and of the cell before `[2, H, B]`."""
    i, f, g, o = jnp.split(gates, 4, axis=1)
    squashed = computed_once(jnp.tanh(cell))
    d_new = computed_once(d_cell + d_hidden * o * (1 - jnp.square(squashed)))
    # Chosen by the gate's number: XLA does not vectorise a concatenation on a CPU.
    shape = (2, 4, *cell.shape[1:])
    number, each = np.arange(4)[None, :, None, None], gates.reshape(shape)
    parts = (d_new * g, d_new * cell_before, d_new * i, d_hidden * squashed)
    d_gates = jnp.select([number == k for k in range(3)], [part[:, None] for part in parts[:3]], parts[3][:, None])
    slope = jnp.where(_TANH[None, :, None, None], 1 - jnp.square(each), each * (1 - each))
    d_inputs = computed_once(jnp.where(real, (d_gates * slope).reshape(gates.shape), 0))
    return d_inputs, jnp.where(real, d_new * f, d_cell)


def _recur_forward(projected: Array, kernel: Array, bias: Array, mask: Array) -> tuple[Array, tuple[Array, ...]]:
    """States, and what their gradient needs."""
    gates, cells, states = _forward(projected, kernel, bias, mask)
    return states, (gates, cells, states, kernel, mask)


def _recur_backward(kept: tuple[Array, ...], d_states: Array) -> tuple[Array, Array, Array, None]:
    """Gradients of projected inputs, kernel and bias from those of the states `[2, H, T, B]`."""
    gates, cells, states, kernel, mask = kept
    tokens = mask.shape[0]
    transposed = computed_once(jnp.swapaxes(kernel, 1, 2))
    before = _before(cells)

    def step(k: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        """Token T - 1 - k forward, token k backward."""
        d_hidden, d_cell, gates = carry
        t = tokens - 1 - k
        real = _read(mask[None, None], t)
        d_hidden = d_hidden + _read(d_states, t)
        d_inputs, d_cell = _backward_step(
            real, computed_once(_read(gates, t)), _read(cells, t), _read(before, t), d_hidden, d_cell
        )
        d_hidden = jnp.where(real, 0, d_hidden) + jnp.einsum("dhg,dgb->dhb", transposed, d_inputs)
        return d_hidden, d_cell, _write(gates, d_inputs, t)

    blank = jnp.zeros_like(cells[:, :, 0])
    *_, d_inputs = jax.lax.fori_loop(0, tokens, step, (blank, blank, gates))
    flat = (*d_inputs.shape[:2], -1), (*states.shape[:2], -1)
    d_kernel = jnp.einsum("dgn,dhn->dgh", d_inputs.reshape(flat[0]), _before(states).reshape(flat[1]))
    return d_inputs, d_kernel, jnp.sum(d_inputs, axis=(2, 3)), None


_recur.defvjp(_recur_forward, _recur_backward)


def _read(values: Array, t: Array) -> Array:
    """Token t forward and T - 1 - t backward, `[2, F, B]`, of `[2, F, T, B]`, or of `[1, F, T, B]`."""
    last, size, tokens, rows = values.shape[0] - 1, *values.shape[1:]
    places = ((0, 0, t, 0), (last, 0, tokens - 1 - t, 0))
    return jnp.concatenate([jax.lax.dynamic_slice(values, at, (1, size, 1, rows)) for at in places])[:, :, 0]


def _write(values: Array, new: Array, t: Array) -> Array:
    """`[2, F, T, B]` with `[2, F, B]` in place of what `_read` gives."""
    for d, place in ((0, t), (1, values.shape[2] - 1 - t)):
        values = jax.lax.dynamic_update_slice(values, new[d, None, :, None], (d, 0, place, 0))
    return values


def _before(values: Array) -> Array:
    """`[2, F, T, B]` of the step before in each direction, zero at the first."""
    forward, backward = jnp.pad(values[:1, :, :-1], _AT_FRONT), jnp.pad(values[1:, :, 1:], _AT_END)
    return jnp.concatenate([forward, backward])


_AT_FRONT, _AT_END = ((0, 0), (0, 0), (1, 0), (0, 0)), ((0, 0), (0, 0), (0, 1), (0, 0))
