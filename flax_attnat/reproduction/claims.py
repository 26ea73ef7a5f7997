"""Claims 1 and 2 of the paper, judged by lines of finished runs: what holds, what does not, and what was not tested.

A setting is compared with others by means over the seeds that both have; a claim about iAT is judged for each reading
by itself, never for the best of five. It fails where the means say so. It holds where, besides, iAT is significantly
above its controls: by a paired t test over seeds, corrected over readings and data sets. It is significantly below
something where a comparison is significant that is corrected over all others too: any of them would do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flax_attnat.evaluation.significance import holm
from flax_attnat.reporting.results import ROUNDING
from flax_attnat.reproduction.cells import named
from flax_attnat.reproduction.differences import Difference, difference, difference_cell
from flax_attnat.reproduction.settings import (
    READINGS,
    Index,
    Line,
    Name,
    Setting,
    chosen,
    control,
    figure_of,
    good,
    index,
)

Choose = Callable[[Sequence[Line], str, str], Mapping[Name, Setting]]
"""The setting of each technique and reading, from lines, a data set and its variant."""

OTHERS: tuple[Name, ...] = (
    *(("vanilla", None), ("attention_rp", None), ("attention_at", None)),
    *(("word_at", None), ("word_iat", None)),
)
"""What the paper compares Attention iAT with."""

TASKS = 10
"""Data sets of the paper."""

LEAST_EPSILONS = 2
"""A technique that was trained at fewer is not judged: its epsilon was not chosen."""

ZERO = "epsilon 0"
"""The control that trains on twice the clean loss."""
CONTROLS = ("attention_rp", ZERO)
"""What a claim must be significantly above to hold: the same scale of the loss, without what iAT adds."""
HOLDS, FAILS, OPEN = "holds", "does not hold", "not tested"


class Judged(NamedTuple):
    """One reading on one data set.

    Attributes:
      reading: its name.
      dataset: its name and mark.
      setting: the one that is best on dev.
      epsilons: of how many.
      end: ", smallest" or ", largest" where it is that of several, ", N tied" where N are as good on dev; else nothing.
      enough: whether these are enough to be compared.
      beaten_by: names of what the reading does not exceed, epsilon 0 among them; empty: it is the best.
      lacking: names of what it could not be compared with.
      differences: from each of the others.
      figure: that they are of.
    """

    reading: str
    dataset: str
    setting: Setting
    epsilons: int
    end: str
    enough: bool
    beaten_by: tuple[str, ...]
    lacking: tuple[str, ...]
    differences: tuple[Difference, ...]
    figure: str

    def judges(self, other: Difference) -> bool:
        """Whether both were trained enough to be compared."""
        return self.enough and other.name not in self.lacking

    @property
    def significantly_above(self) -> bool:
        """Whether it is significantly above both controls."""
        return all(of.above for of in self.differences if of.name in CONTROLS)

    @property
    def significantly_below(self) -> tuple[str, ...]:
        """Names of what it is significantly below."""
        return tuple(of.name for of in self.differences if of.significant and of.name in self.beaten_by)


class Verdict(NamedTuple):
    """What is said of a claim.

    Attributes:
      reading: of attention_iat that it is about.
      verdict: HOLDS, FAILS or OPEN.
      reason: a sentence with the figures.
      so_far: in a few words what was found where it was tested; may be empty.
      true: data sets, with their marks, where it is so.
      false: where it is not.
      undecided: where it is neither, as it, or something that it must be compared with, was not trained enough.
      by: of claim 3, the techniques that decide against it, each by itself, on the data sets of `false`.
    """

    reading: str
    verdict: str
    reason: str
    so_far: str = ""
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    by: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Of data sets where it is so, where it is not, and that are undecided."""
        return len(self.true), len(self.false), len(self.undecided)


