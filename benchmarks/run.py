"""The ratios that speed is judged by, each of two things measured in turn in one process; no seconds.

    python -m benchmarks.run --quick
    python -m benchmarks.run --json=FILE

Flags:
  --quick      T = 20 alone, 4 runs and 3 turns: minutes on two slow cores; otherwise T = 20, 60, 200, 16 runs, 9 turns
  --json=FILE  writes the ratios too

Of a population, the time of a step of one of its runs counts. B = 32, H = 128, E = 300, V = 13,824. The floor is that
of benchmarks.floor; without torch (the extra `bench`) the PyTorch peer is left out.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks import floor
from benchmarks.gpu import build_peer_call, why_no_peer
from benchmarks.work import Sizes, build_ours, medians, ratios, read_flags, repeat, save_record

TECHNIQUES = ("attention_iat", "word_at")  # beside vanilla and attention_at
PEER = "PyTorch"


class Plan(NamedTuple):
    """What is measured.

    Attributes:
      tokens: T, each of the widths.
      runs: of the population.
      times: turns of which the median counts.
    """

    tokens: tuple[int, ...] = (20, 60, 200)
    runs: int = 16
    times: int = 9


QUICK = Plan((20,), 4, 3)


def measure(sizes: Sizes, runs: int, times: int, work: int = floor.WORK, *, peer: bool) -> dict[str, float]:
    """Ratios at one width by "first / second", larger than 1 where the first is slower.

    Args:
      sizes: of the work.
      runs: of the population.
      times: turns.
      work: operations of the floor's products that are timed together.
      peer: whether PyTorch is measured.
    """
    population = f"attention_at, {runs} runs"
    calls = floor.build_calls(sizes, work)
    calls |= {name: repeat(build_ours(name, sizes)) for name in ("vanilla", *TECHNIQUES)}
    calls[population] = repeat(build_ours("attention_at", sizes, runs))
    if peer:
        calls[PEER] = _build_peer(sizes)
    seconds = medians(calls, times)
    share = floor.evaluate(sizes, seconds, work)["share"]
    seconds |= {population: seconds[population] / runs, "floor": share * seconds["attention_at"]}
    pairs = [(name, "vanilla") for name in ("attention_at", *TECHNIQUES)]
    pairs += [(name, "attention_at") for name in (population, *([PEER] if peer else []), "floor")]
    return ratios(seconds, pairs)


def _build_peer(sizes: Sizes) -> Callable[[], None]:
    """A call that trains S steps of the peer, not compiled, with a thread for each core that this process may use."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return build_peer_call(sizes)


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    flags = read_flags(argv)
    plan, reason = QUICK if "quick" in flags else Plan(), why_no_peer()
    if reason:
        print(f"{PEER} is left out: {reason}.", flush=True)
    found = {}
    for tokens in plan.tokens:
        found[tokens] = measure(Sizes(tokens=tokens), plan.runs, plan.times, peer=reason is None)
        for name, value in found[tokens].items():
            print(f"T = {tokens:3}  {value:7.2f}  {name}", flush=True)
    save_record(flags, {"times": plan.times, "ratios": found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
