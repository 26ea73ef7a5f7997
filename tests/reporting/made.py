"""Result lines as launch.train and launch.evaluate write them, with figures that are easy to follow by hand."""

import json

VALUES = {"vanilla": 0.80, "attention_at": 0.82, "attention_iat": 0.78}


def prediction(technique: str, seed: int = 0, split: str = "test", **fields):
    """A line of how well a run predicts; its figures grow by .02 a seed."""
    value = VALUES.get(technique, 0.5) + 0.02 * seed
    plain = {"dataset": "sst", "technique": technique, "reading": "span" if technique == "attention_iat" else None}
    plain |= {"epsilon": None if technique == "vanilla" else 5.0, "lambda": None if technique == "vanilla" else 1.0}
    plain |= {"learning_rate": 0.001, "weight_decay": 1e-5, "seed": seed, "split": split, "n": 3, "mark": ""}
    plain |= {"f1": value, "accuracy": value, "auc": value, "pearson": value - 0.5, "pearson_undefined": 0}
    plain |= {"largest_attention": 0.5, "best_epoch": 2, "seconds": 1.0, "population": 2}
    return plain | {"matmul_precision": "float32", "frozen_step": None, "frozen_reason": None} | fields


def robustness(technique: str, seed: int = 0, **fields):
    """A line of the suite robustness: 5 and 10 points lost at the two radii."""
    line = {name: value for name, value in prediction(technique, seed).items() if name not in ("f1", "auc", "pearson")}
    clean = line.pop("accuracy")
    line |= {"family": "robustness", "measures_version": 1, "clean_accuracy": clean, "not_available": {}}
    for norm in ("linf", "l2"):
        attacked = [clean - 0.05, clean - 0.1]
        line |= {f"radii_{norm}": [0.5, 1.0], f"attacked_{norm}": attacked, f"certified_{norm}": attacked}
        line |= {f"noise_{norm}": [clean, clean], f"checks_{norm}": []}
    line |= {"certified_radius_median": "inf", "certified_at_infinity": 0.6, "steps": 20, "restarts": 4}
    return line | {"deletion_accuracy": [clean, 0.4], "deletion_words": {"mean": 1.5}} | fields


def faithfulness(technique: str, seed: int = 0, **fields):
    """A line of the suite faithfulness, without rationales."""
    line = prediction(technique, seed) | {"family": "faithfulness", "measures_version": 1, "shares": [0.1]}
    for name in ("comprehensiveness", "sufficiency", "auprc", "token_f1", "iou_f1"):
        for source in ("attention", "gradient", "leave_one_out", "random"):
            value = line["f1"] if name in ("comprehensiveness", "sufficiency") else None
            line[f"{name}_{source}"] = {"mean": value, "by_share": [value]}
    return line | {"not_available": {"auprc_attention": "no text has a rationale"}} | fields


def interpretability(technique: str, seed: int = 0, **fields):
    """A line of the suite interpretability."""
    line = prediction(technique, seed) | {"family": "interpretability", "measures_version": 1, "top_k": 3}
    value = line["pearson"]
    for pair in ("gradient", "gradient_attached", "gradient_norm", "leave_one_out", "gradient_leave_one_out"):
        for name in ("pearson", "spearman", "kendall", "top_k_overlap", "top_k_distance"):
            line[f"{name}_{pair}"] = {"mean": value, "significant": 0.5, "undefined": 0}
    for name in ("largest_attention", "permutation", "adversarial_divergence", "adversarial_change"):
        line[name] = {"mean": 0.25, "median": 0.125}
    return line | {"seed_divergence": None, "not_available": {"seed_divergence": "one seed"}} | fields


def comparison(technique: str, figure: str, **fields):
    """A line of significance.jsonl."""
    line = {"workdir": "runs/sst", "dataset": "sst", "split": "test", "technique": technique, "reading": None}
    line |= {"epsilon": 5.0, "lambda": 1.0, "against": "vanilla", "figure": figure, "n": 3, "seeds": 2}
    line |= {"difference": 0.02, "low": 0.01, "high": 0.03, "p_value": 0.01, "effect": 1.0, "p_value_seeds": 0.2}
    return line | {"p_holm": 0.01, "p_holm_seeds": 0.2, "datasets": 1} | fields


def every_split(techniques=("vanilla", "attention_at", "attention_iat"), seeds=(0, 1), **fields):
    """The lines of dev and test of some techniques."""
    return [
        prediction(technique, seed, split, **fields)
        for technique in techniques
        for seed in seeds
        for split in ("dev", "test")
    ]


def write(path, lines, end="\n"):
    """Writes a file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(line) for line in lines) + end)
