"""The work that the speed benchmarks share: sizes of SST, random texts, our training program, fair timing."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_attnat.config import Config, ModelConfig
from flax_attnat.data.batches import Bucket
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.models.single import build_single
from flax_attnat.objective import Hparams, build_objective
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.population import Population, build_population, zero_sums
from flax_attnat.training.step import TrainState


class Sizes(NamedTuple):
    """Sizes of the work.

    Attributes:
      rows: B, texts in a batch.
      tokens: T, the width of the bucket.
      vocabulary: V.
      embedding: E.
      hidden: units in each direction.
      batches: S, steps that are timed together.
    """

    rows: int = 32
    tokens: int = 200
    vocabulary: int = 13_824
    embedding: int = 300
    hidden: int = 128
    batches: int = 10


class Texts(NamedTuple):
    """Random texts of which a batch takes B in their order.

    Attributes:
      bucket: S x B texts, their lengths evenly between T / 2 and T.
      rows: `[1, S, B]`, the texts of each batch.
    """

    bucket: Bucket
    rows: np.ndarray


def random_texts(sizes: Sizes, seed: int = 0) -> Texts:
    """Texts whose words have the frequencies of a language (Zipf's law), with labels at random."""
    rng = np.random.default_rng(seed)
    count = sizes.rows * sizes.batches
    lengths = rng.integers(sizes.tokens // 2, sizes.tokens + 1, count).astype(np.int32)
    lengths[:: sizes.rows] = sizes.tokens
    weight = 1 / np.arange(1, sizes.vocabulary - 1)
    words = 2 + rng.choice(sizes.vocabulary - 2, (count, sizes.tokens), p=weight / weight.sum()).astype(np.int32)
    tokens = np.where(np.arange(sizes.tokens)[None, :] < lengths[:, None], words, 0).astype(np.int32)
    labels = rng.integers(0, 2, count).astype(np.int32)
    order = np.arange(count, dtype=np.int32)
    return Texts(Bucket(tokens, lengths, labels, order), order.reshape(1, sizes.batches, sizes.rows))


class Ours(NamedTuple):
    """Our program for R runs.

    Attributes:
      population: its compiled functions.
      model: of one run.
      states: at the start, R on every leaf.
      run: `run(states, first=0, steps=S) -> (states, mean loss [R])`; donates the states.
    """

    population: Population
    model: Model
    states: TrainState
    run: Callable[..., tuple[TrainState, Any]]


def build_ours(technique: str, sizes: Sizes, runs: int = 1, **fields: Any) -> Ours:
    """The program that launch.train and launch.ablate run, on random texts.

    Args:
      technique: its name.
      sizes: of the work.
      runs: R; epsilon differs between them.
      fields: of the configuration, `reading` say.
    """
    model_config = ModelConfig(embedding_size=sizes.embedding, hidden_size=sizes.hidden)
    config = dataclasses.replace(Config(), technique=technique, model=model_config, **fields)
    weight = 1 / np.arange(1, sizes.vocabulary + 1)
    words = EmbeddingInit(weight / weight.sum())
    normalise = config.word.normalise and technique.startswith("word_")
    model = build_single(config.model, words, normalise=normalise)
    objective = build_objective(config, model)
    valid = np.arange(sizes.vocabulary) > 1
    population = build_population(config, model, objective, METRICS["auc"], valid, make_mesh(devices=1))
    texts = jax.device_put(random_texts(sizes))
    epsilon = np.linspace(1, 5, runs, dtype=np.float32)
    one = np.ones(runs, np.float32)
    hparams = jax.device_put(Hparams(epsilon, one, 1e-3 * one, 1e-5 * one))
    seeds = jax.device_put(np.zeros(runs, np.int32))
    states = population.init(seeds)
    neighbours = population.refresh(states.params)
    rows = jax.device_put(np.broadcast_to(np.asarray(texts.rows), (runs, *texts.rows.shape[1:])))

    def run(states: TrainState, first: int = 0, steps: int = sizes.batches) -> tuple[TrainState, Any]:
        """So many steps from one of the batches on."""
        where = np.zeros(rows.shape[1], np.int32), rows, np.int32(first), np.int32(steps)
        states, sums = population.run_chunk(
            states, zero_sums(runs), (texts.bucket,), *where, hparams, seeds, neighbours
        )
        return states, sums.loss / sums.rows

    return Ours(population, model, states, run)


def repeat(ours: Ours) -> Callable[[], None]:
    """A call that trains S steps further, from where the last one stopped, and waits for them."""
    states = [ours.states]

    def call() -> None:
        """S steps."""
        states[0], loss = ours.run(states[0])
        jax.block_until_ready(loss)

    return call


def medians(calls: Mapping[str, Callable[[], None]], times: int) -> dict[str, float]:
    """Median seconds of each call, one after another in turn, so that what slows the machine slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(times):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def ratios(seconds: Mapping[str, float], pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Seconds of the first over seconds of the second, by "first / second"."""
    return {f"{one} / {other}": seconds[one] / seconds[other] for one, other in pairs}


def read_flags(argv: Sequence[str]) -> dict[str, str]:
    """The flags of a command line, `--name=value` or `--name`, by name."""
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in argv[1:])  # type: ignore[misc]


def save_record(flags: Mapping[str, str], measured: Mapping[str, Any]) -> None:
    """Writes what was measured, and on what, to the file that the flag json names, if it does."""
    record = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, **measured}
    if "json" in flags:
        Path(flags["json"]).write_text(json.dumps(record, indent=1) + "\n")
