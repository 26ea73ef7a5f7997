"""The classifier once more, one text at a time in NumPy and float64, and its gradient by central differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Tree = Any


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def as_float64(tree: Tree) -> Tree:
    """A nested dictionary of parameters as float64 arrays."""
    return {k: as_float64(v) if isinstance(v, dict) else np.asarray(v, np.float64) for k, v in tree.items()}


def states(params: Tree, words: np.ndarray) -> np.ndarray:
    """Hidden states `[T, H]` of the words `[T, E]` of one text; the parameters tell which encoder it is."""
    encoder = params["encoder"]
    if "Dense_0" in encoder:
        return np.tanh(words @ encoder["Dense_0"]["kernel"] + encoder["Dense_0"]["bias"])
    directions = []
    for way, order in enumerate((1, -1)):
        hidden = cell = np.zeros(encoder["recurrent_kernel"].shape[1])
        found = []
        for word in words[::order]:
            gates = word @ encoder["input_kernel"][way] + hidden @ encoder["recurrent_kernel"][way]
            i, f, g, o = np.split(gates + encoder["bias"][way], 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            found.append(hidden)
        directions.append(np.stack(found)[::order])
    return np.concatenate(directions, axis=1)


def attention(params: Tree, words: np.ndarray) -> np.ndarray:
    """Additive attention weights `[T]` of one text."""
    inner = params["attention"]["inner"]
    scores = np.tanh(states(params, words) @ inner["kernel"] + inner["bias"]) @ params["attention"]["outer"]["kernel"]
    e = np.exp(scores[:, 0] - scores.max())
    return e / e.sum()


def probability(params: Tree, words: np.ndarray, weights: np.ndarray) -> float:
    """p(class 1) of one text under given attention weights."""
    output = params["output"]
    return float(sigmoid(weights @ states(params, words) @ output["kernel"] + output["bias"])[0])


def explain(params: Tree, ids: Sequence[int], *, detached: bool = True) -> tuple[float, np.ndarray, np.ndarray]:
    """p(class 1), attention `[T]` and gradient importance `[T]` of a text of word ids.

    `tau_t = |sum_e w_te dp/dw_te|` over its sum, the derivative a central difference of step 1e-6 along the word
    vector itself, with attention weights held constant unless `detached` is off.
    """
    words = params["embedding"]["table"][np.asarray(ids)]
    weights = attention(params, words)
    raw = np.zeros(len(ids))
    for place in range(len(ids)):
        moved = []
        for sign in (1, -1):
            other = words.copy()
            other[place] *= 1 + sign * 1e-6
            moved.append(probability(params, other, weights if detached else attention(params, other)))
        raw[place] = abs(moved[0] - moved[1]) / 2e-6
    return probability(params, words, weights), weights, raw / raw.sum()
