"""Which setting of a search to report: chosen on dev, per dataset, technique and reading; its figures are test's."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from flax_attnat.reporting.tables import FIGURES, PART, TWO_CLASSES, mean_sd, predictions

DEV, TEST = "dev", "test"
NEEDED = ("dataset", "technique", "split", "seed")

# Figures are float32: two means that differ by less are the same figure, rounded differently.
ROUNDING = 2**-23


class ResultsError(ValueError):
    """Result lines that cannot be compared; the message says which, and what to do."""


class Setting(NamedTuple):
    """What a search varies; a value that a technique does not have, or that its lines do not name, is None.

    Attributes:
      epsilon: norm of the perturbation.
      adversarial_weight: lambda.
      learning_rate: step size.
      weight_decay: L2 coefficient.
    """

    epsilon: float | None
    adversarial_weight: float | None
    learning_rate: float | None
    weight_decay: float | None


class LeftOut(NamedTuple):
    """A setting that did not compete.

    Attributes:
      setting: its values.
      reason: why, with the seeds concerned.
    """

    setting: Setting
    reason: str


class Figure(NamedTuple):
    """One figure over seeds.

    Attributes:
      mean: of the values that are defined; None without any.
      sd: standard deviation over n - 1; None below two defined values.
      values: one per seed, in the order of the seeds; None where undefined.
    """

    mean: float | None
    sd: float | None
    values: tuple[float | None, ...]


class Choice(NamedTuple):
    """The setting of one dataset, technique and reading that is best on dev, and what it does on test.

    Attributes:
      dataset: its name.
      technique: its name.
      reading: of attention_iat; None for the others.
      setting: the choice; None where every setting was left out.
      select: the dev figure it was chosen by; the larger mean over seeds is the better.
      seeds: in ascending order.
      dev: the figure `select` on dev.
      test: figures on test by name, `accuracy_<group>` included; empty without a setting.
      settings: how many competed.
      mark: "" or None for the official data, else "synthetic", "simulated" or "partial".
      left_out: settings that did not compete, in the order of their first lines.
    """

    dataset: str
    technique: str
    reading: str | None
    setting: Setting | None
    select: str
    seeds: tuple[int, ...]
    dev: Figure
    test: dict[str, Figure]
    settings: int
    mark: str | None
    left_out: tuple[LeftOut, ...]


Line = Mapping[str, Any]
Search = dict[Setting, dict[str, dict[int, Line]]]
"""The lines of one dataset, technique and reading by setting, split and seed."""


def best(lines: Iterable[Line], *, select: str | None = None) -> list[Choice]:
    """Chooses a setting on dev for each dataset, technique and reading, and reports what it does on test.

    The score is the mean of the dev figure over seeds. Settings with the same seeds compete: the most seeds that any
    has (of several such sets, the one most settings share, then the smallest). A tie goes to the smaller epsilon, then
    lambda, learning rate and weight decay.

    Args:
      lines: lines of `results.jsonl`, of one workdir or several; splits other than dev and test, and
        lines of the evaluation suites, are not read.
      select: dev figure to choose by; None is "auc" for a dataset where every run that was not frozen has it on dev,
        else "accuracy".

    Returns:
      One choice per dataset, technique and reading, in the order of their first lines. A setting that lacks a seed on
      dev or test, was frozen, or has a seed without the dev figure is in `left_out`, even if that is all of them.

    Raises:
      ResultsError: a line does not name its run, a run is there twice, the runs of a dataset were measured on different
        data, or no dev line has the figure `select`.

    >>> lines = [{"dataset": "sst", "technique": "word_at", "seed": 0, "epsilon": epsilon, "split": split, "auc": auc}
    ...          for epsilon, split, auc in [(1, "dev", 0.92), (1, "test", 0.9), (5, "dev", 0.91), (5, "test", 0.97)]]
    >>> [(choice.setting.epsilon, choice.dev.mean, choice.test["auc"].mean) for choice in best(lines)]
    [(1, 0.92, 0.9)]
    """
    lines = _checked(predictions(lines))
    _check_select(lines, select)
    searches = _searches(lines)
    figures = {name: select or _usual(lines, name) for name, _, _ in searches}
    return [_choose(name, search, figures[name[0]]) for name, search in searches.items()]


def table(choices: Iterable[Choice]) -> list[dict[str, str]]:
    """One row of text per choice, as `tables.summarise` writes them; the figures are those of test.

    Args:
      choices: from `best`.

    Returns:
      Rows with the same columns: the dataset (where there are several), technique, epsilon, learning rate and weight
      decay (each where the choices differ in it), number of seeds, the dev figure that decided, how many settings were
      left out (where any was), and each test figure as `mean ± sd` over seeds ("n/a" where no seed has it).

    >>> run = {"dataset": "sst", "technique": "vanilla", "seed": 0}
    >>> (row,) = table(best([run | {"split": "dev", "auc": 0.906}, run | {"split": "test", "auc": 0.9}]))
    >>> row["epsilon"], row["chosen by"], row["AUC"]
    ('-', 'dev auc 90.6', '90.0')
    """
    choices = list(choices)
    known = {name for choice in choices for name, figure in choice.test.items() if figure.mean is not None}
    figures = {name: form for name, form in FIGURES.items() if name in known or name not in TWO_CLASSES}
    figures |= {name: (name.removeprefix(PART), 100, 1) for name in sorted(known) if name.startswith(PART)}
    several = len({choice.dataset for choice in choices}) > 1
    settings = [choice.setting for choice in choices if choice.setting]
    shown = [name for name in ("learning_rate", "weight_decay") if len({getattr(of, name) for of in settings}) > 1]
    rows = []
    for choice in choices:
        dataset = f"{choice.dataset} ({choice.mark} data)" if choice.mark else choice.dataset
        row = {"dataset": dataset} if several else {}
        row |= {"technique": _technique(choice), "epsilon": _value(choice, "epsilon")}
        row |= {name.replace("_", " "): _value(choice, name) for name in shown}
        row |= {"seeds": str(len(choice.seeds)), "chosen by": _reason(choice)}
        row |= {"left out": str(len(choice.left_out))} if any(of.left_out for of in choices) else {}
        for name, (title, scale, digits) in figures.items():
            row[title] = mean_sd(choice.test[name].values if name in choice.test else (), scale, digits)
        rows.append(row)
    return rows


def _checked(lines: Iterable[Line]) -> list[Line]:
    """The lines of dev and test, whose runs are named and were measured on the same data as others of the dataset."""
    kept: list[Line] = []
    data: dict[tuple[str, str], Line] = {}
    for number, line in enumerate(lines, 1):
        if lacking := [name for name in NEEDED if line.get(name) is None]:
            raise ResultsError(f"line {number} has no {lacking[0]}: give lines of results.jsonl as they were written.")
        if line["split"] not in (DEV, TEST):
            continue
        first = data.setdefault((line["dataset"], line["split"]), line)
        for name in ("n", "mark"):
            if (line.get(name) or None) != (first.get(name) or None):
                raise ResultsError(
                    f"{_run_name(line)} was not measured on the data of {_run_name(first)}: {line['split']} has {name}"
                    f" {line.get(name)!r} and {first.get(name)!r}. Give lines of the same data."
                )
        kept.append(line)
    return kept


def _run_name(line: Line) -> str:
    """A run in words, for errors."""
    fields = ("dataset", "technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay", "seed")
    values = {name.replace("_", " "): line[name] for name in fields if line.get(name) is not None}
    return " ".join(value if isinstance(value, str) else f"{name} {value:g}" for name, value in values.items())


def _number(line: Line, name: str) -> float | None:
    """A figure; None where it is absent, undefined or not finite."""
    value = line.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _check_select(lines: Sequence[Line], select: str | None) -> None:
    """Makes sure that some dev line has the figure asked for, one of those that are better when larger."""
    names = {name for line in lines if line["split"] == DEV for name in line}
    known = sorted(name for name in names if name in FIGURES or name.startswith(PART))
    if select is not None and known and select not in known:
        raise ResultsError(f"no dev line has a figure {select!r} to choose by; they have {', '.join(known)}.")


def _usual(lines: Sequence[Line], dataset: str) -> str:
    """The dev figure to choose by; frozen runs, which never compete, have no say in it."""
    dev = [of for of in lines if of["dataset"] == dataset and of["split"] == DEV and of.get("frozen_step") is None]
    return "auc" if dev and all(_number(line, "auc") is not None for line in dev) else "accuracy"


def _searches(lines: Sequence[Line]) -> dict[tuple[str, str, str | None], Search]:
    """The lines by dataset, technique and reading, each run once."""
    found: dict[tuple[str, str, str | None], Search] = {}
    for line in lines:
        search = found.setdefault((line["dataset"], line["technique"], line.get("reading")), {})
        setting = Setting(*(line.get(name) for name in ("epsilon", "lambda", "learning_rate", "weight_decay")))
        seeds = search.setdefault(setting, {DEV: {}, TEST: {}})[line["split"]]
        if line["seed"] in seeds:
            raise ResultsError(f"{_run_name(line)} has two lines of {line['split']}: give those of one training only.")
        seeds[line["seed"]] = line
    return found


def _choose(name: tuple[str, str, str | None], search: Search, select: str) -> Choice:
    """The best on dev of one dataset, technique and reading."""
    sets = Counter(frozenset(runs[DEV] | runs[TEST]) for runs in search.values())
    seeds = min((-len(of), -times, sorted(of)) for of, times in sets.items())[-1]
    flaws = {setting: _flaws(runs, seeds, select) for setting, runs in search.items()}
    left_out = tuple(LeftOut(setting, "; ".join(reasons)) for setting, reasons in flaws.items() if reasons)
    dev = {s: _figure(search[s][DEV], seeds, select) for s, reasons in flaws.items() if not reasons}
    mark = next(line.get("mark") for runs in search.values() for of in runs.values() for line in of.values())
    if not dev:
        return Choice(*name, None, select, (), Figure(None, None, ()), {}, 0, mark, left_out)
    highest = max(_low(figure.mean) for figure in dev.values())
    tied = (setting for setting, figure in dev.items() if _low(figure.mean) >= highest - ROUNDING)
    setting = min(tied, key=lambda setting: tuple(map(_low, setting)))
    lines = search[setting][TEST]
    parts = sorted({key for line in lines.values() for key in line if key.startswith(PART)})
    test = {key: _figure(lines, seeds, key) for key in (*FIGURES, "largest_attention", *parts)}
    return Choice(*name, setting, select, tuple(seeds), dev[setting], test, len(dev), mark, left_out)


def _flaws(runs: Mapping[str, Mapping[int, Line]], seeds: Sequence[int], select: str) -> list[str]:
    """Why a setting cannot compete, in words; empty if it can."""
    found = []
    for split in (DEV, TEST):
        if absent := [seed for seed in seeds if seed not in runs[split]]:
            found.append(f"no {split} line of {_seeds(absent)}")
    for seed in seeds:
        lines = [runs[split][seed] for split in (DEV, TEST) if seed in runs[split]]
        if stopped := [line for line in lines if line.get("frozen_step") is not None]:
            reason = stopped[0].get("frozen_reason") or "no reason given"
            found.append(f"seed {seed} frozen at step {stopped[0]['frozen_step']} ({reason})")
    if undefined := [seed for seed in seeds if seed in runs[DEV] and _number(runs[DEV][seed], select) is None]:
        found.append(f"no dev {select} of {_seeds(undefined)}")
    return found


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds in words."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _figure(lines: Mapping[int, Line], seeds: Sequence[int], name: str) -> Figure:
    """A figure over seeds; its sums are exact, so that the order of the seeds cannot decide between settings."""
    values = tuple(_number(lines[seed], name) for seed in seeds)
    defined = [value for value in values if value is not None]
    return Figure(fmean(defined) if defined else None, stdev(defined) if len(defined) > 1 else None, values)


def _low(value: float | None) -> float:
    """A number to compare by: below all others for None."""
    return -math.inf if value is None else value


def _technique(choice: Choice) -> str:
    """The technique, its reading in brackets, lambda where it is not 1."""
    name = f"{choice.technique} ({choice.reading})" if choice.reading else choice.technique
    weight = choice.setting.adversarial_weight if choice.setting else None
    return name if weight in (None, 1) else f"{name} lambda {weight:g}"


def _value(choice: Choice, name: str) -> str:
    """A value of the setting; a dash where it has none, "n/a" where nothing was chosen."""
    value = getattr(choice.setting, name) if choice.setting else "n/a"
    return value if isinstance(value, str) else "-" if value is None else f"{value:g}"


def _reason(choice: Choice) -> str:
    """The dev figure that decided."""
    if choice.setting is None:
        return "nothing: every setting left out"
    _, scale, digits = FIGURES.get(choice.select, (choice.select, 100, 1))
    return f"dev {choice.select} {mean_sd([choice.dev.mean], scale, digits)}"
