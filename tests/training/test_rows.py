"""Steps on small tables are the steps on the whole one; the lazy option leaves what no batch holds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config, ModelConfig, OptimizerConfig, PopulationConfig, parse
from flax_attnat.data.batches import Bucket
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.models.build import build
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.objective import Hparams, Objective, build_objective
from flax_attnat.training import rows
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.population import build_population, zero_sums
from flax_attnat.training.step import TrainState

VOCABULARY, BATCHES, ROWS, WIDTH = 700, 6, 4, 5


def bucket_of(pair: bool) -> Bucket:
    """Random texts; words 2 to 5 name the classes of pairs."""
    rng = np.random.default_rng(3)
    count = BATCHES * ROWS
    lengths = rng.integers(1, WIDTH + 1, count)
    tokens = rng.integers(2, VOCABULARY, (count, WIDTH)) * (np.arange(WIDTH) < lengths[:, None])
    tokens[:, 0] = rng.integers(2, 4, count)
    arrays = [tokens, lengths, tokens[:, 0] - 2, np.arange(count)]
    if pair:
        arrays += [rng.integers(2, VOCABULARY, (count, 4)), np.full(count, 4)]
    return Bucket(*(jnp.asarray(a, jnp.int32) for a in arrays))


def train(
    *,
    runs: int = 1,
    together: int | None = None,
    pair: bool = False,
    optimizer: OptimizerConfig | None = None,
    steps: int = BATCHES,
    widths: tuple[int, ...] = (WIDTH,),
    wrapped: Callable[[Objective], Objective] = lambda objective: objective,
) -> tuple[TrainState, TrainState]:
    """States before and after so many steps of runs, so many together, with orders and epsilons of their own.

    The texts are padded to each of the widths, of which a step takes one and the next step another.
    """
    config = Config(
        technique="attention_at",
        model=ModelConfig(embedding_size=6, hidden_size=4),
        optimizer=optimizer or OptimizerConfig(),
        population=PopulationConfig(runs_together=together or runs),
    )
    classes = np.full(VOCABULARY, -1)
    classes[2:4] = [0, 1]
    words = EmbeddingInit(np.full(VOCABULARY, 1 / VOCABULARY))
    model = build(config.model, words, classes=2, pair=pair, entity_classes=classes if pair else None)
    objective = wrapped(build_objective(config, model))
    valid = np.arange(VOCABULARY) > 1
    population = build_population(config, model, objective, METRICS["accuracy"], valid, make_mesh(devices=1))
    order = np.stack([np.random.default_rng(run).permutation(BATCHES * ROWS) for run in range(runs)])
    batches = jnp.asarray(order.reshape(runs, BATCHES, ROWS), jnp.int32)
    seeds = jnp.arange(runs, dtype=jnp.int32)
    ones = jnp.ones(runs, jnp.float32)
    hparams = Hparams(1.0 + jnp.arange(runs, dtype=jnp.float32), ones, 0.01 * ones, 0.1 * ones)
    states = population.init(seeds)
    before = jax.tree.map(jnp.copy, states)
    texts = bucket_of(pair)
    buckets = tuple(texts._replace(tokens=jnp.pad(texts.tokens, ((0, 0), (0, width - WIDTH)))) for width in widths)
    span, which = (jnp.int32(0), jnp.int32(steps)), jnp.arange(BATCHES, dtype=jnp.int32) % len(widths)
    after, _ = population.run_chunk(states, zero_sums(runs), buckets, which, batches, *span, hparams, seeds, None)
    return before, after


def on_whole_tables(monkeypatch: pytest.MonkeyPatch, **fields: object) -> TrainState:
    """The states after training in the plain way."""
    with monkeypatch.context() as patched:
        patched.setattr("flax_attnat.training.chunk.small_table", lambda *_: None)
        return train(**fields)[1]  # type: ignore[arg-type]


def assert_same(found: TrainState, expected: TrainState) -> None:
    """Equal to rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), found, expected)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize(("runs", "together"), [(1, 1), (3, 3), (3, 1), (4, 2)])
def test_small_tables_train_as_the_whole_one(
    monkeypatch: pytest.MonkeyPatch, runs: int, together: int, pair: bool
) -> None:
    """Six steps, in spans of a few: parameters and moments of every row, read or not."""
    used = []
    monkeypatch.setattr(
        "flax_attnat.training.chunk.small_table", lambda *given: used.append(rows.small_table(*given)) or used[-1]
    )
    found = train(runs=runs, together=together, pair=pair)[1]
    assert used and used[0] is not None
    assert 2 * used[0] <= VOCABULARY
    assert_same(found, on_whole_tables(monkeypatch, runs=runs, pair=pair))


