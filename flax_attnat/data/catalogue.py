"""Every dataset that has a raw file, by name; and how the texts of any dataset are cut into words."""

import importlib
from typing import Any

from flax_attnat.data.corpus import Cut
from flax_attnat.data.source import Source, spaced_words, story_words
from flax_attnat.data.text import clean

# A package `flax_attnat.data.NAME` with `source.py` (SOURCE) and `NAME_dataset_builder.py` (Builder) for each.
NAMES = (
    *("sst", "imdb", "newsgroups", "ag_news", "babi1", "babi2", "babi3", "cnn", "snli", "multi_nli"),
    "movies",
)


def source(name: str) -> Source:
    """What the package of dataset `name` says of it."""
    return importlib.import_module(f"flax_attnat.data.{name}.source").SOURCE


def text_rules(name: str) -> tuple[Cut, bool]:
    """How dataset `name`, with a raw file or without, cuts a text into words, and whether its texts name their classes.

    Args:
      name: of `flax_attnat.allowed.DATASETS`.

    Returns:
      `cut(text) -> words`, and whether a class is possible only where the text has its name (CNN's entities).

    >>> text_rules("custom")[0]("Isn't it?"), text_rules("cnn")[1]
    (('is', "n't", 'it', '?'), True)
    """
    if name.startswith(("babi", "simulated")):
        return story_words, False
    if name == "planted":
        return spaced_words, False
    if name == "custom":
        return clean, False
    found = source(name)
    return found.words, bool(found.entity_prefix)


def builder_class(name: str) -> Any:
    """The TensorFlow Datasets builder of dataset `name`."""
    return importlib.import_module(f"flax_attnat.data.{name}.{name}_dataset_builder").Builder
