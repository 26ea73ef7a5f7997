"""The single-sequence classifier as pure functions over one pytree of parameters."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_attnat.config import ModelConfig
from flax_attnat.models.attention import Additive, ScaledDot
from flax_attnat.models.embedding import EmbeddingInit, dropout, initial_table, read_table, read_words
from flax_attnat.models.encoders import build_encoder, uniform
from flax_attnat.models.model import Model
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Array, Batch, Encoded, Params


def build_single(config: ModelConfig, words: EmbeddingInit, *, classes: int = 2, normalise: bool = False) -> Model:
    """The functions of the single-sequence classifier.

    `h = encoder(w)`; `s = attention(h)`; `a = softmax(s)` over real tokens; `z = o . sum_t a_t h_t + b_o`.

    Args:
      config: encoder, attention, sizes, dropout.
      words: frequencies `[V]` and, where there are any, pretrained vectors `[V, E]`.
      classes: C; two classes have one logit, C > 2 classes have C.
      normalise: normalise the embedding table by frequency before every use (the word techniques).

    Returns:
      A `Model`; nothing in it holds state.

    Source: Kitada & Iyatomi 2021, section "Models"; Jain & Wallace 2019.
    """
    features = 2 * config.hidden_size
    encoder = build_encoder(config.encoder, config.hidden_size)
    attention: nn.Module = {"additive": Additive, "scaled_dot": ScaledDot}[config.attention]()
    output = nn.Dense(1 if classes == 2 else classes, kernel_init=uniform(features), bias_init=uniform(features))
    frequencies = jnp.asarray(words.frequencies, jnp.float32)
    table = functools.partial(read_table, frequencies, normalise)

    def tokens(batch: Batch) -> tuple[Array, Array]:
        """Word ids `[B, T]` and the mask of real tokens `[B, T]`."""
        return batch.tokens, jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]

    def embed(params: Params, batch: Batch, key: Array | None = None) -> Array:
        """Word vectors `[B, T, E]` of a batch."""
        return dropout(read_words(frequencies, normalise, params, batch.tokens, batch.places), config.dropout, key, 0)

    def encode(params: Params, words_BxTxE: Array, batch: Batch) -> Encoded:
        """Hidden states `[B, T, H]` and the mask of real tokens `[B, T]`."""
        mask = tokens(batch)[1]
        return Encoded(encoder.apply({"params": params["encoder"]}, words_BxTxE, mask), mask)  # type: ignore[arg-type]

    def score(params: Params, encoded: Encoded) -> Array:
        """Attention scores `[B, T]`, before the softmax."""
        return attention.apply({"params": params["attention"]}, encoded.states)  # type: ignore[return-value]

    def classify(params: Params, encoded: Encoded, scores: Array, key: Array | None = None) -> Array:
        """Logits `[B, 1]` or `[B, C]` of the attended state."""
        weights = masked_softmax(scores, encoded.mask)
        context = jnp.einsum("bt,bth->bh", weights, encoded.states)
        return output.apply({"params": params["output"]}, dropout(context, config.dropout, key, 1))  # type: ignore

    def values(params: Params, encoded: Encoded) -> tuple[Array, Array]:
        """What each token would make of the logits alone, `[B, T, C']`, and the bias `[C']`."""
        return encoded.states @ params["output"]["kernel"], params["output"]["bias"]

    init = functools.partial(_init_params, encoder, attention, output, words, config)
    return Model(init, table, tokens, embed, encode, score, classify, values)


def _init_params(
    encoder: nn.Module, attention: nn.Module, output: nn.Module, words: EmbeddingInit, config: ModelConfig, key: Array
) -> Params:
    """Parameters of all groups from one key; their shapes do not depend on a batch."""
    embedding_key, encoder_key, attention_key, output_key = jax.random.split(key, 4)
    blank = jnp.zeros((1, 1, config.embedding_size))
    states = jnp.zeros((1, 1, 2 * config.hidden_size))
    return {
        "embedding": {"table": initial_table(embedding_key, words, config.embedding_size)},
        "encoder": encoder.init(encoder_key, blank, jnp.ones((1, 1), bool))["params"],
        "attention": attention.init(attention_key, states)["params"],
        "output": output.init(output_key, states[:, 0])["params"],
    }
