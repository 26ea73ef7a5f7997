"""What the suites found, as lines of `results.jsonl`: one per run and suite.

A measure of texts is a summary, `{"mean", "sd", "low", "high", "n", "undefined"}`: mean and standard deviation over the
texts where it is defined, a 95 % bootstrap interval of the mean, how many texts that is, and how many were left out. A
measure that does not apply is None, with a reason under `not_available`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from flax_attnat.evaluation.erasure import SHARES, aopc
from flax_attnat.evaluation.interventions import by_largest_attention, seed_divergence
from flax_attnat.evaluation.robustness import Attacked, checks
from flax_attnat.evaluation.significance import summary
from flax_attnat.evaluation.stages import PAIRS, SOURCES, TOP_K
from flax_attnat.evaluation.suite import Found, Options
from flax_attnat.training.records import finite_or_none, run_fields
from flax_attnat.training.runs import Run
from flax_attnat.training.trainer import Trainer

Rows = Mapping[str, np.ndarray]
"""Arrays of one run, a row per text."""

SIGNIFICANT = 0.05
AGREEMENTS = ("pearson", "spearman", "kendall", "top_k_overlap", "top_k_distance")
PLAUSIBILITIES = ("auprc", "token_f1", "iou_f1")


def family_lines(trainer: Trainer, split: str, found: Found, options: Options) -> dict[str, list[dict[str, Any]]]:
    """The lines of every suite that was run, one per run.

    Args:
      trainer: of the runs.
      split: that was measured.
      found: from `run_suites`.
      options: of the attacks.
    """
    lengths = np.array([len(tokens) for tokens in trainer.dataset.splits[split].tokens])
    families: dict[str, list[dict[str, Any]]] = {}
    for suite, arrays in found.arrays.items():
        if suite == "interpretability":
            arrays = arrays | _between_seeds(trainer.runs, arrays["attention_tokens"], lengths)
        families[suite] = []
        for run, what in enumerate(trainer.runs):
            fields = run_fields(trainer.config, what)
            fields |= {"family": suite, "split": split, "n": len(lengths), "mark": trainer.dataset.mark}
            rows = {name: array[run] for name, array in arrays.items()}
            families[suite].append(fields | _MEASURES[suite](rows, options))
    return families


def _interpretability(rows: Rows, options: Options) -> dict[str, Any]:
    """Agreement of attention with importances, and what becomes of a prediction under other attentions."""
    line: dict[str, Any] = {"top_k": TOP_K}
    for name in PAIRS:
        line |= {f"{measure}_{name}": summary(rows[f"{measure}_{name}"]) for measure in AGREEMENTS}
        p_values = rows[f"kendall_p_{name}"]
        known = p_values[np.isfinite(p_values)]
        line[f"kendall_{name}"]["significant"] = finite_or_none(np.mean(known <= SIGNIFICANT)) if known.size else None
    largest = rows["largest_attention"]
    line["largest_attention"] = summary(largest)
    for name in ("permutation", "adversarial_divergence", "adversarial_change", "seed_divergence"):
        line[name] = summary(rows[name]) if name in rows else None
    for name in ("permutation", "adversarial_divergence", "seed_divergence"):
        if line[name] is not None:
            known = rows[name][np.isfinite(rows[name])]
            line[name] |= {"median": finite_or_none(np.median(known)) if known.size else None}
            line[name] |= {"by_largest_attention": by_largest_attention(rows[name], largest)}
    lacking = {} if "seed_divergence" in rows else {"seed_divergence": "there is one seed only of this setting"}
    return line | {"not_available": lacking}


def _faithfulness(rows: Rows, options: Options) -> dict[str, Any]:
    """What deleting, or keeping, the most important words does to a prediction, and whether they are those marked."""
    line: dict[str, Any] = {"shares": list(SHARES)}
    lacking = {}
    for source in SOURCES:
        for measure in ("comprehensiveness", "sufficiency"):
            values = rows[f"{measure}_{source}"]
            by_share = [summary(values[:, place])["mean"] for place in range(len(SHARES))]
            line[f"{measure}_{source}"] = summary(np.asarray(aopc(jnp.asarray(values)))) | {"by_share": by_share}
    for source in SOURCES:
        for measure in PLAUSIBILITIES:
            name = f"{measure}_{source}"
            line[name] = summary(rows[name]) if name in rows else None
            if name not in rows:
                lacking[name] = "the data have no rationales"
    return line | {"not_available": lacking}


def _robustness(rows: Rows, options: Options) -> dict[str, Any]:
    """Accuracy under perturbations of the scores by radius, clean, attacked and certified; and under deleted words."""
    line = options.fields() | {"clean_accuracy": _share(rows["clean"])}
    lacking = {}
    for norm, radii in (("linf", options.linf), ("l2", options.l2)):
        for kind in ("attacked", "noise", "certified"):
            values = rows.get(f"{kind}_{norm}")
            line[f"{kind}_{norm}"] = None if values is None else [_share(column) for column in values.T]
            if values is None:
                lacking[f"{kind}_{norm}"] = "not certified: exact for single-sequence models only"
        found = Attacked(rows["clean"], *(rows[f"{name}_{norm}"].T for name in Attacked._fields[1:]))
        certified = rows[f"certified_{norm}"].T if f"certified_{norm}" in rows else None
        line[f"checks_{norm}"] = [check._asdict() for check in checks(radii, found, certified)]
    correct, count = rows["deletion_correct"], rows["deletion_count"]
    line["deletion_accuracy"] = [_share(column) for column in correct.T]
    broken = count[count > 0]
    line["deletion_words"] = summary(broken.astype(np.float64)) | {"of": int(np.sum(correct[:, 0]))}
    return line | {"not_available": lacking}


_MEASURES: dict[str, Callable[[Rows, Options], dict[str, Any]]] = {
    "interpretability": _interpretability,
    "faithfulness": _faithfulness,
    "robustness": _robustness,
}


def _share(flags: np.ndarray) -> float | None:
    """Share of true flags; None without any."""
    return float(np.mean(flags)) if flags.size else None


def _between_seeds(runs: Sequence[Run], attention: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Divergence `[R, N]` of each run's attention `[R, N, T]` from that of the other seeds of its setting.

    Empty where no setting has two seeds; NaN for a run whose setting has one.
    """
    settings: dict[tuple, list[int]] = {}
    for place, run in enumerate(runs):
        settings.setdefault(run._replace(seed=0), []).append(place)
    if all(len(places) < 2 for places in settings.values()):
        return {}
    mask = np.arange(attention.shape[-1])[None, :] < lengths[:, None]
    found = np.full(attention.shape[:2], np.nan, np.float32)
    for places in settings.values():
        found[places] = seed_divergence(jnp.asarray(attention[places]), jnp.asarray(mask))
    return {"seed_divergence": found}
