"""The document that says what of the paper holds; it follows from the lines of finished runs alone, byte for byte."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from flax_attnat.reporting.curves import draw_epsilon
from flax_attnat.reporting.plot import save
from flax_attnat.reproduction import claims
from flax_attnat.reproduction.claims import Course, Index, Judged, Line, Name, Setting, Verdict, mean, sd, values
from flax_attnat.reproduction.published import EARLY, PUBLISHED, SOURCE
from flax_attnat.training.workdir import write_atomically

DATASETS = ("sst", "newsgroups", "imdb", "ag_news", "babi1", "babi2", "babi3", "cnn", "snli", "multi_nli")
RANDOM = ("babi1", "babi2", "babi3")
TITLES = {"f1": "F1", "accuracy": "accuracy"}
ORDER: tuple[Name, ...] = (
    *(("vanilla", None), ("attention_rp", None), ("attention_at", None)),
    *(("attention_iat", reading) for reading in claims.READINGS),
    *(("word_at", None), ("word_iat", None)),
)
CLAIMS = (
    ("Attention iAT predicts best, on nine of ten tasks.", 1),
    ("Its attention correlates most with gradient importance, on all tasks.", 0),
)
COMMAND = "python -m launch.reproduce --budget_hours=0"


def write_document(lines: Sequence[Line], folder: epath.PathLike, out: epath.PathLike) -> None:
    """Writes the document, and its figures beside the records.

    Args:
      lines: of finished runs, from `read_records`.
      folder: of the records; gets `<dataset>_epsilon.svg` and `.png`.
      out: the Markdown file.
    """
    folder, out = epath.Path(folder), epath.Path(out)
    for dataset in _tested(lines):
        if found := _drawn(lines, dataset):
            save(
                draw_epsilon(
                    found, _figure(lines, dataset), f"{dataset}: {TITLES[_figure(lines, dataset)]} against epsilon"
                ),
                folder,
                f"{dataset}_epsilon",
            )
    place = epath.Path(folder).name if folder.parent == out.parent else str(folder)
    write_atomically(out, "\n".join(_document(lines, place)).rstrip() + "\n")


def summary(lines: Sequence[Line]) -> list[str]:
    """What the record says, in five lines of Markdown at most."""
    tested = _tested(lines)
    if not tested:
        return ["Nothing has been trained yet: no claim was tested."]
    runs = sum((line["split"], line["epoch"]) == ("dev", "best") for line in lines)
    found = [
        f"{runs} runs on {', '.join(_named(lines, dataset) for dataset in tested)};"
        f" {claims.TASKS - len(tested)} of ten data sets not tested."
    ]
    for number, (claim, verdicts) in enumerate(_verdicts(lines), 1):
        parts = []
        for verdict in (claims.FAILS, claims.HOLDS, claims.OPEN):
            if names := [of.reading for of in verdicts if of.verdict == verdict]:
                parts.append(f"{verdict} for {', '.join(names)}")
        found.append(f"{number}. {claim} {_capital('; '.join(parts))}.")
    return found


def _document(lines: Sequence[Line], place: str) -> Iterator[str]:
    """The lines of the document."""
    tested = _tested(lines)
    yield "# What of the paper holds"
    yield ""
    yield (
        "Three claims of *Attention Meets Perturbations* (Kitada & Iyatomi 2021), judged by trainings of this"
        " library. All"
        " of it follows from the lines of finished runs:"
    )
    yield from ("", "```", COMMAND, "```", "")
    yield (
        f"writes this page and its figures anew, byte for byte, from the files `{place}/*.jsonl.gz`; with"
        " `--budget_hours=H` it trains what is missing first. Claims are the abstract's; the paper's tables,"
        " its epsilons and"
        " its number of seeds are not known to us, so the grid is ours (`configs/reproduction.py`). F1 and"
        " accuracy are in"
        " per cent, means over seeds ± standard deviation (n - 1); the setting is the one that is best on dev."
    )
    yield ""
    yield "## In short"
    yield ""
    for number, line in enumerate(summary(lines)):
        yield f"- {line}" if number else line
        if not number:
            yield ""
    yield ""
    for number, (claim, verdicts) in enumerate(_verdicts(lines), 1):
        yield from _claim(number, claim, verdicts, lines)
    yield from _readings(lines)
    for dataset in tested:
        yield from _dataset(lines, dataset, place)
    yield from _sensitivity(lines)
    yield from _differences()
    yield from _untested(lines)


def _verdicts(lines: Sequence[Line]) -> list[tuple[str, list[Verdict]]]:
    """The claims and their verdicts."""
    variants = {dataset: _main(dataset) for dataset in _tested(lines)}
    found = []
    for (claim, allowed), figure in zip(CLAIMS, (None, "pearson_gradient"), strict=True):
        found.append((claim, claims.verdicts(claims.judge(lines, variants, figure), allowed)))
    third = "The techniques that perturb attention depend much less on epsilon than those that perturb words."
    return [*found, (third, claims.sensitivity_verdicts(lines, variants))]


def _claim(number: int, claim: str, verdicts: Sequence[Verdict], lines: Sequence[Line]) -> Iterator[str]:
    """A claim: verdicts, and the comparison with the controls or the curves behind them."""
    yield f"## Claim {number}: {claim}"
    yield ""
    yield from _table(("reading", "verdict", "figures"), [(of.reading, of.verdict, of.reason) for of in verdicts])
    variants = {dataset: _main(dataset) for dataset in _tested(lines)}
    if number == 3:
        courses = [row for dataset, variant in variants.items() for row in _courses(lines, dataset, variant)]
        yield (
            "Span: largest less smallest mean over seeds on test, over the epsilons that all techniques of"
            " the data set"
            f" have. Width: octaves of epsilon around the best one within {claims.WITHIN} of it, at most to the ends of"
            " what was measured. Relative: the epsilons over the norm of what is perturbed, before it is"
            " trained to resist:"
            " vanilla's scores less their mean; the word vectors of a text at the technique's smallest epsilon."
        )
        yield ""
        columns = ("data", "technique", "epsilons", "relative", "span", "width, octaves", "seeds")
        yield from _table(columns, courses)
        return
    figure = None if number == 1 else "pearson_gradient"
    judged = claims.judge(lines, variants, figure)
    yield (
        "Each reading at its own epsilon against its controls: vanilla, random perturbation, and epsilon 0,"
        " which trains on"
        " twice the clean loss. Difference of the means over the seeds that both have; p of a paired t test over seeds,"
        " and corrected over readings and data sets (Holm). With three seeds only large differences are found."
    )
    yield ""
    unit = 100 if number == 1 else 1
    heads = ("data", "reading", "epsilon", *_of_controls(judged))
    yield from _table(heads, [_compared(lines, of, unit) for of in judged])


def _of_controls(judged: Sequence[Judged]) -> list[str]:
    """Heads of the columns of the controls."""
    return [f"less {control.name} (p; Holm)" for control in judged[0].controls] if judged else []


def _compared(lines: Sequence[Line], of: Judged, unit: float) -> tuple[str, ...]:
    """A row of the comparison with controls."""
    cells = []
    for control in of.controls:
        if control.difference is None:
            cells.append("not trained")
            continue
        p = "; ".join("n/a" if value is None else f"{value:.3f}" for value in (control.p_value, control.p_holm))
        cells.append(f"{unit * control.difference:+.{2 if unit == 100 else 3}f} ({p}), {control.seeds} seeds")
    return (_named(lines, of.dataset), of.reading, _epsilon(of.setting.epsilon), *cells)


def _courses(lines: Sequence[Line], dataset: str, variant: str) -> Iterator[tuple[str, ...]]:
    """Rows of how techniques depend on epsilon."""
    test = claims.index(lines)
    for of in sorted(claims.courses(lines, dataset, variant), key=lambda of: ORDER.index(of.name)):
        relative = _relative(test, dataset, variant, of)
        seeds = {len(test[Setting(dataset, variant, *of.name, epsilon)]) for epsilon in of.epsilons}
        yield (
            *(_named(lines, dataset), _technique(of.name), ", ".join(f"{e:g}" for e in of.epsilons), relative),
            *(f"{of.span:.2f}", f"{of.octaves:.1f}", " to ".join(map(str, sorted({min(seeds), max(seeds)})))),
        )


def _relative(test: Index, dataset: str, variant: str, of: Course) -> str:
    """The ends of a course's epsilons over the clean norm of what is perturbed."""
    if of.name[0].startswith("word_"):
        runs, field = test[Setting(dataset, variant, *of.name, of.epsilons[0])], "word_norm"
    else:
        runs, field = test.get(Setting(dataset, variant, "vanilla", None, None), {}), "score_norm"
    norm = mean(runs, field) if runs else math.nan
    if math.isnan(norm) or norm == 0:
        return "n/a"
    return f"{of.epsilons[0] / norm:.2g} to {of.epsilons[-1] / norm:.2g}"


