"""The section of the document on the five readings of iAT, and on the early measurement of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

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
)


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
        " ([method.md](method.md)), and each is measured on the same seeds. Pearson and tau are of attention and"
        " gradient importance (attention held constant), in the mean over texts; certified: accuracy that no change of"
        " the scores by at most 0.5 takes away."
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
    rows = []
    names: list[Name] = [("attention_at", None), *(("attention_iat", reading) for reading in READINGS)]
    for dataset in datasets_of(lines):
        curves = common_curves(index(lines), dataset, main_variant(dataset), names, FEWEST)
        at = curves.get(names[0], {})
        epsilons = ", ".join(f"{epsilon:g}" for epsilon in at)
        for name in names[1:]:
            if at and name in curves:
                pairs = [(curves[name][epsilon], at[epsilon]) for epsilon in at]
                rows.append((named(lines, dataset), str(name[1]), epsilons, *_differences(pairs)))
    if rows:
        yield (
            "Each reading minus Attention AT at the same epsilon, in the mean over the epsilons that all readings"
            f" of the data set below have (one with fewer than {FEWEST} is left out where another has {FEWEST}), and"
            " in brackets at how many of them it is above. `token` is Attention AT; it differs by"
            " rounding, which training makes large."
        )
        yield ""
        heads = ("data", "reading", "epsilons", "F1 or accuracy", "AUC", "Pearson", "tau", "largest weight")
        yield from table((*heads, "certified"), rows)


def _differences(pairs: Sequence[tuple[Mapping[int, Line], Mapping[int, Line]]]) -> Iterator[str]:
    """The mean difference of each figure over pairs of settings, and in how many pairs it is positive."""
    main = figure_of(pairs[0][0])
    figures = ("pearson_gradient", "kendall_gradient", "largest_attention")
    for figure, scale in ((main, 100), ("auc", 100), *((name, 1) for name in figures), ("certified", 100)):
        found = [scale * (_mean(one, figure) - _mean(two, figure)) for one, two in pairs]
        found = [value for value in found if not math.isnan(value)]
        digits = 2 if scale == 100 else 3
        yield f"{fmean(found):+.{digits}f} ({sum(value > 0 for value in found)})" if found else "n/a"


def _mean(runs: Mapping[int, Line], figure: str) -> float:
    """The mean of a figure over seeds, of certified accuracy too."""
    return mean(certified(runs), "value") if figure == "certified" else mean(runs, figure)


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
    """Whether the early measurement's three findings are found again."""

    def pearson(technique: str, reading: str | None, epsilon: float | None) -> float:
        """Of a setting; NaN where it was not trained."""
        return mean(test.get(Setting("sst", "pretrained", technique, reading, epsilon), {}), "pearson_gradient")

    def weight(technique: str, reading: str | None) -> float:
        """Largest weight at epsilon 5."""
        return mean(test.get(Setting("sst", "pretrained", technique, reading, 5.0), {}), "largest_attention")

    vanilla, released = pearson("vanilla", None, None), [pearson("attention_iat", "released", e) for e in (1.0, 5.0)]
    early = [(name, reading) for name, reading, epsilon in EARLY if epsilon == 1 and reading != "released"]
    others = [value for value in (*(pearson(*of, 1.0) for of in early), vanilla) if not math.isnan(value)]
    peaks = [weight(name, reading) for name, reading, epsilon in EARLY if epsilon == 5 and name != "attention_at"]
    peaks = [value for value in peaks if not math.isnan(value)]
    findings = (
        ("at epsilon 1 `released` correlates most", released[0], others, released[0] > max(others, default=math.nan)),
        ("at epsilon 5 it does not exceed vanilla", released[1], [vanilla], not released[1] > vanilla),
        (
            "AT is the most peaked at epsilon 5",
            weight("attention_at", None),
            peaks,
            weight("attention_at", None) > max(peaks, default=math.nan),
        ),
    )
    for finding, ours, beside, found in findings:
        known = not math.isnan(ours) and beside and not any(map(math.isnan, beside))
        said = (
            "not tested"
            if not known
            else f"{'found again' if found else 'not found again'} ({ours:.3f} against at most {max(beside):.3f})"
        )
        yield f"- {finding}: {said}."
    yield ""
