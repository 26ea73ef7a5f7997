"""Claim 3 of the paper: how much techniques depend on epsilon."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr
from scipy.stats import studentized_range

from flax_attnat.evaluation.significance import ROUNDING, holm
from flax_attnat.reproduction.cells import named, technique_name
from flax_attnat.reproduction.claims import FAILS, HOLDS, OPEN, TASKS, Verdict, tally
from flax_attnat.reproduction.differences import CLEAR, p_cell
from flax_attnat.reproduction.settings import (
    ORDER,
    READINGS,
    Index,
    Line,
    Name,
    Setting,
    common_curves,
    curves_of,
    figure_of,
    index,
    mean,
)

WITHIN = 0.5
"""Per cent of F1 (accuracy) within which an epsilon counts as good as the best."""
FEWEST = 4
"""Epsilons of a curve by which a claim is judged."""


class Course(NamedTuple):
    """How much a technique depends on epsilon.

    Attributes:
      name: technique and reading.
      epsilons: where it was measured, ascending.
      range: largest less smallest mean over seeds, in per cent.
      octaves: width, in octaves, of the epsilons around the best one that are within WITHIN of it.
      best: the largest of these means, in per cent; NaN where it is not known.
      chance: the range that seeds alone would give in the mean, in per cent; NaN where that is not known.
      p_value: with which probability they would give this range or a larger one; NaN where that is not known.
      p_holm: the same, corrected over what is judged with it.
      without: the range without any one seed, the smallest and the largest, in per cent; NaN for fewer than three.
    """

    name: Name
    epsilons: tuple[float, ...]
    range: float
    octaves: float
    best: float = math.nan
    chance: float = math.nan
    p_value: float = math.nan
    p_holm: float = math.nan
    without: tuple[float, float] = (math.nan, math.nan)

    @property
    def judged(self) -> bool:
        """Whether it has the epsilons that a claim is judged by."""
        return len(self.epsilons) >= FEWEST

    @property
    def clear(self) -> bool:
        """Whether the technique depends on epsilon more than seeds explain."""
        return self.p_holm <= CLEAR


def courses(
    lines: Sequence[Line],
    dataset: str,
    variant: str,
    names: Sequence[Name] = ORDER,
    epoch: str = "best",
    fewest: int = 2,
    *,
    relative: bool = False,
) -> list[Course]:
    """How some techniques of a data set depend on epsilon, over the two or more epsilons that all of them have.

    Those that were trained at fewer than `fewest` are left out, where others have so many. Figures are means over the
    seeds that all epsilons have. If `relative`, each has its own epsilons: those that, relative to what is perturbed,
    lie in the range that all of them have.
    """
    found, test = [], index(lines, epoch=epoch)
    if relative:
        curves = _shared_curves(test, dataset, variant, names, fewest)
    else:
        curves = common_curves(test, dataset, variant, names, fewest)
    for name, points in curves.items():
        if len(points) > 1 and (figures := _figures(list(points.values()))).size:
            chance, p_value = range_by_chance(figures)
            means = dict(zip(points, figures.mean(axis=1).tolist(), strict=True))
            without = _without_a_seed(figures)
            found.append(course(name, means)._replace(chance=chance, p_value=p_value, without=without))
    return found


def _shared_curves(
    test: Index, dataset: str, variant: str, names: Sequence[Name], fewest: int
) -> dict[Name, dict[float, dict[int, Line]]]:
    """The curves of `fewest` epsilons or more over the range that all of them have, relative to what is perturbed."""
    curves = {
        name: dict(sorted((epsilon, runs) for epsilon, runs in points.items() if epsilon))
        for name, points in curves_of(test, dataset, variant).items()
        if name in names
    }
    curves = {name: points for name, points in curves.items() if len(points) >= fewest}
    units = {
        name: relative_epsilons(test, dataset, variant, Course(name, tuple(points), math.nan, math.nan))
        for name, points in curves.items()
    }
    if not units or not all(units.values()):
        return {}
    low, high = max(of[0] for of in units.values()), min(of[-1] for of in units.values())
    return {
        name: {
            epsilon: runs
            for (epsilon, runs), unit in zip(points.items(), units[name], strict=True)
            if low <= unit <= high
        }
        for name, points in curves.items()
    }


def _figures(points: Sequence[Mapping[int, Line]]) -> np.ndarray:
    """Per cents `[k, n]` of k epsilons and the n seeds that all of them have."""
    name = figure_of(points[0])
    seeds = sorted(set.intersection(*(set(runs) for runs in points)))
    rows = [[runs[seed][name] for seed in seeds] for runs in points]
    figures = 100 * np.array(rows, np.float64).reshape(len(points), len(seeds))
    return figures[:, ~np.isnan(figures).any(axis=0)]


def _without_a_seed(figures: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest range of the means of figures `[k, n]` over all seeds but one; NaN for n < 3.

    >>> _without_a_seed(np.array([[90.0, 91.0, 92.0], [90.0, 91.0, 50.0]]))
    (0.0, 21.0)
    """
    if figures.shape[1] < 3:
        return math.nan, math.nan
    ranges = [float(np.ptp(np.delete(figures, seed, axis=1).mean(axis=1))) for seed in range(figures.shape[1])]
    return min(ranges), max(ranges)


