"""The paper's three claims, judged by lines of finished runs: what holds, what does not, and what was not tested.

A setting is compared with others by means over the seeds that it has; a claim about iAT is judged for each reading by
itself, never for the best of five.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from flax_attnat.evaluation.significance import holm, paired_seeds

Line = Mapping[str, Any]
Name = tuple[str, str | None]
"""Technique and reading."""

READINGS = ("span", "released", "sentence", "sign", "token")
OTHERS: tuple[Name, ...] = (
    *(("vanilla", None), ("attention_rp", None), ("attention_at", None)),
    *(("word_at", None), ("word_iat", None)),
)
"""What the paper compares Attention iAT with."""

TASKS = 10
"""Data sets of the paper."""
WITHIN = 0.5
"""Per cent of F1 (accuracy) within which an epsilon counts as good as the best."""

LEAST_EPSILONS = 2
"""A technique that was trained at fewer is not judged: its epsilon was not chosen."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "not tested"


class Setting(NamedTuple):
    """What is varied, but for seeds.

    Attributes:
      dataset: its name.
      variant: "pretrained", "random" or "scaled_dot".
      technique: its name.
      reading: of attention_iat; None for the others.
      epsilon: None for vanilla.
    """

    dataset: str
    variant: str
    technique: str
    reading: str | None
    epsilon: float | None


class Control(NamedTuple):
    """A setting against one of its controls.

    Attributes:
      name: of the control.
      difference: of the means over common seeds, in the figure's own unit.
      p_value: of a paired t test over seeds; None where there is none.
      p_holm: corrected over readings and data sets.
      seeds: that both have.
    """

    name: str
    difference: float | None
    p_value: float | None
    p_holm: float | None
    seeds: int


class Judged(NamedTuple):
    """One reading on one data set.

    Attributes:
      reading: its name.
      dataset: its name.
      setting: the one that is best on dev.
      epsilons: of how many.
      value: mean over seeds.
      beaten_by: names of what the reading does not exceed, epsilon 0 among them; empty: it is the best.
      lacking: names of what it could not be compared with.
      controls: vanilla, random perturbation, and epsilon 0.
    """

    reading: str
    dataset: str
    setting: Setting
    epsilons: int
    value: float
    beaten_by: tuple[str, ...]
    lacking: tuple[str, ...]
    controls: tuple[Control, ...]


class Verdict(NamedTuple):
    """What is said of a claim.

    Attributes:
      reading: of attention_iat that it is about.
      verdict: HOLDS, FAILS or OPEN.
      reason: a sentence with the figures.
    """

    reading: str
    verdict: str
    reason: str


class Course(NamedTuple):
    """How much a technique depends on epsilon.

    Attributes:
      name: technique and reading.
      epsilons: where it was measured, ascending.
      span: largest less smallest mean over seeds, in per cent.
      octaves: width, in octaves, of the epsilons around the best one that are within WITHIN of it.
    """

    name: Name
    epsilons: tuple[float, ...]
    span: float
    octaves: float


Index = dict[Setting, dict[int, Line]]


def index(lines: Iterable[Line], split: str = "test", epoch: str = "best") -> Index:
    """Lines by setting and seed; runs that were frozen are left out."""
    found: Index = {}
    for line in lines:
        if (line["split"], line["epoch"]) == (split, epoch) and line["frozen_step"] is None:
            names = (line["dataset"], line["variant"], line["technique"], line["reading"], line["epsilon"])
            found.setdefault(Setting(*names), {})[line["seed"]] = line
    return found


def figure_of(runs: Mapping[int, Line]) -> str:
    """What the paper reports of a data set: F1 of two classes, accuracy of more."""
    return "f1" if next(iter(runs.values()))["classes"] == 2 else "accuracy"


def values(runs: Mapping[int, Line], figure: str) -> list[float]:
    """A figure of each seed, ascending, where it is defined."""
    return [float(runs[seed][figure]) for seed in sorted(runs) if runs[seed][figure] is not None]


def mean(runs: Mapping[int, Line], figure: str) -> float:
    """Mean over seeds; NaN where no seed has the figure."""
    found = values(runs, figure)
    return fmean(found) if found else math.nan


def sd(runs: Mapping[int, Line], figure: str) -> float | None:
    """Standard deviation over seeds, n - 1; None below two."""
    found = values(runs, figure)
    return stdev(found) if len(found) > 1 else None


