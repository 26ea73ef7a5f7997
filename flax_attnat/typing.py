"""The alphabet of array axes, and the few types that rooms share.

R runs, S steps, B batch, T tokens, Q query tokens, W words of a row (T, or T + Q for a pair), E embedding, H hidden
state, A attention, C classes, V vocabulary, K neighbours, N examples of a split. A name such as `scores_BxT` carries
its axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
"""An array or a tracer."""

Scalar = float | np.number | np.ndarray | jax.Array
"""A Python or NumPy number, a 0-d array, a tracer, or a `[B]` array where the docstring says so."""

LossFn = Callable[[Array], Array]
"""`loss_fn(delta) -> [B]`: per-example losses as a function of one additive delta; examples are independent."""

Params = Any
"""A pytree of parameters whose top level is `embedding`, `encoder`, `attention`, `output`."""


class Batch(NamedTuple):
    """One batch of single sequences, or of pairs of a passage (premise) and a query (question, hypothesis).

    Attributes:
      tokens: `[B, T]` int32 word ids of the passage, 0 on padding.
      length: `[B]` int32 number of its real tokens; tokens stand at the left.
      label: `[B]` int32 class.
      weight: `[B]` float32, 1 on real rows and 0 on the rows that fill up a last, short batch.
      query: `[B, Q]` int32 word ids of the query, 0 on padding; None for single sequences.
      query_length: `[B]` int32 number of its real tokens; None for single sequences.
      places: `[B, W]` int32 rows of the embedding table behind the tokens (and the query), where the table holds only
        some of the words; None: the ids are the rows.
    """

    tokens: Array
    length: Array
    label: Array
    weight: Array
    query: Array | None = None
    query_length: Array | None = None
    places: Array | None = None


class Encoded(NamedTuple):
    """What the encoder hands on.

    Attributes:
      states: `[B, T, H]` hidden states of the passage, zero on padding.
      mask: `[B, T]` bool, true on its real tokens.
      query: `[B, H]` one state for the whole query; None for single sequences.
      candidates: `[B, C]` bool, the classes that are possible; None: all are.
    """

    states: Array
    mask: Array
    query: Array | None = None
    candidates: Array | None = None
