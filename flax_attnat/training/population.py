"""A population: R runs of one technique in one compiled program, a leading axis R on every leaf of the state.

Devices share the runs without communication (`mesh.over_runs`); a batch may be shared along the mesh's data axis.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flax_attnat.compiled import compiler_options
from flax_attnat.config import Config, OptimizerConfig
from flax_attnat.data.batches import Bucket, gather
from flax_attnat.models.model import Model, probabilities
from flax_attnat.objective import Hparams, Objective, StepSums, adapt_optimizer
from flax_attnat.perturbation.word import nearest_neighbours
from flax_attnat.training.chunk import build_chunk
from flax_attnat.training.mesh import BY_RUN, WHOLE, over_runs, share_batch
from flax_attnat.training.runs import Run
from flax_attnat.training.step import TrainState, build_step_parts, init_state
from flax_attnat.typing import Array, Batch, Params

# Rows per batch where nothing is trained.
EVALUATION_ROWS = 128


class Population(NamedTuple):
    """The compiled functions of R runs.

    Attributes:
      init: `init(seeds [R]) -> states`.
      run_chunk: `run_chunk(states, sums, buckets, which [S], rows [R, S, B], first, steps, hparams, seeds [R],
        neighbours) -> (states, sums)`: the batches `first` to `first + steps` of S, one after another, batch i of
        bucket `which[i]`. States and sums are donated.
      refresh: `refresh(params) -> neighbours [R, V, K]`, or None where the technique reads none.
      predict: `predict(params, bucket) -> [R, N, C]` probabilities of the classes, C >= 2.
      select: `select(states, probability [R, N, C], labels [N], epoch) -> (states, metric [R])`: keeps the parameters
        of a run whose dev metric is its best so far. States are donated.
    """

    init: Callable[[Array], TrainState]
    run_chunk: Callable[..., tuple[TrainState, StepSums]]
    refresh: Callable[[Params], Array | None]
    predict: Callable[[Params, Bucket], Array]
    select: Callable[[TrainState, Array, Array, int | Array], tuple[TrainState, Array]]


Metric = Callable[[Array, Array], Array]
"""`metric(probability [N, C], label [N]) -> scalar`, higher is better."""


def build_population(
    config: Config, model: Model, objective: Objective, metric: Metric, valid_words: np.ndarray, mesh: Mesh
) -> Population:
    """Compiles nothing yet: each function is compiled at its first call, `predict` once per bucket shape.

    Args:
      config: technique, optimiser, selection.
      model: the four functions.
      objective: of one run.
      metric: what the best epoch is chosen by, on dev.
      valid_words: `[V]` true on words that may be neighbours of others.
      mesh: the devices.

    Returns:
      A `Population`; R is the length of the seeds it is called with, a multiple of the mesh's run axis.
    """
    reads_neighbours = config.technique == "word_iat"
    optimizer = adapt_optimizer(config.technique, config.optimizer)
    step = build_step_parts(objective, optimizer)
    run, all_ = BY_RUN, WHOLE
    platform = mesh.devices.flat[0].platform

    def compiled(function: Callable, *specs: object, donate: tuple[int, ...] = ()) -> Callable:
        """`function` over the runs of the mesh, to be compiled at its first call."""
        shared = over_runs(function, mesh, *specs)  # type: ignore[arg-type]
        return jax.jit(shared, donate_argnums=donate, compiler_options=compiler_options(platform))

    refresh = functools.partial(_refresh, model, config.word.neighbours, valid_words)
    together = config.population.runs_together or (1 if platform == "cpu" else None)
    # Word techniques read the whole table. Small tables pay on a CPU; elsewhere a pass over memory is cheap.
    pays = platform == "cpu" or optimizer.lazy_embedding
    some_rows = optimizer if pays and not config.technique.startswith("word_") else None
    chunk = build_chunk(step, mesh, model, some_rows, together)
    return Population(
        init=compiled(functools.partial(_init, model, optimizer), run),
        run_chunk=compiled(chunk, run, run, all_, all_, run, all_, all_, run, run, run, donate=(0, 1)),
        refresh=compiled(refresh, run) if reads_neighbours else lambda params: None,
        predict=compiled(functools.partial(_predict, model, mesh), run, all_),
        select=compiled(functools.partial(_select, metric), run, run, all_, all_, donate=(0,)),
    )


def _init(model: Model, config: OptimizerConfig, seeds: Array) -> TrainState:
    """States of R runs; runs of one seed start from the same parameters."""
    return jax.vmap(lambda seed: init_state(model.init(jax.random.key(seed)), config))(seeds)


def _refresh(model: Model, k: int, valid_words: np.ndarray, params: Params) -> Array:
    """Neighbours `[R, V, K]` of every word under each run's present vectors, one run at a time."""
    valid = jnp.asarray(valid_words)
    return jax.lax.map(lambda p: nearest_neighbours(model.table(p), k, valid=valid), params)


def _predict(model: Model, mesh: Mesh, params: Params, bucket: Bucket) -> Array:
    """Probabilities `[R, N, C]` of the classes."""

    def one(params: Params, batch: Batch) -> Array:
        """Probabilities `[B, C]` of one run and batch."""
        encoded = model.encode(params, model.embed(params, batch), batch)
        return probabilities(model.classify(params, encoded, model.score(params, encoded)))

    def each(rows: Array) -> Array:
        """Probabilities `[R, B, C]` of one batch under every run."""
        return jax.vmap(one, in_axes=(0, None))(params, share_batch(mesh, gather(bucket, rows), axis=0))

    size = bucket.tokens.shape[0]
    out = jax.lax.map(each, jnp.asarray(evaluation_rows(size)))
    return jnp.moveaxis(out, 1, 0).reshape(out.shape[1], -1, out.shape[-1])[:, :size]


def _select(
    metric: Metric, states: TrainState, probability: Array, labels: Array, epoch: Array
) -> tuple[TrainState, Array]:
    """States with the best parameters so far, and the metric `[R]` of this epoch."""
    values = jax.vmap(metric, in_axes=(0, None))(probability, labels)
    # An undefined metric (one class only) still makes the first epoch the best; a run without a good step has none.
    better = (jnp.nan_to_num(values, nan=-1.0) > states.best_metric) & (states.step > 0)

    def best(new: Array, old: Array) -> Array:
        """New values for the runs that got better; any trailing shape."""
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 1)), new, old)

    chosen = states._replace(
        best_params=jax.tree.map(best, states.params, states.best_params),
        best_metric=best(jnp.nan_to_num(values, nan=-1.0), states.best_metric),
        best_epoch=best(jnp.full_like(states.best_epoch, epoch), states.best_epoch),
    )
    return chosen, values


def evaluation_rows(size: int, most: int = EVALUATION_ROWS) -> np.ndarray:
    """Rows `[batches, B]` int32 that visit 0..size-1 in order, at most `most` at once, filled up with -1."""
    width = min(most, max(size, 1))
    rows = np.full(-(-size // width) * width, -1, np.int32)
    rows[:size] = np.arange(size)
    return rows.reshape(-1, width)


def zero_sums(runs: int) -> StepSums:
    """Sums of an epoch before its first step, each `[R]` on the host."""
    return StepSums(*(np.zeros(runs, np.float32) for _ in StepSums._fields))  # type: ignore[arg-type]


def make_hparams(runs: Sequence[Run]) -> Hparams:
    """The hyper-parameters of R runs, each `[R]` float32 on the host."""
    columns = ([getattr(run, name) for run in runs] for name in Hparams._fields)
    return Hparams(*(np.array(column, np.float32) for column in columns))  # type: ignore[arg-type]
