"""Typed configuration: one frozen dataclass tree, its defaults, and the checks that need no data.

A file in `configs/` starts from `default_config()`, a locked `ml_collections.ConfigDict` in which a misspelt or
ill-typed override is an error, changes what its experiment needs, and returns it. `parse` turns it into `Config`.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

import ml_collections

from flax_attnat.allowed import ConfigError, check, suggest


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where texts come from and how they become ids.

    Attributes:
      raw_dir: folder with the official archives (or their extracted folders); what is not there is downloaded.
      data_dir: folder of the prepared records; empty: `~/tensorflow_datasets`.
      train: file of the training texts (CSV, TSV or JSONL); only read by the dataset custom, like the next two.
      dev: file of the dev texts; empty: a tenth of the training texts.
      test: file of the test texts; empty: a tenth of the training texts.
      vectors: pretrained word vectors: `fasttext-simple`, `glove-840b`, or the path of a file (word2vec or GloVe text,
        plain, .gz or .zip); empty: random vectors.
      min_length: keep a text of n tokens if n > min_length; -1 keeps all.
      max_length: keep a text of n tokens if n < max_length; -1 keeps all.
      truncate: a longer text (or query) is cut off after this many words, and counted.
      min_df: a training word enters the vocabulary if at least this many training texts hold it.
      bucket_widths: padded widths, ascending; a text goes to the first that holds it; wider ones are added as needed.
    """

    raw_dir: str = ""
    data_dir: str = ""
    train: str = ""
    dev: str = ""
    test: str = ""
    vectors: str = ""
    min_length: int = -1
    max_length: int = -1
    truncate: int = 4096
    min_df: int = 1
    bucket_widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The classifier.

    Attributes:
      encoder: one of ENCODERS.
      attention: one of ATTENTIONS.
      embedding_size: E, the size of a word vector.
      hidden_size: units per direction of the BiLSTM; the CNN and the average encoder give 2 x hidden_size, as many as
        it does (Jain & Wallace's have 128: hidden_size=64).
      dropout: rate on word vectors and on the attended state while training; one mask for every pass of a step.
    """

    encoder: str = "bilstm"
    attention: str = "additive"
    embedding_size: int = 300
    hidden_size: int = 128
    dropout: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam with amsgrad and L2 added to the gradient.

    Attributes:
      learning_rate: step size.
      weight_decay: L2 coefficient of the encoder and the output group.
      decay_embedding: whether the embedding table is in the encoder's group (Jain & Wallace) or has no L2.
      decay_attention: L2 on the attention parameters too (pair models); off for single sequences.
      lazy_embedding: the rows of the embedding table that a batch does not hold keep their values and moments, where
        Adam would move them on by their momentum and L2. Faster, and other figures. Not for the word techniques.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    decay_embedding: bool = True
    decay_attention: bool = False
    lazy_embedding: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordConfig:
    """What only the word techniques read.

    Attributes:
      normalise: normalise the embedding table by training unigram frequencies, inside the loss.
      neighbours: K, nearest neighbours per word (word_iat).
      per_word: normalise the neighbour coefficients for each word (Sato's released code), not over the sentence.
      perturb: one of PERTURBED: "passage", only the words of the passage or premise; "both", the query's too.
    """

    normalise: bool = True
    neighbours: int = 10
    per_word: bool = False
    perturb: str = "passage"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, on how much, and what is kept.

    Attributes:
      epochs: passes over the training split.
      batch_size: rows per step.
      selection: dev metric that picks each run's best epoch, one of SELECTIONS.
      save_every_minutes: save inside an epoch when this much time has passed since the last save.
      matmul_precision: JAX's default matrix product precision, recorded with the results.
    """

    epochs: int = 8
    batch_size: int = 32
    selection: str = "auc"
    save_every_minutes: float = 10.0
    matmul_precision: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What launch.ablate trains: every combination; an empty field stands for the one value of the configuration.

    Attributes:
      techniques: several of TECHNIQUES and CONTROLS, in place of `technique`.
      readings: several of READINGS, in place of `reading`; each is a technique of its own.
      epsilons: in place of `epsilon`; those that read none (PLAIN) are trained once.
      adversarial_weights: lambdas, in place of `adversarial_weight`; likewise.
      learning_rates: in place of `optimizer.learning_rate`.
      weight_decays: in place of `optimizer.weight_decay`.
    """

    techniques: tuple[str, ...] = ()
    readings: tuple[str, ...] = ()
    epsilons: tuple[float, ...] = ()
    adversarial_weights: tuple[float, ...] = ()
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PopulationConfig:
    """How the runs of one technique share the machine; no figure depends on it beyond rounding.

    Attributes:
      max_runs: at most so many runs in one program; 0: as many as the memory of the devices holds.
      data_shards: devices that share each batch, for a model too large for one; the other devices share the runs.
      runs_together: so many runs of a device advance step by step together, then the next; 0: one after another on a
        CPU, all together on a GPU or TPU. The largest number up to this that divides the runs counts.
    """

    max_runs: int = 0
    data_shards: int = 1
    runs_together: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One training: a population of runs that differ in their seed and in what is swept.

    Attributes:
      dataset: one of DATASETS.
      technique: one of TECHNIQUES or CONTROLS.
      reading: reading of attention_iat, one of READINGS; the other techniques ignore it.
      epsilon: norm of the perturbation, >= 0.
      adversarial_weight: lambda, weight of the adversarial loss, >= 0.
      seeds: one run per seed: parameters, order of the batches, random perturbations and dropout.
      sweep: what else is varied, by launch.ablate.
    """

    dataset: str = "planted"
    technique: str = "attention_iat"
    reading: str = "span"
    epsilon: float = 1.0
    adversarial_weight: float = 1.0
    seeds: tuple[int, ...] = (0,)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    word: WordConfig = WordConfig()
    training: TrainingConfig = TrainingConfig()
    sweep: SweepConfig = SweepConfig()
    population: PopulationConfig = PopulationConfig()


# Where files lie, and what no result depends on: free to differ between a workdir and the command that resumes it.
_PLACES = ("data.raw_dir", "data.data_dir")
_SHARES = ("population.max_runs", "population.data_shards", "population.runs_together")
LOCATION_FIELDS = (*_PLACES, "training.save_every_minutes", *_SHARES)


def default_config() -> ml_collections.ConfigDict:
    """The defaults as a type-checked ConfigDict, for a file in `configs/` and `--config.FIELD=VALUE` to change."""
    return ml_collections.ConfigDict(_plain(Config())).lock()


def _plain(config: Any) -> dict[str, Any]:
    """A dataclass tree as nested dictionaries that keep tuples."""
    return {
        field.name: _plain(value) if dataclasses.is_dataclass(value := getattr(config, field.name)) else value
        for field in dataclasses.fields(config)
    }


def flatten(config: Config) -> dict[str, Any]:
    """Dotted field name -> value, in the order of definition."""

    def walk(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """One level of the tree, each name with its prefix."""
        flat: dict[str, Any] = {}
        for name, value in node.items():
            flat |= walk(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
        return flat

    return walk(_plain(config), "")


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON types."""
    return json.loads(json.dumps(_plain(config)))


def parse(values: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Builds and checks a `Config` from a ConfigDict or from the dictionary that `to_json` gave.

    Raises:
      ConfigError: an unknown field, a wrong type or a value out of range, with the field and the allowed values.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise ConfigError(f"config is a group of fields, not a value; got {values!r}.")
    config = _build(Config, values, "")
    check(flatten(config))
    return config


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    """Builds dataclass `cls` from `values`, converting JSON's lists to tuples and whole numbers to floats."""
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ConfigError(f"config.{prefix}{name} is not a field{suggest(name, hints)}")
    built = {}
    for name, value in values.items():
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"config.{prefix}{name} is a group of fields, not a value; got {value!r}.")
            built[name] = _build(kind, value, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            built[name] = _typed(value, kind, prefix + name)
    return cls(**built)


def _typed(value: Any, kind: Any, field: str) -> Any:
    """`value` as type `kind`, or a ConfigError that names `field`."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        # A whole number beyond float64 is as far out of range as infinity.
        return float(value) if abs(value) < 2**1023 else math.inf
    if kind in _TUPLES:
        return _typed_tuple(value, kind, field)
    if type(value) is not kind:
        raise ConfigError(f"config.{field} must be of type {kind.__name__}; got {value!r}.")
    return value


# What the items of a tuple are, and how they are called.
_TUPLES: dict[Any, tuple[type, str]] = {
    tuple[int, ...]: (int, "whole numbers such as 0,1,2"),
    tuple[float, ...]: (float, "numbers such as 0.5,1,2"),
    tuple[str, ...]: (str, "names such as a,b,c"),
}


def _typed_tuple(value: Any, kind: Any, field: str) -> tuple:
    """`value` as a tuple of type `kind`, or a ConfigError that names `field`."""
    item_type, example = _TUPLES[kind]
    problem = ConfigError(f"config.{field} must be {example}; got {value!r}.")
    if not isinstance(value, list | tuple):
        raise problem
    if item_type is str and all(isinstance(item, str) for item in value):
        value = [name.strip() for item in value for name in item.split(",")]  # a command line gives a,b,c as one name
    try:
        return tuple(_typed(item, item_type, field) for item in value)
    except ConfigError as error:
        raise problem from error


def differences(old: Config, new: Config) -> list[str]:
    """One line per field that differs and that results depend on: `field: old -> new`."""
    a, b = flatten(old), flatten(new)
    return [f"config.{k}: {a[k]!r} -> {b[k]!r}" for k in a if a[k] != b[k] and k not in LOCATION_FIELDS]


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits that name a configuration, whatever the places its files lie in."""
    kept = {k: v for k, v in flatten(config).items() if k not in LOCATION_FIELDS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
