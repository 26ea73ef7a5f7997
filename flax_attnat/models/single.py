"""The single-sequence classifier as four pure functions over one pytree of parameters."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.config import ModelConfig
from flax_attnat.models.attention import Additive, ScaledDot
from flax_attnat.models.encoders import CNN, Average, BiLSTM, uniform
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.perturbation.word import normalise_embeddings
from flax_attnat.typing import Array, Batch, Encoded, Params


class EmbeddingInit(NamedTuple):
    """What the embedding table starts from.

    Attributes:
      frequencies: `[V]` relative training frequencies of the words.
      table: `[V, E]` pretrained vectors, or None.
      found: `[V]` true where `table` has a vector; the other rows start small and random.
    """

    frequencies: np.ndarray
    table: np.ndarray | None = None
    found: np.ndarray | None = None


class Model(NamedTuple):
    """The four functions, and what makes their parameters. `key`, where given, turns dropout on.

    Attributes:
      init: `init(key) -> params`, with the groups `embedding`, `encoder`, `attention`, `output`.
      table: `table(params) -> [V, E]` the word vectors as the encoder reads them (normalised, if asked).
      embed: `embed(params, batch, key=None) -> [B, T, E]` word vectors.
      encode: `encode(params, words, batch) -> Encoded`, the heavy part, once per step.
      score: `score(params, encoded) -> [B, T]` attention scores, before the softmax.
      classify: `classify(params, encoded, scores, key=None) -> [B, C]` logits (C = 1 for two classes), the light part.
    """

    init: Callable[[Array], Params]
    table: Callable[[Params], Array]
    embed: Callable[..., Array]
    encode: Callable[[Params, Array, Batch], Encoded]
    score: Callable[[Params, Encoded], Array]
    classify: Callable[..., Array]


# Words without a pretrained vector start at this standard deviation; without any vectors, at 1 (torch.nn.Embedding).
UNSEEN_SCALE = 0.1


def build(config: ModelConfig, words: EmbeddingInit, *, normalise: bool = False) -> Model:
    """The four functions of the single-sequence classifier.

    `h = encoder(w)`; `s = attention(h)`; `a = softmax(s)` over real tokens; `z = o . sum_t a_t h_t + b_o`.

    Args:
      config: encoder, attention, sizes, dropout.
      words: frequencies `[V]` and, where there are any, pretrained vectors `[V, E]`.
      normalise: normalise the embedding table by frequency before every use (the word techniques).

    Returns:
      A `Model`; nothing in it holds state.

    Source: Kitada & Iyatomi 2021, section "Models"; Jain & Wallace 2019.
    """
    features = 2 * config.hidden_size
    encoder: nn.Module = {
        "bilstm": lambda: BiLSTM(config.hidden_size),
        "cnn": lambda: CNN(features),
        "average": lambda: Average(features),
    }[config.encoder]()
    attention: nn.Module = {"additive": Additive, "scaled_dot": ScaledDot}[config.attention]()
    output = nn.Dense(1, kernel_init=uniform(features), bias_init=uniform(features))
    frequencies = jnp.asarray(words.frequencies, jnp.float32)

    def table(params: Params) -> Array:
        """Word vectors `[V, E]` as the encoder reads them."""
        raw = params["embedding"]["table"]
        return normalise_embeddings(raw, frequencies) if normalise else raw

    def embed(params: Params, batch: Batch, key: Array | None = None) -> Array:
        """Word vectors `[B, T, E]` of a batch."""
        return _dropout(table(params)[batch.tokens], config.dropout, key, 0)

    def encode(params: Params, words_BxTxE: Array, batch: Batch) -> Encoded:
        """Hidden states `[B, T, H]` and the mask of real tokens `[B, T]`."""
        mask = jnp.arange(words_BxTxE.shape[1])[None, :] < batch.length[:, None]
        return Encoded(encoder.apply({"params": params["encoder"]}, words_BxTxE, mask), mask)  # type: ignore[arg-type]

    def score(params: Params, encoded: Encoded) -> Array:
        """Attention scores `[B, T]`, before the softmax."""
        return attention.apply({"params": params["attention"]}, encoded.states)  # type: ignore[return-value]

    def classify(params: Params, encoded: Encoded, scores: Array, key: Array | None = None) -> Array:
        """Logits `[B, 1]` of the attended state."""
        weights = masked_softmax(scores, encoded.mask)
        context = jnp.einsum("bt,bth->bh", weights, encoded.states)
        return output.apply({"params": params["output"]}, _dropout(context, config.dropout, key, 1))  # type: ignore

    init = functools.partial(_init_params, encoder, attention, output, words, config)
    return Model(init, table, embed, encode, score, classify)


def _init_params(
    encoder: nn.Module, attention: nn.Module, output: nn.Module, words: EmbeddingInit, config: ModelConfig, key: Array
) -> Params:
    """Parameters of all groups from one key; their shapes do not depend on a batch."""
    embedding_key, encoder_key, attention_key, output_key = jax.random.split(key, 4)
    blank = jnp.zeros((1, 1, config.embedding_size))
    states = jnp.zeros((1, 1, 2 * config.hidden_size))
    return {
        "embedding": {"table": _initial_table(embedding_key, words, config.embedding_size)},
        "encoder": encoder.init(encoder_key, blank, jnp.ones((1, 1), bool))["params"],
        "attention": attention.init(attention_key, states)["params"],
        "output": output.init(output_key, states[:, 0])["params"],
    }


def _initial_table(key: Array, words: EmbeddingInit, size: int) -> Array:
    """Embedding table `[V, E]`: pretrained rows, random rows for the others, zero for padding (id 0)."""
    random = jax.random.normal(key, (len(words.frequencies), size))
    if words.table is None or words.found is None:
        table = random
    else:
        table = jnp.where(jnp.asarray(words.found)[:, None], jnp.asarray(words.table), UNSEEN_SCALE * random)
    return table.at[0].set(0)


def _dropout(x: Array, rate: float, key: Array | None, stream: int) -> Array:
    """Inverted dropout on `x`, `[B, T, E]` or `[B, H]`; the same key gives the same mask to all passes of a step.

    The mask of a token depends on the key and its place alone, so that padding changes nothing.
    """
    if key is None or rate == 0:
        return x
    key = jax.random.fold_in(key, stream)
    if x.ndim == 3:
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(x.shape[1]))
        kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, (x.shape[0], x.shape[2])), out_axes=1)(keys)
    else:
        kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)