def chosen(lines: Sequence[Line], dataset: str, variant: str) -> dict[Name, Setting]:
    """For each technique and reading the setting with the largest dev mean of its selection figure.

    Epsilon 0 is a control and does not compete; only the settings of a technique with the most seeds do; a tie goes to
    the smaller epsilon.
    """
    settings: dict[Name, list[tuple[float, int, Setting]]] = {}
    for setting, runs in index(lines, "dev").items():
        if (setting.dataset, setting.variant) == (dataset, variant) and setting.epsilon != 0:
            score = mean(runs, next(iter(runs.values()))["selection"])
            if not math.isnan(score):
                settings.setdefault((setting.technique, setting.reading), []).append((score, len(runs), setting))
    found = {}
    for name, of in settings.items():
        most = max(seeds for _, seeds, _ in of)
        found[name] = min((-score, setting.epsilon or 0.0, setting) for score, seeds, setting in of if seeds == most)[2]
    return found


def judge(lines: Sequence[Line], variants: Mapping[str, str], figure: str | None = None) -> list[Judged]:
    """Every reading on every data set where it was trained, against what the paper compares it with.

    Args:
      lines: of finished runs.
      variants: by data set, the variant that is judged.
      figure: None: F1 or accuracy, at the setting that is best on dev; else the name of one.
    """
    test = index(lines)
    found = []
    for dataset, variant in variants.items():
        best = chosen(lines, dataset, variant)
        for reading in READINGS:
            setting = best.get(("attention_iat", reading))
            if setting is None or setting not in test:
                continue
            runs = test[setting]
            name = figure or figure_of(runs)
            ours = mean(runs, name)
            places = {other[0]: test[best[other]] for other in OTHERS if other in best and best[other] in test}
            if (zero := _without(setting)) in test:
                places["epsilon 0"] = test[zero]
            beaten = [other for other, of in places.items() if not ours > mean(of, name)]
            counts = _epsilons(test, dataset, variant)
            few = [other[0] for other in OTHERS[1:] if counts.get(other, 0) < LEAST_EPSILONS]
            lacking = [
                other for other in (*(of[0] for of in OTHERS), "epsilon 0") if other not in places or other in few
            ]
            found.append(
                Judged(
                    *(reading, dataset, setting, counts[("attention_iat", reading)]),
                    *(ours, tuple(beaten), tuple(lacking)),
                    tuple(_controls(test, setting, best, runs, name)),
                )
            )
    return _corrected(found)


def _epsilons(test: Index, dataset: str, variant: str) -> dict[Name, int]:
    """At how many epsilons, 0 apart, each technique of a data set was trained."""
    found: dict[Name, int] = {}
    for of in test:
        if (of.dataset, of.variant) == (dataset, variant) and of.epsilon:
            found[of.technique, of.reading] = found.get((of.technique, of.reading), 0) + 1
    return found


def _without(setting: Setting) -> Setting:
    """The control that has the scale of the objective, twice the clean loss, and no perturbation."""
    return setting._replace(technique="attention_at", reading=None, epsilon=0.0)


def _controls(
    test: Index, setting: Setting, best: Mapping[Name, Setting], runs: Mapping[int, Line], figure: str
) -> list[Control]:
    """Differences from vanilla, from random perturbation, and from epsilon 0 with the same scale of the loss."""
    named = {name: best.get((name, None)) for name in ("vanilla", "attention_rp")}
    places = named | {"epsilon 0": _without(setting)}
    found = []
    for name, place in places.items():
        other = test.get(place) if place is not None else None
        seeds = sorted(set(runs) & set(other or {}))
        seeds = [s for s in seeds if None not in (runs[s][figure], (other or {})[s][figure])]
        if other is None or not seeds:
            found.append(Control(name, None, None, None, 0))
            continue
        compared = paired_seeds(*(np.array([float(of[s][figure]) for s in seeds]) for of in (runs, other)))
        p_value = None if math.isnan(compared.p_value) else compared.p_value
        found.append(Control(name, compared.difference, p_value, None, compared.n))
    return found


def _corrected(judged: Sequence[Judged]) -> list[Judged]:
    """The same with p values corrected over readings and data sets (Holm), control by control."""
    if not judged:
        return []
    columns = []
    for place in range(len(judged[0].controls)):
        raw = [of.controls[place].p_value for of in judged]
        columns.append(holm(np.array([math.nan if p is None else p for p in raw])))
    return [
        of._replace(
            controls=tuple(
                control._replace(p_holm=None if math.isnan(column[row]) else float(column[row]))
                for control, column in zip(of.controls, columns, strict=True)
            )
        )
        for row, of in enumerate(judged)
    ]