def _readings(lines: Sequence[Line]) -> Iterator[str]:
    """The section on the five readings."""
    yield "## Which iAT?"
    yield ""
    yield (
        "With `s_t` the scores, `d_tk = s_t - s_k`, `g = dL/ds`: the paper builds `r_t = sum_k alpha_tk"
        " dn_tk` from the unit"
        " difference vectors `dn_t` and `alpha = epsilon G / ||G||`, `G_tk = dL/dalpha_tk = g_t dn_tk`. Since"
        " `||dn_t|| = 1`,"
    )
    yield from ("", "    r_t = epsilon g_t ||dn_t||^2 / sqrt(sum_t g_t^2 ||dn_t||^2) = epsilon g_t / ||g||,", "")
    yield (
        "which is Attention AT: a score has one direction, where a word vector has many. The released code computes"
        " `r = -epsilon g / ||g||`, Attention AT with the sign reversed, which lowers the loss. So the reading is named"
        " ([method.md](method.md)), and each is measured on the same seeds. Pearson and tau are of attention"
        " and gradient"
        " importance (attention held constant), in the mean over texts; certified: accuracy that no change of"
        " the scores by at"
        " most 0.5 takes away."
    )
    yield ""
    for dataset in _tested(lines):
        rows = list(_reading_rows(lines, dataset))
        if any(row[0].startswith("attention_iat") for row in rows):
            yield f"**{_described(lines, dataset)}**"
            yield ""
            figure = TITLES[_figure(lines, dataset)]
            columns = ("technique", "epsilon", figure, "AUC", "Pearson", "tau", "largest weight", "certified", "seeds")
            yield from _table(columns, rows)
    yield from _early(lines)


