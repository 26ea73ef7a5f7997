"""A trained run as a function of texts: probabilities, attention, importance, and how robust the prediction is.

All comes from the workdir: configuration, vocabulary, classes, parameters. The data set and its raw file are not read.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from flax_attnat.ablation import parts
from flax_attnat.config import Config
from flax_attnat.data import catalogue
from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.data.batches import Bucket, make_buckets
from flax_attnat.data.corpus import Cut
from flax_attnat.data.dataset import Split
from flax_attnat.data.source import spaced_words
from flax_attnat.data.text import clean
from flax_attnat.data.vocabulary import UNKNOWN_ID, Vocabulary
from flax_attnat.evaluation.importance import Instances, explain_batch
from flax_attnat.evaluation.robustness import certified_radius
from flax_attnat.models.build import build
from flax_attnat.models.embedding import EmbeddingInit
from flax_attnat.models.model import Model
from flax_attnat.objective import adapt_model
from flax_attnat.reporting.tables import predictions
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.records import run_fields
from flax_attnat.training.runs import Cohort, cohort_name
from flax_attnat.training.saved import Trained
from flax_attnat.training.workdir import WorkdirError, read_config, read_lines
from flax_attnat.typing import Array, Batch, Params

# Texts in a program, fixed so that it is compiled once (one at a time takes 2 ms, eight take 9), and runs in a message.
ROWS, LISTED = 8, 20


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
      explain: `explain(params, batch) -> (Instances, certified radius [B] or None)`, compiled once per width.
    """

    config: Config
    run: Mapping[str, Any]
    label_names: tuple[str, ...]
    vocabulary: Vocabulary
    pair: bool
    cut: Cut
    params: Params
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
        most = self.config.data.truncate
        words = [[self.cut(text)[:most] for text in item] for item in _checked(texts, self.pair)]
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
            for first in range(0, len(bucket.position), ROWS):
                _explain_some(self, bucket, first, found)
        return found


def load(workdir: epath.PathLike, run: Mapping[str, Any] | None = None) -> Predictor:
    """A trained run of a workdir, to be called with texts.

    Args:
      workdir: of launch.train or launch.ablate; its populations that are trained to the end are read.
      run: values that exactly one run has, by the names of `results.jsonl`, such as `{"technique": "attention_at",
        "epsilon": 5.0, "seed": 1}`. None: the only run, or else the one whose `config.training.selection` (AUC or
        accuracy) is largest on dev, the first of several; a run that was frozen does not compete.

    Raises:
      WorkdirError: there is no such run, or there are several, or the checkpoint is damaged.
      TypeError: `run` is no mapping.
    """
    if run is not None and not isinstance(run, Mapping):
        raise TypeError(f'run must be a mapping such as {{"technique": "attention_at", "seed": 1}}; got {run!r}.')
    workdir = epath.Path(workdir).expanduser()
    if not (there := list(_finished(workdir, read_config(workdir)))):
        raise WorkdirError(f"{workdir} holds no run that is trained to the end: train it first with launch.train.")
    return _restore(workdir, _best(workdir, there) if run is None else _only(workdir, there, run))


class _Found(NamedTuple):
    """A finished run.

    Attributes:
      part: its population.
      place: its place in it.
      fields: what names it.
    """

    part: Cohort
    place: int
    fields: dict[str, Any]


def _finished(workdir: epath.Path, config: Config) -> Iterator[_Found]:
    """The runs that are trained to the end, in the order of the configuration."""
    for part in parts(workdir, config):
        if _store(workdir, part, print).positions():
            for place, run in enumerate(part.runs):
                yield _Found(part, place, run_fields(part.config, run))


def _store(workdir: epath.Path, part: Cohort, say: Callable[[str], None]) -> Store:
    """What is kept of a finished population, to be read only."""
    return Store(workdir / "trained" / cohort_name(part), say, read_only=True)


def _best(workdir: epath.Path, there: Sequence[_Found]) -> _Found:
    """The only run, or the best on dev."""
    if len(there) == 1:
        return there[0]
    figure, names = there[0].part.config.training.selection, there[0].fields
    scores = {
        tuple(line[name] for name in names): line[figure]
        for line in predictions(read_lines(workdir, "results"))
        if line["split"] == "dev" and line["frozen_step"] is None
    }
    competing = [(found, value) for found in there if (value := scores.get(tuple(found.fields.values()))) is not None]
    if not competing:
        raise WorkdirError(f"no run of {workdir} has a dev {figure} to be chosen by: say which one. {_list(there)}")
    return max(competing, key=lambda each: each[1])[0]


