"""How a workdir came about: configuration, versions, device, command, and the data that it was measured on."""

import json
from typing import Any, NamedTuple

from etils import epath

from flax_attnat.config import flatten
from flax_attnat.training.workdir import WorkdirError, read_config


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
    """The record of a workdir, from `config.json` and the hashes in `instances/`; what cannot be had is "unknown"."""
    workdir = epath.Path(workdir)
    try:
        config = flatten(read_config(workdir))
        made: dict[str, Any] = json.loads((workdir / "config.json").read_text())
    except WorkdirError as error:
        return Record(str(workdir), [("configuration", f"unknown: {error}"), *_data(workdir)], [])
    versions = made.get("versions")
    facts = {
        "configuration": made.get("config_hash"),
        "device": made.get("device"),
        "versions": ", ".join(f"{name} {of}" for name, of in versions.items()) if isinstance(versions, dict) else "",
        "Python": made.get("python"),
        "git revision": made.get("git_revision"),
        "command": " ".join(map(str, command)) if isinstance(command := made.get("command"), list) else "",
    }
    told = [(name, str(value or "unknown")) for name, value in facts.items()]
    return Record(str(workdir), told + _data(workdir), [(name, _shown(value)) for name, value in config.items()])


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
