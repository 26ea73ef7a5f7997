"""The pair-sequence classifier (question answering, inference): attention over a passage, asked by a query.

Word vectors of both stand side by side in one array, `[B, T + Q, E]`, so that a word technique sees one array too.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.config import ModelConfig
from flax_attnat.models.attention import PairAdditive, PairScaledDot
from flax_attnat.models.embedding import EmbeddingInit, dropout, initial_table, read_table, read_words
from flax_attnat.models.encoders import build_encoder, uniform
from flax_attnat.models.model import Model, absent_logit
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.typing import Array, Batch, Encoded, Params


class Readout(nn.Module):
    """`U tanh(Wp c + bp + Wq hQ + bq) + bu` with an inner size of H / 2.

    Attributes:
      classes: C.
    """

    classes: int

    @nn.compact
    def __call__(self, context_BxH: Array, query_BxH: Array) -> Array:
        """Logits `[B, C]`."""
        size = context_BxH.shape[-1]
        init, half = uniform(size), uniform(size // 2)
        passage = nn.Dense(size // 2, kernel_init=init, bias_init=init, name="passage")(context_BxH)
        query = nn.Dense(size // 2, kernel_init=init, bias_init=init, name="query")(query_BxH)
        return nn.Dense(self.classes, kernel_init=half, bias_init=half, name="outer")(jnp.tanh(passage + query))


def build_pair(
    config: ModelConfig,
    words: EmbeddingInit,
    *,
    classes: int,
    normalise: bool = False,
    perturb: str = "passage",
    entity_classes: np.ndarray | None = None,
) -> Model:
    """The functions of the pair-sequence classifier.

    `hP = encoder_P(w_P)`; `h_Q` is one state for the whole query; `s = attention(hP, h_Q)`; `c = sum_t a_t hP_t` with
    `a = softmax(s)` over the passage; `z = U tanh(Wp c + bp + Wq h_Q + bq) + bu`.

    Args:
      config: encoder, attention, sizes, dropout; passage and query have encoders of their own.
      words: frequencies `[V]` and, where there are any, pretrained vectors `[V, E]`.
      classes: C, also the number of logits.
      normalise: normalise the embedding table by frequency before every use (the word techniques).
      perturb: what a word technique perturbs: "passage" or "both".
      entity_classes: `[V]` class id of a word that names a class, else -1: a class that no real token of the passage
        names is impossible. None: all are possible.

    Returns:
      A `Model`; nothing in it holds state.

    Source: Kitada & Iyatomi 2021, section "Models"; Jain & Wallace 2019.
    """
    encoder = build_encoder(config.encoder, config.hidden_size)
    attention: nn.Module = {"additive": PairAdditive, "scaled_dot": PairScaledDot}[config.attention]()
    readout = Readout(classes)
    frequencies = jnp.asarray(words.frequencies, jnp.float32)
    table = functools.partial(read_table, frequencies, normalise)
    named = None if entity_classes is None else jnp.asarray(entity_classes, jnp.int32)

    def encode(params: Params, words_BxWxE: Array, batch: Batch) -> Encoded:
        """Hidden states `[B, T, H]` of the passage, its mask `[B, T]`, the query's state `[B, H]`, possible classes."""
        states, mask, query = _encode(encoder, _QUERY_STATES[config.encoder], params["encoder"], words_BxWxE, batch)
        candidates = None if named is None else _candidates(named[batch.tokens], mask, classes)
        return Encoded(states, mask, query, candidates)

    def score(params: Params, encoded: Encoded) -> Array:
        """Attention scores `[B, T]` of the passage, before the softmax."""
        own = params.get("attention", {})  # the scaled dot product has none, and a file cannot hold an empty group
        return attention.apply({"params": own}, encoded.states, encoded.query)  # type: ignore

    def classify(params: Params, encoded: Encoded, scores: Array, key: Array | None = None) -> Array:
        """Logits `[B, C]` of the attended state and the query."""
        weights = masked_softmax(scores, encoded.mask)
        context = dropout(jnp.einsum("bt,bth->bh", weights, encoded.states), config.dropout, key, 1)
        logits: Array = readout.apply({"params": params["output"]}, context, encoded.query)  # type: ignore[assignment]
        if encoded.candidates is None:
            return logits
        return jnp.where(encoded.candidates, logits, absent_logit(logits.dtype))

    init = functools.partial(_init_params, encoder, attention, readout, words, config)
    tokens = functools.partial(_tokens, perturb == "both")
    embed = functools.partial(_embed, functools.partial(read_words, frequencies, normalise), config.dropout)
    return Model(init, table, tokens, embed, encode, score, classify)


