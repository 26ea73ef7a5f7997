"""A population is its runs: same numbers, same batches, one program."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.config import Config, ModelConfig, WordConfig
from flax_attnat.data.batches import Bucket
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.single import build_single
from flax_attnat.objective import Hparams, Objective, build_objective
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.population import Population, build_population, zero_sums
from flax_attnat.training.schedule import CHUNK_STEPS, batches_of, chunk_of, epoch_plan, epoch_rows

VOCABULARY, ROWS, WIDTH, BATCH = 40, 52, 9, 8


def bucket_of(seed: int) -> Bucket:
    """Random texts of 1 to WIDTH words, labelled by whether word 2 or 3 stands in them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, WIDTH + 1, ROWS)
    tokens = rng.integers(2, VOCABULARY, (ROWS, WIDTH)) * (np.arange(WIDTH) < lengths[:, None])
    labels = np.isin(tokens, (2, 3, 4, 5)).any(axis=1)
    arrays = (tokens, lengths, labels, np.arange(ROWS))
    return Bucket(*(jnp.asarray(a, jnp.int32) for a in arrays))


def population_of(
    technique: str, wrapped: Callable[[Objective], Objective] = lambda objective: objective
) -> Population:
    config = Config(
        technique=technique, model=ModelConfig(embedding_size=6, hidden_size=5), word=WordConfig(neighbours=3)
    )
    model = build_single(
        config.model, EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY)), normalise=technique == "word_iat"
    )
    valid = np.arange(VOCABULARY) > 1
    return build_population(
        config, model, wrapped(build_objective(config, model, 1.3)), METRICS["auc"], valid, make_mesh(devices=1)
    )


def two_classes(probability: list[list[float]]) -> jax.Array:
    """Probabilities `[R, N, 2]` from those of class 1 `[R, N]`."""
    ones = jnp.asarray(probability, jnp.float32)
    return jnp.stack([1 - ones, ones], axis=-1)


def train(population: Population, seeds: list[int], epsilons: list[float], steps: int, fixed=(0.7, 1e-3, 1e-5)):
    """States and sums after `steps` steps over the bucket's batches."""
    bucket, runs = bucket_of(0), len(seeds)
    seeds_R = jnp.asarray(seeds, jnp.int32)
    states, sums = population.init(seeds_R), zero_sums(runs)
    hparams = Hparams(jnp.asarray(epsilons, jnp.float32), *(jnp.full(runs, value, jnp.float32) for value in fixed))
    neighbours = population.refresh(states.params)
    epoch = 0
    while steps:
        size = min(steps, len(epoch_rows(0, epoch, 0, ROWS, BATCH)))
        which, rows = map(jnp.asarray, chunk_of(epoch_plan(seeds, epoch, [ROWS], BATCH), seeds, 0))
        arguments = ((bucket,), which, rows, jnp.int32(0), jnp.int32(size), hparams, seeds_R, neighbours)
        states, sums = population.run_chunk(states, sums, *arguments)
        steps, epoch = steps - size, epoch + 1
    return states, sums


@pytest.mark.parametrize("technique", ["attention_iat", "attention_rp", "word_iat"])
def test_a_run_inside_a_population_of_six_equals_the_run_alone(technique: str) -> None:
    population = population_of(technique)
    seeds, epsilons = [0, 1, 2, 0, 1, 2], [0.5, 0.5, 0.5, 5.0, 5.0, 5.0]
    for steps, tolerance in ((1, 1e-5), (20, 1e-4)):
        together, sums = train(population, seeds, epsilons, steps)
        alone, alone_sums = train(population, seeds[4:5], epsilons[4:5], steps)
        np.testing.assert_allclose(sums.loss[4], alone_sums.loss[0], rtol=tolerance)
        for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
            scale = float(jnp.max(jnp.abs(b)))
            np.testing.assert_allclose(a[4], b[0], rtol=tolerance, atol=tolerance * scale)


