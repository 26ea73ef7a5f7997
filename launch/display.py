"""What a person sees while training runs: a bar on a terminal, plain lines otherwise; and the closing table."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flax_attnat.allowed import PLAIN
from flax_attnat.data.dataset import Dataset
from flax_attnat.reporting.export import visible
from flax_attnat.training import loop
from flax_attnat.training.runs import Cohort

# Columns of text; the others hold figures.
LEFT = ("technique", "measure", "figure", "split", "data set", "data", "largest class")


class Display:
    """Shows the progress of one training.

    Args:
      console: where to; whether it is a terminal decides between a bar and plain lines.
      epochs: epochs in all.
      title: what is being trained.
    """

    def __init__(self, console: Console, epochs: int, title: str) -> None:
        self._console, self._epochs, self._title = console, epochs, title
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._rate = "compiling"
        self._task = self._bar.add_task(escape(title), total=None, rate=self._rate)
        self._last: tuple[int, float] | None = None

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, cohort: Cohort, progress: loop.Progress | None) -> None:
        """Takes one report of the training loop; the only cohort's, and nothing is said of its end."""
        if progress is None:
            return
        done = (progress.epoch - 1) * progress.steps + progress.step
        now = time.monotonic()
        if self._last is not None and done > self._last[0]:
            self._rate = f"{(done - self._last[0]) / (now - self._last[1]):.1f} steps/s"
        if progress.metrics is None:
            self._last = (done, now)
        description = f"{self._title}: epoch {progress.epoch}/{self._epochs}"
        self._bar.update(
            self._task,
            total=self._epochs * progress.steps,
            completed=done,
            rate=self._rate,
            description=escape(description),
        )
        if progress.metrics is not None:
            # The bar goes when training ends; the lines of the epochs stay.
            line = f"{description}  {epoch_summary(progress.metrics)}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def preparing(console: Console, title: str = "") -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on a terminal for as long as data are prepared; gives what takes `(what, done, total)`.

    Args:
      console: where to; without a terminal nothing is shown.
      title: stands before what is done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(f"{title}: reading" if title else "reading"), total=None)

        def update(what: str, done: int, total: int | None) -> None:
            """Moves the bar."""
            bar.update(task, description=escape(f"{title}: {what}" if title else what), completed=done, total=total)

        yield update


def epoch_summary(lines: Iterable[Mapping[str, Any]]) -> str:
    """One line of text for an epoch: loss, dev metric and norm of the perturbation, as means over the running runs."""
    lines = list(lines)
    running = [line for line in lines if line["frozen_step"] is None]
    frozen = f"  {len(lines) - len(running)} of {len(lines)} runs frozen" if len(running) < len(lines) else ""
    if not running:
        return frozen.strip()
    metric = next(name for name in running[0] if name.startswith("dev_"))

    def mean(name: str) -> float:
        """Mean of a field over the running runs."""
        values = [line[name] for line in running if line[name] is not None]
        return sum(values) / len(values) if values else float("nan")

    text = f"loss {mean('loss'):.4f}  {metric.replace('_', ' ')} {mean(metric):.4f}"
    if running[0]["technique"] not in PLAIN:
        text += f"  delta norm {mean('delta_norm'):.3g}  loss raised in {mean('raised'):.0%} of rows"
    return text + frozen


def results_table(title: str, rows: Iterable[Mapping[str, str]]) -> Table:
    """A table of equal dictionaries, one per row, with the first columns at the left and figures at the right."""
    rows = list(rows)
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(escape(name), justify="left" if name in LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row.values()))
    return table


def show_table(console: Console, title: str, rows: Sequence[Mapping[str, str]], keys: int = 1) -> None:
    """Prints a table, in as many as it takes for its columns to fit the console; each has the first `keys` columns."""
    widths = {name: 3 + max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    first = list(widths)[:keys]
    groups: list[list[str]] = [[]]
    for name in list(widths)[keys:]:
        used = sum(widths[each] for each in (*first, *groups[-1], name))
        if groups[-1] and used > console.width:
            groups.append([])
        groups[-1].append(name)
    for group in groups:
        console.print(results_table(title, [{name: row[name] for name in (*first, *group)} for row in rows]))


def show(console: Console, sentence: str) -> None:
    """Prints one sentence as it is, on one line."""
    console.print(visible(sentence), markup=False, highlight=False, soft_wrap=True, emoji=False)


def show_notes(console: Console, dataset: Dataset) -> None:
    """Prints what reading brought up."""
    for sentence, count in dataset.notes:
        show(console, f"{dataset.name}: {count:,} {sentence}")
