"""Prepared records: from a raw file to TensorFlow Datasets' array records, once, and back."""

import contextlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flax_attnat.data.archive import Official, download, find_raw, sha256_of, warn_if_repacked
from flax_attnat.data.errors import DataError

DEFAULT_DATA_DIR = "~/tensorflow_datasets"


def read_prepared(
    builder_class: Any, official: Official, members: Iterable[str], raw_dir: str, data_dir: str
) -> dict[str, list[dict[str, Any]]]:
    """The records of every split, prepared first if this raw file has not been prepared yet.

    Each raw file has its own folder, `data_dir/raw-SHA256/`, so that another file is never taken for one that was
    prepared before. Without `raw_dir` the official file is meant, and is downloaded if it is not prepared.

    Args:
      builder_class: a builder that reads its raw file from the manual directory.
      official: its official archive.
      members: the members that identify an extracted folder.
      raw_dir: folder of the raw file, or "".
      data_dir: local folder of the prepared records, or "" for `~/tensorflow_datasets`.

    Raises:
      DataError: the raw file is missing or damaged, or the prepared records are.
    """
    root = _root(data_dir)
    sha256 = official.sha256
    if raw_dir:
        sha256 = _identify(raw_dir, official, tuple(members))
    folder = root / f"raw-{sha256[:12]}"
    builder = builder_class(data_dir=os.fspath(folder))
    if not (builder.data_path.exists() and builder.is_prepared()):
        if not raw_dir:
            raw_dir = os.fspath(_download(official, root))
        _prepare(builder, raw_dir)
        builder = builder_class(data_dir=os.fspath(folder))
    return _read(builder)


def _identify(raw_dir: str, official: Official, members: tuple[str, ...]) -> str:
    """The SHA-256 of the raw file in `raw_dir`, or a DataError that says where to get it."""
    try:
        source = find_raw(raw_dir, (official.name, *official.folders))
        sha256 = sha256_of(source, members)
    except DataError as error:
        raise DataError(f"{error} {official.sentence()}") from error
    warn_if_repacked(source, sha256, official)
    return sha256


def _root(data_dir: str) -> Path:
    """The local folder of all prepared records."""
    if "://" in data_dir:
        raise DataError(
            f"config.data.data_dir is {data_dir}, but prepared records are read from local folders only: give one."
        )
    return Path(data_dir or DEFAULT_DATA_DIR).expanduser()


def _download(official: Official, root: Path) -> Path:
    """The folder of the official file, fetched unless an earlier run did."""
    target = root / "downloads" / official.name
    if not target.is_file() or sha256_of(target, ()) != official.sha256:
        download(official.url, official.size, official.sha256, target)
    return target.parent


def _prepare(builder: Any, raw_dir: str) -> None:
    """Writes the records, silently; the finished folder appears in one step, so that a failure leaves none."""
    import tensorflow_datasets as tfds

    if builder.data_path.exists() and not builder.is_prepared():
        raise DataError(f"{builder.data_path} is an incomplete folder of prepared records; delete it and run again.")
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(Path(raw_dir).expanduser().absolute()))
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it downloads, which it does not
            builder.download_and_prepare(file_format="array_record", download_config=config)
    except OSError:
        if not builder.data_path.exists():  # else another process finished first, with the same records
            raise
    finally:
        tfds.enable_progress_bar()


def _read(builder: Any) -> dict[str, list[dict[str, Any]]]:
    """Every record of every split, in the order of the source."""
    try:
        splits = {split: list(records) for split, records in builder.as_data_source().items()}
    except Exception as error:  # the record reader raises what its C++ core gives it
        raise DataError(
            f"The prepared records in {builder.data_path} cannot be read ({error}); delete that folder and run again."
        ) from error
    for split, records in splits.items():
        whole = sum(None not in record.values() for record in records)  # a truncated file gives empty records
        if whole != builder.info.splits[split].num_examples:
            raise DataError(
                f"The prepared split {split} in {builder.data_path} has {whole:,} whole records instead of"
                f" {builder.info.splits[split].num_examples:,}; delete that folder and run again."
            )
    return splits
