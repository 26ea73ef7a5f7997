"""Adversarial training for attention mechanisms, as pure JAX functions of a loss."""

from typing import TYPE_CHECKING, Any

from flax_attnat.perturbation.attack import RobustnessCurve, pgd, robustness_curve
from flax_attnat.perturbation.attention import attention_at, attention_iat, random_perturbation
from flax_attnat.perturbation.certificate import certify_attention
from flax_attnat.perturbation.geometry import Ball, masked_softmax, project, unit
from flax_attnat.perturbation.loss import Aux, adversarial_loss
from flax_attnat.perturbation.virtual import virtual_at
from flax_attnat.perturbation.word import nearest_neighbours, normalise_embeddings, word_at, word_iat

if TYPE_CHECKING:
    from flax_attnat.predictor import load
else:

    def __getattr__(name: str) -> Any:
        """`load`, imported when it is first asked for: it needs Flax and Orbax, which the functions do not."""
        if name != "load":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from flax_attnat.predictor import load

        return load


__version__ = "0.1.0"

__all__ = [
    "Aux",
    "Ball",
    "RobustnessCurve",
    "adversarial_loss",
    "attention_at",
    "attention_iat",
    "certify_attention",
    "load",
    "masked_softmax",
    "nearest_neighbours",
    "normalise_embeddings",
    "pgd",
    "project",
    "random_perturbation",
    "robustness_curve",
    "unit",
    "virtual_at",
    "word_at",
    "word_iat",
]


def __dir__() -> list[str]:
    """The public names, `load` included."""
    return sorted({*globals(), *__all__})
