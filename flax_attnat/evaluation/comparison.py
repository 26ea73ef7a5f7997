"""Whether two techniques differ: over the texts of a split, and over seeds."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from flax_attnat.evaluation.significance import (
    Comparison,
    SeedComparison,
    holm,
    paired_bootstrap,
    paired_bootstrap_mean,
    paired_seeds,
)


class Measured(NamedTuple):
    """S runs of one setting on N texts, in the order of their seeds.

    Attributes:
      fields: what names the setting in a line.
      seeds: of the runs.
      probability: `[S, N, C]`.
      pearson: `[S, N]`, NaN where undefined.
      labels: `[N]`.
      figures: F1 and accuracy by name, one value per seed.
    """

    fields: dict[str, Any]
    seeds: tuple[int, ...]
    probability: np.ndarray
    pearson: np.ndarray
    labels: np.ndarray
    figures: dict[str, list[float | None]]

    def of_seeds(self, seeds: Sequence[int]) -> "Measured":
        """The runs of those of these seeds that are here."""
        seeds = [seed for seed in seeds if seed in self.seeds]
        places = [self.seeds.index(seed) for seed in seeds]
        figures = {name: [of[place] for place in places] for name, of in self.figures.items()}
        probability, pearson = self.probability[places], self.pearson[places]
        return self._replace(seeds=tuple(seeds), probability=probability, pearson=pearson, figures=figures)


SETTING = ("reading", "epsilon", "lambda", "learning_rate", "weight_decay")


def compare(measured: Measured, against: Measured) -> list[dict[str, Any]]:
    """One line per figure: F1 (of two classes), accuracy, Pearson; over the seeds that both settings have.

    Args:
      measured: one setting.
      against: another, on the same texts.

    Returns:
      Lines with the difference, its 95 % interval and p value by a paired bootstrap over the n texts; the effect size
      (mean over sd of the seeds' differences) and p value of a paired t test over the seeds. Empty without common ones.
      Of Pearson, both are over the texts where it is defined for every run.
    """
    seeds = [seed for seed in measured.seeds if seed in against.seeds]
    if not seeds:
        return []
    ours, theirs = ([of.seeds.index(seed) for seed in seeds] for of in (measured, against))
    lines = []
    figures: tuple[Literal["f1", "accuracy"], ...] = ("f1", "accuracy")
    for figure in figures:
        values = [_values(of.figures[figure], places) for of, places in ((measured, ours), (against, theirs))]
        if not any(np.isnan(each).all() for each in values):
            said = (of.probability[places].argmax(-1) for of, places in ((measured, ours), (against, theirs)))
            texts = paired_bootstrap(measured.labels, *said, figure=figure)
            lines.append(_line(measured, against, figure, texts, paired_seeds(*values)))
    pearson = measured.pearson[ours], against.pearson[theirs]
    defined = np.isfinite(np.concatenate(pearson)).all(axis=0)
    if defined.any():
        rows = [each[:, defined].astype(np.float64) for each in pearson]
        texts = paired_bootstrap_mean(*(each.mean(axis=0) for each in rows))
        lines.append(_line(measured, against, "pearson", texts, paired_seeds(*(each.mean(axis=1) for each in rows))))
    return lines


def _values(figures: Sequence[float | None], places: Sequence[int]) -> np.ndarray:
    """Some figures `[S]`; NaN for None."""
    return np.array([np.nan if (value := figures[place]) is None else value for place in places])


def _line(
    measured: Measured, against: Measured, figure: str, texts: Comparison, over_seeds: SeedComparison
) -> dict[str, Any]:
    """A line of `significance.jsonl`; what is undefined is None."""
    found = {name: measured.fields[name] for name in ("dataset", "split", "technique", *SETTING)}
    found |= {"against": against.fields["technique"]} | {f"against_{name}": against.fields[name] for name in SETTING}
    found |= {"figure": figure, "n": texts.n, "seeds": over_seeds.n}
    found |= {name: getattr(texts, name) for name in ("difference", "low", "high", "p_value")}
    found |= {"effect": over_seeds.effect, "p_value_seeds": over_seeds.p_value}
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in found.items()}


def correct(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with p values corrected over datasets (Holm 1979), for each technique, reading and figure.

    Args:
      lines: from `compare`, of one dataset or several.

    Returns:
      The lines in their order, with `p_holm`, `p_holm_seeds` and `datasets`, how many have such a line; p values
      that are undefined do not count in the correction.
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
