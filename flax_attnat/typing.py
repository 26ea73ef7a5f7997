"""The alphabet of array axes, and the few types that rooms share.

R runs, S steps, B batch, T tokens, Q query tokens, E embedding, H hidden state, A attention,
C classes, V vocabulary, K neighbours, N examples of a split. A name such as `scores_BxT` carries its axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
"""An array or a tracer."""

Scalar = float | jax.Array
"""A Python float, a 0-d array, a tracer, or a `[B]` array where the docstring says so."""

LossFn = Callable[[Array], Array]
"""`loss_fn(delta) -> [B]`: per-example losses as a function of one additive delta; examples are independent."""

Params = Any
"""A pytree of parameters whose top level is `embedding`, `encoder`, `attention`, `output`."""


class Batch(NamedTuple):
    """One batch of single sequences.

    Attributes:
      tokens: `[B, T]` int32 word ids, 0 on padding.
      length: `[B]` int32 number of real tokens; tokens stand at the left.
      label: `[B]` int32 class.
      weight: `[B]` float32, 1 on real rows and 0 on the rows that fill up a last, short batch.
    """

    tokens: Array
    length: Array
    label: Array
    weight: Array


class Encoded(NamedTuple):
    """What the encoder hands on.

    Attributes:
      states: `[B, T, H]` hidden states, zero on padding.
      mask: `[B, T]` bool, true on real tokens.
    """

    states: Array
    mask: Array