def _reading_rows(lines: Sequence[Line], dataset: str) -> Iterator[tuple[str, ...]]:
    """Every setting of the attention techniques of a data set."""
    test = claims.index(lines)
    order = {name: place for place, name in enumerate(ORDER)}
    settings = [of for of in test if (of.dataset, of.variant) == (dataset, _main(dataset))]
    settings = [of for of in settings if not of.technique.startswith("word_")]
    for of in sorted(settings, key=lambda of: (order[of.technique, of.reading], of.epsilon or 0)):
        yield (_technique((of.technique, of.reading)), _epsilon(of.epsilon), *_figures(test[of]))


def _figures(runs: Mapping[int, Line]) -> tuple[str, ...]:
    """F1 (accuracy), AUC, Pearson, tau, largest weight, certified accuracy, and seeds of a setting."""
    return (
        *(_percent(runs, claims.figure_of(runs)), _percent(runs, "auc")),
        *(_number(runs, "pearson_gradient"), _number(runs, "kendall_gradient"), _number(runs, "largest_attention")),
        *(_certified(runs), str(len(runs))),
    )


def _early(lines: Sequence[Line]) -> Iterator[str]:
    """The early measurement beside ours."""
    test = claims.index(lines)
    rows = []
    for (technique, reading, epsilon), (f1, auc, pearson, weight) in EARLY.items():
        runs = test.get(Setting("sst", "pretrained", technique, reading, epsilon))
        if runs:
            ours = (
                _percent(runs, "f1"),
                _percent(runs, "auc"),
                _number(runs, "pearson_gradient"),
                _number(runs, "largest_attention"),
            )
            early = (f"{f1:.1f}", f"{auc:.1f}", f"{pearson:.2f}", f"{weight:.3g}")
            name = _technique((technique, reading))
            rows.append((name, _epsilon(epsilon), *(f"{a} / {b}" for a, b in zip(early, ours, strict=True))))
    if rows:
        yield (
            "An early measurement of ours (SST, vectors of IMDB, three seeds, other code) / this record: it"
            " said that at"
            " epsilon 1 `released` correlates most, that at 5 it does not exceed vanilla, and that AT is the"
            " most peaked."
        )
        yield ""
        yield from _table(("technique", "epsilon", "F1", "AUC", "Pearson", "largest weight"), rows)
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
    others = [pearson(name, reading, 1.0) for name, reading in ORDER[1:8] if reading != "released"]
    others = [value for value in [*others, vanilla] if not math.isnan(value)]
    peaks = [weight("attention_iat", reading) for reading in claims.READINGS if reading != "token"]
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


