"""What a workdir's lines say of a run: its name, its epoch's means, when and why it was frozen."""

from typing import Any

import numpy as np

from flax_attnat.config import Config
from flax_attnat.objective import StepSums
from flax_attnat.training.step import FROZEN_REASONS, TrainState


def metric_lines(
    config: Config, epoch: int, sums: StepSums, metric: np.ndarray, states: TrainState
) -> list[dict[str, Any]]:
    """One line of `metrics.jsonl` per run; the means of a run that saw no row in this epoch are None.

    Args:
      config: the configuration of all runs.
      epoch: the epoch that has ended, from 1.
      sums: sums of the epoch, each `[R]`.
      metric: `[R]` dev metric.
      states: states of the R runs.
    """
    lines = []
    for run, seed in enumerate(config.seeds):
        rows = float(sums.rows[run])
        means = {
            name: float(getattr(sums, name)[run]) / rows if rows else None
            for name in StepSums._fields
            if name != "rows"
        }
        line = run_fields(config, seed) | {"epoch": epoch, "train_rows": int(sums.rows[run])} | means
        lines.append(
            line | {f"dev_{config.training.selection}": finite_or_none(metric[run])} | frozen_fields(states, run)
        )
    return lines


def run_fields(config: Config, seed: int) -> dict[str, Any]:
    """The fields that name a run in every line of a workdir."""
    return {
        "dataset": config.dataset,
        "technique": config.technique,
        "reading": config.reading if config.technique == "attention_iat" else None,
        "epsilon": None if config.technique == "vanilla" else config.epsilon,
        "lambda": None if config.technique == "vanilla" else config.adversarial_weight,
        "seed": seed,
    }


def frozen_fields(states: TrainState, run: int) -> dict[str, Any]:
    """When and why a run was frozen; both None for one that was not."""
    step = int(states.frozen_step[run])
    return {
        "frozen_step": step if step >= 0 else None,
        "frozen_reason": FROZEN_REASONS[int(states.frozen_reason[run])] if step >= 0 else None,
    }


def finite_or_none(value: Any) -> float | None:
    """A float for JSON, which knows neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None
