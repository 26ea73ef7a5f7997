"""Whose a workdir is, what its files hold, and that a reader never sees half of one."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import fsspec
import jax
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from flax_attnat.config import Config, DataConfig, TrainingConfig, config_hash, parse
from flax_attnat.training import workdir as module
from flax_attnat.training.workdir import (
    WorkdirError,
    check_free,
    claim,
    read_config,
    read_lines,
    remove_lines,
    write_atomically,
    write_lines,
)

CONFIG = Config(technique="attention_at", seeds=(0, 4))


class Bucket(MemoryFileSystem):
    """fsspec's memory file system under gs:// addresses; as in a bucket, there are no folders without files."""

    protocol = ("gs", "gcs")
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


@pytest.fixture(params=["local", "bucket"])
def workdir(request, tmp_path):
    """A workdir that does not exist yet: a local folder, and an address of fsspec's memory file system."""
    if request.param == "local":
        yield epath.Path(tmp_path) / "runs" / "a"
        return
    known = fsspec.registry.get("gcs")
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    path = epath.Path("gs://bucket/runs/a")
    if path._backend is not backend.fsspec_backend:
        pytest.skip("etils reads gs:// by TensorFlow here, not by fsspec.")
    yield path
    Bucket.store.clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    if known is not None:
        fsspec.register_implementation("gcs", known, clobber=True)


def test_a_workdir_belongs_to_its_first_configuration(workdir):
    """Asking writes nothing; the same configuration comes back; another is refused and changes nothing."""
    assert check_free(workdir, CONFIG)
    assert not (workdir / "config.json").exists()
    claim(workdir, CONFIG)
    first = (workdir / "config.json").read_text()
    assert read_config(workdir) == CONFIG
    assert not check_free(workdir, CONFIG)
    claim(workdir, CONFIG)
    with pytest.raises(WorkdirError):
        claim(workdir, dataclasses.replace(CONFIG, epsilon=2.0))
    assert (workdir / "config.json").read_text() == first


def test_a_refusal_lists_the_fields_that_differ_and_no_others(tmp_path):
    """There -> here, in the order of the fields; where files lie and how often is saved may differ."""
    claim(tmp_path, CONFIG)
    data = DataConfig(raw_dir="elsewhere", data_dir="too")
    assert not check_free(
        tmp_path, dataclasses.replace(CONFIG, data=data, training=TrainingConfig(save_every_minutes=1.0))
    )
    other = dataclasses.replace(
        CONFIG, epsilon=5.0, seeds=(0,), data=dataclasses.replace(data, min_df=2), training=TrainingConfig(epochs=3)
    )
    with pytest.raises(WorkdirError) as caught:
        check_free(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path} belongs to another configuration. These fields differ (there -> here):\n"
        "  config.epsilon: 1.0 -> 5.0\n"
        "  config.seeds: (0, 4) -> (0,)\n"
        "  config.data.min_df: 1 -> 2\n"
        "  config.training.epochs: 8 -> 3\n"
        "Give another --workdir, or the configuration of this one."
    )


def test_config_json_says_what_ran_where(tmp_path, monkeypatch):
    """Configuration, versions of the packages that are installed, revision, device and command line."""
    command = ["launch/train.py", "--config=configs/planted.py", '--workdir=a "b"']
    monkeypatch.setattr(sys, "argv", command)
    claim(tmp_path, CONFIG)
    record = json.loads((tmp_path / "config.json").read_text())
    assert parse(record["config"]) == CONFIG and record["config_hash"] == config_hash(CONFIG)
    assert record["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert record["versions"]["orbax-checkpoint"] == importlib.metadata.version("orbax-checkpoint")
    assert {"flax_attnat", "jax", "jaxlib", "flax", "optax", "tensorflow-datasets"} <= set(record["versions"])
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["device"] == f"{jax.devices()[0].device_kind} x {jax.device_count()}"
    assert record["command"] == command
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False) if (root / ".git").exists() else None
    if done and done.returncode == 0:
        revision = record["git_revision"].removesuffix("+")
        assert len(revision) >= 12 and done.stdout.startswith(revision)
    else:
        assert record["git_revision"] == ""


EDITED = json.dumps({"config": {"epsilon": -1.0}})
UNREADABLE = {
    "cut short": ('{"config": {"epsilon": 1', "it is not a configuration"),
    "empty": ("", "it is not a configuration"),
    "not text": (b"\xff\xfe\x00", "it is not a configuration"),
    "no configuration": ("{}", "it is not a configuration"),
    "a list": ("[1, 2]", "it is not a configuration"),
    "null": ('{"config": null}', r"config is a group of fields, not a value; got None\."),
    "an empty list": ('{"config": []}', r"config is a group of fields, not a value; got \[\]\."),
    "hand-edited value": (EDITED, r"config\.epsilon must be a finite number, at least 0; got -1\.0\."),
    "hand-edited name": ('{"config": {"epsilom": 1}}', r"config\.epsilom is not a field; did you mean epsilon\?"),
    "hand-edited group": ('{"config": {"data": 3}}', r"config\.data is a group of fields"),
    "a number beyond float64": ('{"config": {"epsilon": 1%s}}' % ("0" * 400), r"config\.epsilon must be a finite"),
    "an endless training": (
        '{"config": {"training": {"epochs": 1e400}}}',
        r"config\.training\.epochs must be of type int",
    ),
}