def judge(
    lines: Sequence[Line],
    variants: Mapping[str, str],
    figure: str | None = None,
    *,
    epoch: str = "best",
    least: int = LEAST_EPSILONS,
    choose: Choose = chosen,
    beside: Sequence[Name] = OTHERS,
) -> list[Judged]:
    """Every reading on every data set where it was trained, against what the paper compares it with.

    Args:
      lines: of finished runs.
      variants: by data set, the variant that is judged.
      figure: None: F1 or accuracy; else the name of one.
      epoch: of the test figures, "best" on dev or "last"; the setting is the one that is best on dev.
      least: epsilons that a technique was trained at, to be compared.
      choose: the settings that are compared.
      beside: what is compared with, vanilla first; epsilon 0 is, besides.
    """
    test = index(lines, epoch=epoch)
    found = []
    for dataset, variant in variants.items():
        best, epsilons = choose(lines, dataset, variant), _epsilons(test, dataset, variant)
        tied = {name: len(of) for name, of in good(lines, dataset, variant).items()}
        few = [other[0] for other in beside[1:] if len(epsilons.get(other, [])) < least]
        settings = {other[0]: best.get(other) for other in beside}
        others = settings | {ZERO: control(dataset, variant, "attention_at")}
        for reading in READINGS:
            setting = best.get(("attention_iat", reading))
            if setting is None or setting not in test:
                continue
            runs = test[setting]
            name = figure or figure_of(runs)
            differences = tuple(
                difference(other, runs, test.get(of, {}) if of else {}, name) for other, of in others.items()
            )
            lacking = tuple(of.name for of in differences if of.difference is None or of.name in few)
            beaten = tuple(
                of.name
                for of in differences
                if of.name not in lacking and of.difference is not None and not of.difference > ROUNDING
            )
            tried = epsilons.get(("attention_iat", reading), [])
            end = _end(setting.epsilon, tried, tied.get(("attention_iat", reading), 1))
            facts = (reading, named(lines, dataset), setting, len(tried), end, len(tried) >= least)
            found.append(Judged(*facts, beaten, lacking, differences, name))
    return _corrected(found)


def _epsilons(test: Index, dataset: str, variant: str) -> dict[Name, list[float]]:
    """The epsilons, 0 apart, at which each technique of a data set was trained with the most seeds: what competes."""
    seeds: dict[Name, dict[float, int]] = {}
    for of, runs in test.items():
        if (of.dataset, of.variant) == (dataset, variant) and of.epsilon:
            seeds.setdefault((of.technique, of.reading), {})[of.epsilon] = len(runs)
    return {name: [e for e, n in counts.items() if n == max(counts.values())] for name, counts in seeds.items()}


def _end(epsilon: float | None, tried: Sequence[float], tied: int) -> str:
    """Whether an epsilon is one of several that tie on dev; else whether it is the smallest or the largest tried."""
    if tied > 1:
        return f", {tied} tied"
    if len(tried) < 2 or epsilon not in (min(tried), max(tried)):
        return ""
    return ", smallest" if epsilon == min(tried) else ", largest"


def _corrected(judged: Sequence[Judged]) -> list[Judged]:
    """The same with p values corrected (Holm): over readings and data sets, for each of the others and for all of them.

    What has not enough epsilons, of the two, is not judged, and so not among them.
    """
    if not judged:
        return []
    p_values = np.array(
        [
            [other.p_value if of.judges(other) and other.p_value is not None else math.nan for other in of.differences]
            for of in judged
        ]
    )
    by_other = np.stack([holm(column) for column in p_values.T], axis=1)
    every = holm(p_values.ravel()).reshape(p_values.shape)
    found = []
    for of, *rows in zip(judged, by_other, every, strict=True):
        cells = [[None if math.isnan(p) else float(p) for p in row] for row in rows]
        corrected = zip(of.differences, *cells, strict=True)
        found.append(of._replace(differences=tuple(d._replace(p_holm=p, p_every=q) for d, p, q in corrected)))
    return found


def comparisons(judged: Sequence[Judged]) -> list[Difference]:
    """What was compared and has a p value."""
    return [other for of in judged for other in of.differences if of.judges(other) and other.p_value is not None]


