"""A trained run as a function of texts: probabilities, attention, importance, and how robust the prediction is.

All comes from the workdir: configuration, vocabulary, classes, parameters. The data set and its raw file are not read.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from flax_attnat.allowed import CONTROLS
from flax_attnat.config import Config
from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.data.batches import Bucket, make_buckets
from flax_attnat.data.catalogue import text_rules
from flax_attnat.data.corpus import Cut
from flax_attnat.data.dataset import Split
from flax_attnat.data.vocabulary import UNKNOWN_ID, Vocabulary
from flax_attnat.evaluation.importance import Instances, explain_batch
from flax_attnat.evaluation.robustness import certified_radius
from flax_attnat.finished import Found, find_best, find_only, finished, restore, restored_model
from flax_attnat.training.runs import Cohort, cohort_name
from flax_attnat.typing import Array, Batch, Params

AT_ONCE, FEW = 32, 8
"""Texts in a program, and how many are rather explained one by one."""

Words = tuple[tuple[str, ...], ...]
"""The words of a text: of itself alone, or of passage and query."""


class Prediction(NamedTuple):
    """What a run says of N texts, in their order; each has n words, those of the passage where there is a query.

    Attributes:
      words: N tuples of n words, after the data set's text rules, cut off at `config.data.truncate`.
      known: N tuples of n, whether the word is in the vocabulary; to the model all others are the same.
      probability: `[N, C]` of the classes; zeros where a text must name its answer and names none.
      attention: N arrays `[n]`, each summing to 1.
      importance: N arrays `[n]`, gradient importance, likewise; zeros where the gradient is zero.
      certified_radius: `[N]` how far every attention score may move, at the least, before the prediction changes;
        infinity where it never does; None for pairs, which are not certified.
    """

    words: list[tuple[str, ...]]
    known: list[tuple[bool, ...]]
    probability: np.ndarray
    attention: list[np.ndarray]
    importance: list[np.ndarray]
    certified_radius: np.ndarray | None


class Predictor(NamedTuple):
    """One trained run, to be called with texts.

    Attributes:
      config: its configuration, of one technique.
      run: what names it, as in the lines of `results.jsonl`.
      label_names: names of the classes, by id.
      vocabulary: the words that it knows, by id.
      pair: whether a text comes with a query.
      cut: the data set's text rules: `cut(text) -> words`.
      params: of its best epoch.
      table: `[V, E]` word vectors as its encoder reads them: those of `params`, normalised for the word techniques.
      explain: `explain(params, batch) -> (Instances, certified radius [B] or None)`, compiled once per width; reads
        `table` in place of the word vectors of `params`.
    """

    config: Config
    run: Mapping[str, Any]
    label_names: tuple[str, ...]
    vocabulary: Vocabulary
    pair: bool
    cut: Cut
    params: Params
    table: Array
    explain: Callable[[Params, Batch], tuple[Instances, Array | None]]

    def __call__(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> Prediction:
        """Predicts and explains texts; each padded width is compiled when a text first needs it.

        Args:
          texts: strings, or pairs `(passage, query)` where the data have queries; empty ones are allowed.

        Returns:
          `Prediction`; NaN where the logits are not numbers.

        Raises:
          TypeError: an item is no string, or no pair of strings.
          ValueError: a text holds half a character.
        """
        return self.predict(self.read(texts))

    def read(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Words]:
        """The words of each text, all of them, by the data set's text rules; takes and raises what a call does."""
        return [tuple(self.cut(text) for text in item) for item in _checked(texts, self.pair)]

    def predict(self, texts: Sequence[Words]) -> Prediction:
        """Predicts and explains texts that are cut into words already.

        Args:
          texts: from `read`, of this predictor or of one with the same text rules.
        """
        most = self.config.data.truncate
        words = [[part[:most] for part in item] for item in texts]
        ids = [[vocabularies.encode(self.vocabulary, part) for part in item] for item in words]
        found = Prediction(
            words=[item[0] for item in words],
            known=[tuple((item[0] != UNKNOWN_ID).tolist()) for item in ids],
            probability=np.zeros((len(words), len(self.label_names)), np.float32),
            attention=[np.zeros(len(item[0]), np.float32) for item in ids],
            importance=[np.zeros(len(item[0]), np.float32) for item in ids],
            certified_radius=None if self.pair else np.zeros(len(words), np.float32),
        )
        queries = [item[1] for item in ids] if self.pair else None
        split = Split((), [item[0] for item in ids], np.zeros(len(words), np.int32), queries)
        for bucket in make_buckets(split, self.config.data.bucket_widths):
            for first, rows in _chunks(len(bucket.position)):
                _explain_some(self, bucket, first, rows, found)
        return found


