"""Prepares data sets and shows what is in them: sizes, lengths, vocabulary, class balance; "partial" if not whole.

    python -m launch.prepare --config=configs/sst.py --config.data.raw_dir=DIR
    python -m launch.prepare --all --raw_dir=DIR
    python -m launch.prepare --check FILE

Flags:
  --config=FILE                   an experiment of configs/
  --config.data.raw_dir=DIR       folder with the official archive; an archive that is not there is downloaded
  --config.data.data_dir=DIR      where prepared records go (default ~/tensorflow_datasets)
  --config.data.vectors=NAME      word vectors, whose coverage of the vocabulary is shown: fasttext-simple, glove-840b
                                  or a file
  --config.FIELD=VALUE            any other field, --config.data.min_length=5 say
  --all                           every data set that has a raw file, each as its file in configs/ wants it; what
                                  cannot be had is named with the reason
  --raw_dir=DIR, --data_dir=DIR   with --all: as above
  --check FILE                    looks over a CSV, TSV or JSONL file of your own and lists every bad row

Preparing again is quick: texts are cut into words once, and kept.

Exit codes: 0 done, 1 a file could not be written, 2 the command or its data cannot be used, or --check found bad rows.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console

from flax_attnat.config import Config, parse
from flax_attnat.data import catalogue, custom
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.errors import DataError
from flax_attnat.data.load import load, load_vectors
from launch import cli
from launch.display import preparing, results_table, show, show_notes
from launch.train import show_coverage

PLACES = {"raw_dir": "folder with the official archives", "data_dir": "where prepared records go"}


def main(argv: Sequence[str]) -> int:
    """Prepares what the command line says; returns the exit code."""
    console = cli.console()
    if cli.has_flag(argv, "check"):
        return check(console, cli.flag_values(argv, {"check": "a file of your own"}, config=False).check)
    if cli.has_flag(argv, "all"):
        values = cli.flag_values(argv, PLACES, switches={"all": "every data set"}, config=False)
        return prepare_all(console, {name: getattr(values, name) or "" for name in PLACES})
    config = cli.read_config(cli.flag_values(argv, {}, config=True))
    with preparing(console) as progress:
        dataset = load(config, progress)
        vectors = load_vectors(config, dataset.vocabulary, progress)
    console.print(results_table(_title(dataset), list(split_rows(dataset, _expected(config)))))
    show_notes(console, dataset)
    show_coverage(console, vectors)
    return 0


def prepare_all(console: Console, places: Mapping[str, str]) -> int:
    """One table of everything that could be had, and the reasons for what could not."""
    rows, missing = [], {}
    for name in catalogue.NAMES:
        config = _config(name, places)
        try:
            with preparing(console, name) as progress:
                dataset = load(config, progress)
        except DataError as error:
            missing[name] = str(error)
            continue
        rows += [{"data set": name} | row for row in split_rows(dataset, _expected(config))]
        show_notes(console, dataset)
    if rows:
        console.print(results_table("prepared data sets", rows))
    for name, reason in missing.items():
        show(console, f"{name} was not prepared: {reason}")
    return 0 if rows else cli.USAGE


def check(console: Console, path: str) -> int:
    """Lists every bad row of a user's file; the exit code says whether there are any."""
    report = custom.check(path)
    for problem in report.problems:
        show(console, problem.sentence())
    for sentence, count in sorted(report.notes.items()):
        show(console, f"note: {count:,} {sentence}")
    labels = ", ".join(f"{label} {count:,}" for label, count in report.labels.items())
    bad = len({problem.row for problem in report.problems})
    show(
        console,
        f"{path}: {report.rows:,} rows of the form {report.form}, {bad:,} of them bad; labels: {labels or 'none'}",
    )
    return cli.USAGE if report.problems else 0


def split_rows(dataset: Dataset, expected: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """One row of the table per split, beside the expected sizes where there are any."""
    for name, split in dataset.splits.items():
        lengths = np.array([len(tokens) for tokens in split.tokens])
        unknown = float(np.mean(np.concatenate(split.tokens) == 1)) if lengths.sum() else 0.0
        classes = np.bincount(split.labels, minlength=len(dataset.label_names))
        largest = dataset.label_names[int(np.argmax(classes))]
        row = {"split": name, "n": f"{len(lengths):,}"}
        if expected:
            fewer, more = len(lengths) < expected[name], len(lengths) > expected[name]
            row["expected"] = f"{expected[name]:,}"
            row["data"] = "partial" if fewer else "more" if more else "whole"
        yield row | {
            "mean len": f"{lengths.mean():.1f}",
            "longest": f"{np.max(lengths):,}",
            "vocab": f"{len(dataset.vocabulary.words) - 2:,}",
            "UNK": f"{unknown:.1%}",
            "largest class": f"{np.max(classes) / len(lengths):.1%} {largest} of {len(classes)}",
        }


def _title(dataset: Dataset) -> str:
    """Name and mark of a data set."""
    return f"{dataset.name} ({dataset.mark} data)" if dataset.mark else dataset.name


def _expected(config: Config) -> Mapping[str, int]:
    """The sizes of the whole official file by the filter of `configs/`; empty for another filter, or without a file."""
    if config.dataset not in catalogue.NAMES:
        return {}
    usual = _config(config.dataset, {}).data
    same = all(getattr(config.data, name) == getattr(usual, name) for name in ("min_length", "max_length", "truncate"))
    return catalogue.source(config.dataset).expected if same else {}


def _config(name: str, places: Mapping[str, str]) -> Config:
    """The configuration of `configs/NAME.py`, with raw and prepared data in the given places."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.update(places)
    return parse(config)


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
