"""The figure of the document: how far each technique is from vanilla, with what its seeds leave open."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from flax_attnat.reporting import plot
from flax_attnat.reproduction.cells import TITLES, named, technique_name
from flax_attnat.reproduction.dataset_tables import CONTROL_TITLES
from flax_attnat.reproduction.differences import paired
from flax_attnat.reproduction.settings import (
    ORDER,
    Line,
    chosen,
    control,
    datasets_of,
    index,
    main_figure,
    main_variant,
)

NAME = "minus_vanilla"
"""Of the figure's files."""

CAPTION = (
    "Test figures minus vanilla's of the same seed, each technique at its epsilon of dev (in brackets). Dots: seeds;"
    " marker: mean; line: 95 % interval of the mean by a t distribution, cut off at the edge. Controls: epsilon 0"
    " trains on twice the clean loss, normalised words is word_at at epsilon 0."
)


class Row(NamedTuple):
    """A technique beside vanilla.

    Attributes:
      name: of the technique, or of the control.
      epsilon: at which it is.
      figure: its differences by seed, of F1 or accuracy in per cent.
      pearson: those of Pearson.
    """

    name: str
    epsilon: float
    figure: tuple[float, ...]
    pearson: tuple[float, ...]


def rows_of(lines: Sequence[Line], dataset: str) -> list[Row]:
    """The rows of a data set in the order of the tables; empty where vanilla, or everything beside it, is missing."""
    test, variant, figure = index(lines), main_variant(dataset), main_figure(lines, dataset)
    best = chosen(lines, dataset, variant)
    vanilla = test.get(best[ORDER[0]], {}) if ORDER[0] in best else {}
    settings = {technique_name(name): best[name] for name in ORDER[1:] if name in best}
    settings |= {title: control(dataset, variant, technique) for technique, title in CONTROL_TITLES.items()}
    found = []
    for name, of in settings.items():
        runs = test.get(of, {})
        pairs = [_apart(runs, vanilla, *scaled) for scaled in ((figure, 100), ("pearson_gradient", 1))]
        if pairs[0]:
            found.append(Row(name, of.epsilon or 0.0, *pairs))
    return found


def _apart(runs: Mapping[int, Line], vanilla: Mapping[int, Line], figure: str, scale: float) -> tuple[float, ...]:
    """Differences of a figure over the seeds that both have, ascending."""
    ours, theirs = paired(runs, vanilla, figure)
    return tuple((scale * (ours - theirs)).tolist())


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """The mean of some differences, and the ends of its 95 % interval by a t distribution; NaN of a single one.

    >>> mean, low, high = interval((1.0, 2.0, 3.0))
    >>> print(f"{mean:.2f} {low:.2f} {high:.2f}")
    2.00 -0.48 4.48
    """
    mean, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, count - 1) * np.std(differences, ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half


def draw_differences(lines: Sequence[Line]) -> Figure | None:
    """Every technique minus vanilla, a row of panels for each data set; None where nothing is beside vanilla."""
    rows = {dataset: found for dataset in datasets_of(lines) if (found := rows_of(lines, dataset))}
    if not rows:
        return None
    names = ["vanilla", *_names(rows)]
    looks = dict(zip(names, plot.looks(names), strict=True))
    heights = [0.55 + 0.17 * len(found) for found in rows.values()]
    with plot.style():
        drawn = Figure(figsize=(2 * plot.WIDTH, sum(heights)), layout="constrained")
        FigureCanvasAgg(drawn)
        panels = drawn.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
        for (dataset, found), (left, right) in zip(rows.items(), panels, strict=True):
            title = TITLES[main_figure(lines, dataset)]
            _draw(
                left,
                [(row.name, row.figure) for row in found],
                looks,
                f"{named(lines, dataset)}: {title} minus vanilla, %",
            )
            _draw(
                right,
                [(row.name, row.pearson) for row in found],
                looks,
                f"{named(lines, dataset)}: Pearson minus vanilla",
            )
            left.set_yticks(range(len(found)), labels=[f"{row.name} [{row.epsilon:g}]" for row in found])
            right.set_yticks(range(len(found)), labels=[""] * len(found))
    return drawn


def _names(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """What is drawn, once each, in its order."""
    yield from dict.fromkeys(row.name for found in rows.values() for row in found)


def _draw(axes: Axes, rows: Sequence[tuple[str, Sequence[float]]], looks: Mapping[str, plot.Look], title: str) -> None:
    """One panel: vanilla is the line at 0; the axis is that of the seeds."""
    every = [0.0, *(value for _, values in rows for value in values)]
    room = 0.08 * (max(every) - min(every) or 1)
    axes.axvline(0, color=plot.PALETTE[0], linewidth=0.8)
    for place, (name, values) in enumerate(rows):
        if not values:
            continue
        look, (mean, low, high) = looks[name], interval(values)
        axes.plot([low, high], [place, place], color=look.colour, linewidth=1.0)
        axes.plot(
            values, [place] * len(values), color=look.colour, linestyle="none", marker=".", markersize=3, alpha=0.6
        )
        axes.plot(mean, place, color=look.colour, marker=look.marker, markersize=5)
    axes.set_xlim(min(every) - room, max(every) + room)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
