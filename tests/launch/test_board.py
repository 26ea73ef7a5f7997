"""What an ablation shows: a line per cohort on a terminal, a line per epoch elsewhere."""

import io
import re

from rich.console import Console

from flax_attnat.config import Config, SweepConfig, TrainingConfig
from flax_attnat.training.loop import Progress
from flax_attnat.training.runs import cohorts, cut
from launch.board import CohortBoard

CONFIG = Config(
    sweep=SweepConfig(techniques=("vanilla", "attention_iat"), readings=("sign",), epsilons=(1.0, 5.0)),
    seeds=(0, 1),
    training=TrainingConfig(epochs=2),
)


def shown(terminal: bool) -> str:
    """What two cohorts look like, the second one in two parts, control sequences taken out."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, height=30)
    vanilla, iat = cohorts(CONFIG)
    with CohortBoard(console, [vanilla, iat]) as board:
        for whole, sizes in ((vanilla, [2]), (iat, [2, 2])):
            for part in cut(whole, sizes):
                for epoch in (1, 2):
                    for step in (1, 2, 3):
                        board.update(part, Progress(epoch, step, 3))
                    lines = [{"dev_auc": 0.25 * run + 0.5, "frozen_step": 3 if run else None} for run in (0, 1)]
                    board.update(part, Progress(epoch, 3, 3, lines))
                board.update(part, None)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_a_terminal_has_a_table_of_all_cohorts() -> None:
    out = shown(terminal=True)
    last = out[out.rindex("cohort") :]
    assert re.search(r"vanilla +2 +done +auc 0.500 to 0.750", last)
    assert re.search(r"attention_iat \(sign\) +4 +done +auc 0.500 to 0.750 +2", last), "a frozen run in each part"
    assert re.search(r"attention_iat \(sign\) +4 +waiting", out), "what has not begun is shown too"
    assert re.search(r"attention_iat \(sign\) +2 \+ 2 +1/2", out), "two of four runs are trained, two are under way"


def test_elsewhere_there_is_a_line_an_epoch_and_one_at_the_end() -> None:
    lines = shown(terminal=False).splitlines()
    assert [re.sub(r"  (run-steps|left).*?(?=  frozen|$)", "", line) for line in lines[:3]] == [
        "vanilla  runs 2  epoch 1/2  dev auc 0.500 to 0.750  frozen 1",
        "vanilla  runs 2  epoch 2/2  dev auc 0.500 to 0.750  frozen 1",
        "vanilla  runs 2  epoch done  dev auc 0.500 to 0.750  frozen 1",
    ]
    assert len(lines) == 3 + 6 and lines[-1].startswith("attention_iat (sign)  runs 4  epoch done")