@pytest.mark.parametrize(
    ("runs", "together", "pair", "lazy"), [(1, 1, False, False), (3, 3, True, False), (3, 1, False, True)]
)
def test_steps_of_several_widths_in_one_program_train_as_those_of_one(
    runs: int, together: int, pair: bool, lazy: bool
) -> None:
    """The same texts, padded otherwise from step to step, on small tables whose words come from every width."""

    def trained(*widths: int) -> TrainState:
        """The states after steps of these widths in turn."""
        optimizer = OptimizerConfig(lazy_embedding=lazy)
        return train(runs=runs, together=together, pair=pair, optimizer=optimizer, widths=widths)[1]

    assert_same(trained(WIDTH + 3, WIDTH, WIDTH + 1), trained(WIDTH))


def test_rows_that_no_text_holds_take_their_l2_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """They moved, and as in float64 by hand; without L2 on the table they stay."""
    before, after = train()
    table, moved = (np.asarray(s.params["embedding"]["table"][0], np.float64) for s in (before, after))
    unread = np.setdiff1d(np.arange(VOCABULARY), np.asarray(bucket_of(False).tokens))
    m = v = largest = np.zeros_like(table)
    for step in range(1, BATCHES + 1):
        gradient = 0.1 * table
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        largest = np.maximum(largest, v)
        root = np.sqrt(largest / (1 - 0.999**step)) + 1e-8
        table = table - 0.01 * (m / (1 - 0.9**step)) / root
    np.testing.assert_allclose(moved[unread], table[unread], rtol=1e-4, atol=1e-6)
    before, after = train(optimizer=OptimizerConfig(decay_embedding=False))
    a, b = (s.params["embedding"]["table"][0, unread] for s in (before, after))
    np.testing.assert_array_equal(a, b)


def test_a_run_that_freezes_inside_a_span_keeps_all_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the rows that wait; the other run goes on."""
    text = bucket_of(False).tokens[np.random.default_rng(1).permutation(BATCHES * ROWS)[3 * ROWS]]

    def failing(objective: Objective) -> Objective:
        """Not finite where the run of epsilon 2 reads a text of its fourth batch."""

        def objective_(params, batch, hparams, key, neighbours=None):  # type: ignore[no-untyped-def]
            loss, sums = objective(params, batch, hparams, key, neighbours)
            bad = (hparams.epsilon == 2) & jnp.any(jnp.all(batch.tokens == text[None, :], axis=1))
            return jnp.where(bad, jnp.nan, loss), sums

        return objective_

    found = train(runs=2, wrapped=failing)[1]
    assert found.frozen_step.tolist() == [-1, 3]
    assert_same(found, on_whole_tables(monkeypatch, runs=2, wrapped=failing))


def test_lazy_rows_keep_values_and_moments() -> None:
    """What the second batch does not hold is as the first step left it; what it holds is not."""
    lazy = OptimizerConfig(lazy_embedding=True)
    after_one, after_two = (train(optimizer=lazy, steps=steps)[1] for steps in (1, 2))
    order = np.random.default_rng(0).permutation(BATCHES * ROWS)
    held = np.unique(np.asarray(bucket_of(False).tokens)[order[ROWS : 2 * ROWS]])
    others = np.setdiff1d(np.arange(VOCABULARY), held)
    moments = ((s.params["embedding"], *(m["embedding"] for m in s.opt_state[1][1:])) for s in (after_one, after_two))
    for one, two in zip(*(jax.tree.leaves(tree) for tree in moments), strict=True):
        np.testing.assert_array_equal(one[0, others], two[0, others])
        assert np.all(np.any(np.asarray(one[0, held] != two[0, held]), axis=1) | (held == 0))


def test_lazy_is_the_dense_update_as_long_as_nothing_else_moves() -> None:
    """Without L2, one step from zero moments moves only the rows of its batch."""
    dense, lazy = (
        train(optimizer=OptimizerConfig(decay_embedding=False, lazy_embedding=lazy), steps=1)[1]
        for lazy in (False, True)
    )
    assert_same(lazy, dense)


def test_the_lazy_option_is_refused_for_word_techniques() -> None:
    """In the technique as in a sweep."""
    for fields in ({"technique": "word_at"}, {"sweep": {"techniques": ("vanilla", "word_iat")}}):
        with pytest.raises(ConfigError, match="lazy_embedding is not for the word techniques"):
            parse({"optimizer": {"lazy_embedding": True}, **fields})


def test_a_span_is_what_there_is_room_for() -> None:
    """Three steps of two words; from the second on; with room for three rows."""
    words = jnp.array([[5, 1], [1, 2], [3, 1]])
    reads = rows.first_reads(words, jnp.int32(1), 6)
    np.testing.assert_array_equal(reads, [3, 1, 1, 2, 3, 3])
    assert [int(rows.last_that_fits(reads, 3, room)) for room in (1, 2, 3)] == [1, 2, 3]
    read = rows.rows_read(reads, jnp.int32(2), 3)
    np.testing.assert_array_equal(read.ids, [1, 2, 6])
    np.testing.assert_array_equal(read.places[jnp.array([1, 2])], [0, 1])
    everything = rows.rows_read(reads, jnp.int32(3), 3)
    np.testing.assert_array_equal(everything.ids, [1, 2, 3])
