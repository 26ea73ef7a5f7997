"""Finds the corpus of a dataset: generated, kept from an earlier start, or cut from its raw file now."""

import hashlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from flax_attnat.config import Config
from flax_attnat.data import catalogue, corpus, custom, planted, simulator
from flax_attnat.data.archive import user_path
from flax_attnat.data.corpus import Corpus, Cut, Progress
from flax_attnat.data.errors import DataError
from flax_attnat.data.prepared import locate, prepared_folder, read_prepared
from flax_attnat.data.source import (
    Arrange,
    Example,
    Keep,
    Notes,
    Rows,
    Source,
    Table,
    hold_out,
    official_splits,
    spaced_words,
    whole,
)
from flax_attnat.data.text import clean, natural

CUSTOM_VERSION = "1.0.0"
CUSTOM_SHARE = 0.1
FEWEST = 20


class Found(NamedTuple):
    """A corpus and what else loading needs to know.

    Attributes:
      corpus: the labelled splits, cut into words.
      arrange: rows of "train", "dev" and "test".
      pair: whether texts come with queries.
      mark: "", "synthetic", "simulated" or "partial".
      entity_prefix: as in `Source`.
    """

    corpus: Corpus
    arrange: Arrange
    pair: bool
    mark: str
    entity_prefix: str = ""


def find(config: Config, progress: Progress) -> Found:
    """The corpus of `config.dataset`.

    Raises:
      DataError: a raw or prepared file cannot be used.
    """
    name = config.dataset
    if name == "planted":
        return _generated(planted.generate(), official_splits, progress, pair=False, mark="synthetic")
    if name.startswith("simulated"):
        examples = simulator.generate(int(name.removeprefix("simulated")))
        return _generated(examples, catalogue.source("babi1").arrange, progress, pair=True, mark="simulated")
    if name == "custom":
        return _custom(config, progress)
    return _official(catalogue.source(name), config, progress)


def _generated(
    examples: Mapping[str, list[Example]], arrange: Arrange, progress: Progress, *, pair: bool, mark: str
) -> Found:
    """A corpus that is written anew at each start."""
    made = corpus.build_corpus(examples, spaced_words, lambda answers, words: natural(answers), Notes(), progress)
    return Found(made, arrange, pair, mark)


def _official(source: Source, config: Config, progress: Progress) -> Found:
    """The corpus of a dataset with a raw file."""
    raw = locate(source.official, config.data.raw_dir, config.data.data_dir)
    folder = prepared_folder(source.name, source.version, raw.identity, config.data.data_dir)
    labels = (*(source.labels or ()), source.entity_prefix)
    path = folder / f"words-{rules_hash(source.words, labels)}.npz"
    found = corpus.read(path)
    if found is None:
        prepared = read_prepared(
            catalogue.builder_class(source.name),
            raw,
            config.data.data_dir,
            progress=lambda done, total: progress("downloading bytes", done, total),
        )
        examples, notes = _examples(source, prepared.splits), Notes()
        for split in prepared.notes.values():
            notes.update(split)
        found = corpus.build_corpus(
            examples, source.words, lambda answers, words: _class_names(source, answers, words), notes, progress
        )
        corpus.save(path, found)
    sizes = {split: len(part.labels) for split, part in found.parts.items()}
    partial = any(size < source.splits[split] for split, size in sizes.items())
    return Found(found, source.arrange, source.pair, "partial" if partial else "", source.entity_prefix)


def _custom(config: Config, progress: Progress) -> Found:
    """The corpus of a user's own files, kept like the others by what the files hold."""
    paths = {name: getattr(config.data, name) for name in ("train", "dev", "test") if getattr(config.data, name)}
    identity = hashlib.sha256("".join(f"{name} {file_hash(path)}\n" for name, path in paths.items()).encode())
    folder = prepared_folder("custom", CUSTOM_VERSION, identity.hexdigest(), config.data.data_dir)
    cache = folder / f"words-{rules_hash(clean)}.npz"
    found = corpus.read(cache)
    if found is None:
        notes = Notes()
        custom.check_forms(list(paths.values()))
        examples = {name: custom.read(path, notes) for name, path in paths.items()}
        names = custom.label_names(examples["train"])
        for name in paths:
            custom.check_labels(paths[name], examples[name], names)
        notes.pop(custom.EMPTY, None)  # loading counts them
        found = corpus.build_corpus(examples, clean, lambda answers, words: names, notes, progress)
        corpus.save(cache, found)
    pair = any(len(part.query.values) for part in found.parts.values())
    return Found(found, arrange_custom, pair, "")


def arrange_custom(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """The files as they are; a dev or test split that has no file is a tenth of the training file, by class."""
    rows = whole(tables, {name: name for name in tables})
    labels = tables["train"].labels
    missing = [name for name in ("test", "dev") if name not in tables]
    left, share = np.arange(len(labels)), max(1, round(CUSTOM_SHARE * len(labels)))
    for seed, name in enumerate(missing):
        try:
            left, held = hold_out(left, labels[left], share, seed, stratify=True)
        except DataError:  # a class with a single text, or more classes than held-out texts
            if len(labels) < FEWEST:
                raise DataError(
                    f"config.data.train has {len(labels):,} texts: too few to hold out a {name} split. Give at least"
                    f" {FEWEST} texts, or files of their own: --config.data.dev=FILE --config.data.test=FILE."
                ) from None
            left, held = hold_out(left, labels[left], share, seed, stratify=False)
        rows[name] = [("train", held)]
    return rows | {"train": [("train", left)]}


def file_hash(path: str) -> str:
    """SHA-256 of a user's file, hexadecimal."""
    try:
        with user_path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a CSV, TSV or JSONL file.") from error


def _examples(source: Source, splits: Mapping[str, list[dict]]) -> dict[str, list[Example]]:
    """The records of a builder as examples; splits without labels are left out."""

    def example(record: dict) -> Example:
        """One record; text comes as bytes."""
        return Example(
            text=record["text"].decode("utf-8"),
            label=record["label"].decode("utf-8"),
            query=record["query"].decode("utf-8") if source.pair else "",
            rationale=tuple(map(int, record["rationale"])) if record.get("has_rationale") else None,
            group=record["group"].decode("utf-8"),
        )

    for name, found in splits.items():
        if not found:
            raise DataError(f"{source.name}: the raw file has no example of {name}. {source.official.sentence()}")
    return {name: [example(record) for record in found] for name, found in splits.items() if found[0]["label"]}


def _class_names(source: Source, answers: set[str], words: Iterable[str]) -> tuple[str, ...]:
    """The classes of a source: those it lists, or its entities, or its answers."""
    if source.labels is not None:
        return source.labels
    entities = {word for word in words if re.fullmatch(f"{re.escape(source.entity_prefix)}\\d+", word)}
    return natural(answers | entities)


def rules_hash(cut: Cut, labels: Iterable[str] = ()) -> str:
    """Twelve hexadecimal digits that name the text rules and the classes.

    They change with the code of the rules and of `flax_attnat.data.text`, from which most of them take a part, with the
    version of the tokeniser behind them, and with the names of the classes, whose ids are kept beside the words.
    """
    parts = [
        inspect.getsource(sys.modules[cut.__module__]),
        inspect.getsource(sys.modules[clean.__module__]),
        cut.__qualname__,
        *labels,
        importlib.metadata.version("spacy"),
        str(corpus.FORMAT),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
