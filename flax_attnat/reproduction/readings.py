"""The section of the document on the five readings of iAT, and on the early measurement of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import numpy as np

from flax_attnat.evaluation.significance import paired_seeds
from flax_attnat.reproduction.cells import (
    TITLES,
    certified,
    described,
    epsilon_cell,
    figure_cells,
    named,
    number,
    percent,
    table,
    technique_name,
)
from flax_attnat.reproduction.courses import FEWEST
from flax_attnat.reproduction.differences import CLEAR, difference, p_cell
from flax_attnat.reproduction.published import EARLY
from flax_attnat.reproduction.settings import (
    ORDER,
    READINGS,
    Index,
    Line,
    Name,
    Setting,
    common_curves,
    datasets_of,
    figure_of,
    index,
    main_figure,
    main_variant,
    mean,
    values,
)

MEANINGS = (
    ("`span`", "`Dn (Dn^T g)`, `Dn_tk = d_tk / n_t`", "one alpha for all tokens of the text"),
    ("`released`", "`-g_t`", "what the released code computes"),
    ("`sentence`", "`g_t n_t^2`", "difference vectors normalised once a text"),
    ("`sign`", "`sign(g_t)`", "alpha normalised for each token"),
    ("`token`", "`g_t`", "the literal formula: Attention AT, computed another way"),
)
"""The readings, the direction of each with `n_t = ||d_t||`, and what it does."""


PLAIN = {"Pearson": "pearson_gradient", "tau": "kendall_gradient", "largest weight": "largest_attention"}
"""Figures that are no shares, by their titles."""

FIGURES = (
    ("AUC", "auc", 100),
    *((title, name, 1) for title, name in PLAIN.items()),
    ("certified accuracy", "certified", 100),
)
"""What a reading is compared with Attention AT in, besides the main figure: title, name in a line, and scale."""


def readings_section(lines: Sequence[Line]) -> Iterator[str]:
    """The section on the five readings."""
    yield "## Which iAT?"
    yield ""
    yield (
        "With `s_t` the scores, `d_tk = s_t - s_k`, `g = dL/ds`: the paper builds `r_t = sum_k alpha_tk dn_tk` from the"
        " unit difference vectors `dn_t` and `alpha = epsilon G / ||G||`, `G_tk = dL/dalpha_tk = g_t dn_tk`. Since"
        " `||dn_t|| = 1`,"
    )
    yield from ("", "    r_t = epsilon g_t ||dn_t||^2 / sqrt(sum_t g_t^2 ||dn_t||^2) = epsilon g_t / ||g||,", "")
    yield (
        "which is Attention AT: a score has one direction, where a word vector has many. The released code computes"
        " `r = -epsilon g / ||g||`, Attention AT with the sign reversed, which lowers the loss. So the reading is named"
        " ([method.md](method.md)), each trained from the same seeds; r is epsilon times the unit vector along:"
    )
    yield ""
    yield from table(("reading", "direction", "in words"), MEANINGS)
    yield (
        "Pearson and tau are of attention and gradient importance (attention held constant), in the mean over texts;"
        " certified: accuracy that no change of each score by at most 0.5 takes away."
    )
    yield ""
    for dataset in datasets_of(lines):
        rows = list(_reading_rows(lines, dataset))
        if any(row[0].startswith("attention_iat") for row in rows):
            yield f"**{described(lines, dataset)}**"
            yield ""
            figure = TITLES[main_figure(lines, dataset)]
            columns = ("technique", "epsilon", figure, "AUC", "Pearson", "tau", "largest weight", "certified", "seeds")
            yield from table(columns, rows)
    yield from _beside_at(lines)
    yield from _early(lines)


def _beside_at(lines: Sequence[Line]) -> Iterator[str]:
    """Each reading minus Attention AT, over the epsilons of a data set that all of them have."""
    found = []
    names: list[Name] = [("attention_at", None), *(("attention_iat", reading) for reading in READINGS)]
    for dataset in datasets_of(lines):
        curves = common_curves(index(lines), dataset, main_variant(dataset), names, FEWEST)
        at = curves.get(names[0], {})
        epsilons = ", ".join(f"{epsilon:g}" for epsilon in at)
        for name in names[1:]:
            if at and name in curves:
                pairs = [(curves[name][epsilon], at[epsilon]) for epsilon in at]
                facts = (named(lines, dataset), str(name[1]), epsilons, _seeds(pairs))
                found.append((*facts, _apart(pairs)))
    if found:
        yield (
            "Each reading minus Attention AT at the same epsilon, in the mean over the epsilons that all readings"
            f" of the data set below have (one with fewer than {FEWEST} is left out where another has {FEWEST}):"
            " mean ± standard deviation over seeds, and in brackets at how many epsilons it is above in the mean."
            " `token` is Attention AT with other rounding, which training makes large: what it differs by is noise, and"
            " a difference no larger cannot be told from noise." + _noise(lines)
        )
        yield ""
        rows = [
            (*facts, *(_apart_cell(of, 3 if title in PLAIN else 2) for title, of in apart.items()))
            for *facts, apart in found
        ]
        yield from table(("data", "reading", "epsilons", "seeds", *found[0][-1]), rows)
        yield (
            "In short, on how many of these data sets each reading is above Attention AT by the means; in brackets on"
            f" how many it is above with p of at most {CLEAR} (t test over seeds of these means, not corrected):"
        )
        yield ""
        for reading in READINGS:
            of_one = [apart for _, name, _, _, apart in found if name == reading]
            if of_one:
                counts = (
                    f"{title} {_above_at([apart[title] for apart in of_one if apart[title].size])}"
                    for title in ("F1 or accuracy", "Pearson", "certified accuracy")
                )
                same = " (the same method: this is noise)" if reading == "token" else ""
                yield f"- `{reading}`: {', '.join(counts)}{same}."
        yield ""


def _above_at(found: Sequence[np.ndarray]) -> str:
    """Of how many data sets differences `[epsilons, seeds]` are above zero in the mean, and of how many clearly."""
    above = [of.mean(axis=0) for of in found if of.mean() > 0]
    clear = sum(paired_seeds(of, np.zeros_like(of)).p_value <= CLEAR for of in above)
    return f"{len(above)} of {len(found)} ({clear})"


def _seeds(pairs: Sequence[tuple[Mapping[int, Line], Mapping[int, Line]]]) -> str:
    """How many seeds all settings of some pairs have."""
    return str(len(set.intersection(*(set(runs) for pair in pairs for runs in pair))))


def _noise(lines: Sequence[Line]) -> str:
    """How far runs of `token` and Attention AT with the same seed and epsilon are apart; nothing without them."""
    test = index(lines)
    apart: dict[str, list[float]] = {}
    for of, runs in test.items():
        if of.variant != main_variant(of.dataset):
            continue
        at = test.get(of._replace(technique="attention_at", reading=None), {}) if of.reading == "token" else {}
        figure = figure_of(runs)
        for name, key, scale in ((TITLES[figure], figure, 100), ("Pearson", "pearson_gradient", 1)):
            pairs = [(runs[seed][key], at[seed][key]) for seed in runs.keys() & at.keys()]
            apart.setdefault(name, []).extend(scale * abs(a - b) for a, b in pairs if None not in (a, b))
    said = []
    for name, found in apart.items():
        digits = 3 if name == "Pearson" else 2
        said += (
            [f"{name} by {median(found):.{digits}f} in the median and {max(found):.{digits}f} at most"] if found else []
        )
    return f" Runs of the two with the same seed and epsilon differ in {', in '.join(said)}." if said else ""


def _apart(pairs: Sequence[tuple[Mapping[int, Line], Mapping[int, Line]]]) -> dict[str, np.ndarray]:
    """Differences `[epsilons, seeds]` of each figure over pairs of settings, by its title; shares in per cent."""
    main, apart = figure_of(pairs[0][0]), {}
    for title, figure, scale in (("F1 or accuracy", main, 100), *FIGURES):
        both = [[certified(runs) if figure == "certified" else runs for runs in pair] for pair in pairs]
        key = "value" if figure == "certified" else figure
        seeds = sorted(set.intersection(*(set(runs) for pair in both for runs in pair)))
        found = np.array(
            [[scale * (_value(one[seed][key]) - _value(two[seed][key])) for seed in seeds] for one, two in both]
        ).reshape(len(both), len(seeds))
        apart[title] = found[:, ~np.isnan(found).any(axis=0)]
    return apart


def _apart_cell(found: np.ndarray, digits: int) -> str:
    """The mean of differences `[epsilons, seeds]`, its deviation over seeds, and at how many epsilons it is above."""
    if not found.size:
        return "n/a"
    of_seeds = found.mean(axis=0)
    spread = f" ± {of_seeds.std(ddof=1):.{digits}f}" if len(of_seeds) > 1 else ""
    return f"{of_seeds.mean():+.{digits}f}{spread} ({np.sum(found.mean(axis=1) > 0)})"


def _value(of: float | None) -> float:
    """A figure; NaN where it is undefined."""
    return math.nan if of is None else of


def _reading_rows(lines: Sequence[Line], dataset: str) -> Iterator[tuple[str, ...]]:
    """Every setting of the attention techniques of a data set."""
    test = index(lines)
    order = {name: place for place, name in enumerate(ORDER)}
    settings = [of for of in test if (of.dataset, of.variant) == (dataset, main_variant(dataset))]
    settings = [of for of in settings if not of.technique.startswith("word_")]
    for of in sorted(settings, key=lambda of: (order[of.technique, of.reading], of.epsilon or 0)):
        yield (technique_name((of.technique, of.reading)), epsilon_cell(of.epsilon), *figure_cells(test[of]))


def _early(lines: Sequence[Line]) -> Iterator[str]:
    """The early measurement beside ours."""
    test = index(lines)
    rows = []
    for (technique, reading, epsilon), (f1, auc, pearson, weight) in EARLY.items():
        runs = test.get(Setting("sst", "pretrained", technique, reading, epsilon))
        if runs:
            ours = (
                percent(runs, "f1"),
                percent(runs, "auc"),
                number(runs, "pearson_gradient"),
                number(runs, "largest_attention"),
            )
            early = (f"{f1:.1f}", f"{auc:.1f}", f"{pearson:.2f}", f"{weight:.3g}")
            name = technique_name((technique, reading))
            rows.append((name, epsilon_cell(epsilon), *(f"{a} / {b}" for a, b in zip(early, ours, strict=True))))
    if rows:
        yield (
            "An early measurement of ours (SST, vectors of IMDB, three seeds, other code) / this record: it"
            " said that at"
            " epsilon 1 `released` correlates most, that at 5 it does not exceed vanilla, and that AT is the"
            " most peaked."
        )
        yield ""
        yield from table(("technique", "epsilon", "F1", "AUC", "Pearson", "largest weight"), rows)
        yield from _early_verdicts(test)


def _early_verdicts(test: Index) -> Iterator[str]:
    """Whether the early measurement's three findings are confirmed, against the largest of what it measured."""

    def of(technique: str, reading: str | None, epsilon: float | None) -> Setting:
        """A setting of the early measurement."""
        return Setting("sst", "pretrained", technique, reading, epsilon)

    vanilla, one, five = of("vanilla", None, None), *(of("attention_iat", "released", e) for e in (1.0, 5.0))
    others = [of(*name) for name in EARLY if name[2] == 1 and name[1] != "released"]
    peaks = [of(*name) for name in EARLY if name[2] == 5 and name[0] != "attention_at"]
    findings = (
        ("at epsilon 1 `released` correlates most", one, [*others, vanilla], "pearson_gradient", True),
        ("at epsilon 5 it does not exceed vanilla", five, [vanilla], "pearson_gradient", False),
        ("AT is the most peaked at epsilon 5", of("attention_at", None, 5.0), peaks, "largest_attention", True),
    )
    for finding, setting, beside, figure, above in findings:
        yield f"- {finding}: {_found_again(test, setting, beside, figure, above=above)}."
    yield ""


def _found_again(test: Index, setting: Setting, beside: Sequence[Setting], figure: str, *, above: bool) -> str:
    """Whether a setting is shown to be above all of some, or not to be, by a paired t test against the largest."""
    if not all(of in test and values(test[of], figure) for of in (setting, *beside)):
        return "not tested"
    largest = max(beside, key=lambda of: mean(test[of], figure))
    ours, theirs = mean(test[setting], figure), mean(test[largest], figure)
    p_value = difference("", test[setting], test[largest], figure).p_value
    name, same = technique_name((largest.technique, largest.reading)), (ours > theirs) == above
    if p_value is not None and p_value <= CLEAR:
        found = "confirmed" if same else "refuted"
    else:
        found = f"neither confirmed nor refuted; the means say {'the same' if same else 'the contrary'}"
    sure = "" if p_value is None else f", p {p_cell(p_value)} over seeds"
    return f"{found} ({ours:.3f} against {theirs:.3f} of {name}{sure})"