def course(name: Name, points: Mapping[float, float]) -> Course:
    """The range and the width of one curve of per cents by epsilon.

    >>> found = course(("attention_at", None), {1.0: 82.25, 2.0: 82.5, 8.0: 80.0})
    >>> found.range, found.octaves
    (2.5, 1.0)
    """
    epsilons = sorted(points)
    best = max(epsilons, key=lambda epsilon: (points[epsilon], -epsilon))
    low = high = epsilons.index(best)
    while low > 0 and points[epsilons[low - 1]] >= points[best] - WITHIN:
        low -= 1
    while high + 1 < len(epsilons) and points[epsilons[high + 1]] >= points[best] - WITHIN:
        high += 1
    width = math.log2(epsilons[high] / epsilons[low])
    return Course(name, tuple(epsilons), max(points.values()) - min(points.values()), width, points[best])


def range_by_chance(figures: np.ndarray) -> tuple[float, float]:
    """The range of means over seeds that seeds alone give in the mean, and how probable they make the one found.

    The range of k normal means is `d_k s / sqrt(n)` in the mean, and `range / (s / sqrt(n))` follows the studentized
    range of k means and (k - 1) (n - 1) degrees of freedom, where s is the deviation that is left when each seed and
    each epsilon has its own mean (the same seeds start from the same parameters).

    Args:
      figures: `[k, n]` of k epsilons and n seeds.

    Returns:
      The mean range and the p value; NaN for fewer than two epsilons or seeds, or where nothing is left of s.

    Source: Tukey 1949.

    >>> chance, p_value = range_by_chance(np.array([[1.0, 3.0], [2.0, 2.0]]))
    >>> print(f"{chance:.3f} {p_value:.3f}")
    0.798 1.000
    """
    epsilons, seeds = figures.shape
    if min(epsilons, seeds) < 2:
        return math.nan, math.nan
    left = figures - figures.mean(0) - figures.mean(1, keepdims=True) + figures.mean()
    freedom = (epsilons - 1) * (seeds - 1)
    error = math.sqrt(np.sum(left**2) / freedom / seeds)
    if error <= ROUNDING * np.max(np.abs(figures)):
        return math.nan, math.nan
    below = ndtr(np.linspace(-10.0, 10.0, 2001))
    mean_range = float(np.trapezoid(1 - below**epsilons - (1 - below) ** epsilons, dx=0.01))
    p_value = float(studentized_range.sf(np.ptp(figures.mean(1)) / error, epsilons, freedom))
    return mean_range * error, p_value


def chance_cell(of: Course) -> str:
    """The range by chance of a course and the p value of its own, as text."""
    if math.isnan(of.chance):
        return "n/a"
    return f"{of.chance:.2f} ({p_cell(of.p_value)}" + ("" if math.isnan(of.p_holm) else f"; {p_cell(of.p_holm)}") + ")"


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


def judged_courses(
    lines: Sequence[Line], variants: Mapping[str, str], epoch: str = "best", *, relative: bool = False
) -> dict[str, list[Course]]:
    """The courses of each data set that claim 3 is judged by, p values corrected over all of them (Holm).

    Those of fewer than FEWEST epsilons are shown but not judged, and so not among them.
    """
    found = {
        dataset: courses(lines, dataset, variant, epoch=epoch, fewest=FEWEST, relative=relative)
        for dataset, variant in variants.items()
    }
    p_values = [of.p_value if of.judged else math.nan for of in itertools.chain.from_iterable(found.values())]
    every = iter(holm(np.array(p_values)).tolist())
    return {dataset: [of._replace(p_holm=next(every)) for of in of_one] for dataset, of_one in found.items()}


