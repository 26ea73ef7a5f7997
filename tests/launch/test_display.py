"""What training shows on a terminal and elsewhere."""

import io
import re

from rich.console import Console

from flax_attnat.config import Config
from flax_attnat.training.loop import Progress
from flax_attnat.training.runs import cohorts
from launch.display import Display, epoch_summary, results_table, show_table

COHORT = cohorts(Config())[0]
LINE = {
    "technique": "attention_at",
    "loss": 0.5,
    "dev_auc": 0.75,
    "delta_norm": 2.0,
    "raised": 0.9,
    "frozen_step": None,
}


def shown(terminal: bool) -> str:
    """What two epochs of three steps look like, control sequences taken out."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Display(console, 2, "sst [attention_at]") as display:
        for epoch in (1, 2):
            for step in (1, 2, 3):
                display.update(COHORT, Progress(epoch, step, 3))
                display._bar.refresh()
            display.update(COHORT, Progress(epoch, 3, 3, [LINE]))
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_a_terminal_has_a_bar_with_epoch_steps_and_rate_and_keeps_the_epoch_lines() -> None:
    out = shown(terminal=True)
    assert "sst [attention_at]: epoch 2/2" in out and "6/6 steps" in out and "steps/s" in out
    assert out.count("dev auc 0.7500") == 2 and "loss raised in 90% of rows" in out


def test_elsewhere_there_is_one_plain_line_an_epoch() -> None:
    summary = "loss 0.5000  dev auc 0.7500  delta norm 2  loss raised in 90% of rows"
    expected = [f"sst [attention_at]: epoch {epoch}/2  {summary}" for epoch in (1, 2)]
    assert [line.rstrip() for line in shown(terminal=False).splitlines() if line.strip()] == expected


def test_frozen_runs_are_counted_and_left_out_of_the_means() -> None:
    frozen = LINE | {"loss": float("nan"), "dev_auc": None, "frozen_step": 3}
    assert epoch_summary([LINE, frozen]).endswith("1 of 2 runs frozen") and "loss 0.5000" in epoch_summary(
        [LINE, frozen]
    )
    assert epoch_summary([frozen]) == "1 of 1 runs frozen"


def test_cells_of_a_table_are_text_not_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(results_table("[bold]t", [{"technique": "[red]x", "n": "1"}]))
    assert "[bold]t" in console.file.getvalue() and "[red]x" in console.file.getvalue()


def test_a_table_that_is_too_wide_becomes_several_that_are_not() -> None:
    """Nothing is cut off: twelve columns of 20 signs on a console of 80, the first column in each table."""
    rows = [{"measure": f"m{row}"} | {f"column {c}": f"{row}.{c:0>17}" for c in range(12)} for row in range(3)]
    console = Console(width=80, file=io.StringIO())
    show_table(console, "title", rows)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "\u2026" not in console.file.getvalue()
    assert all(any(row[name] in line for line in lines) for row in rows for name in row)
    assert sum("m0" in line for line in lines) == sum("title" in line for line in lines) == 4