@pytest.mark.parametrize(("content", "problem"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_config_json_that_cannot_be_used(tmp_path, content, problem):
    """One sentence that names the file, says what is wrong with it and what to do; nothing is overwritten."""
    file = tmp_path / "config.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = file.read_bytes()
    for use in (read_config, lambda path: claim(path, CONFIG)):
        with pytest.raises(
            WorkdirError, match=rf"(?s)config\.json cannot be read: {problem}.*(?<=\.) Give another --workdir\.$"
        ):
            use(tmp_path)
    assert file.read_bytes() == before


def test_a_folder_that_is_no_workdir(workdir):
    with pytest.raises(WorkdirError, match=r"holds no config\.json: it is not a workdir of launch\.train\. Check"):
        read_config(workdir)


def test_lines_are_the_concatenation_of_their_parts(workdir):
    """In the order of the parts' names, whatever the order of writing; a part written again replaces itself."""
    assert read_lines(workdir, "results") == []
    write_lines(workdir, "results", "b", [{"seed": 2}, {"seed": 3, "f1": None, "text": "a\u2028b\nc"}])
    write_lines(workdir, "results", "a", [{"seed": 1}])
    write_lines(workdir, "metrics", "a", [{"epoch": 1}])
    expected = [{"seed": 1}, {"seed": 2}, {"seed": 3, "f1": None, "text": "a\u2028b\nc"}]
    assert read_lines(workdir, "results") == expected
    assert [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()] == expected
    write_lines(workdir, "results", "b", [{"seed": 4}])
    assert read_lines(workdir, "results") == [{"seed": 1}, {"seed": 4}]
    assert (workdir / "results.jsonl").read_text() == '{"seed": 1}\n{"seed": 4}\n'
    assert read_lines(workdir, "metrics") == [{"epoch": 1}]
    write_lines(workdir, "results", "a", [])
    assert read_lines(workdir, "results") == [{"seed": 4}]
    assert {path.name for path in (workdir / "results").iterdir()} == {"a.jsonl", "b.jsonl"}


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    """A text that UTF-8 cannot hold fails while it is written, a line that JSON cannot hold before."""
    write_lines(tmp_path, "results", "a", [{"seed": 1}])
    file = tmp_path / "results" / "a.jsonl"
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "x" * 100_000 + "\ud800")
    with pytest.raises(TypeError):
        write_lines(tmp_path, "results", "a", [{"seed": 2}, {"seed": object()}])
    assert file.read_text() == (tmp_path / "results.jsonl").read_text() == '{"seed": 1}\n'
    assert read_lines(tmp_path, "results") == [{"seed": 1}]
    write_lines(tmp_path, "results", "a", [{"seed": 2}])
    assert read_lines(tmp_path, "results") == [{"seed": 2}]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.jsonl"]


def test_a_reader_beside_a_writer_sees_whole_files_only(tmp_path):
    """The file is rewritten 60 times, short and long in turn, while it is read: each reading is one of the two."""
    texts = ("short\n", "long\n" * 100_000)
    file = tmp_path / "results.jsonl"
    write_atomically(file, texts[0])
    writer = threading.Thread(target=lambda: [write_atomically(file, texts[turn % 2]) for turn in range(60)])
    writer.start()
    readings = []
    while writer.is_alive():
        readings.append(file.read_text() in texts)
    writer.join()
    assert readings and all(readings)


def test_a_process_killed_between_two_writes_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The concatenation is written first: the part that is missing then is written again, the other way round never."""
    write_lines(tmp_path, "results", "a", [{"n": 1}])
    write, written = module.write_atomically, []

    def killed(path, text):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            write_lines(tmp_path, "results", "b", [{"n": 2}])
    assert not (tmp_path / "results" / "b.jsonl").exists()
    write_lines(tmp_path, "results", "b", [{"n": 2}])
    assert (tmp_path / "results.jsonl").read_text() == '{"n": 1}\n{"n": 2}\n'
    remove_lines(tmp_path, "results", "a")
    assert (tmp_path / "results.jsonl").read_text() == '{"n": 2}\n'
    remove_lines(tmp_path, "results", "nothing")
    assert read_lines(tmp_path, "results") == [{"n": 2}]


def test_a_workdir_of_another_version_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, CONFIG)
    record = json.loads((tmp_path / "config.json").read_text())
    del record["layout"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(WorkdirError, match="made by another version of flax_attnat"):
        check_free(tmp_path, CONFIG)