def _dataset(lines: Sequence[Line], dataset: str, place: str) -> Iterator[str]:
    """The section of one data set."""
    test, variant, figure = claims.index(lines), _main(dataset), _figure(lines, dataset)
    yield f"## {dataset}"
    yield ""
    yield _described(lines, dataset) + "."
    yield ""
    best = claims.chosen(lines, dataset, variant)
    rows = [
        (_technique(name), _epsilon(best[name].epsilon), *_main_figures(test[best[name]]))
        for name in ORDER
        if name in best and best[name] in test
    ]
    zero = Setting(dataset, variant, "attention_at", None, 0.0)
    if zero in test:
        rows.append(("epsilon 0 (control)", "0", *_main_figures(test[zero])))
    selection = next(line["selection"] for line in lines if line["dataset"] == dataset)
    yield f"Test figures at the epsilon that is best by dev {selection}:"
    yield ""
    yield from _table(
        ("technique", "epsilon", TITLES[figure], "accuracy", "AUC", "best epoch", "seeds", "seconds a run"), rows
    )
    rows = [
        (_technique(name), _epsilon(best[name].epsilon), *_agreement(test[best[name]]))
        for name in ORDER
        if name in best and best[name] in test
    ]
    yield "Attention and gradient importance (Jain & Wallace: attention held constant), means over texts, then seeds:"
    yield ""
    yield from _table(
        (
            "technique",
            "epsilon",
            "Pearson",
            "tau",
            "tau with p <= .05, %",
            "texts without",
            "largest weight",
            "certified at 0.5",
        ),
        rows,
    )
    yield from _beside(test, best, dataset)
    yield from _curve_table(test, dataset, variant, figure)
    if _drawn(lines, dataset):
        yield f"![{TITLES[figure]} on test against epsilon]({place}/{dataset}_epsilon.svg)"
        yield ""


def _main_figures(runs: Mapping[int, Line]) -> tuple[str, ...]:
    """Prediction figures of a setting, and what they cost."""
    epochs = sorted(line["best_epoch"] for line in runs.values())
    seconds = max(line["seconds"] / line["population"] for line in runs.values())
    return (
        *(_percent(runs, claims.figure_of(runs)), _percent(runs, "accuracy"), _percent(runs, "auc")),
        *(", ".join(map(str, epochs)), str(len(runs)), f"{seconds:.0f}"),
    )


def _agreement(runs: Mapping[int, Line]) -> tuple[str, ...]:
    """Figures of agreement of a setting."""
    undefined = sorted({line["undefined_gradient"] for line in runs.values()})
    return (
        *(
            _number(runs, "pearson_gradient"),
            _number(runs, "kendall_gradient"),
            _percent(runs, "significant_gradient", 0),
        ),
        *(
            " to ".join(map(str, sorted({undefined[0], undefined[-1]}))),
            _number(runs, "largest_attention"),
            _certified(runs),
        ),
    )


