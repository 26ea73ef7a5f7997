"""Settings of the grid and the figures of their runs: what is compared, as lines say it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from flax_attnat.reporting.results import ROUNDING

Line = Mapping[str, Any]

Name = tuple[str, str | None]
"""Technique and reading."""

# The order of the document.
DATASETS = ("sst", "newsgroups", "imdb", "ag_news", "babi1", "babi2", "babi3", "cnn", "snli", "multi_nli")
# Random embeddings, as the papers have it, whatever vectors there are.
RANDOM = ("babi1", "babi2", "babi3")

READINGS = ("span", "released", "sentence", "sign", "token")

ORDER: tuple[Name, ...] = (
    *(("vanilla", None), ("attention_rp", None), ("attention_at", None)),
    *(("attention_iat", reading) for reading in READINGS),
    *(("word_at", None), ("word_iat", None)),
)


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
    """What a data set is judged by: F1 of two classes, accuracy of more."""
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


def control(dataset: str, variant: str, technique: str) -> Setting:
    """A technique without its perturbation: twice the clean loss and, of word_at, normalised word vectors."""
    return Setting(dataset, variant, technique, None, 0.0)


def chosen(
    lines: Sequence[Line],
    dataset: str,
    variant: str,
    figure: str | None = None,
    slack: float = ROUNDING,
    *,
    largest: bool = False,
) -> dict[Name, Setting]:
    """For each technique and reading the setting with the largest mean on dev; see `good`, of which it is the first.

    Args:
      lines: of finished runs.
      dataset: its name.
      variant: the settings to choose among.
      figure: on dev; None: the one by which epochs were selected.
      slack: as for `good`.
      largest: of several, the one with the largest epsilon in place of the smallest.
    """
    return {name: of[-1 if largest else 0] for name, of in good(lines, dataset, variant, figure, slack).items()}


def good(
    lines: Sequence[Line], dataset: str, variant: str, figure: str | None = None, slack: float = ROUNDING
) -> dict[Name, list[Setting]]:
    """For each technique and reading the settings whose mean on dev is the largest, by epsilon: several, if they tie.

    Epsilon 0 is a control and does not compete; only the settings of a technique with the most seeds do.

    Args:
      lines: of finished runs.
      dataset: its name.
      variant: the settings to choose among.
      figure: on dev; None: the one by which epochs were selected.
      slack: how far below the largest mean another one is as good; figures are float32.
    """
    settings: dict[Name, list[tuple[float, int, Setting]]] = {}
    for setting, runs in index(lines, "dev").items():
        if (setting.dataset, setting.variant) == (dataset, variant) and setting.epsilon != 0:
            score = mean(runs, figure or next(iter(runs.values()))["selection"])
            if not math.isnan(score):
                settings.setdefault((setting.technique, setting.reading), []).append((score, len(runs), setting))
    found = {}
    for name, of in settings.items():
        most = max(seeds for _, seeds, _ in of)
        enough = max(score for score, seeds, _ in of if seeds == most) - slack
        best = (setting for score, seeds, setting in of if seeds == most and score >= enough)
        found[name] = sorted(best, key=lambda setting: setting.epsilon or 0.0)
    return found


def curves_of(test: Index, dataset: str, variant: str) -> dict[Name, dict[float, dict[int, Line]]]:
    """The runs of each technique of a data set by epsilon, 0 among them."""
    found: dict[Name, dict[float, dict[int, Line]]] = {}
    for of, runs in test.items():
        if (of.dataset, of.variant) == (dataset, variant) and of.epsilon is not None:
            found.setdefault((of.technique, of.reading), {})[of.epsilon] = runs
    return found


def runs_of(test: Index, dataset: str, variant: str) -> list[Line]:
    """The runs of a data set, of all techniques and epsilons."""
    return [run for of, runs in test.items() if (of.dataset, of.variant) == (dataset, variant) for run in runs.values()]


def perturbed(runs: Iterable[Line]) -> list[Line]:
    """The runs with a perturbation."""
    return [run for run in runs if run["epsilon"]]


def early(runs: Iterable[Line]) -> int:
    """How many runs are best after one or two epochs."""
    return sum(run["best_epoch"] <= 2 for run in runs)


def common_curves(
    test: Index, dataset: str, variant: str, names: Sequence[Name], fewest: int = 2
) -> dict[Name, dict[float, dict[int, Line]]]:
    """The curves of some techniques over the epsilons above 0, ascending, that all with `fewest` or more of them have.

    Where none has so many, that all with two or more have.
    """
    curves = {name: set(points) - {0} for name, points in curves_of(test, dataset, variant).items() if name in names}
    least = fewest if any(len(points) >= fewest for points in curves.values()) else 2
    curves = {name: points for name, points in curves.items() if len(points) >= least}
    common = sorted(set.intersection(*curves.values())) if curves else []
    found = curves_of(test, dataset, variant)
    return {name: {epsilon: found[name][epsilon] for epsilon in common} for name in curves} if common else {}


def datasets_of(lines: Iterable[Line]) -> list[str]:
    """The data sets that have runs of the main variant, in a fixed order."""
    there = {line["dataset"] for line in lines if line["variant"] == main_variant(line["dataset"])}
    return [dataset for dataset in DATASETS if dataset in there]


def main_variant(dataset: str) -> str:
    """The variant that claims are judged by."""
    return "random" if dataset in RANDOM else "pretrained"


def main_figure(lines: Sequence[Line], dataset: str) -> str:
    """F1 of two classes, accuracy of more."""
    return "f1" if next(line["classes"] for line in lines if line["dataset"] == dataset) == 2 else "accuracy"
