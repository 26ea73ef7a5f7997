"""Result lines to rows of text: one per technique and split, means over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

GROUP = ("technique", "reading", "epsilon", "split")
FIGURES = {"f1": ("F1", 100, 1), "accuracy": ("accuracy", 100, 1), "auc": ("AUC", 100, 1), "pearson": ("Pearson", 1, 3)}


def summarise(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row per technique, reading, epsilon and split, in the order of their first lines.

    Args:
      lines: lines of `results.jsonl`.

    Returns:
      Rows of text: the group, the number of seeds and texts, and each figure as `mean ± sd` over seeds (sd from two
      seeds on; "n/a" where no seed has the figure); F1, accuracy and AUC in per cent.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(tuple(line[name] for name in GROUP), []).append(line)
    rows = []
    for key, members in groups.items():
        row = {
            name: "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            for name, value in zip(GROUP, key, strict=True)
        }
        row |= {"seeds": str(len(members)), "n": str(members[0]["n"])}
        for name, (title, scale, digits) in FIGURES.items():
            row[title] = _mean_sd([line[name] for line in members], scale, digits)
        row["undefined"] = str(sum(line["pearson_undefined"] for line in members))
        rows.append(row)
    return rows


def _mean_sd(values: Sequence[float | None], scale: float, digits: int) -> str:
    """`mean ± sd` of the values that are defined, scaled; "n/a" without any."""
    defined = scale * np.array([value for value in values if value is not None], np.float64)
    if not defined.size:
        return "n/a"
    spread = f" ± {defined.std(ddof=1):.{digits}f}" if defined.size > 1 else ""
    return f"{defined.mean():.{digits}f}{spread}"
