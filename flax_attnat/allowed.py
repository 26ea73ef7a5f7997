"""What the fields of a configuration may hold: names, ranges, and what must go together."""

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from flax_attnat.perturbation.attention import READINGS

TECHNIQUES = ("vanilla", "attention_rp", "attention_at", "attention_iat", "word_at", "word_iat")
# What attention is compared with: attention that is even, and attention that is not trained.
CONTROLS = ("uniform", "frozen")
# Without a perturbation, and so without epsilon and lambda.
PLAIN = ("vanilla", *CONTROLS)
ENCODERS = ("bilstm", "cnn", "average")
ATTENTIONS = ("additive", "scaled_dot")
DATASETS = (
    *("planted", "simulated1", "simulated2", "simulated3", "custom"),
    *("sst", "imdb", "newsgroups", "ag_news", "babi1", "babi2", "babi3", "cnn", "snli", "multi_nli", "movies"),
)
SELECTIONS = ("auc", "accuracy")
PERTURBED = ("passage", "both")


class ConfigError(ValueError):
    """A configuration value that cannot be used; the message names the field and what is allowed."""


def suggest(name: str, fields: Iterable[str]) -> str:
    """The end of a sentence about an unknown field: the nearest one, and all there are."""
    fields = list(fields)
    near = difflib.get_close_matches(name, fields, 1)
    return (f"; did you mean {near[0]}? " if near else ". ") + f"The fields are: {', '.join(fields)}."


_CHOICES = {
    "dataset": DATASETS,
    "technique": TECHNIQUES + CONTROLS,
    "reading": READINGS,
    "model.encoder": ENCODERS,
    "model.attention": ATTENTIONS,
    "training.selection": SELECTIONS,
    "word.perturb": PERTURBED,
    "training.matmul_precision": ("bfloat16", "tensorfloat32", "float32"),
}
_SWEPT = {
    "sweep.techniques": "technique",
    "sweep.readings": "reading",
    "sweep.epsilons": "epsilon",
    "sweep.adversarial_weights": "adversarial_weight",
    "sweep.learning_rates": "optimizer.learning_rate",
    "sweep.weight_decays": "optimizer.weight_decay",
}
_RANGES = {
    "epsilon": (0, math.inf),
    "adversarial_weight": (0, math.inf),
    "data.min_length": (-1, math.inf),
    "data.max_length": (-1, math.inf),
    "data.truncate": (1, math.inf),
    "data.min_df": (1, math.inf),
    "model.embedding_size": (1, math.inf),
    "model.hidden_size": (1, math.inf),
    "model.dropout": (0, 0.99),
    "optimizer.learning_rate": (0, 100),
    "optimizer.weight_decay": (0, 100),
    "word.neighbours": (1, math.inf),
    "training.epochs": (1, math.inf),
    "training.batch_size": (1, math.inf),
    "training.save_every_minutes": (0, math.inf),
    "population.max_runs": (0, math.inf),
    "population.data_shards": (1, math.inf),
    "population.runs_together": (0, math.inf),
}


def check(flat: Mapping[str, Any]) -> None:
    """Raises ConfigError for a value outside what its field allows.

    Args:
      flat: dotted field name -> value, of the right type.
    """
    for field in (*_CHOICES, *_RANGES):
        _check_value(field, field, flat[field])
    for field, single in _SWEPT.items():
        for value in flat[field]:
            _check_value(field, single, value)
        if len(set(flat[field])) != len(flat[field]):
            raise ConfigError(f"config.{field} must be different from each other; got {flat[field]!r}.")
    _check_lists(flat)
    if flat["model.encoder"] == "cnn" and flat["model.hidden_size"] % 2:
        raise ConfigError(
            "config.model.hidden_size must be even for the encoder cnn, whose 2 x hidden_size features are shared by "
            f"four widths; got {flat['model.hidden_size']}."
        )
    _check_files(flat["dataset"], *(flat[f"data.{name}"] for name in ("train", "dev", "test")))
    whole = [name for name in (*flat["sweep.techniques"], flat["technique"]) if name.startswith("word_")]
    if flat["optimizer.lazy_embedding"] and whole:
        raise ConfigError(
            "config.optimizer.lazy_embedding is not for the word techniques, which read the whole table; got the"
            f" technique {whole[0]}."
        )


def _check_value(field: str, allowed_as: str, value: Any) -> None:
    """Raises ConfigError, in the name of `field`, unless `value` is what the field `allowed_as` may hold."""
    choices = _CHOICES.get(allowed_as)
    if choices is not None:
        if value not in choices:
            raise ConfigError(f"config.{field} must be one of {', '.join(choices)}; got {value!r}.")
        return
    least, most = _RANGES[allowed_as]
    if not (math.isfinite(value) and least <= value <= most):
        bound = "" if most == math.inf else f" and at most {most}"
        raise ConfigError(f"config.{field} must be a finite number, at least {least}{bound}; got {value!r}.")


def _check_lists(flat: Mapping[str, Any]) -> None:
    """Raises ConfigError for seeds or widths that cannot be used, or batches that devices cannot share."""
    seeds, widths = flat["seeds"], flat["data.bucket_widths"]
    if not seeds or len(set(seeds)) != len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(f"config.seeds must be one or more different numbers from 0 to 2147483647; got {seeds!r}.")
    if not widths or widths[0] < 1 or any(a >= b for a, b in itertools.pairwise(widths)):
        raise ConfigError(f"config.data.bucket_widths must be ascending positive numbers; got {widths!r}.")
    batch, shards = flat["training.batch_size"], flat["population.data_shards"]
    if batch % shards:
        raise ConfigError(
            f"config.population.data_shards must divide config.training.batch_size; got {shards} and {batch}."
        )


def _check_files(dataset: str, train: str, dev: str, test: str) -> None:
    """Raises ConfigError unless files of one's own and the dataset custom are given together."""
    if (dataset == "custom") != bool(train):
        raise ConfigError(
            "config.data.train names the file that the dataset custom is trained on: give both"
            f" --config.dataset=custom and --config.data.train=FILE, or neither; got dataset {dataset!r} and"
            f" train {train!r}."
        )
    if dataset != "custom" and (dev or test):
        raise ConfigError(
            f"config.data.dev and config.data.test are read by the dataset custom only; got dataset {dataset!r},"
            f" dev {dev!r} and test {test!r}. Leave them empty, or give --config.dataset=custom."
        )