def build_predictor(
    config: Config,
    run: Mapping[str, Any],
    labels: Sequence[str],
    vocabulary: Vocabulary,
    pair: bool,
    params: Params,
    *,
    others: Iterable[Predictor] = (),
) -> Predictor:
    """A predictor from its parts; the data set is not read.

    Args:
      config: of one technique.
      run: what names the run, as in the lines of `results.jsonl`.
      labels: names of the C classes, by id.
      vocabulary: the V words by id, with their counts.
      pair: whether a text comes with a query.
      params: of one run, NumPy or JAX; copied.
      others: predictors whose compiled programs it shares, if its model is one of theirs.

    Raises:
      ValueError: the parameters are not those of the configuration's model: other names or shapes.
    """
    labels, run = tuple(labels), MappingProxyType(dict(run))
    trained = restored_model(config, labels, vocabulary, pair=pair)
    _check_params(params, jax.eval_shape(trained.init, jax.random.key(0)))
    params, cut = jax.tree.map(jnp.array, params), text_rules(config.dataset)[0]
    table = trained.table(params)
    for other in others:
        if _same_model((config, labels, pair, vocabulary), other):
            return other._replace(config=config, run=run, params=params, table=table)
    # The word techniques normalise the table before every use, which takes longer than a text does.
    as_it_is = dataclasses.replace(config, word=dataclasses.replace(config.word, normalise=False))
    model = restored_model(as_it_is, labels, vocabulary, pair=pair)
    explain = jax.jit(lambda *given: (explain_batch(model, *given), certified_radius(model, *given)))
    return Predictor(config, run, labels, vocabulary, pair, cut, params, table, explain)


def load(workdir: epath.PathLike, run: Mapping[str, Any] | None = None) -> Predictor:
    """A trained run, to be called with texts: what it predicts, what it attends to, how far that can be trusted.

        predict = fa.load("runs/sst")                # the only run, or the one that is best on dev
        found = predict(["a good film", "a bad film"])
        found.probability                            # [2, C], by predict.label_names
        found.words[0], found.attention[0]           # ("a", "good", "film") and their weights, which sum to 1
        found.importance[0]                          # gradient importance of the same words
        found.certified_radius                       # [2] how far every score may move before the prediction changes

    Args:
      workdir: of launch.train or launch.ablate; its populations that are trained to the end are read, and no data. Or a
        file `*.safetensors`, as `flax_attnat.portable` writes it.
      run: values that exactly one run has, by the names of `results.jsonl`, such as `{"technique": "attention_at",
        "epsilon": 5.0, "seed": 1}`. None: the only run, or else the one whose `config.training.selection` (AUC or
        accuracy) is largest on dev, the first of several; a run that was frozen does not compete.

    Returns:
      `Predictor`: `predictor(texts) -> Prediction`; pairs `(passage, query)` where the data have queries.

    Raises:
      WorkdirError: there is no such run, or there are several, or the checkpoint is damaged.
      TypeError: `run` is no mapping.
    """
    path = epath.Path(workdir).expanduser()
    if path.suffix == ".safetensors":
        from flax_attnat.portable import read_safetensors

        predictor = read_safetensors(path)
        if run is not None:
            find_only(path, [Found(Cohort(predictor.config, ()), 0, dict(predictor.run))], run)
        return predictor
    there = finished(path)
    return _restore_all(path, [find_best(path, there) if run is None else find_only(path, there, run)])[0]


def load_all(workdir: epath.PathLike, runs: Sequence[Mapping[str, Any]]) -> list[Predictor]:
    """Several runs of one workdir; those of one model share their compiled programs, whatever their technique.

    Args:
      workdir: as for `load`, no file.
      runs: as `load` takes one, each.

    Returns:
      One predictor per run, in their order.

    Raises:
      WorkdirError: as `load` does.
      TypeError: a run is no mapping.
    """
    path = epath.Path(workdir).expanduser()
    there = finished(path)
    return _restore_all(path, [find_only(path, there, run) for run in runs])


