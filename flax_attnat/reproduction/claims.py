"""Claims 1 and 2 of the paper, judged by lines of finished runs: what holds, what does not, and what was not tested.

A setting is compared with others by means over the seeds that it has; a claim about iAT is judged for each reading by
itself, never for the best of five.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flax_attnat.evaluation.significance import holm, paired_seeds
from flax_attnat.reproduction.settings import (
    READINGS,
    Index,
    Line,
    Name,
    Setting,
    chosen,
    figure_of,
    index,
    mean,
)

OTHERS: tuple[Name, ...] = (
    *(("vanilla", None), ("attention_rp", None), ("attention_at", None)),
    *(("word_at", None), ("word_iat", None)),
)
"""What the paper compares Attention iAT with."""

TASKS = 10
"""Data sets of the paper."""

LEAST_EPSILONS = 2
"""A technique that was trained at fewer is not judged: its epsilon was not chosen."""


HOLDS, FAILS, OPEN = "holds", "does not hold", "not tested"


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
      so_far: of a claim that is open, in a few words what was found where it was tested; may be empty.
    """

    reading: str
    verdict: str
    reason: str
    so_far: str = ""


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
        count = f"best on {len(won)} of {len(tested)} data sets tested"
        said = count + (f" ({names})" if names else "")
        if len(lost) > allowed:
            found.append(Verdict(reading, FAILS, said))
        elif len(whole) == TASKS:
            found.append(Verdict(reading, HOLDS, said))
        else:
            left = f"{TASKS - len(whole)} of {TASKS} data sets were not tested against everything"
            left += f" (one epsilon only, so far: {', '.join(early)})" if early else ""
            found.append(Verdict(reading, OPEN, f"{said}; {left}", count) if tested else Verdict(reading, OPEN, left))
    return found
