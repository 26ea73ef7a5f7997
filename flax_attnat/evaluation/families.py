"""What the suites found, as lines of `results.jsonl`: one per run and suite.

A measure of texts is a summary, `{"mean", "sd", "low", "high", "n", "undefined"}`: mean and standard deviation over the
texts where it is defined, a 95 % bootstrap interval of the mean, how many texts that is, and how many were left out. A
measure without any figure has a reason under `not_available`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from flax_attnat.evaluation.checks import checks
from flax_attnat.evaluation.erasure import SHARES, aopc
from flax_attnat.evaluation.interventions import by_largest_attention, seed_divergence
from flax_attnat.evaluation.robustness import Attacked
from flax_attnat.evaluation.significance import mean_of, summaries
from flax_attnat.evaluation.stages import PAIRS, SOURCES, TOP_K
from flax_attnat.evaluation.suite import Found, Options
from flax_attnat.training.records import finite_or_none
from flax_attnat.training.runs import Run

Line = dict[str, Any]
Rows = Mapping[str, np.ndarray]
"""Arrays of one run, a row per text."""

RUN_FIELDS = (
    *("dataset", "technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay", "seed", "split", "n"),
    *("mark", "best_epoch", "frozen_step", "frozen_reason"),
)
"""What a line of a suite has of the run's line of predictions."""

MEASURES_VERSION = 1
"""Raised when a measure changes its meaning: lines of another version are measured again."""

SIGNIFICANT = 0.05
AGREEMENTS = ("pearson", "spearman", "kendall", "top_k_overlap", "top_k_distance")
PLAUSIBILITIES = ("auprc", "token_f1", "iou_f1")
BINNED = ("permutation", "adversarial_divergence", "seed_divergence")
UNDEFINED = "undefined in all texts (constant importance, or too few words)"
# Texts whose attention is put on the devices at once to be compared between seeds.
TEXTS_AT_ONCE = 1024


def family_lines(lines: Sequence[Line], runs: Sequence[Run], found: Found, options: Options) -> dict[str, list[Line]]:
    """The lines of every suite that was run, one per run.

    Args:
      lines: the runs' lines of predictions.
      runs: what they are.
      found: from `run_suites`.
      options: of the attacks.
    """
    families: dict[str, list[Line]] = {}
    for suite, arrays in found.arrays.items():
        if suite == "interpretability":
            arrays = arrays | {"seed_divergence": _between_seeds(runs, arrays["attention_tokens"], found.lengths)}
        fixed = {"family": suite, "measures_version": MEASURES_VERSION}
        families[suite] = []
        for run, line in enumerate(lines):
            rows = {name: array[run] for name, array in arrays.items()}
            fields = {name: line[name] for name in RUN_FIELDS} | fixed
            families[suite].append(fields | _MEASURES[suite](rows, found, options))
    return families


def _interpretability(rows: Rows, found: Found, options: Options) -> Line:
    """Agreement of attention with importances, and what becomes of a prediction under other attentions."""
    names = [f"{measure}_{name}" for name in PAIRS for measure in AGREEMENTS]
    names += ["largest_attention", "adversarial_change", *BINNED]
    line: Line = {"top_k": TOP_K} | summaries({name: rows[name] for name in names})
    for name in PAIRS:
        p_values = rows[f"kendall_p_{name}"]
        known = p_values[np.isfinite(p_values)]
        line[f"kendall_{name}"]["significant"] = finite_or_none(np.mean(known <= SIGNIFICANT)) if known.size else None
    for name in BINNED:
        line[name] |= {
            "median": _median(rows[name]),
            "by_largest_attention": by_largest_attention(rows[name], rows["largest_attention"]),
        }
    lacking = _reasons(line, names)
    if "seed_divergence" in lacking:
        lacking["seed_divergence"] = "there is one seed only of the setting"
    return line | {"not_available": lacking}


