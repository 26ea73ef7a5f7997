"""A configuration and its data, made into what training and evaluation call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config
from flax_attnat.data.batches import Bucket, make_buckets
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.errors import DataError
from flax_attnat.data.vectors import Vectors
from flax_attnat.models.build import build
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.objective import build_objective
from flax_attnat.training.population import Metric, Population, build_population
from flax_attnat.typing import Array


class Trainer(NamedTuple):
    """What training and evaluation need, built once from a configuration and its data.

    Attributes:
      config: the configuration.
      dataset: texts, vocabulary, label names.
      model: the four functions.
      population: the compiled functions of R runs.
      buckets: length buckets of each split, on the device.
      seeds: `[R]` int32.
    """

    config: Config
    dataset: Dataset
    model: Model
    population: Population
    buckets: dict[str, list[Bucket]]
    seeds: Array


def build_trainer(config: Config, dataset: Dataset, vectors: Vectors | None, metric: Metric) -> Trainer:
    """Model, objective and compiled functions for a dataset; its buckets go to the device.

    Args:
      config: the configuration.
      dataset: splits train and dev, at least.
      vectors: pretrained vectors of the vocabulary, or None.
      metric: what the best epoch is chosen by.

    Raises:
      DataError: the training texts are all of one class.
      ConfigError: word_iat asks for more neighbours than there are other words; the AUC is asked to select among more
        than two classes.
    """
    _check_fit(config, dataset)
    counts = dataset.vocabulary.counts.astype(np.float64)
    initial = EmbeddingInit(counts / max(counts.sum(), 1), *(vectors or (None, None)))
    train = dataset.splits["train"]
    model = build(
        config.model,
        initial,
        classes=len(dataset.label_names),
        pair=train.queries is not None,
        normalise=config.word.normalise and config.technique.startswith("word_"),
        perturb=config.word.perturb,
        entity_classes=dataset.entity_classes,
    )
    pos_weight = float(np.sum(train.labels == 0) / max(np.sum(train.labels == 1), 1))
    valid_words = np.arange(len(counts)) > 1
    return Trainer(
        config=config,
        dataset=dataset,
        model=model,
        population=build_population(config, model, build_objective(config, model, pos_weight), metric, valid_words),
        buckets={
            name: [jax.tree.map(jnp.asarray, bucket) for bucket in make_buckets(split, config.data.bucket_widths)]
            for name, split in dataset.splits.items()
        },
        seeds=jnp.asarray(config.seeds, jnp.int32),
    )


def _check_fit(config: Config, dataset: Dataset) -> None:
    """Raises if this configuration cannot be trained on these data."""
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
    words = len(dataset.vocabulary.words) - 2
    wanted = config.word.neighbours
    if config.technique == "word_iat" and wanted >= words:
        raise ConfigError(
            f"config.word.neighbours must be below the number of training words ({words:,}); got {wanted}."
        )
