"""The pair classifier in float64 NumPy: one passage and one query at a time, without padding or masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.training.reference import Tree, bilstm, softmax


def dense(layer: Tree, x: np.ndarray) -> np.ndarray:
    """`x W + b`, without b where the layer has none."""
    return x @ layer["kernel"] + layer.get("bias", 0.0)


def encode(encoder: Tree, words: np.ndarray) -> np.ndarray:
    """States `[n, H]` of words `[n, E]`; the parameters tell which encoder it is."""
    if "input_kernel" in encoder:
        return bilstm(encoder, words)[0]
    if "Dense_0" in encoder:
        return np.tanh(dense(encoder["Dense_0"], words))
    parts = []
    for width in (1, 3, 5, 7):
        layer, half = encoder[f"width_{width}"], width // 2
        around = np.pad(words, ((half, half), (0, 0)))
        sums = [sum(around[t + k] @ layer["kernel"][k] for k in range(width)) for t in range(len(words))]
        parts.append(np.maximum(np.reshape(sums, (len(words), len(layer["bias"]))) + layer["bias"], 0))
    return np.concatenate(parts, axis=1)


def query_state(encoder: Tree, words: np.ndarray, size: int) -> np.ndarray:
    """The state `[H]` of a whole query: its last forward and first backward state, its maximum, or its mean."""
    if len(words) == 0:
        return np.zeros(size)
    states = encode(encoder, words)
    if "input_kernel" in encoder:
        return np.concatenate([states[-1, : size // 2], states[0, size // 2 :]])
    return states.mean(axis=0) if "Dense_0" in encoder else states.max(axis=0)


def forward(params: Tree, passage: Sequence[int], query: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Attention scores `[n]` and logits `[C]` of one pair; scaled dot where the attention has no parameters."""
    return forward_words(params, *(params["embedding"]["table"][np.asarray(ids, int)] for ids in (passage, query)))


def forward_words(
    params: Tree, passage: np.ndarray, query: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `forward`, from word vectors `[n, E]` and `[m, E]`; `weights` `[n]` stand in for the attention."""
    output, attention = params["output"], params["attention"]
    size = output["passage"]["kernel"].shape[0]
    states = encode(params["encoder"]["passage"], passage).reshape(len(passage), size)
    asked = query_state(params["encoder"]["query"], query, size)
    if attention:
        inner = np.tanh(dense(attention["passage"], states) + dense(attention["query"], asked))
        scores = dense(attention["outer"], inner)[:, 0]
    else:
        scores = states @ asked / np.sqrt(size)
    context = (softmax(scores) if weights is None else weights) @ states
    return scores, dense(output["outer"], np.tanh(dense(output["passage"], context) + dense(output["query"], asked)))


def loss(params: Tree, rows: Sequence[Any]) -> float:
    """Mean cross-entropy of rows `(passage, query, label)`."""
    total = 0.0
    for passage, query, label in rows:
        total -= np.log(softmax(forward(params, passage, query)[1])[label])
    return total / len(rows)
