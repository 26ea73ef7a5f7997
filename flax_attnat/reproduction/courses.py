"""Claim 3 of the paper: how much techniques depend on epsilon."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr
from scipy.stats import studentized_range

from flax_attnat.reproduction.cells import named, technique_name
from flax_attnat.reproduction.claims import CLEAR, FAILS, HOLDS, OPEN, TASKS, Verdict, tally
from flax_attnat.reproduction.settings import READINGS, Index, Line, Name, Setting, figure_of, index, mean

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


def courses(lines: Sequence[Line], dataset: str, variant: str, epoch: str = "best") -> list[Course]:
    """How each technique of a data set depends on epsilon, over the two or more epsilons that all of them have.

    Techniques with fewer than FEWEST epsilons are left out where others have as many, those with one always.
    """
    test = index(lines, epoch=epoch)
    curves: dict[Name, dict[float, Mapping[int, Line]]] = {}
    for setting, runs in test.items():
        if (setting.dataset, setting.variant) == (dataset, variant) and setting.epsilon:
            curves.setdefault((setting.technique, setting.reading), {})[setting.epsilon] = runs
    enough = max(2, min(FEWEST, max(map(len, curves.values()), default=0)))
    curves = {name: points for name, points in curves.items() if len(points) >= enough}
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


def relative_epsilons(test: Index, dataset: str, variant: str, of: Course) -> list[float]:
    """The epsilons of a course over the clean norm of what is perturbed; nothing where that is not known.

    The norm of vanilla's scores less their mean, or of a text's word vectors at the technique's smallest epsilon.
    """
    if of.name[0].startswith("word_"):
        runs, field = test[Setting(dataset, variant, *of.name, of.epsilons[0])], "word_norm"
    else:
        runs, field = test.get(Setting(dataset, variant, "vanilla", None, None), {}), "score_norm"
    norm = mean(runs, field) if runs else math.nan
    return [] if math.isnan(norm) or norm == 0 else [epsilon / norm for epsilon in of.epsilons]


def sensitivity_verdicts(lines: Sequence[Line], variants: Mapping[str, str], epoch: str = "best") -> list[Verdict]:
    """Claim 3 for each reading: Attention AT and this iAT depend less on epsilon than the word techniques do.

    Less, on every data set: the larger of their spans is below the smaller one of the word techniques, and the smaller
    of their widths is at least the larger one of theirs. A data set is judged by FEWEST epsilons or more. The claim
    fails as soon as one data set says otherwise; to hold, the spans of the word techniques must also be significant.
    """
    found = []
    for reading in READINGS:
        said, few = list[str](), list[str]()
        lost, won = list[bool](), list[bool]()
        for dataset, variant in variants.items():
            if not (pairs := _pairs(courses(lines, dataset, variant, epoch), reading)):
                continue
            if len(pairs[0].epsilons) < FEWEST:
                few.append(f"{named(lines, dataset)} at {', '.join(f'{epsilon:g}' for epsilon in pairs[0].epsilons)}")
                continue
            (wide, flat), (steep, least) = (sorted(of, key=lambda one: -one.span) for of in (pairs[:2], pairs[2:]))
            narrow = min(of.octaves for of in (wide, flat)) < max(of.octaves for of in (steep, least))
            if wide.span < least.span and not narrow:
                won.append(least.clear)
            else:
                lost.append(wide.span >= least.span and wide.clear)
            said.append(
                f"{named(lines, dataset)}: {', '.join(f'{technique_name(of.name)} {of.span:.2f}' for of in pairs)};"
                f" widths {', '.join(f'{of.octaves:.1f}' for of in pairs)} octaves"
            )
        tested = len(lost) + len(won)
        so_far = tally("true on", (len(won), sum(won)), (len(lost), sum(lost)))
        if not tested:
            only = f" at {FEWEST} epsilons or more (so far: {'; '.join(few)})" if few else ""
            found.append(Verdict(reading, OPEN, f"no data set has the curves of all four techniques{only}"))
            continue
        verdict = FAILS if lost else OPEN if tested < TASKS else HOLDS if sum(won) == TASKS else FAILS
        left = "" if tested == TASKS else f"; {TASKS - tested} of {TASKS} data sets were not tested"
        found.append(Verdict(reading, verdict, "; ".join(said) + left, so_far, (len(won), len(lost), 0)))
    return found


def _pairs(found: Sequence[Course], reading: str) -> list[Course]:
    """The courses of Attention AT, iAT, Word AT and Word iAT; nothing where one is lacking."""
    by_name = {of.name: of for of in found}
    names: list[Name] = [("attention_at", None), ("attention_iat", reading), ("word_at", None), ("word_iat", None)]
    return [by_name[name] for name in names] if all(name in by_name for name in names) else []
