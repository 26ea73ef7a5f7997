"""The single-sequence BiLSTM classifier, its gradients and torch's Adam(amsgrad) in float64 NumPy, derived by hand.

One sentence at a time and one token at a time, without padding or masks, so that it shares no step with the library.
Parameters are nested dictionaries of the library's layout; a row is `(ids, label, weight)` with its real tokens only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Tree = Any
"""Nested dictionaries of float64 arrays."""


class Row(NamedTuple):
    """One sentence: `[n]` ids of its real tokens (n may be 0), its label and its weight."""

    ids: np.ndarray
    label: int
    weight: float


def tree_map(function: Any, *trees: Tree) -> Tree:
    """`function` on every leaf of nested dictionaries of the same keys."""
    if isinstance(trees[0], dict):
        return {name: tree_map(function, *(tree[name] for tree in trees)) for name in trees[0]}
    return function(*trees)


def float64(tree: Tree) -> Tree:
    """A copy in float64."""
    return tree_map(lambda x: np.array(x, np.float64), tree)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-x))`."""
    return 1 / (1 + np.exp(-x))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of one sentence's scores `[n]`; empty for an empty one."""
    if len(scores) == 0:
        return scores
    e = np.exp(scores - scores.max())
    return e / e.sum()


# --- one LSTM direction ---------------------------------------------------------------------------------------------


def lstm(words: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, list]:
    """Hidden states `[n, h]` of one direction over `[n, E]` words, gates in the order i, f, g, o, and the tape."""
    size = recurrent.shape[0]
    hidden, cell = np.zeros(size), np.zeros(size)
    states, tape = np.zeros((len(words), size)), []
    for t, word in enumerate(words):
        gates = word @ kernel + hidden @ recurrent + bias
        i, f, o = (sigmoid(gates[k * size : (k + 1) * size]) for k in (0, 1, 3))
        g = np.tanh(gates[2 * size : 3 * size])
        new_cell = f * cell + i * g
        tape.append((word, hidden, cell, i, f, g, o, new_cell))
        hidden, cell = o * np.tanh(new_cell), new_cell
        states[t] = hidden
    return states, tape


def lstm_backward(d_states: np.ndarray, tape: list, kernel: np.ndarray, recurrent: np.ndarray) -> tuple:
    """Gradients of words, kernel, recurrent kernel and bias from the gradient `[n, h]` of the states."""
    size = recurrent.shape[0]
    d_words = np.zeros((len(tape), kernel.shape[0]))
    d_kernel, d_recurrent, d_bias = np.zeros_like(kernel), np.zeros_like(recurrent), np.zeros(4 * size)
    d_hidden, d_cell = np.zeros(size), np.zeros(size)
    for t in reversed(range(len(tape))):
        word, hidden, cell, i, f, g, o, new_cell = tape[t]
        d_hidden = d_hidden + d_states[t]
        d_cell = d_cell + d_hidden * o * (1 - np.tanh(new_cell) ** 2)
        d_gates = np.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * cell * f * (1 - f),
                d_cell * i * (1 - g**2),
                d_hidden * np.tanh(new_cell) * o * (1 - o),
            ]
        )
        d_words[t] = kernel @ d_gates
        d_kernel += np.outer(word, d_gates)
        d_recurrent += np.outer(hidden, d_gates)
        d_bias += d_gates
        d_hidden, d_cell = recurrent @ d_gates, d_cell * f
    return d_words, d_kernel, d_recurrent, d_bias


def bilstm(encoder: Tree, words: np.ndarray) -> tuple[np.ndarray, tuple[list, list]]:
    """States `[n, 2h]` of both directions, the second read from the last word to the first, and the tapes."""
    kernel, recurrent, bias = encoder["input_kernel"], encoder["recurrent_kernel"], encoder["bias"]
    ahead, tape0 = lstm(words, kernel[0], recurrent[0], bias[0])
    back, tape1 = lstm(words[::-1], kernel[1], recurrent[1], bias[1])
    return np.concatenate([ahead, back[::-1]], axis=1), (tape0, tape1)


