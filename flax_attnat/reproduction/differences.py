"""One setting against another over the seeds that both have: the difference of a figure, and its p value."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flax_attnat.evaluation.significance import paired_seeds
from flax_attnat.reporting.results import ROUNDING
from flax_attnat.reproduction.settings import Line

CLEAR = 0.05
"""A difference with a corrected p value of at most this is called significant."""


class Difference(NamedTuple):
    """A setting against one of the others.

    Attributes:
      name: of the other.
      difference: of the means over common seeds, in the figure's own unit.
      p_value: of a paired t test over seeds; None where there is none.
      p_holm: corrected over readings and data sets.
      seeds: that both have.
      p_every: corrected over readings, data sets and all of the others.
      level: mean of the other over common seeds.
    """

    name: str
    difference: float | None
    p_value: float | None
    p_holm: float | None
    seeds: int
    p_every: float | None = None
    level: float | None = None

    @property
    def clear(self) -> bool:
        """Whether it is significant among the comparisons with this one of the others."""
        return self.p_holm is not None and self.p_holm <= CLEAR

    @property
    def above(self) -> bool:
        """Whether it is significantly above this one of the others, as it must be above each of some."""
        return self.clear and self.difference is not None and self.difference > 0

    @property
    def significant(self) -> bool:
        """Whether it is significant among all comparisons, any of which may be."""
        return self.p_every is not None and self.p_every <= CLEAR


def paired(runs: Mapping[int, Line], others: Mapping[int, Line], figure: str) -> tuple[np.ndarray, np.ndarray]:
    """A figure of two settings, `[n]` each, over the n seeds at which both have it, ascending."""
    common = sorted(set(runs) & set(others))
    seeds = [seed for seed in common if None not in (runs[seed][figure], others[seed][figure])]
    ours, theirs = (np.array([of[seed][figure] for seed in seeds], np.float64) for of in (runs, others))
    return ours, theirs


def difference(name: str, runs: Mapping[int, Line], others: Mapping[int, Line], figure: str) -> Difference:
    """A setting against another one, called `name`, over their common seeds; p values are not corrected."""
    ours, theirs = paired(runs, others, figure)
    if not ours.size:
        return Difference(name, None, None, None, 0)
    compared = paired_seeds(ours, theirs)
    p_value = None if math.isnan(compared.p_value) else compared.p_value
    return Difference(name, compared.difference, p_value, None, compared.n, level=float(theirs.mean()))


def difference_cell(value: float, figure: str) -> str:
    """A difference of a figure as text: of a correlation as it is, of a share in per cent.

    >>> difference_cell(-0.00004, "f1"), difference_cell(-1e-9, "f1")
    ('-0.00', '+0.00')
    """
    value = 0.0 if abs(value) <= ROUNDING else value
    return f"{value:+.3f}" if figure.startswith("pearson") else f"{100 * value:+.2f}"


def p_cell(p_value: float | None) -> str:
    """A p value as text, n/a where there is none.

    >>> p_cell(0.0004), p_cell(0.05), p_cell(None), p_cell(math.nan)
    ('<0.001', '0.050', 'n/a', 'n/a')
    """
    if p_value is None or math.isnan(p_value):
        return "n/a"
    return f"{p_value:.3f}" if p_value >= 0.0005 else "<0.001"


def difference_p(runs: Mapping[int, Line], others: Mapping[int, Line], figure: str) -> str:
    """A setting against another one over their common seeds: the difference and, in brackets, its p value; or n/a."""
    found = difference("", runs, others, figure)
    if found.difference is None:
        return "n/a"
    p_value = "" if found.p_value is None else f" ({p_cell(found.p_value)})"
    return f"{difference_cell(found.difference, figure)}{p_value}"
