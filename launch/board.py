"""What a person sees while several populations train: a line per cohort, live on a terminal, else one per epoch."""

import dataclasses
import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from flax_attnat.training.loop import Progress
from flax_attnat.training.runs import Cohort, Run

COLUMNS = ("cohort", "runs", "epoch", "dev", "run-steps/s", "left", "frozen")


@dataclasses.dataclass
class _State:
    """Where one cohort stands.

    Attributes:
      runs: how many it has.
      done: how many of them are finished.
      epoch: of the part under way, from 1.
      lines: of the last epoch of each part that was trained since the start of this process, by its first run.
      rate: run-steps a second.
      left: seconds.
    """

    runs: int
    done: int = 0
    epoch: int = 0
    lines: dict[Run, Sequence[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    rate: float | None = None
    left: float | None = None


class CohortBoard:
    """Shows the progress of an ablation.

    Args:
      console: where to; whether it is a terminal decides between a live table and plain lines.
      cohorts: what is trained, in this order.
    """

    def __init__(self, console: Console, cohorts: Sequence[Cohort]) -> None:
        self._console = console
        self._epochs = cohorts[0].config.training.epochs
        self._selection = cohorts[0].config.training.selection
        self._states = {name_of(cohort): _State(len(cohort.runs)) for cohort in cohorts}
        self._live = Live(console=console, auto_refresh=False, get_renderable=self.table)
        self._part: Cohort | None = None
        self._last: tuple[int, float] | None = None

    def __enter__(self) -> "CohortBoard":
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, cohort: Cohort, progress: Progress | None) -> None:
        """Takes one report on a cohort or a part of it; None: it is finished."""
        state = self._states[name_of(cohort)]
        if progress is None:
            state.done += len(cohort.runs)
            state.rate = None
            state.left = None if state.done == state.runs else state.left
        else:
            self._note(state, cohort, progress)
        if self._console.is_terminal:
            self._live.refresh()
        elif progress is None or progress.metrics is not None:
            cells = zip(COLUMNS, self._cells(name_of(cohort), state), strict=True)
            line = "  ".join(cell if name == "cohort" else f"{name} {cell}" for name, cell in cells if cell)
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def table(self) -> Table:
        """All cohorts, as they stand."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "cohort" else "right", no_wrap=True)
        for name, state in self._states.items():
            table.add_row(*self._cells(name, state))
        return table

    def _note(self, state: _State, part: Cohort, progress: Progress) -> None:
        """Where a cohort stands after a report on the part of it that is trained."""
        if part != self._part:
            self._part, self._last = part, None
        done = (progress.epoch - 1) * progress.steps + progress.step
        total, now = self._epochs * progress.steps, time.monotonic()
        if self._last is not None and done > self._last[0]:
            seconds = (now - self._last[1]) / (done - self._last[0])
            state.rate = len(part.runs) / seconds
            others = state.runs - state.done - len(part.runs)
            state.left = seconds * (total - done + total * others / len(part.runs))
        if progress.metrics is None:
            self._last = (done, now)
        else:
            state.lines[part.runs[0]] = progress.metrics
        state.epoch = progress.epoch

    def _cells(self, name: str, state: _State) -> list[str]:
        """The texts of one line."""
        lines = [line for part in state.lines.values() for line in part]
        values = [line[f"dev_{self._selection}"] for line in lines if line[f"dev_{self._selection}"] is not None]
        frozen = sum(line["frozen_step"] is not None for line in lines)
        finished = state.done == state.runs
        runs = f"{state.runs}" if finished or not state.done else f"{state.done} + {state.runs - state.done}"
        epoch = "done" if finished else f"{state.epoch}/{self._epochs}" if state.epoch else "waiting"
        dev = f"{self._selection} {min(values):.3f} to {max(values):.3f}" if values else ""
        rate = f"{state.rate:.0f}" if state.rate else ""
        left = str(datetime.timedelta(seconds=round(state.left))) if state.left is not None else ""
        return [name, runs, epoch, dev, rate, left, str(frozen or "")]


def name_of(cohort: Cohort) -> str:
    """Technique, and reading where there is one."""
    config = cohort.config
    return f"{config.technique} ({config.reading})" if config.technique == "attention_iat" else config.technique
