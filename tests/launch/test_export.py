"""`launch.export` as a user runs it: the run that was asked for in a file of its own, or a sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flax_attnat.portable import read_safetensors
from flax_attnat.predictor import load
from launch import ablate, cli, export

CHECKOUT = Path(__file__).parents[2]
ARGUMENTS = [
    f"--config={CHECKOUT / 'configs' / 'ablation_planted.py'}",
    "--config.sweep.techniques=vanilla,attention_iat",
    "--config.sweep.epsilons=0.5,5",
    "--config.sweep.adversarial_weights=1,2",
    "--config.seeds=0,1",
    "--config.model.encoder=average",
    "--config.model.embedding_size=8",
    "--config.model.hidden_size=4",
    "--config.training.epochs=1",
]
CHOSEN = ["--technique=attention_iat", "--reading=span", "--epsilon=5", "--lambda=2", "--seed=1"]


def call(*arguments: str) -> int:
    return cli.run(export, export.main, ["export", *arguments])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained") / "run"
    assert cli.run(ablate, ablate.main, ["ablate", *ARGUMENTS, f"--workdir={place}"]) == 0
    return place


def test_the_run_that_is_asked_for_is_written(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without its data, its results and its other runs' figures; and what it says is the same, bit for bit."""
    path, copy = tmp_path / "run.safetensors", tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "cut.json", "trained"):
        (copy / name).symlink_to(workdir / name)
    assert call(f"--workdir={copy}", *CHOSEN, f"--safetensors={path}") == 0
    shown = capsys.readouterr().out
    assert f"{path}: dataset planted, technique attention_iat, reading span, epsilon 5.0, lambda 2.0" in shown
    found, chosen = read_safetensors(path), {"technique": "attention_iat", "epsilon": 5.0, "lambda": 2.0, "seed": 1}
    original = load(workdir, chosen)
    assert chosen.items() <= dict(found.run).items() and found.run == original.run
    texts = [" ".join(original.vocabulary.words[start : start + 9]) for start in range(2, 60, 7)]
    one, other = original(texts), found(texts)
    np.testing.assert_array_equal(one.probability, other.probability)
    np.testing.assert_array_equal(one.certified_radius, other.certified_radius)
    for mine, theirs in zip(one.attention + one.importance, other.attention + other.importance, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_without_a_choice_it_is_the_best_on_dev(workdir: Path, tmp_path: Path) -> None:
    assert call(f"--workdir={workdir}", f"--safetensors={tmp_path / 'best.safetensors'}") == 0
    lines = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    best = max((line for line in lines if line["split"] == "dev"), key=lambda line: line["auc"])
    found = read_safetensors(tmp_path / "best.safetensors").run
    assert dict(found) == {name: best[name] for name in found}


def test_an_older_file_is_replaced_by_the_same_bytes(workdir: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"older")
    contents = []
    for _ in range(2):
        assert call(f"--workdir={workdir}", *CHOSEN, f"--safetensors={path}") == 0
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] and "params/embedding/table" in safetensors.numpy.load(contents[0])
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir={workdir}"], "--safetensors=FILE is missing"),
        (["--workdir={workdir}", "--safetensors={tmp}/run.npz"], "does not end in .safetensors"),
        (["--workdir={workdir}", "--safetensors={tmp}/no/run.safetensors"], "there is no folder {tmp}/no; make it"),
        (["--workdir={workdir}", "--safetensors={tmp}/folder.safetensors"], "is a folder: give a file"),
        (["--safetensors={tmp}/run.safetensors"], "--workdir=DIR is missing"),
        (["--workdir={tmp}/none", "--safetensors={tmp}/run.safetensors"], "holds no config.json"),
        (["--workdir={workdir}", "--seed=x", "--safetensors={tmp}/run.safetensors"], "--seed must be a whole number"),
        (["--workdir={workdir}", "--seed=1.0", "--safetensors={tmp}/run.safetensors"], "--seed must be a whole number"),
        (["--workdir={workdir}", "--epsilon=inf", "--safetensors={tmp}/run.safetensors"], "--epsilon must be a number"),
        (["--workdir={workdir}", "--epsilon=7", "--safetensors={tmp}/run.safetensors"], "none of the 10 runs"),
        (["--workdir={workdir}", "--seed=0", "--safetensors={tmp}/run.safetensors"], "5 of the 10 runs"),
        (["--workdir={workdir}", "--seeds=0", "--safetensors={tmp}/run.safetensors"], "Unknown command line flag"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(
    arguments: list[str], message: str, workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    assert call(*(argument.format(workdir=workdir, tmp=tmp_path) for argument in arguments)) == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_list_of_runs_is_shown_where_none_was_meant(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(f"--workdir={workdir}", "--technique=word_at", f"--safetensors={tmp_path / 'run.safetensors'}") == 2
    shown = capsys.readouterr().err
    assert "'epsilon': 0.5, 'lambda': 2.0, 'seed': 1" in shown and shown.count("\n") == 11


def test_a_damaged_workdir_is_a_sentence(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(workdir, tmp_path / "copy")
    for manifest in (copy / "trained").rglob("manifest.ocdbt"):
        manifest.write_bytes(b"")
    assert call(f"--workdir={copy}", *CHOSEN, f"--safetensors={tmp_path / 'run.safetensors'}") == 2
    assert "files are missing, cut short or damaged" in capsys.readouterr().err
    assert not (tmp_path / "run.safetensors").exists()


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    assert "--safetensors=FILE" in capsys.readouterr().out
