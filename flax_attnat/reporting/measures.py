"""Lines of the evaluation suites to rows of text: one row per measure, one column per technique and setting."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flax_attnat.reporting.tables import mean_sd

Line = Mapping[str, Any]


class Measure(NamedTuple):
    """A row of a table.

    Attributes:
      title: what a reader sees.
      path: keys, and places in lists, that lead from a line to the figure.
      scale: what it is multiplied by.
      digits: behind the point.
    """

    title: str
    path: tuple[str | int, ...]
    scale: float = 1
    digits: int = 3


COMPARED = {
    "gradient": "attention and gradient",
    "gradient_attached": "attention and gradient through it",
    "gradient_norm": "attention and gradient norm",
    "leave_one_out": "attention and leave-one-out",
    "gradient_leave_one_out": "gradient and leave-one-out",
}
AGREEMENTS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall tau",
    "top_k_overlap": "top-{k} overlap",
    "top_k_distance": "top-{k} distance",
}
SOURCES = {"attention": "attention", "gradient": "gradient", "leave_one_out": "leave-one-out", "random": "random"}
NORMS = {"linf": "Linf", "l2": "L2"}
KINDS = {"attacked": "attacked", "certified": "certified", "noise": "under noise"}


def measures(line: Line) -> list[Measure]:
    """The rows of a line's suite, in the order in which they are shown."""
    return {"interpretability": _interpretability, "faithfulness": _faithfulness, "robustness": _robustness}[
        line["family"]
    ](line)


def measure_table(lines: Iterable[Line]) -> tuple[list[dict[str, str]], list[str]]:
    """One row per measure and one column per technique and setting, as `mean ± sd` over seeds.

    Args:
      lines: lines of one suite and split.

    Returns:
      Rows of text, all with the same columns; and a sentence for every measure that is "n/a" in some column, with the
      reason.
    """
    columns = _columns(list(lines))
    rows = [{"measure": "seeds"} | {name: str(len(members)) for name, members in columns.items()}]
    longest = max((members[0] for members in columns.values()), key=lambda line: len(measures(line)))
    for measure in measures(longest):
        row = {"measure": measure.title}
        for name, members in columns.items():
            row[name] = mean_sd([figure_of(line, measure.path) for line in members], measure.scale, measure.digits)
        rows.append(row)
    return rows, _reasons(columns)


def check_lines(lines: Iterable[Line]) -> list[str]:
    """One sentence per check of the attacks: in how many runs and norms it holds, and where it does not."""
    held: dict[str, list[bool]] = {}
    failed = []
    for title, members in _columns(list(lines)).items():
        for line, (norm, norm_title) in itertools.product(members, NORMS.items()):
            for check in line[f"checks_{norm}"]:
                held.setdefault(check["name"], []).append(check["held"])
                if not check["held"]:
                    failed.append(
                        f"  {title}, seed {line['seed']}, {norm_title}: not so: {check['name']} ({check['detail']})."
                    )
    counts = (f"check: {name}: holds in {sum(flags)} of {len(flags)}." for name, flags in held.items())
    return [*counts, *failed]


def _interpretability(line: Line) -> list[Measure]:
    """Agreement, and interventions on attention."""
    found = []
    for name, rows in COMPARED.items():
        for measure, title in AGREEMENTS.items():
            found.append(Measure(f"{title.format(k=line['top_k'])}, {rows}", (f"{measure}_{name}", "mean")))
            if measure == "kendall":
                found.append(Measure(f"  share with p <= .05, {rows}", (f"kendall_{name}", "significant")))
        found.append(Measure(f"  texts left out, {rows}", (f"pearson_{name}", "undefined"), digits=0))
    found.append(Measure("largest attention", ("largest_attention", "mean")))
    for name, title in (("permutation", "permuted: output change"), ("seed_divergence", "JSD between seeds")):
        found.append(Measure(f"{title}, mean", (name, "mean")))
        found.append(Measure(f"{title}, median", (name, "median")))
        found += _by_attention(line, name)
    found.append(Measure("adversarial attention, JSD, mean", ("adversarial_divergence", "mean")))
    found.append(Measure("adversarial attention, JSD, median", ("adversarial_divergence", "median")))
    found += _by_attention(line, "adversarial_divergence")
    found.append(Measure("adversarial attention, output change", ("adversarial_change", "mean")))
    return found


def _by_attention(line: Line, name: str) -> list[Measure]:
    """The median of a measure in each bin of the largest attention."""
    bins = (line[name] or {}).get("by_largest_attention", [])
    return [
        Measure(
            f"  largest attention {each['from']:g} to {each['to']:g}", (name, "by_largest_attention", place, "median")
        )
        for place, each in enumerate(bins)
    ]