def _beside(test: Index, best: Mapping[Name, Setting], dataset: str) -> Iterator[str]:
    """The published vanilla beside ours."""
    published, vanilla = PUBLISHED.get(dataset), best.get(("vanilla", None))
    if published is None or vanilla is None or vanilla not in test:
        return
    runs = test[vanilla]
    theirs = [published.accuracy, published.f1, published.auc]
    said = ["n/a" if value is None else f"{100 * value:.1f}" for value in theirs]
    rows = [
        (SOURCE, *said, f"{published.tau:.3f}", f"{100 * published.significant:.0f}"),
        (
            "vanilla here",
            *(_percent(runs, name) for name in ("accuracy", "f1", "auc")),
            _number(runs, "kendall_gradient"),
            _percent(runs, "significant_gradient", 0),
        ),
    ]
    yield from _table(("vanilla", "accuracy", "F1", "AUC", "tau", "tau with p <= .05, %"), rows)


def _curve_table(test: Index, dataset: str, variant: str, figure: str) -> Iterator[str]:
    """The figure of every technique at every epsilon."""
    curves: dict[Name, dict[float, Mapping[int, Line]]] = {}
    for of, runs in test.items():
        if (of.dataset, of.variant) == (dataset, variant) and of.epsilon is not None:
            curves.setdefault((of.technique, of.reading), {})[of.epsilon] = runs
    epsilons = sorted({epsilon for points in curves.values() for epsilon in points})
    if len(epsilons) < 2:
        return
    yield f"{TITLES[figure]} on test by epsilon:"
    yield ""
    rows = [
        (_technique(name), *(_percent(curves[name][e], figure) if e in curves[name] else "-" for e in epsilons))
        for name in ORDER
        if name in curves
    ]
    yield from _table(("technique", *(f"{epsilon:g}" for epsilon in epsilons)), rows)


def _sensitivity(lines: Sequence[Line]) -> Iterator[str]:
    """How far figures depend on choices that are not the paper's."""
    yield "## How far this depends on our choices"
    yield ""
    kinds = {
        "gradient": "attention constant, one-hot (as above)",
        "gradient_attached": "through attention, one-hot",
        "gradient_norm": "attention constant, L2 norm",
    }
    test = claims.index(lines)
    last = claims.index(lines, epoch="last")
    for dataset in _tested(lines):
        best = claims.chosen(lines, dataset, _main(dataset))
        names = [name for name in ORDER if name in best and best[name] in test]
        if not names:
            continue
        yield (
            f"**{_named(lines, dataset)}**: Pearson by kind of gradient importance, and"
            f" {TITLES[_figure(lines, dataset)]} of the last epoch in place of the best one on dev."
        )
        yield ""
        rows = []
        for name in names:
            runs, end = test[best[name]], last.get(best[name], {})
            figure = claims.figure_of(runs)
            rows.append(
                (
                    _technique(name),
                    _epsilon(best[name].epsilon),
                    *(_number(runs, f"pearson_{kind}") for kind in kinds),
                    _percent(runs, figure),
                    _percent(end, figure) if end else "-",
                )
            )
        yield from _table(("technique", "epsilon", *kinds.values(), "best epoch", "last epoch"), rows)
        rankings = [
            max(names, key=lambda name, kind=kind: mean(test[best[name]], f"pearson_{kind}"))  # type: ignore[misc]
            for kind in kinds
        ]
        yield (
            "Largest Pearson: "
            + "; ".join(f"{title}: {_technique(name)}" for title, name in zip(kinds.values(), rankings, strict=True))
            + "."
        )
        yield ""
        yield from _variants(lines, test, dataset, names)


