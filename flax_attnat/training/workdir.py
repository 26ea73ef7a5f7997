"""The files of a workdir: whose it is (`config.json`), its results and its metrics.

Every file is written under a temporary name and renamed (in a bucket: one put), so that no reader sees half of one.
"""

import contextlib
import fcntl
import importlib.metadata
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config, config_hash, differences, parse, to_json

PACKAGES = ("flax_attnat", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "chex", "numpy")


# What lies where in a workdir; raised when that changes.
LAYOUT = 2


class WorkdirError(RuntimeError):
    """A workdir that cannot be used for this; the message says why and what to do."""


def check_free(workdir: epath.PathLike, config: Config) -> bool:
    """Whether nobody has claimed the workdir yet (True) or this very configuration has (False); writes nothing.

    Raises:
      WorkdirError: the workdir belongs to another configuration; the differing fields are listed.
    """
    path = epath.Path(workdir)
    if (path / "config.json").exists():
        differing = differences(read_config(path), config)
        if differing:
            lines = "\n  ".join(differing)
            raise WorkdirError(
                f"{path} belongs to another configuration. These fields differ (there -> here):\n  {lines}\n"
                "Give another --workdir, or the configuration of this one."
            )
        return False
    return True


def claim(workdir: epath.PathLike, config: Config) -> None:
    """Makes the workdir this configuration's own by writing `config.json`, unless it is already.

    Raises:
      WorkdirError: the workdir belongs to another configuration; the differing fields are listed.
    """
    if not check_free(workdir, config):
        return
    record = {
        "layout": LAYOUT,
        "config": to_json(config),
        "config_hash": config_hash(config),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "git_revision": _git_revision(),
        "device": f"{jax.devices()[0].device_kind} x {jax.device_count()}",
        "command": sys.argv,
    }
    write_atomically(epath.Path(workdir) / "config.json", json.dumps(record, indent=2) + "\n")


@contextlib.contextmanager
def locked(workdir: epath.PathLike | None) -> Iterator[None]:
    """Keeps a local workdir, if one is given, to one training; the lock goes with the process, however it ends.

    Raises:
      WorkdirError: another process is training there.
    """
    if workdir is None or "://" in str(workdir):
        yield
        return
    path = Path(workdir)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(
                f"another process is training in {workdir}. Wait for it, or give another --workdir."
            ) from error
        yield


def read_config(workdir: epath.PathLike) -> Config:
    """The configuration of a workdir.

    Raises:
      WorkdirError: there is no `config.json`, or it cannot be read.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise WorkdirError(f"{workdir} holds no config.json: it is not a workdir of launch.train. Check --workdir.")
    try:
        record = json.loads(path.read_text())
        config = parse(record["config"])
    except (ValueError, KeyError, TypeError) as error:
        problem = str(error) if isinstance(error, ConfigError) else f"it is not a configuration ({error})."
        raise WorkdirError(f"{path} cannot be read: {problem} Give another --workdir.") from error
    if record.get("layout") != LAYOUT:
        raise WorkdirError(f"{workdir} was made by another version of flax_attnat. Give another --workdir.")
    return config


def write_lines(workdir: epath.PathLike, kind: str, part: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes `<kind>/<part>.jsonl`, and before it `<kind>.jsonl`, the concatenation of all parts.

    A process that is killed between the two leaves a part that is not there, which the next one writes again.
    """
    path = epath.Path(workdir)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    _concatenate(path, kind, {f"{part}.jsonl": text})
    write_atomically(path / kind / f"{part}.jsonl", text)


def remove_lines(workdir: epath.PathLike, kind: str, part: str) -> None:
    """Takes a part, if there is one, out of `<kind>/` and `<kind>.jsonl`."""
    path = epath.Path(workdir)
    (path / kind / f"{part}.jsonl").unlink(missing_ok=True)
    _concatenate(path, kind, {})


def _concatenate(path: epath.Path, kind: str, new: Mapping[str, str]) -> None:
    """Writes `<kind>.jsonl` from the parts that are there and those that are about to be, by file name."""
    there = {file.name: file for file in (path / kind).glob("*.jsonl") if file.name not in new}
    texts = [new[name] if name in new else there[name].read_text() for name in sorted({*there, *new})]
    write_atomically(path / f"{kind}.jsonl", "".join(texts))


def read_lines(workdir: epath.PathLike, kind: str, part: str = "*") -> list[dict[str, Any]]:
    """The lines of one part of `kind` ("results" or "metrics"), or of all, in the order of their names."""
    files = sorted((epath.Path(workdir) / kind).glob(f"{part}.jsonl"), key=lambda p: p.name)
    lines = []
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise WorkdirError(
                    f"{file}, line {number} is not JSON: the file was changed or cut short. Remove it; launch.train or "
                    "launch.evaluate writes it anew from the checkpoint."
                ) from error
    return lines


def write_atomically(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file under a temporary name beside it, then renames it; an object of a bucket is one put."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    if "://" in str(path):
        path.write_bytes(content)
        return
    temporary = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(workdir: epath.PathLike, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `instances/<name>.npz`, compressed; it holds no objects, so that nothing is ever unpickled."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(epath.Path(workdir) / "instances" / f"{name}.npz", buffer.getvalue())


def _version(package: str) -> str:
    """Installed version of a package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    """Revision of the checkout this package runs from, with "+" if it has changes; empty outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