def _restore_all(workdir: epath.Path, chosen: Sequence[Found]) -> list[Predictor]:
    """The predictors of runs, each population read once and let go of before the next."""
    made: dict[int, Predictor] = {}
    for part in {cohort_name(found.part): found.part for found in chosen}.values():
        left = restore(workdir, part)
        for number, found in enumerate(chosen):
            if found.part == part:
                one = jax.tree.map(lambda leaf, place=found.place: leaf[place], left.params)
                made[number] = build_predictor(part.config, found.fields, *left[1:], one, others=made.values())
    return [made[number] for number in range(len(chosen))]


def _same_model(parts: tuple[Config, tuple[str, ...], bool, Vocabulary], other: Predictor) -> bool:
    """Whether the model of configuration, labels, pair and vocabulary is that of another predictor."""

    def kind(config: Config) -> tuple[Any, ...]:
        """What a model that reads its table as it is depends on."""
        return config.dataset, config.model, config.technique in CONTROLS and config.technique

    config, labels, pair, vocabulary = parts
    return (
        (kind(config), labels, pair) == (kind(other.config), other.label_names, other.pair)
        and vocabulary.words == other.vocabulary.words
        and np.array_equal(vocabulary.counts, other.vocabulary.counts)
    )


def _check_params(params: Params, like: Params) -> None:
    """Makes sure that parameters have the names and shapes of a model's."""
    found, wanted = (
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, like)
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"the parameters are not those of the configuration's model: {name} has the shape"
                f" {found.get(name, 'of nothing')} where {wanted.get(name, 'nothing')} is expected."
            )


def _chunks(texts: int) -> Iterator[tuple[int, int]]:
    """Where each program begins and how many rows it has: many texts at once, few one by one.

    A width is compiled for two numbers of rows at the most: one text must not wait for `AT_ONCE` rows, nor many texts
    for each other.

    >>> list(_chunks(2)), list(_chunks(AT_ONCE + 1)), list(_chunks(AT_ONCE + FEW + 1))[1:]
    ([(0, 1), (1, 1)], [(0, 32), (32, 1)], [(32, 32)])
    """
    first = 0
    while first < texts:
        rows = AT_ONCE if texts - first > FEW else 1
        yield first, rows
        first += rows


def _explain_some(predictor: Predictor, bucket: Bucket, first: int, rows: int, found: Prediction) -> None:
    """Writes what a run says of the texts of a bucket from `first` on, at most `rows` of them."""

    def filled(column: Any) -> Any:
        """`[rows, ...]` of a column, zeros behind its last one; by NumPy, so that nothing is compiled for it."""
        some = column[first : first + rows]
        return np.concatenate([some, np.zeros((rows - len(some), *some.shape[1:]), some.dtype)])

    some, weight = jax.tree.map(filled, bucket), filled(np.ones(len(bucket.position), np.float32))
    batch = Batch(some.tokens, some.lengths, some.labels, weight, some.query, some.query_lengths)
    params = predictor.params | {"embedding": {"table": predictor.table}}
    with jax.default_matmul_precision(predictor.config.training.matmul_precision):
        instances, radius = jax.device_get(predictor.explain(params, batch))
    for row, place in enumerate(bucket.position[first : first + rows].tolist()):
        length = some.lengths[row]
        found.probability[place] = instances.probability[row]
        found.attention[place][:] = instances.attention[row, :length]
        found.importance[place][:] = instances.importance[row, :length]
        if found.certified_radius is not None:
            found.certified_radius[place] = radius[row]


def _checked(texts: Any, pair: bool) -> Iterator[tuple[str, ...]]:
    """Every text as a tuple: itself, or passage and query."""
    wanted = "a pair of strings (passage, query)" if pair else "a string"
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"give a list, each of its items {wanted}; got {type(texts).__name__}.")
    for number, item in enumerate(texts):
        both = tuple(item) if pair and isinstance(item, tuple | list) else (item,)
        if len(both) != 1 + pair or not all(isinstance(part, str) for part in both):
            raise TypeError(f"text {number} must be {wanted}, as in training; got {repr(item)[:60]}.")
        try:
            "".join(both).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text {number} holds half a character ({error.reason}): take it out.") from error
        yield both
