"""Lines of the evaluation suites to rows of text: one row per measure, one column per technique and setting."""

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
    columns: dict[str, list[Line]] = {}
    for line in lines:
        columns.setdefault(_setting(line), []).append(line)
    rows = [{"measure": "seeds"} | {name: str(len(members)) for name, members in columns.items()}]
    longest = max((members[0] for members in columns.values()), key=lambda line: len(measures(line)))
    for measure in measures(longest):
        row = {"measure": measure.title}
        for name, members in columns.items():
            row[name] = mean_sd([_figure(line, measure.path) for line in members], measure.scale, measure.digits)
        rows.append(row)
    reasons: dict[str, list[str]] = {}
    for members in columns.values():
        for name, reason in members[0]["not_available"].items():
            names = reasons.setdefault(reason, [])
            names += [] if name in names else [name]
    return rows, [f"n/a: {', '.join(names)}: {reason}." for reason, names in reasons.items()]


def failed_checks(lines: Iterable[Line]) -> list[str]:
    """One sentence per check of the attacks that did not hold, and one that counts those that did."""
    held, failed = 0, []
    for line in lines:
        for norm, title in NORMS.items():
            for check in line[f"checks_{norm}"]:
                if check["held"]:
                    held += 1
                else:
                    run = f"{_setting(line)}, seed {line['seed']}"
                    failed.append(f"{run}, {title}: {check['name']} does not hold ({check['detail']}).")
    return [*failed, f"{held} of {held + len(failed)} checks of the attacks hold."]


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
    for norm, norm_title in NORMS.items():
        for place, radius in enumerate(line[f"radii_{norm}"]):
            for kind, title in KINDS.items():
                found.append(Measure(f"{title}, {norm_title} {radius}", (f"{kind}_{norm}", place), 100, 1))
    for words in range(1, len(line["deletion_accuracy"])):
        title = f"accuracy, {words} word{'s' if words > 1 else ''} deleted"
        found.append(Measure(title, ("deletion_accuracy", words), 100, 1))
    return [*found, Measure("deleted words where it broke", ("deletion_words", "mean"), 1, 2)]


def _figure(line: Line, path: Sequence[str | int]) -> float | None:
    """What a path leads to; None where it ends early."""
    value: Any = line
    for key in path:
        if value is None:
            return None
        value = value[key]
    return None if value is None else float(value)


def _setting(line: Line) -> str:
    """Technique and setting of a line as the head of a column."""
    name = f"{line['technique']} ({line['reading']})" if line.get("reading") else str(line["technique"])
    for field, sign in (("epsilon", ""), ("lambda", "lambda ")):
        value = line.get(field)
        name += f" {sign}{value:g}" if value is not None and not (field == "lambda" and value == 1) else ""
    return name


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
