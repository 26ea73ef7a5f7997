"""How a workdir came about: configuration, versions, device, command, and the data that it was measured on."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from flax_attnat.config import flatten
from flax_attnat.training.workdir import read_config


class Record(NamedTuple):
    """What is known of a workdir's making.

    Attributes:
      workdir: its path.
      facts: title and text, in the order in which they are shown.
      config: every field of the configuration and its value.
    """

    workdir: str
    facts: list[tuple[str, str]]
    config: list[tuple[str, str]]


def read_record(workdir: epath.PathLike) -> Record:
    """The record of a workdir, from `config.json` and the hashes in `instances/`; what is not there is called unknown.

    Raises:
      WorkdirError: `config.json` is damaged, or of another version.
    """
    workdir = epath.Path(workdir)
    if not (workdir / "config.json").exists():
        return Record(str(workdir), [("configuration", "unknown: there is no config.json"), *_data(workdir)], [])
    config = flatten(read_config(workdir))
    made: Mapping[str, Any] = json.loads((workdir / "config.json").read_text())
    versions = made.get("versions") or {}
    facts = [
        ("configuration", str(made.get("config_hash", "unknown"))),
        ("device", str(made.get("device", "unknown"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "unknown"),
        ("Python", str(made.get("python", "unknown"))),
        ("git revision", str(made.get("git_revision") or "unknown")),
        ("command", " ".join(map(str, made.get("command", ()))) or "unknown"),
    ]
    return Record(str(workdir), facts + _data(workdir), [(name, _shown(value)) for name, value in config.items()])


def _data(workdir: epath.Path) -> list[tuple[str, str]]:
    """Size and hash of each split, as launch.evaluate saw them."""
    for file in sorted((workdir / "instances").glob("*.texts.json"), key=lambda path: path.name):
        try:
            data = json.loads(file.read_text())["data"]
            return [(f"data, {name}", f"{of['n']:,} texts, SHA-256 {of['sha256']}") for name, of in data.items()]
        except (ValueError, KeyError, TypeError, AttributeError):
            return [("data", f"unknown: {file.name} is damaged")]
    return [("data", "hashes unknown: launch.evaluate writes them")]


def _shown(value: Any) -> str:
    """A value of a configuration."""
    return ", ".join(map(str, value)) or "-" if isinstance(value, list | tuple) else str(value) or "-"
