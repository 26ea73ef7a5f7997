"""Lines of runs that never were, for tests of what is made from lines."""

from typing import Any


def lines_of(
    dataset: str,
    technique: str,
    reading: str | None,
    epsilon: float | None,
    *,
    dev: list[float],
    test: list[float],
    variant: str = "pretrained",
    **fields: Any,
) -> list[dict[str, Any]]:
    """Three lines of each run, with one figure on dev and one on test."""
    found = []
    for seed, (on_dev, on_test) in enumerate(zip(dev, test, strict=True)):
        for split, epoch, value in (("dev", "best", on_dev), ("test", "best", on_test), ("test", "last", on_test)):
            line: dict[str, Any] = {
                "dataset": dataset,
                "variant": variant,
                "technique": technique,
                "reading": reading,
                "epsilon": epsilon,
                "lambda": 1.0,
                "learning_rate": 1e-3,
                "weight_decay": 1e-5,
                "seed": seed,
                "split": split,
                "epoch": epoch,
                "n": 100,
                "mark": None,
                "family": "prediction",
                "f1": value,
                "accuracy": value,
                "auc": value,
                "classes": 2,
                "selection": "auc",
                "pearson": value,
                "largest_attention": 0.5,
                "best_epoch": 3,
                "seconds": 12.0,
                "population": len(dev),
                "frozen_step": None,
                "frozen_reason": None,
                "train_n": 1000,
                "vocabulary": 502,
                "vectors": "words.vec",
                "vectors_found": 400,
                "attention": "additive",
                "epochs": 8,
                "device": "cpu",
                "platform": "cpu",
                "jax": "0",
                "config_hash": "0" * 12,
            }
            if split == "test":
                for kind in ("gradient", "gradient_attached", "gradient_norm"):
                    line |= {f"pearson_{kind}": value / 2, f"kendall_{kind}": value / 3}
                    line |= {f"significant_{kind}": 0.5, f"undefined_{kind}": 1}
                line |= {"score_norm": 4.0, "word_norm": 80.0, "radii": [0.25, 0.5], "certified": [0.7, 0.6]}
            found.append(line | fields)
    return found