def bilstm_backward(encoder: Tree, d_states: np.ndarray, tapes: tuple[list, list]) -> tuple[np.ndarray, Tree]:
    """Gradients of the words `[n, E]` and of the encoder's parameters."""
    kernel, recurrent = encoder["input_kernel"], encoder["recurrent_kernel"]
    size = recurrent.shape[1]
    ahead = lstm_backward(d_states[:, :size], tapes[0], kernel[0], recurrent[0])
    back = lstm_backward(d_states[::-1, size:], tapes[1], kernel[1], recurrent[1])
    names = ("input_kernel", "recurrent_kernel", "bias")
    return ahead[0] + back[0][::-1], {n: np.stack([a, b]) for n, a, b in zip(names, ahead[1:], back[1:], strict=True)}


# --- attention scores -----------------------------------------------------------------------------------------------


def score(attention: Tree, states: np.ndarray) -> np.ndarray:
    """Scores `[n]`: additive where there is an `inner` layer, else scaled dot."""
    if "inner" in attention:
        inner = np.tanh(states @ attention["inner"]["kernel"] + attention["inner"]["bias"])
        return (inner @ attention["outer"]["kernel"])[:, 0]
    return (states @ attention["query"]["kernel"])[:, 0] / np.sqrt(states.shape[1])


def score_backward(attention: Tree, states: np.ndarray, d_scores: np.ndarray) -> tuple[np.ndarray, Tree]:
    """Gradients of the states `[n, H]` and of the attention parameters."""
    if "inner" in attention:
        kernel, outer = attention["inner"]["kernel"], attention["outer"]["kernel"]
        inner = np.tanh(states @ kernel + attention["inner"]["bias"])
        d_inner = np.outer(d_scores, outer[:, 0]) * (1 - inner**2)
        d_attention = {
            "inner": {"kernel": states.T @ d_inner, "bias": d_inner.sum(0)},
            "outer": {"kernel": (inner.T @ d_scores)[:, None]},
        }
        return d_inner @ kernel.T, d_attention
    root = np.sqrt(states.shape[1])
    d_states = np.outer(d_scores, attention["query"]["kernel"][:, 0]) / root
    return d_states, {"query": {"kernel": (states.T @ d_scores)[:, None] / root}}


# --- readout --------------------------------------------------------------------------------------------------------


def readout_loss(output: Tree, states: np.ndarray, scores: np.ndarray, label: int, pos_weight: float) -> float:
    """Cross-entropy of `sigmoid(o . sum_t softmax(scores)_t h_t + b_o)`."""
    logit = float(softmax(scores) @ states @ output["kernel"][:, 0] + output["bias"][0])
    return pos_weight * np.log1p(np.exp(-logit)) if label else np.log1p(np.exp(logit))


def readout_backward(
    output: Tree, states: np.ndarray, scores: np.ndarray, label: int, pos_weight: float
) -> tuple[np.ndarray, np.ndarray, Tree]:
    """Gradients of that loss: states `[n, H]`, scores `[n]`, output parameters."""
    weights = softmax(scores)
    context = weights @ states
    p = sigmoid(context @ output["kernel"][:, 0] + output["bias"][0])
    d_logit = pos_weight * (p - 1) if label else p
    d_weights = d_logit * states @ output["kernel"][:, 0]
    d_scores = weights * (d_weights - weights @ d_weights)
    d_states = d_logit * np.outer(weights, output["kernel"][:, 0])
    return d_states, d_scores, {"kernel": d_logit * context[:, None], "bias": np.array([d_logit])}


# --- perturbations --------------------------------------------------------------------------------------------------


def perturb(technique: str, scores: np.ndarray, gradient: np.ndarray, epsilon: float) -> np.ndarray:
    """Perturbation `[n]` of one sentence's scores; attention_iat in the reading "span", by its `(n, n)` matrix."""
    if technique == "vanilla" or len(scores) == 0:
        return np.zeros_like(scores)
    direction = gradient
    if technique == "attention_iat":
        differences = scores[:, None] - scores[None, :]
        norms = np.linalg.norm(differences, axis=1, keepdims=True)
        unit = np.divide(differences, norms, out=np.zeros_like(differences), where=norms > 0)
        direction = unit @ (unit.T @ gradient)
    norm = np.linalg.norm(direction)
    # One token has a gradient of rounding errors around zero, and no other token to differ from.
    return epsilon * direction / norm if norm > 0 and len(scores) > 1 else np.zeros_like(scores)


