"""The four functions of the single-sequence classifier, and its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.config import ModelConfig
from flax_attnat.models.embedding import UNSEEN_SCALE, EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.models.single import build_single
from flax_attnat.typing import Array, Batch, Params
from tests.models.small import ATTENTIONS, ENCODERS, as_batch, initial, random_batch, small

BATCH = as_batch([[3, 5, 4, 9], [7, 2], [6]], [1, 0, 1], [1.0] * 3, 6)


def logits(model: Model, params: Params, batch: Batch) -> Array:
    """Logits `[B, 1]` without dropout."""
    encoded = model.encode(params, model.embed(params, batch), batch)
    return model.classify(params, encoded, model.score(params, encoded))


def test_classify_reads_the_attended_state() -> None:
    """`z = o . sum_t softmax(s)_t h_t + b_o` for scores of our own choosing."""
    _, model = small("vanilla")
    params = initial(model)
    encoded = model.encode(params, model.embed(params, BATCH), BATCH)
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)
    ours = model.classify(params, encoded, scores)
    for row, n in enumerate((4, 2, 1)):
        e = np.exp(np.asarray(scores[row, :n], np.float64))
        context = e / e.sum() @ np.asarray(encoded.states[row, :n], np.float64)
        exact = context @ np.asarray(params["output"]["kernel"])[:, 0] + np.asarray(params["output"]["bias"])[0]
        np.testing.assert_allclose(ours[row, 0], exact, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_padding_vector_is_never_read(encoder: str, attention: str) -> None:
    """NaN as the vector of padding leaves logits and gradients as they are, and gets no gradient itself."""
    _, model = small("vanilla", encoder, attention)
    params = initial(model)

    @jax.jit
    def evaluate(params: Params) -> tuple[Array, Params]:
        """Sum of the logits and its gradient."""
        return jax.value_and_grad(lambda p: jnp.sum(logits(model, p, BATCH)))(params)

    plain = evaluate(params)
    table = params["embedding"]["table"]
    dirty = evaluate(params | {"embedding": {"table": table.at[0].set(jnp.nan)}})
    jax.tree.map(np.testing.assert_array_equal, dirty, plain)
    moved = np.abs(np.asarray(plain[1]["embedding"]["table"])).max(-1) > 0
    np.testing.assert_array_equal(np.flatnonzero(moved), [2, 3, 4, 5, 6, 7, 9])


def test_pretrained_vectors_land_in_the_table_and_the_others_start_small() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 6)).astype(np.float32)
    found = rng.random(400) < 0.5
    found[0] = False
    words = EmbeddingInit(np.full(400, 1 / 400), vectors, found)
    model = build_single(ModelConfig(encoder="average", embedding_size=6, hidden_size=4), words)
    table = np.asarray(model.init(jax.random.key(0))["embedding"]["table"])
    np.testing.assert_array_equal(table[found], vectors[found])
    np.testing.assert_array_equal(table[0], 0)
    unseen = table[1:][~found[1:]]
    # About 1,200 normal numbers: their standard deviation within a tenth.
    assert abs(unseen.std() / UNSEEN_SCALE - 1) < 0.1
    assert len(np.unique(unseen, axis=0)) == len(unseen)
    without = build_single(
        ModelConfig(encoder="average", embedding_size=6, hidden_size=4), EmbeddingInit(np.full(400, 1 / 400))
    )
    assert abs(np.asarray(without.init(jax.random.key(0))["embedding"]["table"])[1:].std() - 1) < 0.1


def test_words_are_normalised_by_frequency_when_asked() -> None:
    rng = np.random.default_rng(0)
    frequencies = rng.random(30) * (np.arange(30) > 0)
    frequencies /= frequencies.sum()
    config = ModelConfig(encoder="average", embedding_size=6, hidden_size=4)
    plain, normalised = (build_single(config, EmbeddingInit(frequencies), normalise=on) for on in (False, True))
    params = plain.init(jax.random.key(0))
    params["embedding"]["table"] = 3 + 5 * params["embedding"]["table"]
    raw = np.asarray(params["embedding"]["table"], np.float64)
    mean = frequencies @ raw
    exact = (raw - mean) / np.sqrt(frequencies @ (raw - mean) ** 2)
    np.testing.assert_allclose(normalised.table(params), exact, atol=1e-5)
    batch = random_batch()
    np.testing.assert_allclose(normalised.embed(params, batch), exact[np.asarray(batch.tokens)], atol=1e-5)
    np.testing.assert_array_equal(plain.embed(params, batch), np.asarray(params["embedding"]["table"])[batch.tokens])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_population_starts_from_the_parameters_of_its_seeds(encoder: str) -> None:
    """`jit(vmap(init))` at full width gives what each seed gives alone, another for another seed, none degenerate."""
    config = ModelConfig(encoder=encoder, embedding_size=30, hidden_size=128)
    model = build_single(config, EmbeddingInit(np.full(20, 1 / 20)))
    init = jax.jit(model.init)
    together = jax.jit(jax.vmap(lambda seed: model.init(jax.random.key(seed))))(jnp.array([0, 1, 0]))
    for run, seed in enumerate((0, 1, 0)):
        alone = init(jax.random.key(seed))
        jax.tree.map(lambda a, b, run=run: np.testing.assert_array_equal(a[run], b), together, alone)
    for leaf in jax.tree.leaves(together):
        assert not np.array_equal(leaf[0], leaf[1])
        values = np.asarray(leaf[0]).ravel()
        # Zero stands on the padding vector alone, and no value is shared (24-bit uniforms collide now and then).
        assert len(np.unique(values[values != 0])) > 0.99 * np.count_nonzero(values)