def test_runs_of_one_seed_start_equal_and_see_the_same_rows_whatever_their_epsilon() -> None:
    population = population_of("attention_at")
    states = population.init(jnp.asarray([3, 4, 3], jnp.int32))
    for leaf in jax.tree.leaves(states.params):
        np.testing.assert_array_equal(leaf[0], leaf[2])
    assert not np.array_equal(states.params["encoder"]["bias"][0], states.params["encoder"]["bias"][1])
    _, rows = chunk_of(epoch_plan([3, 4, 3], 1, [ROWS], BATCH), [3, 4, 3], 0)
    np.testing.assert_array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[0], rows[1])
    assert rows.shape[1] == CHUNK_STEPS and (rows[:, batches_of(ROWS, BATCH) :] == -1).all()


def test_new_hyperparameters_trace_and_compile_nothing() -> None:
    """The objective is traced once, by the gradient, whatever epsilon, lambda, learning rate and seeds are."""
    chex.clear_trace_counter()
    population = population_of("attention_at", lambda objective: chex.assert_max_traces(objective, n=1))
    train(population, [0, 1], [0.5, 1.0], 3)
    compiled = population.run_chunk._cache_size()  # type: ignore[attr-defined]
    train(population, [5, 6], [2.0, 9.0], 2, fixed=(0.1, 1e-2, 0.0))
    assert compiled == population.run_chunk._cache_size() == 1  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="is traced > 1 times"):
        train(population, [5], [2.0], 1)


def test_a_poisoned_run_is_frozen_and_leaves_the_others_bit_identical() -> None:
    population = population_of("attention_at")
    healthy, _ = train(population, [0, 1, 2], [1.0, 1.0, 1.0], 6)
    poisoned, sums = train(population, [0, 1, 2], [1.0, np.inf, 1.0], 6)
    for a, b in zip(jax.tree.leaves(healthy), jax.tree.leaves(poisoned), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2], b[2])
    assert int(poisoned.frozen_step[1]) == 0 and int(poisoned.frozen_reason[1]) in (1, 2)
    assert int(poisoned.step[1]) == 0 and float(sums.rows[1]) == 0
    chex.assert_tree_all_finite(poisoned.params)
    initial = population.init(jnp.asarray([1], jnp.int32))
    for a, b in zip(jax.tree.leaves(poisoned.params), jax.tree.leaves(initial.params), strict=True):
        np.testing.assert_array_equal(a[1], b[0])


def test_selection_keeps_the_parameters_of_each_runs_best_epoch() -> None:
    population = population_of("vanilla")
    states = population.init(jnp.asarray([0, 1], jnp.int32))
    states = states._replace(step=states.step + 1)  # a run without a good step is never the best
    labels = jnp.asarray([0, 0, 1, 1], jnp.int32)
    good, bad = [0.1, 0.2, 0.8, 0.9], [0.9, 0.1, 0.2, 0.8]
    kept = []
    for epoch, probability in enumerate(([bad, good], [good, bad], [good, good]), start=1):
        marked = jax.tree.map(lambda leaf, epoch=epoch: jnp.full_like(leaf, epoch), states.params)
        states, metric = population.select(
            states._replace(params=marked), two_classes(probability), labels, jnp.int32(epoch)
        )
        kept.append(states.best_epoch.tolist())
    assert kept == [[1, 1], [2, 1], [2, 1]]  # a tie keeps the earlier epoch
    np.testing.assert_array_equal(states.best_params["encoder"]["bias"][:, 0, 0], [2.0, 1.0])
    np.testing.assert_allclose(metric, [1.0, 1.0])


def test_prediction_covers_every_row_once_and_in_order() -> None:
    population = population_of("vanilla")
    states = population.init(jnp.asarray([0, 1], jnp.int32))
    bucket = bucket_of(1)
    everything = population.predict(states.params, bucket)
    part = jax.tree.map(lambda leaf: leaf[17:30], bucket)
    np.testing.assert_allclose(everything[:, 17:30], population.predict(states.params, part), rtol=1e-5)
