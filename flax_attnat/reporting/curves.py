"""Curves of finished runs: a metric against epsilon, and accuracy against the radius of a perturbation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from flax_attnat.reporting import plot
from flax_attnat.reporting.measures import NORMS
from flax_attnat.reporting.results import ResultsError
from flax_attnat.reporting.tables import FIGURES, PART, predictions

Line = Mapping[str, Any]

KINDS = ("attacked", "certified")
RUN = ("technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay", "seed")


class Curve(NamedTuple):
    """One line of a figure.

    Attributes:
      name: technique, reading, and what else tells it from the others.
      x: epsilon or radius, ascending; empty for a technique without epsilon, which is a horizontal line.
      mean: over seeds, one per x (a single one without x), in the unit of the axis.
      sd: over n - 1; None where there is one seed.
      n: how many seeds.
    """

    name: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float | None, ...]
    n: tuple[int, ...]


def epsilon_curves(lines: Iterable[Line], figure: str = "f1", split: str = "test") -> list[Curve]:
    """A figure of the predictions against epsilon: one curve per technique and reading, those without epsilon last.

    Args:
      lines: lines of `results.jsonl` of one data set; those of the evaluation suites are not read.
      figure: its name in a line.
      split: "dev" or "test".

    Returns:
      Curves in the order of their first lines, in per cent where the tables are; runs that were frozen, and lines
      without the figure, are left out.

    Raises:
      ResultsError: the lines are not of one data set, or a run is there twice.

    >>> run = {"technique": "word_at", "split": "test"}
    >>> epsilon_curves([run | {"epsilon": 5.0, "seed": 0, "f1": 0.75}, run | {"epsilon": 5.0, "seed": 1, "f1": 0.25}])
    [Curve(name='word_at', x=(5.0,), mean=(50.0,), sd=(35.35533905932738,), n=(2,))]
    """
    lines = _comparable(line for line in predictions(lines) if line["split"] == split)
    varied = _varied(lines)
    scale = _form(figure)[1]
    found: dict[tuple[str, bool], dict[float, list[float]]] = {}
    for line in lines:
        if (value := _number(line.get(figure))) is not None:
            epsilon = line.get("epsilon")
            points = found.setdefault((_name(line, varied), epsilon is None), {})
            points.setdefault(epsilon or 0.0, []).append(scale * value)
    curves = [_curve(name, points, reference=plain) for (name, plain), points in found.items()]
    return sorted(curves, key=lambda curve: not curve.x)


def robustness_curves(lines: Iterable[Line], norm: str = "linf", split: str = "test") -> dict[str, dict[str, Curve]]:
    """Accuracy in per cent against the radius of a perturbation of the scores.

    Args:
      lines: lines of `results.jsonl` of one data set; only those of the suite robustness are read.
      norm: "linf" or "l2".
      split: "dev" or "test".

    Returns:
      By technique and setting the curves "clean" (at radius 0), "attacked" and, where there is one, "certified";
      infinite radii and runs that were frozen are left out.

    Raises:
      ResultsError: the lines are not of one data set, or a run is there twice.
    """
    lines = _comparable(line for line in lines if line.get("family") == "robustness" and line["split"] == split)
    varied = _varied(lines)
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for line in lines:
        kinds = found.setdefault(_name(line, varied, epsilon=True), {kind: {} for kind in ("clean", *KINDS)})
        pairs = [("clean", 0.0, line["clean_accuracy"])]
        for kind in KINDS:
            values = line.get(f"{kind}_{norm}") or ()
            pairs += [(kind, *pair) for pair in zip(line[f"radii_{norm}"], values, strict=bool(values))]
        for kind, radius, value in pairs:
            if _number(radius) is not None and _number(value) is not None:
                kinds[kind].setdefault(float(radius), []).append(100 * float(value))
    return {
        name: {kind: _curve(name, points) for kind, points in kinds.items() if points} for name, kinds in found.items()
    }


def alternative_text(curves: Sequence[Curve], figure: str = "f1", split: str = "test") -> str:
    """What a figure of `draw_epsilon` shows, in a sentence.

    >>> curves = [Curve("word_at", (0.1, 30.0), (82.31, 82.7), (None, None), (1, 1))]
    >>> alternative_text([*curves, Curve("vanilla", (), (82.1,), (None,), (1,))])
    'F1 on test against epsilon from 0.1 to 30: word_at from 82.3 to 82.7; vanilla 82.1.'
    """
    title, _, digits = _form(figure)
    courses = "; ".join(f"{plot.clean(curve.name)} {_course(curve, digits)}" for curve in curves)
    return f"{title} on {split} against epsilon{_range(curves)}: {courses}."


def robustness_text(columns: Mapping[str, Mapping[str, Curve]], norm: str = "linf", split: str = "test") -> str:
    """What a figure of `draw_robustness` shows, in a sentence."""
    courses = "; ".join(
        f"{plot.clean(name)} " + ", ".join(f"{kind} {_course(curve, 1)}" for kind, curve in curves.items())
        for name, curves in columns.items()
    )
    radii = [curves[kind] for curves in columns.values() for kind in KINDS if kind in curves]
    return f"Accuracy on {split} against the {NORMS[norm]} radius{_range(radii)}: {courses}."


def draw_epsilon(lines: Iterable[Line], figure: str, title: str, split: str = "test") -> Figure:
    """The metric against epsilon: mean and a band of one standard deviation, vanilla as a horizontal line.

    Args:
      lines: as for `epsilon_curves`.
      figure: its name in a line.
      title: heading; what the data are, where they are not the official ones, is added.
      split: "dev" or "test".

    Raises:
      ResultsError: as `epsilon_curves`, or there is nothing to draw.
    """
    lines = list(lines)
    curves = epsilon_curves(lines, figure, split)
    if not curves:
        raise ResultsError(f"no line of {split} has a figure {figure!r}: there is nothing to draw.")
    name, scale, _ = _form(figure)
    beside = [curve for curve in curves if len(curve.x) == 1 or 0 in curve.x]
    looks = plot.looks([curve.name for curve in curves])
    with plot.style():
        spread = any(sd is not None for curve in curves for sd in curve.sd)
        note = _seeds(curves) + ("; band, or bar: ± 1 sd." if spread else ".")
        note += " Single points of one epsilon are side by side." if len(beside) > 1 else ""
        handles = [plot.handle(look, look.dashes, bare=not curve.x) for look, curve in zip(looks, curves, strict=True)]
        note += _left_out(lines, "prediction", split)
        drawn, axes = plot.canvas(_heading(title, lines), handles, [curve.name for curve in curves], note)
        zero = plot.scale_x(axes, [x for curve in curves for x in curve.x])
        for curve, look in zip(curves, looks, strict=True):
            if curve.x:
                shift = plot.shift(axes, beside.index(curve), len(beside)) if curve in beside else 1.0
                plot.draw_points(axes, look, list(zip(curve.x, curve.mean, curve.sd, strict=True)), zero, shift)
            else:
                plot.draw_level(axes, look, curve.mean[0], curve.sd[0])
        if scale == 100:
            plot.keep_between(axes, 0, 100)
        axes.set_xlabel("epsilon (log scale)")
        axes.set_ylabel(f"{name} on {split}" + (" (%)" if scale == 100 else ""))
    return drawn


def draw_robustness(lines: Iterable[Line], norm: str, title: str, split: str = "test") -> Figure:
    """Accuracy against radius: attacked solid, certified dashed, clean as a marker at radius 0; means over seeds.

    Args:
      lines: as for `robustness_curves`.
      norm: "linf" or "l2".
      title: heading; what the data are, where they are not the official ones, is added.
      split: "dev" or "test".

    Raises:
      ResultsError: as `robustness_curves`, or there is nothing to draw.
    """
    lines = list(lines)
    columns = robustness_curves(lines, norm, split)
    every = [curve for curves in columns.values() for curve in curves.values()]
    if not every:
        raise ResultsError(f"no line of {split} has an accuracy under attack: there is nothing to draw.")
    radii = {radius for line in lines for radius in line.get(f"radii_{norm}", ())}
    infinite = " Radius inf is left out." if any(math.isinf(float(radius)) for radius in radii) else ""
    looks = plot.looks(list(columns))
    with plot.style():
        note = f"{_seeds(every)}; filled, solid: attacked; hollow, dashed: certified; at 0: clean.{infinite}"
        handles = [plot.handle(look, plot.SOLID) for look in looks]
        note += _left_out(lines, "robustness", split)
        drawn, axes = plot.canvas(_heading(title, lines), handles, list(columns), note)
        zero = plot.scale_x(axes, [x for curve in every for x in curve.x])
        for place, (curves, look) in enumerate(zip(columns.values(), looks, strict=True)):
            plain: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linewidth": 1.0}
            if "clean" in curves:
                axes.plot(zero * plot.shift(axes, place, len(columns)), curves["clean"].mean[0], **plain)
            if "attacked" in curves:
                axes.plot(curves["attacked"].x, curves["attacked"].mean, linestyle=plot.SOLID, markersize=4.5, **plain)
            if "certified" in curves:
                # Small, so that both are seen where they meet.
                hollow = plain | {"markersize": 2.5, "markerfacecolor": "white", "markeredgewidth": 0.7}
                axes.plot(curves["certified"].x, curves["certified"].mean, linestyle=plot.DASHED, zorder=3, **hollow)
        axes.set_xlabel(f"perturbation of the scores, {NORMS[norm]} radius (log scale)")
        axes.set_ylabel(f"accuracy on {split} (%)")
    return drawn


def _curve(name: str, points: Mapping[float, Sequence[float]], *, reference: bool = False) -> Curve:
    """Means over seeds of the values at each x."""
    x = sorted(points)
    values = [points[at] for at in x]
    spread = tuple(stdev(of) if len(of) > 1 else None for of in values)
    return Curve(name, () if reference else tuple(x), tuple(map(fmean, values)), spread, tuple(map(len, values)))


def _comparable(lines: Iterable[Line]) -> list[Line]:
    """The lines of runs that were not frozen, each there once, all of the same data."""
    lines = list(lines)
    for name in ("dataset", "mark", "n"):
        if len(values := {str(line.get(name) or "") for line in lines}) > 1:
            raise ResultsError(
                f"a figure shows one data set, and these lines differ in {name}: {', '.join(sorted(values))}."
                " Draw those of each by themselves."
            )
    runs = set()
    for line in lines:
        if (run := tuple(line.get(name) for name in RUN)) in runs:
            raise ResultsError(
                f"{_name(line, (), epsilon=True)}, seed {line.get('seed')}, is there twice: give lines of one training"
                " only."
            )
        runs.add(run)
    return [line for line in lines if line.get("frozen_step") is None]


def _varied(lines: Sequence[Line]) -> list[str]:
    """Which settings of the optimiser tell runs apart."""
    return [name for name in ("learning_rate", "weight_decay") if len({line.get(name) for line in lines}) > 1]


def _name(line: Line, varied: Sequence[str], *, epsilon: bool = False) -> str:
    """Technique, reading, epsilon if asked for, lambda where it is not 1, and what else varies."""
    name = f"{line['technique']} ({line['reading']})" if line.get("reading") else str(line["technique"])
    if epsilon and line.get("epsilon") is not None:
        name += f" {line['epsilon']:g}"
    if line.get("lambda") not in (None, 1):
        name += f" lambda {line['lambda']:g}"
    return name + "".join(f" {of.replace('_', ' ')} {line[of]:g}" for of in varied if line.get(of) is not None)


def _form(figure: str) -> tuple[str, float, int]:
    """Title, scale and digits of a figure of the predictions."""
    if figure.startswith(PART):
        return f"accuracy, {figure.removeprefix(PART)}", 100, 1
    return FIGURES.get(figure, (figure.replace("_", " "), 1, 3))


def _number(value: Any) -> float | None:
    """A number; None where it is absent or not finite ("inf" is how lines say so)."""
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _heading(title: str, lines: Sequence[Line]) -> str:
    """The title, with what the data are where they are not the official ones."""
    mark = next((line["mark"] for line in lines if line.get("mark")), "")
    return f"{title} ({mark} data)" if mark else title


def _seeds(curves: Sequence[Curve]) -> str:
    """What the points are, in words."""
    fewest, most = min(min(curve.n) for curve in curves), max(max(curve.n) for curve in curves)
    if most == 1:
        return "One seed"
    return f"Mean over {f'{fewest} to ' if fewest < most else ''}{most} seeds"


def _left_out(lines: Iterable[Line], family: str, split: str) -> str:
    """How many runs were frozen, as a sentence; empty without any."""
    there = [line for line in lines if (line.get("family", "prediction"), line["split"]) == (family, split)]
    count = sum(line.get("frozen_step") is not None for line in there)
    return f" Left out: {count} frozen run{'s' if count > 1 else ''}." if count else ""


def _course(curve: Curve, digits: int) -> str:
    """Where a curve begins and ends, in words."""
    first, last = (f"{value:.{digits}f}" for value in (curve.mean[0], curve.mean[-1]))
    return f"from {first} to {last}" if len(curve.x) > 1 else first


def _range(curves: Iterable[Curve]) -> str:
    """From which x to which, in words; empty without any."""
    x = [value for curve in curves for value in curve.x]
    return f" from {min(x):g} to {max(x):g}" if x and min(x) < max(x) else f" {x[0]:g}" if x else ""
