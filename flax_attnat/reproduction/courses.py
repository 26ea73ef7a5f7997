"""Claim 3 of the paper: how much techniques depend on epsilon."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr
from scipy.stats import studentized_range

from flax_attnat.reproduction.claims import CLEAR, FAILS, HOLDS, OPEN, TASKS, Verdict
from flax_attnat.reproduction.settings import READINGS, Line, Name, figure_of, index, mean

WITHIN = 0.5
"""Per cent of F1 (accuracy) within which an epsilon counts as good as the best."""
FEWEST = 4
"""Epsilons of a curve by which a claim is judged."""


class Course(NamedTuple):
    """How much a technique depends on epsilon.

    Attributes:
      name: technique and reading.
      epsilons: where it was measured, ascending.
      span: largest less smallest mean over seeds, in per cent.
      octaves: width, in octaves, of the epsilons around the best one that are within WITHIN of it.
      chance: the span that seeds alone would give in the mean, in per cent; NaN where that is not known.
      p_value: with which probability they would give this span or a larger one; NaN where that is not known.
    """

    name: Name
    epsilons: tuple[float, ...]
    span: float
    octaves: float
    chance: float = math.nan
    p_value: float = math.nan

    @property
    def clear(self) -> bool:
        """Whether the technique depends on epsilon more than seeds explain."""
        return self.p_value <= CLEAR


def courses(lines: Sequence[Line], dataset: str, variant: str) -> list[Course]:
    """How each technique of a data set depends on epsilon, over the two or more epsilons that all of them have.

    Techniques with one epsilon are left out.
    """
    test = index(lines)
    curves: dict[Name, dict[float, Mapping[int, Line]]] = {}
    for setting, runs in test.items():
        if (setting.dataset, setting.variant) == (dataset, variant) and setting.epsilon:
            curves.setdefault((setting.technique, setting.reading), {})[setting.epsilon] = runs
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    common = sorted(set.intersection(*(set(points) for points in curves.values()))) if curves else []
    if len(common) < 2:
        return []
    found = []
    for name, points in curves.items():
        means = {epsilon: 100 * mean(points[epsilon], figure_of(points[epsilon])) for epsilon in common}
        chance, p_value = span_by_chance(_figures([points[epsilon] for epsilon in common]))
        found.append(course(name, means)._replace(chance=chance, p_value=p_value))
    return found


def _figures(points: Sequence[Mapping[int, Line]]) -> np.ndarray:
    """Per cents `[k, n]` of k epsilons and the n seeds that all of them have."""
    name = figure_of(points[0])
    seeds = sorted(set.intersection(*(set(runs) for runs in points)))
    rows = [[runs[seed][name] for seed in seeds] for runs in points]
    figures = 100 * np.array(rows, np.float64).reshape(len(points), len(seeds))
    return figures[:, ~np.isnan(figures).any(axis=0)]


def course(name: Name, points: Mapping[float, float]) -> Course:
    """The span and the width of one curve of per cents by epsilon.

    >>> course(("attention_at", None), {1.0: 82.25, 2.0: 82.5, 8.0: 80.0})
    Course(name=('attention_at', None), epsilons=(1.0, 2.0, 8.0), span=2.5, octaves=1.0, chance=nan, p_value=nan)
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


