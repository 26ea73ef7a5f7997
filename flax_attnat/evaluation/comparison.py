"""Whether two techniques differ: over the texts of a split, and over seeds."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from flax_attnat.evaluation.significance import holm, paired_bootstrap, paired_bootstrap_mean, paired_seeds


class Measured(NamedTuple):
    """S runs of one setting on N texts, in the order of their seeds.

    Attributes:
      fields: what names the setting in a line.
      seeds: of the runs.
      probability: `[S, N, C]`.
      pearson: `[S, N]`, NaN where undefined.
      labels: `[N]`.
      figures: by name, one value per seed: the figures of their lines.
    """

    fields: dict[str, Any]
    seeds: tuple[int, ...]
    probability: np.ndarray
    pearson: np.ndarray
    labels: np.ndarray
    figures: dict[str, list[float | None]]


NAMES = ("dataset", "split", "technique", "reading", "epsilon", "lambda")


def compare(measured: Measured, against: Measured) -> list[dict[str, Any]]:
    """One line per figure: F1 (of two classes), accuracy, Pearson; over the seeds that both settings have.

    Args:
      measured: one setting.
      against: another, on the same texts.

    Returns:
      Lines with the difference, its 95 % interval and p value by a paired bootstrap over the n texts; the effect size
      (mean over sd of the seeds' differences) and p value of a paired t test over the seeds. Empty without common ones.
    """
    seeds = [seed for seed in measured.seeds if seed in against.seeds]
    if not seeds:
        return []
    ours, theirs = ([of.seeds.index(seed) for seed in seeds] for of in (measured, against))
    lines = []
    figures: tuple[Literal["f1", "accuracy", "pearson"], ...] = ("f1", "accuracy", "pearson")
    for figure in figures:
        values = [
            np.array([np.nan if (value := of.figures[figure][place]) is None else value for place in places])
            for of, places in ((measured, ours), (against, theirs))
        ]
        if any(np.isnan(of).all() for of in values):
            continue
        if figure == "pearson":
            texts = paired_bootstrap_mean(measured.pearson[ours].mean(axis=0), against.pearson[theirs].mean(axis=0))
        else:
            said = [of.probability[places].argmax(-1) for of, places in ((measured, ours), (against, theirs))]
            texts = paired_bootstrap(measured.labels, *said, figure=figure)
        lines.append(_line(measured, against, figure, len(seeds), texts._asdict(), paired_seeds(*values)._asdict()))
    return lines


def _line(
    measured: Measured, against: Measured, figure: str, seeds: int, texts: dict[str, Any], over_seeds: dict[str, Any]
) -> dict[str, Any]:
    """A line of `significance.jsonl`; what is undefined is None."""
    found = {name: measured.fields[name] for name in NAMES}
    found |= {"against": against.fields["technique"], "figure": figure, "seeds": seeds, "n": texts["n"]}
    found |= {name: texts[name] for name in ("difference", "low", "high", "p_value")}
    found |= {"effect": over_seeds["effect"], "p_value_seeds": over_seeds["p_value"]}
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in found.items()}


def correct(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with p values corrected over datasets (Holm 1979), for each technique, reading and figure.

    Args:
      lines: from `compare`, of one dataset or several.

    Returns:
      The lines in their order, with `p_holm`, `p_holm_seeds` and `datasets`, over how many they are corrected.
    """
    lines = [dict(line) for line in lines]
    families: dict[tuple, list[dict[str, Any]]] = {}
    for line in lines:
        names = ("technique", "reading", "against", "figure", "split")
        families.setdefault(tuple(line[name] for name in names), []).append(line)
    for members in families.values():
        for name, corrected in (("p_value", "p_holm"), ("p_value_seeds", "p_holm_seeds")):
            for line, value in zip(members, _holm([line[name] for line in members]), strict=True):
                line[corrected] = value
        for line in members:
            line["datasets"] = len(members)
    return lines


def _holm(values: Sequence[float | None]) -> list[float | None]:
    """Corrected p values; None stays None."""
    corrected = holm(np.array([np.nan if value is None else value for value in values]))
    return [None if np.isnan(value) else float(value) for value in corrected]