def sensitivity_verdicts(
    lines: Sequence[Line], variants: Mapping[str, str], epoch: str = "best", *, relative: bool = False
) -> list[Verdict]:
    """Claim 3 for each reading: Attention AT and this iAT depend less on epsilon than the word techniques do.

    Less, on every data set: the larger of their ranges is below the smaller one of the word techniques, and the smaller
    of their widths is at least the larger one of theirs. A data set is judged by FEWEST epsilons or more. The claim
    fails as soon as one data set says otherwise; to hold, the ranges of the word techniques must also be significant.
    Epsilons are the same numbers for all or, if `relative`, of the same range relative to what is perturbed.
    """
    found, test = [], index(lines, epoch=epoch)
    every = judged_courses(lines, variants, epoch, relative=relative)
    for reading in READINGS:
        names: list[Name] = [("attention_at", None), ("attention_iat", reading), ("word_at", None), ("word_iat", None)]
        said, few = list[str](), dict[str, str]()
        lost, won, by = dict[str, bool](), dict[str, bool](), list[Name]()
        for dataset, variant in variants.items():
            title, by_name = named(lines, dataset), {of.name: of for of in every[dataset]}
            if not all(name in by_name and by_name[name].judged for name in names):
                if ("attention_iat", reading) in curves_of(test, dataset, variant):
                    begun = {of.name: of for of in courses(lines, dataset, variant, names, epoch, relative=relative)}
                    few[title] = f"{title}: undecided, {_not_judged(names, begun)}"
                continue
            four = [by_name[name] for name in names]
            against, significant = _against(four[:2], four[2:])
            (lost if against else won)[title] = significant
            by += [of.name for of in four[:2] if _against([of], four[2:])[0]]
            said.append(f"{title}: {f'not so by {against}' if against else 'so'}")
        tested, said = len(lost) + len(won), [*said, *few.values()]
        if tested < TASKS:
            said.append(f"{TASKS - tested} of {TASKS} data sets were not tested")
        clear = sum(won.values())
        verdict = FAILS if lost else OPEN if tested < TASKS else HOLDS if clear == TASKS else FAILS
        below = sum(lost.values())
        so_far = tally("true on", (len(won), clear), (len(lost), below), len(few)) if tested or few else ""
        where = (tuple(won), tuple(lost), tuple(few))
        found.append(Verdict(reading, verdict, "; ".join(said), so_far, *where, by=tuple(map(technique_name, by))))
    return found


def _not_judged(names: Sequence[Name], begun: Mapping[Name, Course]) -> str:
    """Why a data set does not judge claim 3: what has no curve of two epsilons, or how few of them all have."""
    lacking = [technique_name(name) for name in names if name not in begun]
    if lacking:
        return f"no curve of {', '.join(lacking)}"
    return f"{len(begun[names[0]].epsilons)} epsilons in common"


def _against(ours: Sequence[Course], words: Sequence[Course]) -> tuple[str, bool]:
    """What says that some techniques do not depend less on epsilon than others, and whether that is significant.

    Nothing says so where all depend less.

    >>> flat, steep = (Course((name, None), (1.0,), of, 1.0, p_holm=0.01) for name, of in (("a", 0.5), ("b", 3.0)))
    >>> _against([flat, flat], [steep, steep])
    ('', True)
    >>> _against([flat, steep], [steep, steep])
    ('the range of b, 3.00, where that of b is 3.00', True)
    """
    widest, least = max(ours, key=lambda of: of.range), min(words, key=lambda of: of.range)
    narrow, wide = min(ours, key=lambda of: of.octaves), max(words, key=lambda of: of.octaves)
    if widest.range >= least.range:
        ends = f"{widest.range:.2f}, where that of {technique_name(least.name)} is {least.range:.2f}"
        return f"the range of {technique_name(widest.name)}, {ends}", widest.clear
    if narrow.octaves < wide.octaves:
        ends = f"{narrow.octaves:.1f} octaves, where that of {technique_name(wide.name)} is {wide.octaves:.1f}"
        return f"the width of {technique_name(narrow.name)}, {ends}", False
    return "", least.clear
