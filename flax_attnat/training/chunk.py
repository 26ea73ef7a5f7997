"""A chunk of batches, one after another, in one loop on the device: for all runs, or for some and then the next."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flax_attnat.config import OptimizerConfig
from flax_attnat.data.batches import Bucket, gather
from flax_attnat.models.model import Model
from flax_attnat.objective import Hparams, StepSums
from flax_attnat.training.mesh import share_batch
from flax_attnat.training.rows import Tables, join, on_small_tables, on_whole_tables, over, small_table, split
from flax_attnat.training.step import Found, StepParts, TrainState
from flax_attnat.typing import Array, Batch


class Texts(NamedTuple):
    """What the batches of a chunk are made of.

    Attributes:
      buckets: the training buckets.
      which: `[S]` int32 number of each batch's bucket.
    """

    buckets: tuple[Bucket, ...]
    which: Array


def build_chunk(
    step: StepParts, mesh: Mesh, model: Model, some_rows: OptimizerConfig | None, together: int | None
) -> Callable[..., tuple[TrainState, StepSums]]:
    """`run_chunk` of all runs, `together` of them side by side and then the next so many; None: all at once.

    With `some_rows`, their optimiser, steps train small tables of the rows that they read. On a CPU one run fills the
    cores, and its state the cache: runs side by side would only read more memory in each step. A group's state, its
    tables excepted, is read and written once for all steps of a chunk.
    """
    chunk = functools.partial(_some_runs, step, mesh, model, some_rows)

    def run_chunk(
        states: TrainState,
        sums: StepSums,
        buckets: tuple[Bucket, ...],
        which: Array,
        rows: Array,
        first: Array,
        steps: Array,
        hparams: Hparams,
        seeds: Array,
        neighbours: Array | None,
    ) -> tuple[TrainState, StepSums]:
        """States and sums of R runs after the batches `first` to `first + steps` of `rows` `[R, S, B]`."""
        # What no step reads stays where it is.
        best = states.best_params
        tables, states = split(states._replace(best_params=None))
        texts, span, given = Texts(buckets, which), (first, steps), (rows, hparams, seeds, neighbours)
        runs = seeds.shape[0]
        size = max(k for k in range(1, min(together or runs, runs) + 1) if runs % k == 0)

        def group(number: Array, carry: tuple[Tables, TrainState, StepSums]) -> tuple[Tables, TrainState, StepSums]:
            """The carry after the chunk of one group."""
            at, (tables, *own) = number * size, carry
            mine, theirs = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, size), (own, given))
            tables, *new = chunk(texts, span, at + jnp.arange(size), (tables, *mine), theirs)
            put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=at, axis=0)
            states, sums = jax.tree.map(put, own, new)
            return tables, states, sums

        if size == runs:
            tables, states, sums = chunk(texts, span, jnp.arange(runs), (tables, states, sums), given)
        else:
            tables, states, sums = jax.lax.fori_loop(0, runs // size, group, (tables, states, sums))
        return join(states, tables)._replace(best_params=best), sums

    return run_chunk


def _some_runs(
    step: StepParts,
    mesh: Mesh,
    model: Model,
    some_rows: OptimizerConfig | None,
    texts: Texts,
    span: tuple[Array, Array],
    runs: Array,
    carry: tuple[Tables, TrainState, StepSums],
    given: tuple[Array, Hparams, Array, Array | None],
) -> tuple[Tables, TrainState, StepSums]:
    """A span (first batch, number) of the batches of `given` rows `[r, S, B]`, one after another, for some runs.

    The tables are those of all R runs, changed in place at `runs` `[r]`; states, without tables, and sums are of the r.
    """
    rows, hparams, seeds, neighbours = given
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 1))(seeds)
    fixed = (hparams, keys, neighbours)
    tables, states, sums = carry
    # A run by itself has no axis r: a CPU's compiler does better without.
    alone = runs.size == 1
    if alone:
        runs, states, sums, rows, fixed = jax.tree.map(lambda x: x[0], (runs, states, sums, rows, fixed))
        hparams = fixed[0]
    each = over(runs)

    gradient = _gradient(step, mesh, model, texts, each, 0 if alone else 1)

    def one(
        number: Array, carry: tuple[TrainState, StepSums], places: Array | None = None
    ) -> tuple[TrainState, StepSums]:
        """One step of these runs."""
        states, sums = carry
        found = gradient(number, rows[number] if alone else rows[:, number], places, states, *fixed)
        states, new = each(step.update)(states, found, fixed[0])
        return states, jax.tree.map(jnp.add, sums, new)

    ends = span[0], span[0] + span[1]
    words = each(functools.partial(_words, model, texts))(rows)
    room = None if some_rows is None else small_table(some_rows, tables, words)
    carry = tables, states, sums
    if some_rows is None or room is None:
        tables, states, sums = on_whole_tables(runs, one, carry, ends)
    else:
        tables, states, sums = on_small_tables(some_rows, room, runs, one, words, hparams, carry, ends)
    return tables, *(jax.tree.map(lambda x: x[None], (states, sums)) if alone else (states, sums))


def _gradient(
    step: StepParts, mesh: Mesh, model: Model, texts: Texts, each: Callable, axis: int
) -> Callable[..., Found]:
    """`gradient(number, rows, places, states, *fixed)`: what batch `number` of a chunk says of some runs.

    Its rows are `[r, B]`, shared along `axis`. The bucket decides this alone: a choice between states would copy them.
    """

    def batch_of(bucket: Bucket, rows: Array, places: Array | None) -> Batch:
        """The batch of rows `[B]`, a gather on the device, with the places `[V]` of its words in a small table."""
        batch = gather(bucket, rows)
        return batch if places is None else batch._replace(places=places[model.tokens(batch)[0]])

    def of_bucket(bucket: Bucket, rows: Array, places: Array | None, states: TrainState, *fixed: Any) -> Found:
        """What rows `[r, B]` of a bucket say."""
        batch = share_batch(mesh, each(functools.partial(batch_of, bucket))(rows, places), axis=axis)
        return each(step.gradient)(states, batch, *fixed)

    widths = [functools.partial(of_bucket, bucket) for bucket in texts.buckets]

    def gradient(number: Array, *given: Any) -> Found:
        """What batch `number` says, by the program of its width."""
        return widths[0](*given) if len(widths) == 1 else jax.lax.switch(texts.which[number], widths, *given)

    return gradient


def _words(model: Model, texts: Texts, rows: Array) -> Array:
    """Word ids `[S, B * W]` of batches of rows `[S, B]`, W the largest width of any bucket, with zeros behind each."""
    found = []
    for number, bucket in enumerate(texts.buckets):
        mine = jnp.where(texts.which[:, None] == number, rows, -1)
        found.append(model.tokens(gather(bucket, mine.reshape(-1)))[0].reshape(rows.shape[0], -1))
    widest = max(words.shape[-1] for words in found)
    padded = [jnp.pad(words, ((0, 0), (0, widest - words.shape[-1]))) for words in found]
    return functools.reduce(jnp.add, padded)
