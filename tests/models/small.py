"""Small models and batches, shared by the tests of models, objective and training."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.config import Config, ModelConfig, WordConfig
from flax_attnat.models.build import build
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.objective import Hparams
from flax_attnat.typing import Array, Batch, Params

VOCABULARY = 13
CLASSES = 3
# Words 3, 4, 5 and 9 name the classes of a pair model with entities; 4 and 9 the same one.
ENTITIES = np.array([-1, -1, -1, 0, 1, 2, -1, -1, -1, 1, -1, -1, -1])
TECHNIQUES = ("vanilla", "attention_rp", "attention_at", "attention_iat", "word_at", "word_iat")
ADVERSARIAL = TECHNIQUES[1:]
ENCODERS = ("bilstm", "cnn", "average")
ATTENTIONS = ("additive", "scaled_dot")


@functools.cache
def small(
    technique: str, encoder: str = "bilstm", attention: str = "additive", *, dropout: float = 0.0, reading: str = "span"
) -> tuple[Config, Model]:
    """A configuration and its model: 6-d words, H = 8; the word techniques normalise the table, as in training."""
    model = ModelConfig(encoder=encoder, attention=attention, embedding_size=6, hidden_size=4, dropout=dropout)
    config = Config(technique=technique, reading=reading, model=model)
    return config, _model(model, technique.startswith("word_"))


@functools.cache
def _model(config: ModelConfig, normalise: bool) -> Model:
    """One model for all techniques that share it, and so one compilation of what they share."""
    return build(config, _words(), classes=2, normalise=normalise)


def _words() -> EmbeddingInit:
    """Unequal frequencies, and no vectors."""
    counts = np.arange(VOCABULARY)[::-1] * (np.arange(VOCABULARY) > 0)
    return EmbeddingInit(counts / counts.sum())


@functools.cache
def small_pair(
    technique: str,
    encoder: str = "bilstm",
    attention: str = "additive",
    *,
    dropout: float = 0.0,
    reading: str = "span",
    perturb: str = "passage",
    entities: bool = False,
) -> tuple[Config, Model]:
    """A configuration and its pair model of three classes: 6-d words, H = 8."""
    model = ModelConfig(encoder=encoder, attention=attention, embedding_size=6, hidden_size=4, dropout=dropout)
    config = Config(technique=technique, reading=reading, model=model, word=WordConfig(perturb=perturb))
    return config, _pair_model(model, technique.startswith("word_"), perturb, entities)


@functools.cache
def _pair_model(config: ModelConfig, normalise: bool, perturb: str, entities: bool) -> Model:
    """One pair model for all techniques that share it."""
    named = ENTITIES if entities else None
    return build(
        config, _words(), classes=CLASSES, pair=True, normalise=normalise, perturb=perturb, entity_classes=named
    )


@functools.cache
def initial(model: Model, seed: int = 0) -> Params:
    """Parameters at three times their initial size, so that gates and tanh work outside their linear part."""
    return jax.tree.map(lambda p: 3 * p, jax.jit(model.init)(jax.random.key(seed)))


def hparams(
    epsilon: float = 0.8, weight: float = 0.6, learning_rate: float = 1e-3, weight_decay: float = 1e-2
) -> Hparams:
    """Hyper-parameters of one run."""
    return Hparams(*(jnp.asarray(x, jnp.float32) for x in (epsilon, weight, learning_rate, weight_decay)))


def as_batch(texts: Sequence[Any], labels: Any, weights: Sequence[float], width: int, padding: int = 0) -> Batch:
    """Texts of ids as a batch of the given width, with the id `padding` behind each."""
    tokens = np.full((len(texts), width), padding, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    return Batch(
        jnp.asarray(tokens),
        jnp.asarray([len(text) for text in texts], jnp.int32),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(weights, jnp.float32),
    )


def as_pairs(
    passages: Sequence[Any],
    queries: Sequence[Any],
    labels: Any,
    weights: Sequence[float],
    widths: tuple[int, int],
    padding: int = 0,
) -> Batch:
    """Passages and queries of ids as a batch of the given two widths, with the id `padding` behind each."""
    query = as_batch(queries, labels, weights, widths[1], padding)
    batch = as_batch(passages, labels, weights, widths[0], padding)
    return batch._replace(query=query.tokens, query_length=query.length)


def random_pairs(seed: int = 0) -> Batch:
    """Four real rows of passages up to 6 and queries up to 3 words, in widths 7 and 4, with labels of three classes."""
    rng = np.random.default_rng(seed)
    passages, queries = ([rng.integers(2, VOCABULARY, n) for n in sizes] for sizes in ((6, 2, 4, 5), (3, 1, 2, 3)))
    return as_pairs(passages, queries, rng.integers(0, CLASSES, 4), [1.0] * 4, (7, 4))


def random_batch(seed: int = 0, lengths: Sequence[int] = (6, 2, 4, 5), width: int = 7) -> Batch:
    """Real rows of the given lengths, with random words and labels of both classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(len(lengths)) % 2)
    return as_batch([rng.integers(2, VOCABULARY, n) for n in lengths], labels, [1.0] * len(lengths), width)


def random_neighbours(seed: int = 0, k: int = 3) -> Array:
    """Neighbours `[V, K]`: any other words serve."""
    rng = np.random.default_rng(seed)
    return jnp.asarray([rng.permutation(np.delete(np.arange(VOCABULARY), [0, w]))[:k] for w in range(VOCABULARY)])


def relative_error(ours: Any, exact: Any) -> float:
    """Largest difference in any leaf, over that leaf's largest magnitude (a leaf that should be zero: over 1)."""

    def error(a: Any, b: Any) -> float:
        """Of one leaf."""
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.max(np.abs(a - b)) / (np.max(np.abs(b)) or 1.0))

    return max(jax.tree.leaves(jax.tree.map(error, ours, exact)))