def perturbations(
    params: Tree, rows: Sequence[Row], technique: str, epsilon: float, pos_weight: float
) -> list[np.ndarray]:
    """One perturbation `[n]` per row, at these parameters."""
    deltas = []
    for row in rows:
        states, _ = bilstm(params["encoder"], params["embedding"]["table"][row.ids])
        scores = score(params["attention"], states)
        _, gradient, _ = readout_backward(params["output"], states, scores, row.label, pos_weight)
        deltas.append(perturb(technique, scores, gradient, epsilon))
    return deltas


# --- objective ------------------------------------------------------------------------------------------------------


def objective(
    params: Tree, rows: Sequence[Row], deltas: Sequence[np.ndarray], adversarial_weight: float, pos_weight: float
) -> float:
    """Mean over real rows of `L(s) + lambda L(s + r)` with the deltas as constants."""
    total = 0.0
    for row, delta in zip(rows, deltas, strict=True):
        states, _ = bilstm(params["encoder"], params["embedding"]["table"][row.ids])
        scores = score(params["attention"], states)
        for weight, added in ((1.0, 0.0), (adversarial_weight, delta)):
            loss = readout_loss(params["output"], states, scores + added, row.label, pos_weight)
            total += row.weight * weight * loss
    return total / sum(row.weight for row in rows)


def gradients(
    params: Tree, rows: Sequence[Row], deltas: Sequence[np.ndarray], adversarial_weight: float, pos_weight: float
) -> Tree:
    """Gradient of `objective` with respect to every parameter."""
    grads = tree_map(np.zeros_like, params)
    real = sum(row.weight for row in rows)

    def add(group: str, values: Tree) -> None:
        """Adds one group's gradient in place."""
        tree_map(lambda total, value: np.add(total, value, out=total), grads[group], values)

    for row, delta in zip(rows, deltas, strict=True):
        states, tapes = bilstm(params["encoder"], params["embedding"]["table"][row.ids])
        scores = score(params["attention"], states)
        d_states, d_scores = np.zeros_like(states), np.zeros_like(scores)
        for weight, added in ((1.0, 0.0), (adversarial_weight, delta)):
            share = row.weight * weight / real
            parts = readout_backward(params["output"], states, scores + added, row.label, pos_weight)
            d_states, d_scores = d_states + share * parts[0], d_scores + share * parts[1]
            add("output", tree_map(lambda x, share=share: share * x, parts[2]))
        through_scores, d_attention = score_backward(params["attention"], states, d_scores)
        d_words, d_encoder = bilstm_backward(params["encoder"], d_states + through_scores, tapes)
        add("attention", d_attention)
        add("encoder", d_encoder)
        np.add.at(grads["embedding"]["table"], row.ids, d_words)
    return grads


# --- torch.optim.Adam(amsgrad=True, weight_decay=...) ---------------------------------------------------------------


class Adam:
    """torch.optim.Adam with amsgrad and one L2 coefficient per parameter group, in torch's order of operations."""

    def __init__(self, params: Tree, learning_rate: float, weight_decay: dict[str, float]) -> None:
        self.params, self.learning_rate, self.weight_decay, self.t = params, learning_rate, weight_decay, 0
        self.m, self.v, self.largest = (tree_map(np.zeros_like, params) for _ in range(3))

    def step(self, grads: Tree, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> None:
        """One update of `params`."""
        self.t += 1
        decayed = {
            name: tree_map(lambda g, p, decay=self.weight_decay[name]: g + decay * p, group, self.params[name])
            for name, group in grads.items()
        }
        self.m = tree_map(lambda m, g: b1 * m + (1 - b1) * g, self.m, decayed)
        self.v = tree_map(lambda v, g: b2 * v + (1 - b2) * g * g, self.v, decayed)
        self.largest = tree_map(np.maximum, self.largest, self.v)
        size = self.learning_rate / (1 - b1**self.t)
        root = np.sqrt(1 - b2**self.t)
        self.params = tree_map(
            lambda p, m, v: p - size * m / (np.sqrt(v) / root + eps), self.params, self.m, self.largest
        )
