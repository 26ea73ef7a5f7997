"""Claims 1 and 2 of the paper, judged by lines of finished runs: what holds, what does not, and what was not tested.

A setting is compared with others by means over the seeds that it has; a claim about iAT is judged for each reading by
itself, never for the best of five. It fails where the means say so. It holds where, besides, iAT is clearly above its
controls: by a paired t test over seeds, corrected over readings and data sets.
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
    control,
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

ZERO = "epsilon 0"
"""The control that trains on twice the clean loss."""
CONTROLS = ("attention_rp", ZERO)
"""What a claim must be clearly above to hold: the same scale of the loss, without what iAT adds."""
CLEAR = 0.05
"""A difference with a corrected p value of at most this is called clear."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "not tested"


class Difference(NamedTuple):
    """A setting against one of the others.

    Attributes:
      name: of the other.
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

    @property
    def clear(self) -> int:
        """1: clearly above the other; -1: clearly below; 0: neither."""
        if self.difference is None or self.p_holm is None or self.p_holm > CLEAR:
            return 0
        return 1 if self.difference > 0 else -1


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
      differences: from each of the others.
    """

    reading: str
    dataset: str
    setting: Setting
    epsilons: int
    value: float
    beaten_by: tuple[str, ...]
    lacking: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def clearly_above(self) -> bool:
        """Whether it is clearly above both controls."""
        return all(of.clear > 0 for of in self.differences if of.name in CONTROLS)

    @property
    def clearly_below(self) -> tuple[str, ...]:
        """Names of what it is clearly below."""
        return tuple(of.name for of in self.differences if of.clear < 0)


class Verdict(NamedTuple):
    """What is said of a claim.

    Attributes:
      reading: of attention_iat that it is about.
      verdict: HOLDS, FAILS or OPEN.
      reason: a sentence with the figures.
      so_far: in a few words what was found where it was tested; may be empty.
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
            named = {other[0]: best[other] for other in OTHERS if other in best} | {
                ZERO: control(dataset, variant, "attention_at")
            }
            places = {other: test[of] for other, of in named.items() if of in test}
            beaten = [other for other, of in places.items() if not ours > mean(of, name)]
            counts = _epsilons(test, dataset, variant)
            few = [other[0] for other in OTHERS[1:] if counts.get(other, 0) < LEAST_EPSILONS]
            names = (*(other for other, _ in OTHERS), ZERO)
            lacking = [other for other in names if other not in places or other in few]
            found.append(
                Judged(
                    *(reading, dataset, setting, counts[("attention_iat", reading)]),
                    *(ours, tuple(beaten), tuple(lacking)),
                    tuple(_difference(other, runs, places.get(other, {}), name) for other in names),
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


def _difference(name: str, runs: Mapping[int, Line], others: Mapping[int, Line], figure: str) -> Difference:
    """A setting against another one over their common seeds."""
    seeds = [seed for seed in sorted(set(runs) & set(others)) if None not in (runs[seed][figure], others[seed][figure])]
    if not seeds:
        return Difference(name, None, None, None, 0)
    compared = paired_seeds(*(np.array([float(of[seed][figure]) for seed in seeds]) for of in (runs, others)))
    return Difference(
        name, compared.difference, None if math.isnan(compared.p_value) else compared.p_value, None, compared.n
    )


def _corrected(judged: Sequence[Judged]) -> list[Judged]:
    """The same with p values corrected over readings and data sets (Holm), for each of the others."""
    columns = []
    for column in zip(*(of.differences for of in judged), strict=True):
        p_holm = holm(np.array([math.nan if of.p_value is None else of.p_value for of in column]))
        columns.append(
            [of._replace(p_holm=None if math.isnan(p) else float(p)) for of, p in zip(column, p_holm, strict=True)]
        )
    return [of._replace(differences=row) for of, row in zip(judged, zip(*columns, strict=True), strict=True)]


def verdicts(judged: Sequence[Judged], allowed: int) -> list[Verdict]:
    """A verdict for each reading: it must be the best on all of the paper's data sets but `allowed` of them.

    It fails as soon as the means of more data sets than that show something at least as good. It holds when all were
    tested and it is clearly above its controls where it is the best; without that it does not, however good its means.
    """
    found = []
    for reading in READINGS:
        trained = [of for of in judged if of.reading == reading]
        tested = [of for of in trained if of.epsilons >= LEAST_EPSILONS]
        whole = [of for of in tested if not of.lacking]
        lost = [of for of in tested if of.beaten_by]
        won = [of for of in whole if not of.beaten_by]
        clear = sum(of.clearly_above for of in won)
        decided = f"{len(lost) + len(won)} data sets tested"
        count = f"best on {len(won)} of {decided}" if lost or won else ""
        count += f", clearly above its controls on {clear}" if won else ""
        said = count + (f" ({'; '.join(map(_lost, lost))})" if lost else "")
        if len(lost) > allowed:
            below = sum(bool(of.clearly_below) for of in lost)
            so_far = f"not the best on {len(lost)} of {decided}, clearly below another on {below}"
            found.append(Verdict(reading, FAILS, said, so_far))
        elif len(whole) == TASKS:
            found.append(Verdict(reading, HOLDS if clear >= TASKS - allowed else FAILS, said, count))
        else:
            early = [of.dataset for of in trained if of not in lost + won]
            left = f"{TASKS - len(whole)} of {TASKS} data sets were not tested against everything"
            left += f" (so far: {', '.join(early)})" if early else ""
            found.append(Verdict(reading, OPEN, f"{said}; {left}" if said else left, count))
    return found


def _lost(of: Judged) -> str:
    """What a reading does not exceed on a data set."""
    clearly = f", clearly below {', '.join(of.clearly_below)}" if of.clearly_below else ""
    return f"{of.dataset}: not above {', '.join(of.beaten_by)}{clearly}"
