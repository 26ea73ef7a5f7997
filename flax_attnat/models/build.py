"""The model of a configuration and a kind of data."""

import numpy as np

from flax_attnat.config import ModelConfig
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.models.pair import build_pair
from flax_attnat.models.single import build_single


def build(
    config: ModelConfig,
    words: EmbeddingInit,
    *,
    classes: int,
    pair: bool = False,
    normalise: bool = False,
    perturb: str = "passage",
    entity_classes: np.ndarray | None = None,
) -> Model:
    """The functions of the single-sequence or the pair-sequence classifier.

    Args:
      config: encoder, attention, sizes, dropout.
      words: frequencies `[V]` and, where there are any, pretrained vectors `[V, E]`.
      classes: C.
      pair: whether a text has a query (question, hypothesis).
      normalise: normalise the embedding table by frequency before every use (the word techniques).
      perturb: what a word technique perturbs in a pair: "passage" or "both".
      entity_classes: `[V]` class id of a word that names a class, else -1; None: every class is always possible. Only
        the pair model reads it.

    Returns:
      A `Model`; nothing in it holds state.
    """
    if not pair:
        return build_single(config, words, classes=classes, normalise=normalise)
    return build_pair(
        config, words, classes=classes, normalise=normalise, perturb=perturb, entity_classes=entity_classes
    )