def span_by_chance(figures: np.ndarray) -> tuple[float, float]:
    """The span of means over seeds that seeds alone give in the mean, and how probable they make the one found.

    The range of k normal means is `d_k s / sqrt(n)` in the mean, and `range / (s / sqrt(n))` follows the studentized
    range of k means and (k - 1) (n - 1) degrees of freedom, where s is the deviation that is left when each seed and
    each epsilon has its own mean (the same seeds start from the same parameters).

    Args:
      figures: `[k, n]` of k epsilons and n seeds.

    Returns:
      The mean span and the p value; NaN for fewer than two epsilons or seeds, or where nothing is left of s.

    Source: Tukey 1949.

    >>> chance, p_value = span_by_chance(np.array([[1.0, 3.0], [2.0, 2.0]]))
    >>> print(f"{chance:.3f} {p_value:.3f}")
    0.798 1.000
    """
    epsilons, seeds = figures.shape
    if min(epsilons, seeds) < 2:
        return math.nan, math.nan
    left = figures - figures.mean(0) - figures.mean(1, keepdims=True) + figures.mean()
    freedom = (epsilons - 1) * (seeds - 1)
    error = math.sqrt(np.sum(left**2) / freedom / seeds)
    if error == 0:
        return math.nan, math.nan
    below = ndtr(np.linspace(-10.0, 10.0, 2001))
    mean_range = float(np.trapezoid(1 - below**epsilons - (1 - below) ** epsilons, dx=0.01))
    p_value = float(studentized_range.sf(np.ptp(figures.mean(1)) / error, epsilons, freedom))
    return mean_range * error, p_value


def chance_cell(of: Course) -> str:
    """The span by chance of a course and the p value of its own, as text."""
    return "n/a" if math.isnan(of.chance) else f"{of.chance:.2f} (p = {of.p_value:.3f})"


def sensitivity_verdicts(lines: Sequence[Line], variants: Mapping[str, str]) -> list[Verdict]:
    """Claim 3 for each reading: on every data set, Attention AT and this iAT span less than both word techniques.

    A data set is judged by FEWEST epsilons or more. The claim fails by the spans; to hold, those of the word techniques
    must also be clear.
    """
    found = []
    for reading in READINGS:
        said, few = list[str](), list[str]()
        lost, won = list[Course](), list[Course]()
        for dataset, variant in variants.items():
            if (ends := _ends(courses(lines, dataset, variant), reading)) is None:
                continue
            most, least, sentence = ends
            if len(most.epsilons) < FEWEST:
                few.append(f"{dataset} at {', '.join(f'{epsilon:g}' for epsilon in most.epsilons)}")
                continue
            said.append(f"{dataset}: {sentence}")
            if most.span < least.span:
                won.append(least)
            else:
                lost.append(most)
        tested = len(lost) + len(won)
        clear = sum(of.clear for of in lost or won)
        if not tested:
            only = f" at {FEWEST} epsilons or more (so far: {'; '.join(few)})" if few else ""
            found.append(Verdict(reading, OPEN, f"no data set has the curves of all four techniques{only}"))
        elif lost:
            so_far = f"the wider span on {len(lost)} of {tested} data sets tested, clearly on {clear}"
            found.append(Verdict(reading, FAILS, "; ".join(said), so_far))
        else:
            so_far = f"the narrower span on {tested} of {tested} data sets tested, clearly on {clear}"
            verdict = OPEN if tested < TASKS else HOLDS if clear == TASKS else FAILS
            left = "" if tested == TASKS else f"; {TASKS - tested} of {TASKS} data sets were not tested"
            found.append(Verdict(reading, verdict, "; ".join(said) + left, so_far))
    return found


def _ends(found: Sequence[Course], reading: str) -> tuple[Course, Course, str] | None:
    """The steepest course of Attention AT and iAT, the flattest of the word techniques, and a sentence on both."""
    by_name = {of.name: of for of in found}
    names: list[Name] = [("attention_at", None), ("attention_iat", reading), ("word_at", None), ("word_iat", None)]
    if not all(name in by_name for name in names):
        return None
    ours, words = [by_name[name] for name in names[:2]], [by_name[name] for name in names[2:]]
    most, least = max(ours, key=lambda of: of.span), min(words, key=lambda of: of.span)
    sentence = (
        f"spans of at most {most.span:.2f} against at least {least.span:.2f} (by chance {chance_cell(most)} and"
        f" {chance_cell(least)}), widths of at least {min(of.octaves for of in ours):.1f} against at most"
        f" {max(of.octaves for of in words):.1f} octaves"
    )
    return most, least, sentence
