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


class Rows(NamedTuple):
    """Which rows of a table `[V, E]` a span of steps reads.

    Attributes:
      ids: `[U]` int32 their numbers, ascending; V behind the last.
      places: `[V]` int32 where each of them stands in `ids`.
    """

    ids: Array
    places: Array


def small_table(config: OptimizerConfig, states: TrainState, words: Array) -> int | None:
    """How many rows U a small table has for steps of `words` `[..., S, W]`; None: the whole table is as good.

    As many as one step may read, so that every step has room; an eighth of V, so that most spans are of many steps.
    At most a quarter of V: larger ones take memory, and no less time.
    """
    rows, vocabulary = words.shape[-1], _tables(states)[0].shape[-2]
    if config.lazy_embedding:
        return min(rows, vocabulary)
    rows = max(rows, vocabulary // 8)
    return rows if 4 * rows <= vocabulary else None


Sums = TypeVar("Sums")


def on_small_tables(
    config: OptimizerConfig,
    room: int,
    each: Callable[..., Callable[..., Any]],
    step: Callable[[Array, Array, tuple[TrainState, Sums]], tuple[TrainState, Sums]],
    words: Array,
    hparams: Hparams,
    carry: tuple[TrainState, Sums],
    span: tuple[Array, Array],
) -> tuple[TrainState, Sums]:
    """States and sums after the steps of a span (first, end), as many at a time as read at most `room` rows.

    Args:
      config: the optimiser's.
      room: U, from `small_table`.
      each: `vmap` over runs, or nothing for one run without that axis.
      step: `step(places [R, V], number, (states, sums)) -> (states, sums)`, where word v stands at `places[v]`.
      words: `[R, S, W]` word ids of each step.
      hparams: of the runs.
      carry: states and sums.
      span: the first step and the one behind the last.
    """
    vocabulary, (first, last) = _tables(carry[0])[0].shape[-2], span

    def reads_from(start: Array) -> tuple[Array, Array]:
        """Which step from `start` on first reads each row `[R, V]`, and where the span that begins there ends."""
        reads = each(functools.partial(first_reads, vocabulary=vocabulary), in_axes=(0, None))(words, start)
        fit = each(functools.partial(last_that_fits, steps=words.shape[-2], rows=room))(reads)
        return reads, start + 1 if config.lazy_embedding else jnp.min(fit)

    # Spans follow from the words alone, wherever training was cut: the same rows are in the small table, bit for bit.
    start = jax.lax.while_loop(
        lambda start: reads_from(start)[1] <= first, lambda start: reads_from(start)[1], jnp.zeros_like(first)
    )

    def some(
        at: tuple[Array, Array, tuple[TrainState, Sums]],
    ) -> tuple[Array, Array, tuple[TrainState, Sums]]:
        """The rest of the span that begins at `start`; all runs take the same steps."""
        start, first, (states, sums) = at
        reads, end = reads_from(start)
        stop = jnp.minimum(end, last)
        rows = each(functools.partial(rows_read, rows=room), in_axes=(0, None))(reads, end)
        small = each(take)(states, rows)
        small, sums = jax.lax.fori_loop(first, stop, functools.partial(step, rows.places), (small, sums))
        if not config.lazy_embedding:
            rest = each(functools.partial(settle, config), in_axes=(0, 0, None, 0))
            states = rest(states, hparams, stop - first, small.step - states.step)
        return end, stop, (each(put_back)(states, small, rows), sums)

    return jax.lax.while_loop(lambda at: at[1] < last, some, (start, first, carry))[2]


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


def take(state: TrainState, rows: Rows) -> TrainState:
    """The state with tables `[U, E]` of these rows alone."""
    return _map_tables(lambda table: table.at[rows.ids].get(mode="clip", indices_are_sorted=True), state)


def put_back(whole: TrainState, small: TrainState, rows: Rows) -> TrainState:
    """The state of the small table, with the whole tables `[V, E]` in which these rows are new."""

    def put(old: Array, new: Array) -> Array:
        """One table."""
        return old.at[rows.ids].set(new, mode="drop", indices_are_sorted=True)

    tables = map(put, _tables(whole), _tables(small))
    return _map_tables(lambda _: next(tables), small)


def settle(config: OptimizerConfig, state: TrainState, hparams: Hparams, steps: Array, taken: Array) -> TrainState:
    """The state after the L2 steps of its whole tables: `taken` of `steps`, each with a gradient of zero."""
    optimizer = build_optimizer(config, hparams.learning_rate, hparams.weight_decay)
    tables = _tables(state)
    vocabulary = tables[0].shape[0]
    size = min(BLOCK_ROWS, vocabulary)

    def one(number: Array, state: TrainState) -> TrainState:
        """One step of a block."""
        grads = jax.tree.map(jnp.zeros_like, state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, good=number < taken)
        params = jax.tree.map(lambda p, u: jnp.where(number < taken, p + u, p), state.params, updates)
        return state._replace(params=params, opt_state=opt_state)

    def block(number: Array, tables: tuple[Array, ...]) -> tuple[Array, ...]:
        """All steps of one block of rows."""
        at = jnp.minimum(number * size, vocabulary - size)
        # Read as one array: a slice by itself would be fused into what reads it, and the tables copied for it.
        old = jnp.stack([jax.lax.dynamic_slice_in_dim(table, at, size) for table in tables])
        old = jax.lax.optimization_barrier(old)
        parts = iter(old)
        moved = jax.lax.fori_loop(0, steps, one, _map_tables(lambda _: next(parts), _only_tables(state)))
        # The last block begins before the end of the one before it, whose rows it leaves as they are.
        fresh = (at + jnp.arange(size) >= number * size)[:, None]
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(table, jnp.where(fresh, new, was), at, 0)
            for table, new, was in zip(tables, _tables(moved), old, strict=True)
        )

    done = iter(jax.lax.fori_loop(0, -(-vocabulary // size), block, tables))
    return _map_tables(lambda _: next(done), state)


def _is_table(path: tuple[Any, ...]) -> bool:
    """Whether a leaf of a state is the table or one of its moments."""
    return [getattr(key, "key", None) for key in path[-2:]] == ["embedding", "table"]


def _tables(state: TrainState) -> tuple[Array, ...]:
    """The table `[V, E]` and its three moments."""
    found = jax.tree_util.tree_flatten_with_path((state.params, state.opt_state))[0]
    return tuple(leaf for path, leaf in found if _is_table(path))


def _map_tables(function: Callable[[Array], Array], state: TrainState) -> TrainState:
    """The state with `function` of the table and of its moments, in the order of `_tables`."""

    def each(path: tuple[Any, ...], leaf: Array) -> Array:
        """One leaf."""
        return function(leaf) if _is_table(path) else leaf

    params, opt_state = jax.tree_util.tree_map_with_path(each, (state.params, state.opt_state))
    return state._replace(params=params, opt_state=opt_state)


def _only_tables(state: TrainState) -> TrainState:
    """The state without the parameters of all other groups, and their moments."""

    def only(node: Any) -> Any:
        """The group embedding of a pytree of all groups; anything else as it is."""
        return {"embedding": node["embedding"]} if isinstance(node, dict) else node

    params, opt_state = jax.tree.map(only, (state.params, state.opt_state), is_leaf=lambda node: isinstance(node, dict))
    return state._replace(params=params, opt_state=opt_state)
