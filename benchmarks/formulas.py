"""What a step of Attention AT holds and computes, from its sizes: what the other benchmarks measure against.

The model is the BiLSTM with additive attention and one logit; N = B T, float32.
"""

from benchmarks.work import Sizes

FLOAT = 4  # bytes
TINY = Sizes(rows=2, tokens=6, vocabulary=500, embedding=12, hidden=16, batches=2)
"""Sizes at which everything runs at once, and no figure means anything."""


def parameter_bytes(sizes: Sizes) -> int:
    """Bytes of the parameters of one run: `4 (V E + 8 H (E + H + 1) + 2 H (H + 1) + 2 H + 1)`.

    The table; kernels and bias of four gates in two directions; the attention's inner kernel and bias and its outer
    kernel; kernel and bias of the output.
    """
    units = sizes.hidden
    encoder = 8 * units * (sizes.embedding + units + 1)
    return FLOAT * (sizes.vocabulary * sizes.embedding + encoder + 2 * units * (units + 1) + 2 * units + 1)


def activation_bytes(sizes: Sizes) -> dict[str, int]:
    """Bytes, by what they are, that the backward pass of one run reads from its forward pass.

    `4 N (E + 8 H + 2 H + 2 H + H + 3)`:

      words             E    input of the projection
      gates             8 H  four of two directions, in the place of the projected words
      hidden states     2 H  both directions
      cell states       2 H
      attention         H    inner layer after tanh
      weights           3    scores, and the softmax without and with the perturbation
    """
    units = sizes.hidden
    widths = {
        "words": sizes.embedding,
        "gates": 8 * units,
        "hidden states": 2 * units,
        "cell states": 2 * units,
        "attention": units,
        "weights": 3,
    }
    return {name: FLOAT * sizes.rows * sizes.tokens * width for name, width in widths.items()}


def part_bytes(sizes: Sizes) -> dict[str, int]:
    """Bytes of one run, by the parts that a step needs at once: `P + 3 P + P + P + activations`.

    The parameters, the optimiser's three moments, the best parameters so far, one copy of the gradients, and what
    `activation_bytes` says.
    """
    own = parameter_bytes(sizes)
    fixed = {"parameters": own, "moments": 3 * own, "best parameters": own, "gradients": own}
    return fixed | activation_bytes(sizes)


def step_flops(sizes: Sizes) -> int:
    """Floating-point operations in the matrix products of one step of one run.

    `3 (16 N E H + 16 N H^2 + 4 N H^2 + 2 N H) + 8 (4 N H + 4 B H)`: projection of the words, recurrence, and the two
    layers of the attention, each forward and twice as much backward; then the readout, forward for the clean loss, the
    perturbation and the loss under it, backward twice as much for the two losses and once for the perturbation, which
    asks for the gradient of the scores alone.
    """
    n, units = sizes.rows * sizes.tokens, sizes.hidden
    encoder = 16 * n * sizes.embedding * units + 16 * n * units**2
    attention = 4 * n * units**2 + 2 * n * units
    readout = 4 * n * units + 4 * sizes.rows * units
    return 3 * (encoder + attention) + 8 * readout