def _variants(lines: Sequence[Line], test: Index, dataset: str, names: Sequence[Name]) -> Iterator[str]:
    """With random vectors, and with the scaled dot product."""
    rows = []
    for of, runs in test.items():
        if of.dataset == dataset and of.variant != _main(dataset):
            rows.append(
                (
                    of.variant.replace("_", " "),
                    _technique((of.technique, of.reading)),
                    _epsilon(of.epsilon),
                    *_figures(runs),
                )
            )
    if rows:
        rows.sort(key=lambda row: (row[0], [_technique(name) for name in ORDER].index(row[1])))
        figure = TITLES[_figure(lines, dataset)]
        yield "Vectors that start at random, and scaled dot-product attention, at the epsilons above:"
        yield ""
        yield from _table(
            (
                "variant",
                "technique",
                "epsilon",
                figure,
                "AUC",
                "Pearson",
                "tau",
                "largest weight",
                "certified",
                "seeds",
            ),
            rows,
        )
    else:
        yield (
            "Random vectors and scaled dot-product attention: not tested."
            if dataset not in RANDOM
            else "Scaled dot-product attention: not tested."
        )
        yield ""


def _differences() -> Iterator[str]:
    """What the released code does otherwise."""
    yield "## Differences from the paper and from the released code"
    yield ""
    rows = [
        ("iAT directions between sentences of the batch", "within the sentence"),
        ("directions never reach r; its sign is reversed", "five readings, named; `released` is theirs"),
        (
            "gradients of the first adversarial pass stay in place: about `2 dL + lambda dL_adv`",
            "`dL + lambda dL_adv`, r constant",
        ),
        ("norms over the padded length", "over real tokens (the gradient is zero elsewhere)"),
        ("accuracy and F1 threshold the raw logit at 0.5 (p > 0.622)", "p > 0.5"),
        (
            "label index follows class frequency: on SST F1 and `pos_weight` are of the wrong class",
            "label 1 is positive",
        ),
        (
            (
                "the configuration of binary tasks refers to itself and cannot be evaluated; a reader imports a"
                " class from an empty module"
            ),
            "configurations are checked when read",
        ),
        ("preparing bAbI and MultiNLI fails", "both are read, in their official layouts"),
        ("matched and mismatched accuracy are never updated", "both are measured"),
        (
            "no configuration uses the adversarial layers; epsilon has no default",
            "epsilon is a field of every configuration, swept here",
        ),
        ("words outside the vocabulary are dropped", "mapped to unknown, as Jain & Wallace do"),
        ("the filter for pretrained words has no effect", "words without a vector start small and random"),
        ("the embedding table falls outside the optimiser's groups", "in the encoder's group"),
        ("losses averaged over the batch (Jain & Wallace: summed)", "averaged over its real rows"),
        (
            (
                "adversarial layers of question answering and inference, Word AT, Word iAT, random perturbation,"
                " VAT, correlation: not released"
            ),
            "here",
        ),
        ("fastText vectors (simple English) in the paper", "the vectors that a table names"),
    ]
    yield from _table(("paper or released code", "here"), rows)


def _untested(lines: Sequence[Line]) -> Iterator[str]:
    """What was left out."""
    yield "## Not tested"
    yield ""
    tested = _tested(lines)
    missing = [dataset for dataset in DATASETS if dataset not in tested]
    if missing:
        yield (
            f"- Data sets: {', '.join(missing)}. CNN QA, MultiNLI and the whole of SNLI were not to be had"
            " when this was written; the same command trains them where their raw files are."
        )
    lacking = []
    for dataset in tested:
        best = claims.chosen(lines, dataset, _main(dataset))
        if names := [_technique(name) for name in ORDER if name not in best]:
            lacking.append(f"{dataset}: {', '.join(names)}")
    if lacking:
        yield f"- Techniques without a finished run: {'; '.join(lacking)}."
    if marks := [f"{dataset} ({_mark(lines, dataset)})" for dataset in tested if _mark(lines, dataset)]:
        yield f"- The whole official data of {', '.join(marks)}."
    yield "- More than the seeds and epsilons that the tables name; virtual adversarial training."


def _tested(lines: Iterable[Line]) -> list[str]:
    """The data sets that have runs of the main variant, in a fixed order."""
    there = {line["dataset"] for line in lines if line["variant"] == _main(line["dataset"])}
    return [dataset for dataset in DATASETS if dataset in there]