def _only(workdir: epath.Path, there: Sequence[_Found], run: Mapping[str, Any]) -> _Found:
    """The one run that has these values."""
    names = there[0].fields
    if unknown := [str(name) for name in run if name not in names]:
        raise WorkdirError(f"runs are named by {', '.join(names)}; got {', '.join(unknown)}. {_list(there)}")
    fit = [found for found in there if all(found.fields[name] == value for name, value in run.items())]
    if len(fit) == 1:
        return fit[0]
    raise WorkdirError(
        f"{len(fit) or 'none'} of the {len(there)} runs of {workdir} have {dict(run)}: give values of exactly one."
        f" {_list(fit or there)}"
    )


def _list(there: Sequence[_Found]) -> str:
    """Runs by the values in which they differ, one per line."""
    varied = [name for name in there[0].fields if len({found.fields[name] for found in there}) > 1]
    lines = [str({name: found.fields[name] for name in varied or ("technique", "seed")}) for found in there]
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n  ".join(["The runs are:", *lines[:LISTED], *more])


def _restore(workdir: epath.Path, chosen: _Found) -> Predictor:
    """The predictor of a run, from what its population left."""
    config, said = chosen.part.config, list[str]()
    cut, pairs, named = _kind(config.dataset)
    found, pair = _read(_store(workdir, chosen.part, said.append), config, pairs, named)
    if found is None:
        raise WorkdirError(f"{' '.join(said)} Train it again, in another --workdir.")
    trained, meta = found
    model, vocabulary = _build_model(config, meta, pair, named), vocabularies.from_json(meta["vocabulary"])
    params = jax.tree.map(lambda leaf: jnp.array(leaf[chosen.place]), trained.best_params)
    explain = jax.jit(lambda *given: (explain_batch(model, *given), certified_radius(model, *given)))
    run, labels = MappingProxyType(chosen.fields), tuple(meta["labels"])
    return Predictor(config, run, labels, vocabulary, pair, cut, params, explain)


def _kind(dataset: str) -> tuple[Cut, tuple[bool, ...], bool]:
    """Text rules; whether texts have queries (both, if only the checkpoint knows); whether they name their classes."""
    if dataset == "planted" or dataset.startswith("simulated"):
        return spaced_words, (dataset != "planted",), False
    if dataset == "custom":
        return clean, (False, True), False
    source = catalogue.source(dataset)
    return source.words, (source.pair,), bool(source.entity_prefix)


def _read(store: Store, config: Config, pairs: tuple[bool, ...], named: bool) -> tuple[Any, bool]:
    """`Trained` and metadata of a population (None if they are damaged), and which of `pairs` it is."""

    def like(pair: bool, meta: Mapping[str, Any]) -> Any:
        """Its arrays as NumPy's: the devices get one run only, and need not be those of the training."""
        init, number = _build_model(config, meta, pair, named).init, np.zeros((), np.int32)
        return jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (meta["filled"], *leaf.shape)),
            Trained._make([jax.eval_shape(init, jax.random.key(0)), number, number, number]),
        )

    for pair in pairs[:-1]:
        with contextlib.suppress(KeyError, ValueError):  # what Orbax raises where other arrays lie
            return store.restore(functools.partial(like, pair)), pair
    return store.restore(functools.partial(like, pairs[-1])), pairs[-1]


def _build_model(config: Config, meta: Mapping[str, Any], pair: bool, named: bool) -> Model:
    """The model whose parameters a checkpoint of this metadata holds."""
    vocabulary = vocabularies.from_json(meta["vocabulary"])
    counts = vocabulary.counts.astype(np.float64)
    numbers = {label: number for number, label in enumerate(meta["labels"])}
    model = build(
        config.model,
        EmbeddingInit(counts / max(counts.sum(), 1)),
        classes=len(numbers),
        pair=pair,
        normalise=config.word.normalise and config.technique.startswith("word_"),
        perturb=config.word.perturb,
        entity_classes=np.array([numbers.get(w, -1) for w in vocabulary.words], np.int32) if named else None,
    )
    return adapt_model(config.technique, model)


def _explain_some(predictor: Predictor, bucket: Bucket, first: int, found: Prediction) -> None:
    """Writes what a run says of at most `ROWS` texts of a bucket."""

    def rows(column: Any) -> Any:
        """`[ROWS, ...]` of a column, zeros behind its last one; by NumPy, so that nothing is compiled for it."""
        some = column[first : first + ROWS]
        return np.concatenate([some, np.zeros((ROWS - len(some), *some.shape[1:]), some.dtype)])

    some, weight = jax.tree.map(rows, bucket), rows(np.ones(len(bucket.position), np.float32))
    batch = Batch(some.tokens, some.lengths, some.labels, weight, some.query, some.query_lengths)
    with jax.default_matmul_precision(predictor.config.training.matmul_precision):
        instances, radius = jax.device_get(predictor.explain(predictor.params, batch))
    for row, place in enumerate(bucket.position[first : first + ROWS].tolist()):
        found.probability[place] = instances.probability[row]
        found.attention[place][:] = instances.attention[row, : some.lengths[row]]
        found.importance[place][:] = instances.importance[row, : some.lengths[row]]
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