def verdicts(judged: Sequence[Judged], allowed: int) -> list[Verdict]:
    """A verdict for each reading: it must be the best on all of the paper's data sets but `allowed` of them.

    It fails as soon as more data sets than that show something at least as good; it holds when all were tested.
    """
    found = []
    for reading in READINGS:
        tested = [of for of in judged if of.reading == reading and of.epsilons >= LEAST_EPSILONS]
        early = [of.dataset for of in judged if of.reading == reading and of not in tested]
        whole = [of for of in tested if not of.lacking]
        lost = [of for of in tested if of.beaten_by]
        won = [of.dataset for of in whole if not of.beaten_by]
        names = "; ".join(f"{of.dataset}: not above {', '.join(of.beaten_by)}" for of in lost)
        said = f"best on {len(won)} of {len(tested)} data sets tested" + (f" ({names})" if names else "")
        if len(lost) > allowed:
            found.append(Verdict(reading, FAILS, said))
        elif len(whole) == TASKS:
            found.append(Verdict(reading, HOLDS, said))
        else:
            left = f"{TASKS - len(whole)} of {TASKS} data sets were not tested against everything"
            left += f" (one epsilon only, so far: {', '.join(early)})" if early else ""
            found.append(Verdict(reading, OPEN, f"{said}; {left}" if tested else left))
    return found


def courses(lines: Sequence[Line], dataset: str, variant: str) -> list[Course]:
    """How each technique of a data set depends on epsilon, over the epsilons that all of them have.

    Techniques with fewer than three common epsilons with the others are left out.
    """
    test = index(lines)
    curves: dict[Name, dict[float, float]] = {}
    for setting, runs in test.items():
        if (setting.dataset, setting.variant) == (dataset, variant) and setting.epsilon:
            name = (setting.technique, setting.reading)
            curves.setdefault(name, {})[setting.epsilon] = 100 * mean(runs, figure_of(runs))
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    common = sorted(set.intersection(*(set(points) for points in curves.values()))) if curves else []
    if len(common) < 2:
        return []
    return [course(name, {epsilon: points[epsilon] for epsilon in common}) for name, points in curves.items()]


def course(name: Name, points: Mapping[float, float]) -> Course:
    """The span and the width of one curve of per cents by epsilon.

    >>> course(("attention_at", None), {1.0: 82.25, 2.0: 82.5, 8.0: 80.0})
    Course(name=('attention_at', None), epsilons=(1.0, 2.0, 8.0), span=2.5, octaves=1.0)
    """
    epsilons = sorted(points)
    best = max(epsilons, key=lambda epsilon: (points[epsilon], -epsilon))
    low = high = epsilons.index(best)
    while low > 0 and points[epsilons[low - 1]] >= points[best] - WITHIN:
        low -= 1
    while high + 1 < len(epsilons) and points[epsilons[high + 1]] >= points[best] - WITHIN:
        high += 1
    width = math.log2(epsilons[high] / epsilons[low])
    return Course(name, tuple(epsilons), max(points.values()) - min(points.values()), width)


def sensitivity_verdicts(lines: Sequence[Line], variants: Mapping[str, str]) -> list[Verdict]:
    """Claim 3 for each reading: on every data set, Attention AT and this iAT span less than both word techniques."""
    found = []
    for reading in READINGS:
        said, fine, tested = [], True, 0
        for dataset, variant in variants.items():
            spans = {of.name: of for of in courses(lines, dataset, variant)}
            ours = [spans.get(("attention_at", None)), spans.get(("attention_iat", reading))]
            words = [spans.get(("word_at", None)), spans.get(("word_iat", None))]
            if None in ours + words:
                continue
            tested += 1
            most, least = max(of.span for of in ours if of), min(of.span for of in words if of)
            fine &= most < least
            narrow, wide = min(of.octaves for of in ours if of), max(of.octaves for of in words if of)
            said.append(
                f"{dataset}: spans of at most {most:.2f} against at least {least:.2f}, widths of at least {narrow:.1f}"
                f" against at most {wide:.1f} octaves"
            )
        if not tested:
            found.append(Verdict(reading, OPEN, "no data set has the curves of all four techniques"))
        elif not fine:
            found.append(Verdict(reading, FAILS, "; ".join(said)))
        else:
            verdict = HOLDS if tested == TASKS else OPEN
            left = "" if tested == TASKS else f"; {TASKS - tested} of {TASKS} data sets were not tested"
            found.append(Verdict(reading, verdict, "; ".join(said) + left))
    return found