def _main(dataset: str) -> str:
    """The variant that claims are judged by."""
    return "random" if dataset in RANDOM else "pretrained"


def _figure(lines: Sequence[Line], dataset: str) -> str:
    """F1 of two classes, accuracy of more."""
    return "f1" if next(line["classes"] for line in lines if line["dataset"] == dataset) == 2 else "accuracy"


def _drawn(lines: Sequence[Line], dataset: str) -> list[dict[str, Any]]:
    """The lines of a data set's figure; empty where one epsilon alone was measured."""
    found = [
        dict(line)
        for line in lines
        if (line["dataset"], line["variant"]) == (dataset, _main(dataset)) and line["epoch"] == "best"
    ]
    return found if len({line["epsilon"] for line in found if line["epsilon"]}) > 1 else []


def _mark(lines: Sequence[Line], dataset: str) -> str | None:
    """partial, synthetic or simulated; None for the official data."""
    return next(line["mark"] for line in lines if line["dataset"] == dataset)


def _named(lines: Sequence[Line], dataset: str) -> str:
    """A data set with its mark."""
    mark = _mark(lines, dataset)
    return f"{dataset} ({mark})" if mark else dataset


def _described(lines: Sequence[Line], dataset: str) -> str:
    """What the figures of a data set depend on."""
    of = [
        line for line in lines if (line["dataset"], line["variant"], line["epoch"]) == (dataset, _main(dataset), "best")
    ]
    first = of[0]
    sizes = {line["split"]: line["n"] for line in of}
    vectors = (
        f"vectors {first['vectors']} ({first['vectors_found']:,} of {first['vocabulary'] - 2:,} words)"
        if first["vectors"]
        else "random vectors"
    )
    hours = sum(line["seconds"] / line["population"] for line in of if line["split"] == "dev") / 3600
    devices = ", ".join(sorted({f"{line['device']} (jax {line['jax']})" for line in of}))
    return (
        f"{_named(lines, dataset)}: {first['train_n']:,} / {sizes['dev']:,} / {sizes['test']:,} texts, {vectors},"
        f" {first['attention']} attention, {first['epochs']} epochs; {hours:.1f} hours of training on {devices}"
    )


def _technique(name: Name) -> str:
    """A technique with its reading."""
    return f"{name[0]} ({name[1]})" if name[1] else name[0]


def _epsilon(epsilon: float | None) -> str:
    """An epsilon, or a dash."""
    return "-" if epsilon is None else f"{epsilon:g}"


def _percent(runs: Mapping[int, Line], figure: str, digits: int = 2) -> str:
    """Mean ± sd of a share, in per cent."""
    return _spread(runs, figure, 100, digits)


def _number(runs: Mapping[int, Line], figure: str) -> str:
    """Mean ± sd of a figure."""
    return _spread(runs, figure, 1, 3)


def _spread(runs: Mapping[int, Line], figure: str, scale: float, digits: int) -> str:
    """Mean ± sd over seeds; n/a without a value."""
    if not values(runs, figure):
        return "n/a"
    off = sd(runs, figure)
    return f"{scale * mean(runs, figure):.{digits}f}" + ("" if off is None else f" ± {scale * off:.{digits}f}")


def _certified(runs: Mapping[int, Line], radius: float = 0.5) -> str:
    """Certified accuracy at a radius, in per cent; pair models are not certified."""
    rows = {
        seed: {"value": line["certified"][line["radii"].index(radius)]}
        for seed, line in runs.items()
        if line["certified"]
    }
    return _percent(rows, "value", 1) if rows else "not certified"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table and an empty line; only the empty line without rows."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    if rows:
        yield "| " + " | ".join(columns) + " |"
        yield "|" + "---|" * len(columns)
        for row in rows:
            yield "| " + " | ".join(row) + " |"
    yield ""


def _capital(text: str) -> str:
    """With a capital letter first."""
    return text[:1].upper() + text[1:]