def at_ceiling(judged: Sequence[Judged]) -> dict[str, tuple[str, ...]]:
    """By data set what has all right with every seed, so that nothing can be above it; of F1 and accuracy."""
    found = {}
    for of in judged:
        full = (other.name for other in of.differences if of.judges(other) and other.level is not None)
        levels = {other.name: other.level for other in of.differences}
        names = tuple(name for name in full if (levels[name] or 0.0) >= 1 - ROUNDING)
        if names and of.figure in ("f1", "accuracy"):
            found[of.dataset] = names
    return found


def verdicts(judged: Sequence[Judged], allowed: int) -> list[Verdict]:
    """A verdict for each reading: it must be the best on all of the paper's data sets but `allowed` of them.

    It fails as soon as the means of more data sets than that show something at least as good. It holds when all were
    tested and it is significantly above its controls where it is the best; without that it does not, however good its
    means.
    """
    found = []
    for reading in READINGS:
        trained = [of for of in judged if of.reading == reading]
        tested = [of for of in trained if of.enough]
        lost = [of for of in tested if of.beaten_by]
        won = [of for of in tested if not of.beaten_by and not of.lacking]
        undecided = [of for of in tested if of not in lost + won]
        begun = [of for of in trained if not of.enough]
        clear = sum(of.significantly_above for of in won)
        below = sum(bool(of.significantly_below) for of in lost)
        open_yet = undecided + begun
        so_far = tally("best on", (len(won), clear), (len(lost), below), len(open_yet)) + _above_vanilla(tested)
        said = [_said(of) for of in lost + open_yet]
        whole = sum(not of.lacking for of in tested)
        if whole < TASKS:
            said.append(f"{TASKS - whole} of {TASKS} data sets were not tested against everything")
        if len(lost) > allowed:
            verdict = FAILS
        elif whole == TASKS:
            verdict = HOLDS if clear >= TASKS - allowed else FAILS
        else:
            verdict = OPEN
        names = (tuple(of.dataset for of in group) for group in (won, lost, open_yet))
        found.append(Verdict(reading, verdict, "; ".join(said), so_far if trained else "", *names))
    return found


def tally(what: str, won: tuple[int, int], lost: tuple[int, int], undecided: int = 0) -> str:
    """On how many data sets something is so, each with how many of them significantly, and on how many undecided.

    >>> tally("best on", (1, 0), (2, 1), 3)
    'best on 1 of 6 data sets, significantly on 0, undecided on 3, significantly not so on 1'
    """
    (good, clear), below, every = won, lost[1], won[0] + lost[0] + undecided
    said = [f"{what} {good} of {every} data set{'' if every == 1 else 's'}"]
    said[0] += f", significantly on {clear}" if good else ""
    said += [f"undecided on {undecided}"] if undecided else []
    said += [f"significantly not so on {below}"] if below else []
    return ", ".join(said)


def _above_vanilla(tested: Sequence[Judged]) -> str:
    """On how many data sets a reading is above vanilla, the least that the claim says."""
    beside = [found for of in tested if (found := of.differences[0].difference) is not None]
    return f", above vanilla on {sum(found > ROUNDING for found in beside)}" if beside else ""


def _said(of: Judged) -> str:
    """Why a reading has not won on a data set."""
    if not of.enough:
        return f"{of.dataset}: undecided, trained at {of.epsilons} epsilon{'' if of.epsilons == 1 else 's'}"
    if not of.beaten_by:
        return f"{of.dataset}: undecided, without {', '.join(of.lacking)}"
    below = f", significantly below {', '.join(of.significantly_below)}" if of.significantly_below else ""
    by = {other.name: other.difference for other in of.differences if other.difference is not None}
    beaten = ", ".join(f"{name} ({difference_cell(by[name], of.figure)})" for name in of.beaten_by)
    return f"{of.dataset}: not above {beaten}{below}"
