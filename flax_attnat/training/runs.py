"""Runs and cohorts: what a configuration asks to be trained, as a list of populations."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import NamedTuple

from flax_attnat.allowed import PLAIN
from flax_attnat.config import LOCATION_FIELDS, Config, SweepConfig, flatten


class Run(NamedTuple):
    """One training of a population: what may differ between runs of one compiled program.

    Attributes:
      epsilon: norm of the perturbation.
      adversarial_weight: lambda.
      learning_rate: step size.
      weight_decay: L2 coefficient.
      seed: parameters, order of the batches, noise.
    """

    epsilon: float
    adversarial_weight: float
    learning_rate: float
    weight_decay: float
    seed: int


class Cohort(NamedTuple):
    """Runs of one technique and reading that are trained together.

    Attributes:
      config: with this technique and reading, and nothing swept.
      runs: what they are.
    """

    config: Config
    runs: tuple[Run, ...]


def cohorts(config: Config) -> list[Cohort]:
    """One cohort per technique and reading of a configuration, each with every combination of the other values.

    Vanilla and the controls read neither epsilon nor lambda: once per seed, learning rate and weight decay.

    >>> from flax_attnat.config import Config, SweepConfig
    >>> swept = SweepConfig(techniques=("vanilla", "attention_at"), epsilons=(1.0, 5.0))
    >>> [(cohort.config.technique, len(cohort.runs)) for cohort in cohorts(Config(sweep=swept, seeds=(0, 1, 2)))]
    [('vanilla', 3), ('attention_at', 6)]
    """
    sweep = config.sweep
    found = []
    for technique in sweep.techniques or (config.technique,):
        readings = (sweep.readings or (config.reading,)) if technique == "attention_iat" else (config.reading,)
        for reading in readings:
            one = dataclasses.replace(config, technique=technique, reading=reading, sweep=SweepConfig())
            found.append(Cohort(one, _runs(config, technique)))
    return found


def _runs(config: Config, technique: str) -> tuple[Run, ...]:
    """Every combination, the seeds varying fastest."""
    sweep = config.sweep
    plain = technique in PLAIN
    values = itertools.product(
        (config.epsilon,) if plain else sweep.epsilons or (config.epsilon,),
        (config.adversarial_weight,) if plain else sweep.adversarial_weights or (config.adversarial_weight,),
        sweep.learning_rates or (config.optimizer.learning_rate,),
        sweep.weight_decays or (config.optimizer.weight_decay,),
        config.seeds,
    )
    return tuple(Run(*value) for value in values)


def cohort_name(cohort: Cohort) -> str:
    """A name for files: technique, reading, and twelve digits of a hash of everything that its figures depend on."""
    config = cohort.config
    varied = ("epsilon", "adversarial_weight", "optimizer.learning_rate", "optimizer.weight_decay", "seeds")
    kept = {k: v for k, v in flatten(config).items() if k not in LOCATION_FIELDS + varied and "sweep." not in k}
    text = json.dumps([kept, cohort.runs], sort_keys=True)
    names = [config.technique, *([config.reading] if config.technique == "attention_iat" else [])]
    return "-".join([*names, hashlib.sha256(text.encode()).hexdigest()[:12]])


def even_sizes(runs: int, most: int) -> list[int]:
    """`runs` in the fewest parts of at most `most`, of sizes that differ by one at most.

    >>> even_sizes(7, 3)
    [3, 2, 2]
    """
    parts = -(-runs // most)
    size, longer = divmod(runs, parts)
    return [size + (part < longer) for part in range(parts)]


def cut(cohort: Cohort, sizes: Sequence[int]) -> list[Cohort]:
    """A cohort as parts of so many runs each."""
    ends = list(itertools.accumulate(sizes))
    return [cohort._replace(runs=cohort.runs[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
