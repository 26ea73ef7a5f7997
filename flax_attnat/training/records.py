"""What a workdir's lines say of a run: its name, its epoch's means, when and why it was frozen."""

from typing import Any

import numpy as np

from flax_attnat.allowed import PLAIN
from flax_attnat.config import Config
from flax_attnat.objective import StepSums
from flax_attnat.training.runs import Cohort, Run
from flax_attnat.training.step import FROZEN_REASONS


def metric_lines(
    cohort: Cohort,
    epoch: int,
    sums: StepSums,
    metric: np.ndarray,
    frozen_step: np.ndarray,
    frozen_reason: np.ndarray,
) -> list[dict[str, Any]]:
    """One line of `metrics.jsonl` per run; the means of a run that saw no row in this epoch are None.

    Args:
      cohort: configuration and runs; arrays may hold more runs behind these.
      epoch: the epoch that has ended, from 1.
      sums: sums of the epoch, each `[R]`.
      metric: `[R]` dev metric.
      frozen_step: `[R]` step at which a run was frozen, or -1.
      frozen_reason: `[R]` index into FROZEN_REASONS.
    """
    lines = []
    selection = cohort.config.training.selection
    for run, what in enumerate(cohort.runs):
        rows = float(sums.rows[run])
        means = {
            name: float(getattr(sums, name)[run]) / rows if rows else None
            for name in StepSums._fields
            if name != "rows"
        }
        line = run_fields(cohort.config, what) | {"epoch": epoch, "train_rows": int(sums.rows[run])} | means
        frozen = frozen_fields(frozen_step[run], frozen_reason[run])
        lines.append(line | {f"dev_{selection}": finite_or_none(metric[run])} | frozen)
    return lines


def run_fields(config: Config, run: Run) -> dict[str, Any]:
    """The fields that name a run in every line of a workdir."""
    return {
        "dataset": config.dataset,
        "technique": config.technique,
        "reading": config.reading if config.technique == "attention_iat" else None,
        "epsilon": None if config.technique in PLAIN else run.epsilon,
        "lambda": None if config.technique in PLAIN else run.adversarial_weight,
        "learning_rate": run.learning_rate,
        "weight_decay": run.weight_decay,
        "seed": run.seed,
    }


def frozen_fields(step: int | np.integer, reason: int | np.integer) -> dict[str, Any]:
    """When and why a run was frozen; both None for one that was not, whose step is -1."""
    return {
        "frozen_step": int(step) if step >= 0 else None,
        "frozen_reason": FROZEN_REASONS[int(reason)] if step >= 0 else None,
    }


def finite_or_none(value: Any) -> float | None:
    """A float for JSON, which knows neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None