def _tokens(queries: bool, batch: Batch) -> tuple[Array, Array]:
    """Word ids `[B, T + Q]` of passage and query, and which of them a word technique perturbs `[B, T + Q]`."""
    query, query_mask = _query(batch)
    mask = [_passage_mask(batch), query_mask & queries]
    return jnp.concatenate([batch.tokens, query], axis=1), jnp.concatenate(mask, axis=1)


def _embed(
    read: Callable[[Params, Array, Array | None], Array],
    rate: float,
    params: Params,
    batch: Batch,
    key: Array | None = None,
) -> Array:
    """Word vectors `[B, T + Q, E]` of passage and query."""
    query, width = _query(batch)[0], batch.tokens.shape[1]
    vectors = read(params, jnp.concatenate([batch.tokens, query], axis=1), batch.places)
    # A stream of its own for the query: the padding of the passage does not shift it.
    both = [dropout(vectors[:, :width], rate, key, 0), dropout(vectors[:, width:], rate, key, 2)]
    return jnp.concatenate(both, axis=1)


def _encode(
    encoder: nn.Module,
    query_state: Callable[[Array, Array], Array],
    params: Params,
    words_BxWxE: Array,
    batch: Batch,
) -> tuple[Array, Array, Array]:
    """Hidden states `[B, T, H]` of the passage, its mask `[B, T]`, the query's state `[B, H]`."""
    width, mask, query_mask = batch.tokens.shape[1], _passage_mask(batch), _query(batch)[1]
    passage = encoder.apply({"params": params["passage"]}, words_BxWxE[:, :width], mask)
    query = encoder.apply({"params": params["query"]}, words_BxWxE[:, width:], query_mask)
    return passage, mask, query_state(query, query_mask)  # type: ignore


def _passage_mask(batch: Batch) -> Array:
    """`[B, T]`, true on real tokens of the passage."""
    return jnp.arange(batch.tokens.shape[1])[None, :] < batch.length[:, None]


def _query(batch: Batch) -> tuple[Array, Array]:
    """Word ids `[B, Q]` of the query and `[B, Q]`, true on its real tokens."""
    if batch.query is None or batch.query_length is None:
        raise ValueError("a pair model reads batches with queries; this batch has none.")
    return batch.query, jnp.arange(batch.query.shape[1])[None, :] < batch.query_length[:, None]


def _last_states(states: Array, mask: Array) -> Array:
    """`[B, H]`: the forward half of the last real token's state, the backward half of the first one's."""
    half = states.shape[-1] // 2
    last = jnp.maximum(jnp.sum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    forward = jnp.take_along_axis(states[..., :half], last[:, None, None], axis=1)[:, 0]
    return jnp.concatenate([forward, states[:, 0, half:]], axis=-1)


def _largest_states(states: Array, mask: Array) -> Array:
    """`[B, H]`: the maximum over real tokens of states that are nowhere negative."""
    return jnp.max(states, axis=1, where=mask[..., None], initial=0)


def _mean_states(states: Array, mask: Array) -> Array:
    """`[B, H]`: the mean over real tokens of states that are zero on padding."""
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True, dtype=states.dtype), 1)
    return jnp.sum(states, axis=1) / count


# One state for the whole query, zero for an empty one; by the name of the encoder.
_QUERY_STATES: dict[str, Callable[[Array, Array], Array]] = {
    "bilstm": _last_states,
    "cnn": _largest_states,
    "average": _mean_states,
}


def _candidates(named: Array, mask: Array, classes: int) -> Array:
    """`[B, C]`, true on classes that a real token names; `named` `[B, T]` is the class of each token, or -1."""
    rows = jnp.arange(named.shape[0])[:, None]
    # Tokens that name nothing are sent beyond the last class and dropped: no [B, T, C] array is made.
    places = jnp.where(mask & (named >= 0), named, classes)
    return jnp.zeros((named.shape[0], classes), bool).at[rows, places].set(True, mode="drop")


def _init_params(
    encoder: nn.Module, attention: nn.Module, readout: nn.Module, words: EmbeddingInit, config: ModelConfig, key: Array
) -> Params:
    """Parameters of all groups from one key; their shapes do not depend on a batch."""
    embedding_key, passage_key, query_key, attention_key, output_key = jax.random.split(key, 5)
    blank = jnp.zeros((1, 1, config.embedding_size))
    states = jnp.zeros((1, 1, 2 * config.hidden_size))
    return {
        "embedding": {"table": initial_table(embedding_key, words, config.embedding_size)},
        "encoder": {
            name: encoder.init(encoder_key, blank, jnp.ones((1, 1), bool))["params"]
            for name, encoder_key in (("passage", passage_key), ("query", query_key))
        },
        # The scaled dot product of a pair has no parameters.
        "attention": attention.init(attention_key, states, states[:, 0]).get("params", {}),
        "output": readout.init(output_key, states[:, 0], states[:, 0])["params"],
    }
