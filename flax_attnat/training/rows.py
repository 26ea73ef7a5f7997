"""Steps on the rows of the embedding table that they read; the others take their L2 steps afterwards, all at once.

A row that no text of a step holds has the gradient `weight_decay * row` there, which no other row enters: its steps can
wait. So a span of steps trains a small table of the rows that it reads, and the whole table is passed over once for the
span and not in each step. The steps are those of the dense update, in the same order on every row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from flax_attnat.config import OptimizerConfig
from flax_attnat.objective import Hparams
from flax_attnat.training.optimizer import build_optimizer
from flax_attnat.training.step import TrainState
from flax_attnat.typing import Array

# Rows that take their steps together: their values and moments stay in a CPU's cache meanwhile.
BLOCK_ROWS = 512


Tables = tuple[Array, ...]
"""The embedding table and its moments, of many runs `[R, V, E]`, of some rows or of one run."""


class Rows(NamedTuple):
    """Which rows of a table `[V, E]` a span of steps reads.

    Attributes:
      ids: `[U]` int32 their numbers, ascending; V behind the last.
      places: `[V]` int32 where each of them stands in `ids`.
    """

    ids: Array
    places: Array


def small_table(config: OptimizerConfig, tables: Tables, words: Array) -> int | None:
    """How many rows U small tables have for steps of `words` `[..., S, W]`; None: the whole ones are as good.

    As many as one step may read, so that every step has room; an eighth of V, so that most spans are of many steps.
    At most a quarter of V: larger ones take memory, and no less time.
    """
    rows, vocabulary = words.shape[-1], tables[0].shape[-2]
    if config.lazy_embedding:
        return min(rows, vocabulary)
    rows = max(rows, vocabulary // 8)
    return rows if 4 * rows <= vocabulary else None


Sums = TypeVar("Sums")


def on_small_tables(
    config: OptimizerConfig,
    room: int,
    runs: Array,
    step: Callable[[Array, tuple[TrainState, Sums], Array], tuple[TrainState, Sums]],
    words: Array,
    hparams: Hparams,
    carry: tuple[Tables, TrainState, Sums],
    span: tuple[Array, Array],
) -> tuple[Tables, TrainState, Sums]:
    """Tables, states and sums after the steps of a span (first, end), as many at a time as read at most `room` rows.

    Args:
      config: the optimiser's.
      room: U, from `small_table`.
      runs: `[]` or `[r]` int32, the place in the tables of the run, or of neighbouring runs, that take the steps.
      step: `step(number, (states, sums), places [r, V]) -> (states, sums)`, where word v stands at `places[v]`.
      words: `[r, S, W]` word ids of each step; these and all others without the axis r for one run.
      hparams: of these runs.
      carry: the tables of all runs, which are changed in place; the states of these runs without tables; their sums.
      span: the first step and the one behind the last.
    """
    vocabulary, (first, last) = carry[0][0].shape[-2], span
    each = over(runs)

    def reads_from(start: Array) -> tuple[Array, Array]:
        """Which step from `start` on first reads each row `[r, V]`, and where the span that begins there ends."""
        reads = each(functools.partial(first_reads, vocabulary=vocabulary), in_axes=(0, None))(words, start)
        fit = each(functools.partial(last_that_fits, steps=words.shape[-2], rows=room))(reads)
        return reads, start + 1 if config.lazy_embedding else jnp.min(fit)

    # Spans follow from the words alone, wherever training was cut: the same rows are in the small table, bit for bit.
    start = jax.lax.while_loop(
        lambda start: reads_from(start)[1] <= first, lambda start: reads_from(start)[1], jnp.zeros_like(first)
    )

    def some(
        at: tuple[Array, Array, tuple[Tables, TrainState, Sums]],
    ) -> tuple[Array, Array, tuple[Tables, TrainState, Sums]]:
        """The rest of the span that begins at `start`; all runs take the same steps."""
        start, first, (tables, states, sums) = at
        reads, end = reads_from(start)
        stop = jnp.minimum(end, last)
        rows = each(functools.partial(rows_read, rows=room), in_axes=(0, None))(reads, end)
        small = join(states, take(tables, runs, rows))
        small, sums = jax.lax.fori_loop(
            first, stop, lambda number, carry: step(number, carry, rows.places), (small, sums)
        )
        if not config.lazy_embedding:
            tables = settle(config, tables, runs, states, hparams, stop - first, small.step - states.step)
        fresh, states = split(small)
        return end, stop, (put_back(tables, runs, fresh, rows), states, sums)

    return jax.lax.while_loop(lambda at: at[1] < last, some, (start, first, carry))[2]


def on_whole_tables(
    runs: Array,
    step: Callable[[Array, tuple[TrainState, Sums]], tuple[TrainState, Sums]],
    carry: tuple[Tables, TrainState, Sums],
    span: tuple[Array, Array],
) -> tuple[Tables, TrainState, Sums]:
    """The same with every row in every step, where words are given no places; arguments as of `on_small_tables`."""
    tables, states, sums = carry
    mine = tuple(_read(table, runs, 0, table.shape[-2]) for table in tables)
    states, sums = jax.lax.fori_loop(*span, step, (join(states, mine), sums))
    mine, states = split(states)
    return tuple(_write(table, runs, 0, part) for table, part in zip(tables, mine, strict=True)), states, sums


def over(runs: Array) -> Callable[..., Callable[..., Any]]:
    """`vmap` over runs `[r]`; for one run `[]`, which has no axis, the function itself."""
    return jax.vmap if runs.ndim else lambda function, in_axes=0: function


def first_reads(words: Array, first: Array, vocabulary: int) -> Array:
    """The step `[V]` of `words` `[S, W]`, from `first` on, that first reads each row; S where none does."""
    steps = jnp.arange(words.shape[0], dtype=jnp.int32)
    numbers = jnp.where(steps >= first, steps, words.shape[0])
    return jnp.full(vocabulary, words.shape[0], jnp.int32).at[words].min(numbers[:, None])


def last_that_fits(reads: Array, steps: int, rows: int) -> Array:
    """The end of the span (one beyond its last step of so many) in which at most `rows` rows are read."""
    count = jnp.sum(reads[:, None] <= jnp.arange(steps)[None, :], axis=0)
    return jnp.sum(count <= rows, dtype=jnp.int32)


def rows_read(reads: Array, end: Array, rows: int) -> Rows:
    """The rows that are read before the step `end`, at most `rows` of them."""
    vocabulary = reads.shape[0]
    mask = reads < end
    places = jnp.cumsum(mask, dtype=jnp.int32) - 1
    ids = jnp.full(rows, vocabulary, jnp.int32)
    ids = ids.at[jnp.where(mask, places, rows)].set(jnp.arange(vocabulary, dtype=jnp.int32), mode="drop")
    return Rows(ids, jnp.maximum(places, 0))


def take(tables: Tables, runs: Array, rows: Rows) -> Tables:
    """The tables `[r, U, E]` of these runs with these rows alone."""
    return tuple(table.at[runs[..., None], rows.ids].get(mode="clip") for table in tables)


def put_back(tables: Tables, runs: Array, small: Tables, rows: Rows) -> Tables:
    """The tables `[R, V, E]` in which these rows of these runs are new."""
    return tuple(
        table.at[runs[..., None], rows.ids].set(new, mode="drop") for table, new in zip(tables, small, strict=True)
    )


def settle(
    config: OptimizerConfig,
    tables: Tables,
    runs: Array,
    states: TrainState,
    hparams: Hparams,
    steps: Array,
    taken: Array,
) -> Tables:
    """The tables after the L2 steps of these runs: `taken` `[r]` of `steps`, each with a gradient of zero."""
    vocabulary = tables[0].shape[-2]
    size = min(BLOCK_ROWS, vocabulary)

    def moved(state: TrainState, hparams: Hparams, taken: Array) -> Tables:
        """All steps of one block of one run."""
        optimizer = build_optimizer(config, hparams.learning_rate, hparams.weight_decay)

        def one(number: Array, state: TrainState) -> TrainState:
            """One step."""
            grads = jax.tree.map(jnp.zeros_like, state.params)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params, good=number < taken)
            params = jax.tree.map(lambda p, u: jnp.where(number < taken, p + u, p), state.params, updates)
            return state._replace(params=params, opt_state=opt_state)

        return split(jax.lax.fori_loop(0, steps, one, state))[0]

    def block(number: Array, tables: Tables) -> Tables:
        """All steps of one block of rows."""
        at = jnp.minimum(number * size, vocabulary - size)
        # Read as one array: a slice by itself would be fused into what reads it, and the tables copied for it.
        old = jax.lax.optimization_barrier(jnp.stack([_read(table, runs, at, size) for table in tables]))
        new = over(runs)(moved)(_only_tables(join(states, tuple(old))), hparams, taken)
        # The last block begins before the end of the one before it, whose rows it leaves as they are.
        fresh = (at + jnp.arange(size) >= number * size)[:, None]
        kept = [jnp.where(fresh, mine, was) for mine, was in zip(new, old, strict=True)]
        return tuple(_write(table, runs, at, part) for table, part in zip(tables, kept, strict=True))

    return jax.lax.fori_loop(0, -(-vocabulary // size), block, tables)


def _read(table: Array, runs: Array, at: Array | int, size: int) -> Array:
    """So many rows `[r, size, E]` of these neighbouring runs of a table `[R, V, E]`, from the row `at` on."""
    part = jax.lax.dynamic_slice(table, (runs.reshape(-1)[0], at, 0), (runs.size, size, table.shape[-1]))
    return part.reshape(*runs.shape, *part.shape[1:])


def _write(table: Array, runs: Array, at: Array | int, part: Array) -> Array:
    """The table `[R, V, E]` with these rows `[r, size, E]`, from the row `at` on."""
    whole = part.reshape(runs.size, *part.shape[-2:])
    return jax.lax.dynamic_update_slice(table, whole, (runs.reshape(-1)[0], at, 0))


def _is_table(path: tuple[Any, ...]) -> bool:
    """Whether a leaf of a state is the table or one of its moments."""
    return [getattr(key, "key", None) for key in path[-2:]] == ["embedding", "table"]


def split(state: TrainState) -> tuple[Tables, TrainState]:
    """The table `[V, E]` and its moments, and the state with None in their places."""
    leaves, tree = jax.tree_util.tree_flatten_with_path((state.params, state.opt_state))
    rest = [None if _is_table(path) else leaf for path, leaf in leaves]
    params, opt_state = jax.tree.unflatten(tree, rest)
    tables = tuple(leaf for path, leaf in leaves if _is_table(path))
    return tables, state._replace(params=params, opt_state=opt_state)


def join(state: TrainState, tables: Tables) -> TrainState:
    """The state with these tables in their places; the inverse of `split`."""
    after = iter(tables)

    def each(path: tuple[Any, ...], leaf: Array | None) -> Array | None:
        """One leaf."""
        return next(after) if _is_table(path) else leaf

    params, opt_state = jax.tree_util.tree_map_with_path(
        each, (state.params, state.opt_state), is_leaf=lambda leaf: leaf is None
    )
    return state._replace(params=params, opt_state=opt_state)


def _only_tables(state: TrainState) -> TrainState:
    """The state without the parameters of all other groups, and their moments."""

    def only(node: Any) -> Any:
        """The group embedding of a pytree of all groups; anything else as it is."""
        return {"embedding": node["embedding"]} if isinstance(node, dict) else node

    params, opt_state = jax.tree.map(only, (state.params, state.opt_state), is_leaf=lambda node: isinstance(node, dict))
    return state._replace(params=params, opt_state=opt_state)
