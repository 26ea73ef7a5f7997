"""Result lines to rows of text: one per technique and split, means over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

GROUP = ("technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay", "split")
FIGURES = {"f1": ("F1", 100, 1), "accuracy": ("accuracy", 100, 1), "auc": ("AUC", 100, 1), "pearson": ("Pearson", 1, 3)}
TWO_CLASSES = ("f1", "auc")  # not defined for more: no column where no line has them
PART = "accuracy_"  # accuracy of a part of the split, MultiNLI's matched pairs say

Line = TypeVar("Line", bound=Mapping[str, Any])


def summarise(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row per technique, reading, epsilon, lambda and split, in the order of their first lines.

    Args:
      lines: lines of `results.jsonl`; those of the evaluation suites are not read.

    Returns:
      Rows of text: the group (lambda where it is not 1, learning rate and weight decay where they differ), the number
      of seeds and texts, and each figure as `mean ± sd` over seeds (sd from two seeds on; "n/a" where no seed has the
      figure); all but Pearson in per cent.
    """
    lines = predictions(lines)
    known = {name for line in lines for name, value in line.items() if value is not None}
    figures = {name: form for name, form in FIGURES.items() if name in known or name not in TWO_CLASSES}
    figures |= {name: (name.removeprefix(PART), 100, 1) for name in sorted(known) if name.startswith(PART)}
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(tuple(line.get(name) for name in GROUP), []).append(line)
    varied = {name: len({line.get(name) for line in lines}) > 1 for name in ("learning_rate", "weight_decay")}
    rows = []
    for (technique, reading, epsilon, weight, *optimiser, split), members in groups.items():
        name = f"{technique} ({reading})" if reading else technique
        name += f" lambda {weight:g}" if weight not in (None, 1) else ""
        row = {"technique": name, "epsilon": "-" if epsilon is None else f"{epsilon:g}"}
        for field, value in zip(varied, optimiser, strict=True):
            row |= {field.replace("_", " "): "-" if value is None else f"{value:g}"} if varied[field] else {}
        row |= {"split": split}
        row |= {"seeds": str(len(members)), "n": f"{members[0]['n']:,}"}
        for field, (title, scale, digits) in figures.items():
            row[title] = mean_sd([line.get(field) for line in members], scale, digits)
        rows.append(row)
    return rows


def predictions(lines: Iterable[Line]) -> list[Line]:
    """The lines of `results.jsonl` that say how well runs predict; those of the evaluation suites are left out."""
    return [line for line in lines if line.get("family", "prediction") == "prediction"]


def mean_sd(values: Sequence[float | None], scale: float, digits: int) -> str:
    """`mean ± sd` of the values that are defined, scaled; "n/a" without any, "inf (1 of 3)" where some are infinite.

    >>> mean_sd([0.5, None, float("nan"), 0.7], 100, 1), mean_sd([float("inf"), 1.0], 1, 3)
    ('60.0 ± 14.1', 'inf (1 of 2)')
    """
    defined = scale * np.array([value for value in values if value is not None and value == value], np.float64)
    if not defined.size:
        return "n/a"
    if infinite := int(np.isinf(defined).sum()):
        return "inf" if infinite == defined.size else f"inf ({infinite} of {defined.size})"
    spread = f" ± {defined.std(ddof=1):.{digits}f}" if defined.size > 1 else ""
    return f"{defined.mean():.{digits}f}{spread}"


def rounded_down(value: float | np.floating) -> str:
    """A number of at least zero with three digits, never above it: what is certified stays true.

    >>> rounded_down(1.3278), rounded_down(0.0099999), rounded_down(float("inf"))
    ('1.32', '0.00999', 'inf')
    """
    value = float(value)  # a quotient of float32 would be rounded, up too
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.floor(value / step) * step:.3g}"
