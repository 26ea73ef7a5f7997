"""A configuration and its data, made into what training and evaluation call."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config
from flax_attnat.data.batches import Bucket, make_buckets
from flax_attnat.data.dataset import Dataset, checksum
from flax_attnat.data.errors import DataError
from flax_attnat.data.vectors import Vectors
from flax_attnat.data.vocabulary import Vocabulary
from flax_attnat.models.build import build
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.objective import Hparams, adapt_model, build_objective
from flax_attnat.training.mesh import BY_RUN, WHOLE, make_mesh, padded, put
from flax_attnat.training.population import Metric, Population, build_population, make_hparams
from flax_attnat.training.runs import Cohort, Run, cohorts
from flax_attnat.typing import Array


class Trainer(NamedTuple):
    """What training and evaluation need, built once for a technique and its data.

    Attributes:
      config: the configuration, of one technique.
      runs: what is trained together.
      dataset: texts, vocabulary, label names.
      model: the four functions.
      mesh: the devices.
      population: the compiled functions of R runs.
      buckets: length buckets of each split, on every device.
      seeds: `[R]` int32; R is the number of runs, filled up to what the devices divide by copies of the last one.
      hparams: hyper-parameters `[R]`.
      checksums: by split that decides on parameters, how many texts it has, and a checksum of them.
    """

    config: Config
    runs: tuple[Run, ...]
    dataset: Dataset
    model: Model
    mesh: Mesh
    population: Population
    buckets: dict[str, list[Bucket]]
    seeds: Array
    hparams: Hparams
    checksums: dict[str, dict[str, Any]]

    @property
    def cohort(self) -> Cohort:
        """The configuration and the runs."""
        return Cohort(self.config, self.runs)


def put_buckets(config: Config, dataset: Dataset, mesh: Mesh) -> dict[str, list[Bucket]]:
    """The length buckets of each split, on every device."""
    return {
        name: [put(mesh, WHOLE, bucket) for bucket in make_buckets(split, config.data.bucket_widths)]
        for name, split in dataset.splits.items()
    }


def build_trainer(
    config: Config,
    dataset: Dataset,
    vectors: Vectors | None,
    metric: Metric,
    *,
    mesh: Mesh | None = None,
    buckets: dict[str, list[Bucket]] | None = None,
) -> Trainer:
    """Model, objective and compiled functions of one technique; with the first cohort's runs of the configuration.

    Args:
      config: the configuration; of what it sweeps, only its first technique and reading count.
      dataset: splits train and dev, at least.
      vectors: pretrained vectors of the vocabulary, or None.
      metric: what the best epoch is chosen by.
      mesh: the devices; None: all there are.
      buckets: from `put_buckets`, where techniques share them; None: they are put on the devices now.

    Raises:
      DataError: the training texts are all of one class.
      ConfigError: word_iat asks for more neighbours than there are other words; the AUC is asked to select among more
        than two classes; frozen attention has no parameters.
    """
    config, runs = cohorts(config)[0]
    check_fit(config, dataset)
    mesh = make_mesh(config.population.data_shards) if mesh is None else mesh
    train = dataset.splits["train"]
    model = build_model(
        config,
        dataset.vocabulary,
        classes=len(dataset.label_names),
        pair=train.queries is not None,
        entity_classes=dataset.entity_classes,
        vectors=vectors,
    )
    pos_weight = float(np.sum(train.labels == 0) / max(np.sum(train.labels == 1), 1))
    valid_words = np.arange(len(dataset.vocabulary.words)) > 1
    objective = build_objective(config, model, pos_weight)
    return Trainer(
        config=config,
        runs=runs,
        dataset=dataset,
        model=model,
        mesh=mesh,
        population=build_population(config, model, objective, metric, valid_words, mesh),
        buckets=put_buckets(config, dataset, mesh) if buckets is None else buckets,
        **_put_runs(mesh, runs),
        checksums={
            name: {"texts": len(split.labels), "crc32": checksum(split)}
            for name, split in dataset.splits.items()
            if name in ("train", "dev")
        },
    )


def build_model(
    config: Config,
    vocabulary: Vocabulary,
    *,
    classes: int,
    pair: bool,
    entity_classes: np.ndarray | None = None,
    vectors: Vectors | None = None,
) -> Model:
    """The model that `config.technique` trains.

    Args:
      config: the configuration, of one technique.
      vocabulary: V words; the word techniques normalise by their counts.
      classes: C.
      pair: whether a text has a query.
      entity_classes: `[V]` class id of a word that names a class, else -1; None: every class is always possible.
      vectors: pretrained vectors of the vocabulary, or None; only `init` reads them.
    """
    counts = vocabulary.counts.astype(np.float64)
    model = build(
        config.model,
        EmbeddingInit(counts / max(counts.sum(), 1), *(vectors or (None, None))),
        classes=classes,
        pair=pair,
        normalise=config.word.normalise and config.technique.startswith("word_"),
        perturb=config.word.perturb,
        entity_classes=entity_classes,
    )
    return adapt_model(config.technique, model)


def with_runs(trainer: Trainer, runs: Sequence[Run], *, filled: int = 0) -> Trainer:
    """The trainer of other runs of the same technique; what was compiled stays, if R does.

    Args:
      trainer: of this technique.
      runs: what to train.
      filled: R is at least this, so that parts of unequal size share one program.
    """
    return trainer._replace(runs=tuple(runs), **_put_runs(trainer.mesh, runs, filled))


def _put_runs(mesh: Mesh, runs: Sequence[Run], least: int = 0) -> dict[str, Any]:
    """Seeds and hyper-parameters `[R]` on the devices, filled up with copies of the last run."""
    filled = [*runs, *[runs[-1]] * (padded(max(len(runs), least), mesh) - len(runs))]
    seeds = np.array([run.seed for run in filled], np.int32)
    return {"seeds": put(mesh, BY_RUN, seeds), "hparams": put(mesh, BY_RUN, make_hparams(filled))}


def check_fit(config: Config, dataset: Dataset) -> None:
    """Makes sure, before anything is trained, that one technique can be trained on these data.

    Raises:
      DataError: the training texts are all of one class.
      ConfigError: word_iat asks for more neighbours than there are other words; the AUC is asked to select among more
        than two classes; frozen attention has no parameters.
    """
    present = sorted({int(label) for label in dataset.splits["train"].labels})
    if len(present) < 2:
        name = dataset.label_names[present[0]] if present else "none"
        raise DataError(
            f"{dataset.name}: all {len(dataset.splits['train'].labels):,} training texts are of one class ({name}); "
            "there is nothing to learn. Check the raw file and the length filter (config.data.min_length, max_length)."
        )
    classes = len(dataset.label_names)
    if config.training.selection == "auc" and classes > 2:
        raise ConfigError(
            f"config.training.selection: the AUC is that of two classes and {dataset.name} has {classes}; say accuracy."
        )
    pair = dataset.splits["train"].queries is not None
    if config.technique == "frozen" and pair and config.model.attention == "scaled_dot":
        raise ConfigError(
            "config.technique frozen keeps the attention's parameters as they start, and the scaled dot product of a"
            " pair has none: leave frozen out, or say --config.model.attention=additive."
        )
    words = len(dataset.vocabulary.words) - 2
    wanted = config.word.neighbours
    if config.technique == "word_iat" and wanted >= words:
        raise ConfigError(
            f"config.word.neighbours must be below the number of training words ({words:,}); got {wanted}."
        )
