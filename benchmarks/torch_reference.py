"""Attention AT in PyTorch, the peer that our step is measured beside: the same model, texts, order and optimiser.

    python -m benchmarks.torch_reference

Trains 50 steps from the same parameters in both and prints the losses: they must agree to 1e-3, so that what
benchmarks.step times is the same work. Needs the extra `bench`.

As the released code does, a step runs the model three times: for the loss without perturbation, for the gradient that
the perturbation follows, and for the loss under it; then one backward pass through the first and the last. Texts are
packed sequences. torch's LSTM has two biases of which only the sum matters: one is held at zero, as ours has one.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.work import Sizes, Texts, build_ours, random_texts

STEPS = 50
TOLERANCE = 1e-3


class Classifier(torch.nn.Module):
    """BiLSTM, additive attention, one logit."""

    def __init__(self, sizes: Sizes, params: Any) -> None:
        super().__init__()
        units = sizes.hidden
        self.embedding = torch.nn.Embedding(sizes.vocabulary, sizes.embedding)
        self.encoder = torch.nn.LSTM(sizes.embedding, units, batch_first=True, bidirectional=True)
        self.inner = torch.nn.Linear(2 * units, units)
        self.outer = torch.nn.Linear(units, 1, bias=False)
        self.output = torch.nn.Linear(2 * units, 1)
        with torch.no_grad():
            self.embedding.weight.copy_(_tensor(params["embedding"]["table"]))
            for direction, name in enumerate(("", "_reverse")):
                for kernel, of in (("input_kernel", "weight_ih"), ("recurrent_kernel", "weight_hh")):
                    values = _tensor(params["encoder"][kernel][direction]).T
                    getattr(self.encoder, f"{of}_l0{name}").copy_(values)
                getattr(self.encoder, f"bias_ih_l0{name}").copy_(_tensor(params["encoder"]["bias"][direction]))
                unused = getattr(self.encoder, f"bias_hh_l0{name}")
                unused.zero_().requires_grad_(False)
            attention, output = params["attention"], params["output"]
            self.inner.weight.copy_(_tensor(attention["inner"]["kernel"]).T)
            self.inner.bias.copy_(_tensor(attention["inner"]["bias"]))
            self.outer.weight.copy_(_tensor(attention["outer"]["kernel"]).T)
            self.output.weight.copy_(_tensor(output["kernel"]).T)
            self.output.bias.copy_(_tensor(output["bias"]))

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor, delta: torch.Tensor | None = None) -> torch.Tensor:
        """Logits `[B]`, with a delta `[B, T]` on the scores; the lengths are on the CPU, where packing reads them."""
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(
            self.encoder(packed)[0], batch_first=True, total_length=tokens.shape[1]
        )
        scores = self.outer(torch.tanh(self.inner(states)))[..., 0]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        mask = places[None, :] < lengths.to(tokens.device)[:, None]
        moved = scores if delta is None else scores + delta
        attention = torch.softmax(moved.masked_fill(~mask, -torch.inf), dim=-1)
        return self.output(torch.einsum("bt,bth->bh", attention, states))[:, 0]


def build_peer(
    sizes: Sizes, params: Any, epsilon: float, *, compiled: bool = False, device: str = "cpu"
) -> Callable[..., torch.Tensor]:
    """A step of attention AT: `step(tokens, lengths, labels) -> loss`, which changes the model that it holds.

    Args:
      sizes: of the work.
      params: our parameters of one run, to start from.
      epsilon: norm of the perturbation.
      compiled: whether the forward passes go through torch.compile.
      device: where the model is; on "cuda" the LSTM is cuDNN's and the optimiser torch's fused one.
    """
    model = Classifier(sizes, params).to(device)
    attention = [*model.inner.parameters(), *model.outer.parameters()]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is of for of in attention)]
    groups = [{"params": others, "weight_decay": 1e-5}, {"params": attention, "weight_decay": 0.0}]
    fused = True if torch.device(device).type == "cuda" else None
    optimizer = torch.optim.Adam(groups, lr=1e-3, amsgrad=True, fused=fused)
    forward = torch.compile(model) if compiled else model
    losses = torch.nn.BCEWithLogitsLoss()

    def step(tokens: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One update."""
        optimizer.zero_grad(set_to_none=True)
        clean = losses(forward(tokens, lengths), labels)
        # The gradient of the scores is that of a delta at zero, which compiled programs can give too.
        zero = torch.zeros(tokens.shape, device=tokens.device, requires_grad=True)
        (gradient,) = torch.autograd.grad(losses(forward(tokens, lengths, zero), labels), zero)
        norm = gradient.norm(dim=-1, keepdim=True)
        delta = torch.where(norm > 0, epsilon * gradient / norm, 0.0)
        loss = clean + losses(forward(tokens, lengths, delta), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def batches(texts: Texts, device: str = "cpu") -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The batches of texts in their order, as tensors on a device, the lengths on the CPU."""
    columns = texts.bucket.tokens, texts.bucket.lengths, np.asarray(texts.bucket.labels, np.float32)
    return [
        (
            _tensor(columns[0][rows]).long().to(device),
            _tensor(columns[1][rows]).long(),
            _tensor(columns[2][rows]).to(device),
        )
        for rows in np.asarray(texts.rows)[0]
    ]


def _tensor(values: Any) -> torch.Tensor:
    """A tensor of its own memory."""
    return torch.from_numpy(np.array(values))


def main(argv: Sequence[str]) -> int:
    """Compares the losses; returns 1 if they differ."""
    sizes = Sizes(tokens=20, batches=STEPS)
    ours = build_ours("attention_at", sizes)
    params = jax.tree.map(lambda leaf: np.array(leaf[0]), ours.states.params)
    step = build_peer(sizes, params, 1.0)
    theirs = [float(step(*batch)) for batch in batches(random_texts(sizes))]
    losses, states = list[float](), ours.states
    for number in range(STEPS):
        states, loss = ours.run(states, number, 1)
        losses.append(float(loss[0]))
    print("  step      ours     peer")
    for number in (0, STEPS // 2 - 1, STEPS - 1):
        print(f"{number + 1:6}  {losses[number]:.6f}  {theirs[number]:.6f}")
    largest = float(np.max(np.abs(np.subtract(losses, theirs))))
    print(f"largest difference of {STEPS} steps: {largest:.1e} (at most {TOLERANCE:g})")
    return int(largest > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
