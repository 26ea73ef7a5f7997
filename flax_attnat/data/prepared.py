"""Prepared records: from a raw file to TensorFlow Datasets' array records, once, and back."""

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from flax_attnat.data.archive import NotInFolder, Official, find_raw, sha256_of, user_path, warn_if_repacked
from flax_attnat.data.download import Progress, download, no_progress
from flax_attnat.data.errors import DataError
from flax_attnat.data.members import listing

DEFAULT_DATA_DIR = "~/tensorflow_datasets"
_SLOW_BYTES = 100_000_000  # from here on the SHA-256 of a file is remembered
_BATCH = 4096
_LONGEST_REASON = 200  # characters; the record reader's message may hold all records


class Raw(NamedTuple):
    """A raw file.

    Attributes:
      path: the archive or its extracted folder; None: not downloaded yet.
      identity: hexadecimal digest that changes with the file.
    """

    path: Path | None
    identity: str


class Prepared(NamedTuple):
    """The records of a dataset.

    Attributes:
      splits: records by split, in the order of the source.
      notes: by split, what the user should know of the raw file, with how often.
    """

    splits: dict[str, list[dict[str, Any]]]
    notes: dict[str, dict[str, int]]


def locate(official: Official, raw_dir: str, data_dir: str) -> Raw:
    """The raw file and its identity: SHA-256 of an archive, digest of a folder's names, sizes and times.

    Where `raw_dir` is not given or does not hold the file, the official one is meant, which is then downloaded: its
    published SHA-256, or the digest of its address where there is none, stands for it.

    Args:
      official: the official archive.
      raw_dir: folder of the raw file, or "".
      data_dir: local folder of the prepared records, or "" for `~/tensorflow_datasets`; it remembers the SHA-256 of
        large files.

    Raises:
      DataError: `raw_dir` is no folder, or what it holds cannot be read.
    """
    root = local_root(data_dir)
    absent = Raw(None, official.sha256 or hashlib.sha256(official.url.encode()).hexdigest())
    if not raw_dir:
        return absent
    try:
        source = find_raw(raw_dir, (official.name, *official.folders)).absolute()
        identity = _sha256_remembered(source, root) if source.is_file() else _digest_of_folder(source)
    except NotInFolder:
        return absent
    except DataError as error:
        raise DataError(f"{error} {official.sentence()}") from error
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}). {official.sentence()}") from error
    warn_if_repacked(source, identity, official)
    return Raw(source, identity)


def prepared_folder(source_name: str, version: str, identity: str, data_dir: str) -> Path:
    """The folder of a dataset's records, one for each raw file: another file is never taken for one prepared before.

    >>> prepared_folder("sst", "2.0.0", "5c613a4f673fc740", "/data").as_posix()
    '/data/raw-5c613a4f673f/sst/2.0.0'
    """
    return local_root(data_dir) / f"raw-{identity[:12]}" / source_name / version


def read_prepared(builder_class: Any, raw: Raw, data_dir: str, *, progress: Progress = no_progress) -> Prepared:
    """The records of every split, prepared first if this raw file has not been prepared yet.

    Args:
      builder_class: the dataset's `SourceBuilder`.
      raw: what `locate` gave; if it is not there yet, it is downloaded into `data_dir/downloads`.
      data_dir: local folder of the prepared records, or "" for `~/tensorflow_datasets`.
      progress: told how much has been downloaded, in bytes.

    Raises:
      DataError: the raw file cannot be had or is damaged, or the prepared records are.
    """
    source = builder_class.SOURCE
    folder = prepared_folder(source.name, source.version, raw.identity, data_dir)
    if not folder.exists():
        path = raw.path or download(source.official, downloads(data_dir), progress=progress)
        _prepare(builder_class(data_dir=os.fspath(folder.parent.parent)), path.parent)
    # Made only now: a builder reads what the folder holds when it is made, and another process may just have made it.
    builder = builder_class(data_dir=os.fspath(folder.parent.parent))
    if not builder.is_prepared():
        raise DataError(f"{folder} is an incomplete folder of prepared records; delete it and run again.")
    return _read(builder)


def downloads(data_dir: str) -> Path:
    """The folder of downloaded files."""
    return local_root(data_dir) / "downloads"


def local_root(data_dir: str) -> Path:
    """The local folder of all prepared records.

    Raises:
      DataError: it is not local.
    """
    if "://" in data_dir:
        raise DataError(
            f"config.data.data_dir is {data_dir}, but prepared records are read from local folders only: give one."
        )
    return user_path(data_dir or DEFAULT_DATA_DIR)


def _digest_of_folder(folder: Path) -> str:
    """The digest of what lies in a folder: sorted relative names, sizes and times of last change."""
    digest = hashlib.sha256()
    for name, entry in listing(folder):
        status = entry.stat(follow_symlinks=entry.is_file())  # a link to nothing is no error until it is read
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _sha256_remembered(path: Path, root: Path) -> str:
    """The SHA-256 of a file; that of a large file is kept in `root` with its size and time of last change."""
    status = path.stat()
    if status.st_size < _SLOW_BYTES:
        return sha256_of(path)
    memory, key, state = root / "checksums.json", os.fspath(path), [status.st_size, status.st_mtime_ns]
    known = _read_memory(memory)
    if key in known and known[key][:2] == state:
        return known[key][2]
    sha256 = sha256_of(path)
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time only
        root.mkdir(parents=True, exist_ok=True)
        new = memory.with_name(f"{memory.name}.{os.getpid()}")
        new.write_text(json.dumps({**known, key: [*state, sha256]}, indent=1), encoding="utf-8")
        new.replace(memory)
    return sha256


def _read_memory(memory: Path) -> dict[str, list]:
    """Size, time of last change and SHA-256 of files by path; what is damaged is forgotten."""
    found: Any = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(memory.read_text(encoding="utf-8"))
    entries = found.items() if isinstance(found, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, list) and len(entry) == 3}


def _prepare(builder: Any, raw_dir: Path) -> None:
    """Writes the records, silently; the finished folder appears in one step, so that a failure leaves none."""
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=os.fspath(raw_dir.absolute()))
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it downloads, which it does not
            builder.download_and_prepare(file_format="array_record", download_config=config)
    except DataError as error:
        raise DataError(f"{error} {builder.SOURCE.official.sentence()}") from error
    except OSError:
        if not builder.data_path.exists():  # else another process finished first, with the same records
            raise
    finally:
        tfds.enable_progress_bar()


def _read(builder: Any) -> Prepared:
    """Every record of every split, and the notes."""
    try:
        splits = {split: _records(source) for split, source in builder.as_data_source().items()}
        notes = {split: dict(found) for split, found in builder.info.metadata["notes"].items()}
    except Exception as error:  # the record reader raises what its C++ core gives it
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise DataError(
            f"The prepared records in {builder.data_path} cannot be read ({reason}); delete that folder and run again."
        ) from error
    for split, records in splits.items():
        whole = sum(None not in record.values() for record in records)  # a truncated file gives empty records
        if whole != builder.info.splits[split].num_examples:
            raise DataError(
                f"The prepared split {split} in {builder.data_path} has {whole:,} whole records instead of"
                f" {builder.info.splits[split].num_examples:,}; delete that folder and run again."
            )
    return Prepared(splits, notes)


def _records(source: Any) -> list[dict[str, Any]]:
    """The records of a split, many at a time: one by one takes three times as long."""
    starts = range(0, len(source), _BATCH)
    return [
        record for start in starts for record in source.__getitems__(range(start, min(start + _BATCH, len(source))))
    ]