def _faithfulness(line: Line) -> list[Measure]:
    """Erasure, and agreement with what people marked."""
    found = []
    for measure in ("comprehensiveness", "sufficiency"):
        for source, title in SOURCES.items():
            found.append(Measure(f"{measure}, {title} (AOPC)", (f"{measure}_{source}", "mean")))
            for place, share in enumerate(line["shares"]):
                found.append(Measure(f"  at {share:.0%}", (f"{measure}_{source}", "by_share", place)))
    for measure, name in (("auprc", "AUPRC"), ("token_f1", "token F1"), ("iou_f1", "IOU-F1")):
        found += [Measure(f"{name}, {title}", (f"{measure}_{source}", "mean")) for source, title in SOURCES.items()]
    return found


def _robustness(line: Line) -> list[Measure]:
    """Accuracy by radius, and under deleted words."""
    found = [Measure("accuracy", ("clean_accuracy",), 100, 1)]
    found.append(Measure("predictions that no attention changes", ("certified_at_infinity",), 100, 1))
    found.append(Measure("certified radius, median (Linf)", ("certified_radius_median",)))
    for norm, norm_title in NORMS.items():
        for place, radius in enumerate(line[f"radii_{norm}"]):
            for kind, title in KINDS.items():
                found.append(Measure(f"{title}, {norm_title} {radius}", (f"{kind}_{norm}", place), 100, 1))
    for words in range(1, len(line["deletion_accuracy"])):
        title = f"accuracy, {words} word{'s' if words > 1 else ''} deleted"
        found.append(Measure(title, ("deletion_accuracy", words), 100, 1))
    return [*found, Measure("deleted words where it broke (at most 5)", ("deletion_words", "mean"), 1, 2)]


def figure_of(line: Line, path: Sequence[str | int]) -> float | None:
    """What a path leads to; None where it ends early, as in lines of an older version."""
    value: Any = line
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return float(value) if isinstance(value, int | float) or value == "inf" else None


def _columns(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines by setting: technique, epsilon, and what else varies."""
    varied = [name for name in ("learning_rate", "weight_decay") if len({line.get(name) for line in lines}) > 1]
    columns: dict[str, list[Line]] = {}
    for line in lines:
        name = _setting(line) + "".join(f" {field.replace('_', ' ')} {line[field]:g}" for field in varied)
        columns.setdefault(name, []).append(line)
    return columns


def _setting(line: Line) -> str:
    """Technique, reading, epsilon and lambda of a line in words."""
    name = f"{line['technique']} ({line['reading']})" if line.get("reading") else str(line["technique"])
    if line.get("epsilon") is not None:
        name += f" {line['epsilon']:g}"
    return name if line.get("lambda") in (None, 1) else f"{name} lambda {line['lambda']:g}"


def _reasons(columns: Mapping[str, Sequence[Line]]) -> list[str]:
    """A sentence per reason, with the measures and the columns that it concerns."""
    reasons: dict[str, tuple[list[str], list[str]]] = {}
    for title, members in columns.items():
        lacking = {name: reason for line in members for name, reason in line["not_available"].items()}
        empty = [name for line in members for name, value in line.items() if _has_empty_bin(value)]
        lacking |= {f"{name} by largest attention": "no text has such a largest attention" for name in empty}
        for name, reason in lacking.items():
            names, titles = reasons.setdefault(reason, ([], []))
            names += [] if name in names else [name]
            titles += [] if title in titles else [title]
    return [
        f"n/a: {reason}: {', '.join(titles) if len(titles) < len(columns) else 'all'}: {', '.join(names)}."
        for reason, (names, titles) in reasons.items()
    ]


def _has_empty_bin(value: Any) -> bool:
    """Whether a figure is given in bins of which one is empty, and not all."""
    sizes = [each["n"] for each in value.get("by_largest_attention", ())] if isinstance(value, Mapping) else []
    return any(sizes) and not all(sizes)


def comparison_table(lines: Iterable[Line]) -> list[dict[str, str]]:
    """One row per comparison of two techniques: difference, interval, p values raw and corrected, effect, n."""

    def shown(value: float | None, digits: int = 3) -> str:
        """A figure; "n/a" where it is undefined."""
        return "n/a" if value is None else f"{value:.{digits}f}"

    return [
        {
            "technique": _setting(line),
            "data set": line["dataset"],
            "figure": line["figure"],
            "difference": shown(line["difference"]),
            "95 %": f"{shown(line['low'])} to {shown(line['high'])}",
            "p (texts)": shown(line["p_value"], 4),
            "Holm": shown(line["p_holm"], 4),
            "effect": shown(line["effect"], 2),
            "p (seeds)": shown(line["p_value_seeds"], 4),
            "Holm (seeds)": shown(line["p_holm_seeds"], 4),
            "n": f"{line['n']:,}",
            "seeds": str(line["seeds"]),
        }
        for line in lines
    ]
