"""Every dataset that has a raw file, by name."""

import importlib
from typing import Any

from flax_attnat.data.source import Source

# A package `flax_attnat.data.NAME` with `source.py` (SOURCE) and `NAME_dataset_builder.py` (Builder) for each.
NAMES = (
    *("sst", "imdb", "newsgroups", "ag_news", "babi1", "babi2", "babi3", "cnn", "snli", "multi_nli"),
    "movies",
)


def source(name: str) -> Source:
    """What the package of dataset `name` says of it."""
    return importlib.import_module(f"flax_attnat.data.{name}.source").SOURCE


def builder_class(name: str) -> Any:
    """The TensorFlow Datasets builder of dataset `name`."""
    return importlib.import_module(f"flax_attnat.data.{name}.{name}_dataset_builder").Builder