def _faithfulness(rows: Rows, found: Found, options: Options) -> Line:
    """What deleting, or keeping, the most important words does to a prediction, and whether they are those marked."""
    erased = {f"{kind}_{source}": None for kind in ("comprehensiveness", "sufficiency") for source in SOURCES}
    columns = {name: np.asarray(aopc(jnp.asarray(rows[name]))) for name in erased}
    marked = [f"{measure}_{source}" for measure in PLAUSIBILITIES for source in SOURCES]
    there = {name: rows[name] for name in marked if name in rows}
    line: Line = {"shares": list(SHARES), "rationale_share": found.rationale_share} | summaries(columns | there)
    for name in erased:
        line[name]["by_share"] = [mean_of(column) for column in rows[name].T]
    lacking = _reasons(line, [*erased, *there]) | dict.fromkeys(set(marked) - set(there), "the data have no rationales")
    return dict.fromkeys(marked) | line | {"not_available": dict(sorted(lacking.items()))}


def _robustness(rows: Rows, found: Found, options: Options) -> Line:
    """Accuracy under perturbations of the scores by radius, clean, attacked and certified; and under deleted words."""
    line = options.fields() | {"clean_accuracy": _share(rows["clean"])}
    lacking = {}
    for norm, radii in (("linf", options.linf), ("l2", options.l2)):
        for kind in ("attacked", "noise", "certified"):
            values = rows.get(f"{kind}_{norm}")
            line[f"{kind}_{norm}"] = None if values is None else [_share(column) for column in values.T]
        certified = rows[f"certified_{norm}"].T if f"certified_{norm}" in rows else None
        attacked = Attacked(rows["clean"], *(rows[f"{name}_{norm}"].T for name in Attacked._fields[1:]))
        line[f"checks_{norm}"] = [check._asdict() for check in checks(radii, attacked, certified)]
    line |= {"certified_radius_median": None, "certified_at_infinity": None}
    if "certified_radius" in rows:
        middle = np.median(rows["certified_radius"])
        line["certified_at_infinity"] = _share(np.isinf(rows["certified_radius"]))
        line["certified_radius_median"] = "inf" if np.isinf(middle) else finite_or_none(middle)
    else:
        names = ("certified_linf", "certified_l2", "certified_radius_median", "certified_at_infinity")
        lacking = dict.fromkeys(names, "pair models are not certified: their logit is no mean under attention")
    correct, count = rows["deletion_correct"], rows["deletion_count"]
    line["deletion_accuracy"] = [_share(column) for column in correct.T]
    line |= summaries({"deletion_words": count[count > 0].astype(np.float64)})
    line["deletion_words"]["of"] = int(np.sum(correct[:, 0]))
    if line["deletion_words"]["mean"] is None:
        lacking["deletion_words"] = "no prediction broke"
    return line | {"not_available": lacking}


_MEASURES: dict[str, Callable[[Rows, Found, Options], Line]] = {
    "interpretability": _interpretability,
    "faithfulness": _faithfulness,
    "robustness": _robustness,
}


def _reasons(line: Line, names: Sequence[str]) -> dict[str, str]:
    """Why measures have no figure, of those that have none."""
    return {name: UNDEFINED for name in names if line[name]["mean"] is None}


def _share(flags: np.ndarray) -> float | None:
    """Share of true flags; None without any."""
    return float(np.mean(flags)) if flags.size else None


def _median(values: np.ndarray) -> float | None:
    """Median of the values that are numbers; None without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _between_seeds(runs: Sequence[Run], attention: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Divergence `[R, N]` of each run's attention `[R, W]` from that of the other seeds of its setting.

    NaN for a run whose setting has one seed.
    """
    settings: dict[Run, list[int]] = {}
    for place, run in enumerate(runs):
        settings.setdefault(run._replace(seed=0), []).append(place)
    found = np.full((len(runs), len(lengths)), np.nan, np.float32)
    first, order = np.cumsum(lengths) - lengths, np.argsort(lengths, kind="stable")
    for start in range(0, len(order), TEXTS_AT_ONCE):
        texts = order[start : start + TEXTS_AT_ONCE]
        word = np.arange(max(int(lengths[texts].max()), 1))[None, :]
        mask = word < lengths[texts][:, None]
        words = np.where(mask, first[texts][:, None] + word, 0)
        for places in settings.values():
            if len(places) > 1:
                rows = jnp.asarray(attention[places][:, words])
                found[np.ix_(np.array(places), texts)] = seed_divergence(rows, jnp.asarray(mask))
    return found
