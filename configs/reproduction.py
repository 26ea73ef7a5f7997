r"""The grid that tells what of the paper holds: techniques, readings, epsilons and seeds of every data set.

`launch.reproduce` trains it in an order that answers the paper's claims first, as far as its hours go, and writes
`docs/reproduction.md`. The whole grid of one data set in one workdir (of SST; of another one with its name behind a
colon, `--config=configs/reproduction.py:imdb`):

    python -m launch.ablate --config=configs/reproduction.py --config.data.raw_dir=DIR --workdir=runs/grid_sst

Needs what the configuration of the data set needs, and pretrained vectors by `--config.data.vectors=FILE`.
"""

import importlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import ml_collections

from flax_attnat.reproduction.settings import READINGS, Name, main_variant

DATASETS = ("sst", "babi1", "newsgroups", "imdb", "ag_news", "babi2", "babi3", "snli", "multi_nli", "cnn")
PARTIAL = ("imdb", "ag_news")
"""What is large: on a CPU fewer techniques, epsilons and seeds of it."""
EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
SEEDS = (0, 1, 2, 3, 4)


class Part(NamedTuple):
    """Runs of one setting, which differ in their seed.

    Attributes:
      dataset: its name.
      variant: "pretrained" (vectors, additive attention), "random" (vectors), or "scaled_dot" (attention).
      technique: its name.
      reading: of attention_iat; None for the others.
      epsilon: None for vanilla; "chosen": the one that is best on dev among the main variant's.
      seeds: of the runs.
    """

    dataset: str
    variant: str
    technique: str
    reading: str | None
    epsilon: float | str | None
    seeds: tuple[int, ...]


def get_config(dataset: str = "sst") -> ml_collections.ConfigDict:
    """The whole grid of a data set, for launch.ablate."""
    config = base(dataset)
    config.sweep.techniques = ("vanilla", "attention_rp", "attention_at", "attention_iat", "word_at", "word_iat")
    config.sweep.readings = READINGS
    config.sweep.epsilons = EPSILONS
    config.seeds = SEEDS
    return config


def base(dataset: str) -> ml_collections.ConfigDict:
    """The configuration of a data set."""
    return importlib.import_module(f"configs.{dataset}").get_config()


def parts(datasets: tuple[str, ...], *, full: bool) -> list[Part]:
    """What is trained, in its order: of every data set what answers the claims first, then the ends of the curves.

    Args:
      datasets: some of DATASETS, in their order.
      full: all twelve epsilons and five seeds of every data set; otherwise what two CPU cores can do in days.
    """
    stages = [list(_stages(dataset, full)) for dataset in datasets]
    found = [part for together in itertools.zip_longest(*stages, fillvalue=[]) for stage in together for part in stage]
    return list(dict.fromkeys(found))


def _stages(dataset: str, full: bool) -> Iterator[list[Part]]:
    """The stages of one data set, first things first."""
    main = main_variant(dataset)
    small = dataset in PARTIAL and not full
    seeds = SEEDS if full else SEEDS[: 2 if small else 3]
    at: list[Name] = [("attention_at", None)]
    iat: list[Name] = [("attention_iat", reading) for reading in READINGS]
    words: list[Name] = [("word_at", None), ("word_iat", None)]
    noise: list[Name] = [("attention_rp", None)]

    def of(variant: str, names: list[Name], *epsilons: float | str | None) -> list[Part]:
        """Parts of some techniques at some epsilons."""
        return [
            Part(dataset, variant, name, reading, None if name == "vanilla" else epsilon, seeds)
            for epsilon in epsilons
            for name, reading in names
        ]

    plain = of(main, [("vanilla", None)], None)
    if small:
        yield plain + of(main, at + iat[:2], 1.0, 5.0)
        yield of(main, at, 0.0) + of(main, noise, 1.0, 5.0)
        return
    controls = of(main, at, 0.0)
    yield plain + controls + of(main, noise + at + iat[:2], 1.0, 5.0)
    yield of(main, words + iat[2:4], 1.0, 5.0) + of(main, words[:1], 0.0)
    yield of(main, [*noise, *at, *iat[:2], *words, *iat[2:4]], 0.5, 15.0)
    yield of(main, noise + at + iat[:2], 0.1, 30.0)
    yield of(main, iat[4:], 1.0, 5.0, 0.5, 15.0)
    every = noise + at + iat + words
    if full:
        yield of(main, every, *(epsilon for epsilon in EPSILONS if epsilon not in (0.5, 1.0, 5.0, 15.0)))
    for variant in ("random", "scaled_dot"):
        if variant != main:
            yield of(variant, [("vanilla", None)], None) + of(variant, every, "chosen")
