"""Bad input gets a sentence and exit code 2, and nothing is written."""

import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from configs import planted
from flax_attnat.allowed import ATTENTIONS, DATASETS, ENCODERS, READINGS, TECHNIQUES
from flax_attnat.config import parse
from flax_attnat.training.workdir import WorkdirError, claim, locked
from launch import ablate, cli, evaluate, explain, export, prepare, quickstart, report, train

PLANTED = "--config=configs/planted.py"
SST = "--config=configs/sst.py"


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])


def call(module, *arguments: str) -> int:
    return cli.run(module, module.main, [module.__name__, *arguments])


def refused(capsys: pytest.CaptureFixture[str], module, *arguments: str) -> str:
    """The sentence of a command that must be refused."""
    code = call(module, *arguments)
    captured = capsys.readouterr()
    assert code == 2 and captured.err.startswith("error: ") and "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("technique=attention_iatt", ["config.technique", *TECHNIQUES]),
        ("reading=spam", ["config.reading", *READINGS]),
        ("dataset=sst3", ["config.dataset", *DATASETS]),
        ("model.encoder=gru", ["config.model.encoder", *ENCODERS]),
        ("model.attention=dot", ["config.model.attention", *ATTENTIONS]),
        ("epsilom=1", ["config.epsilom", "did you mean epsilon?"]),
        ("model.hiden_size=1", ["config.model.hiden_size", "did you mean model.hidden_size?"]),
        ("optimizer=3", ["config.optimizer"]),
        ("epsilon=-1", ["config.epsilon", "at least 0", "-1.0"]),
        ("epsilon=nan", ["config.epsilon", "finite", "nan"]),
        ("epsilon=inf", ["config.epsilon", "finite", "inf"]),
        ("epsilon=much", ["config.epsilon", "much"]),
        ("adversarial_weight=-0.5", ["config.adversarial_weight", "at least 0"]),
        ("training.epochs=2.5", ["config.training.epochs", "2.5"]),
        ("training.epochs=0", ["config.training.epochs", "at least 1"]),
        ("seeds=0,0", ["config.seeds", "different"]),
        ("seeds=zero", ["config.seeds", "zero"]),
        ("word.normalise=perhaps", ["config.word.normalise", "perhaps"]),
        ("data.bucket_widths=8,4", ["config.data.bucket_widths", "ascending"]),
        ("word.neighbours=5000 --config.technique=word_iat", ["config.word.neighbours", "training words"]),
        ("model.hidden_size=5 --config.model.encoder=cnn", ["config.model.hidden_size", "even"]),
    ],
)
def test_a_bad_override_names_the_field_and_what_is_allowed(
    override: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    sentence = refused(capsys, train, PLANTED, *f"--config.{override}".split(), f"--workdir={workdir}")
    assert [part for part in expected if part not in sentence] == [], sentence
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workdir=x"], "--config=FILE is missing"),
        (["--config=configs/nowhere.py", "--workdir=x"], "there is no such file"),
        ([PLANTED], "--workdir=DIR is missing"),
        ([PLANTED, "--workdri=x"], "workdri"),
        ([PLANTED, "--workdir=nowhere://x"], "--workdir=nowhere://x cannot be opened"),
        ([PLANTED, "--workdir=x", "extra"], "unexpected argument 'extra'"),
    ],
)
def test_a_bad_command_line_says_what_to_change(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, train, *arguments)
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def get_config(:", "SyntaxError"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("def get_config():\n    return undefined", "NameError"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return None", "must return a ConfigDict"),
    ],
)
def test_a_broken_config_file_is_named(
    text: str,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # each file is loaded into this module
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert expected in refused(capsys, train, f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_a_file_or_read_only_or_in_use_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(capsys, train, PLANTED, f"--workdir={tmp_path / 'file'}")
    assert call(train, PLANTED, f"--workdir={tmp_path / 'file' / 'below'}") in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    with locked(tmp_path / "run"), pytest.raises(WorkdirError, match="another process"), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass
    small = ("--config.model.encoder=average", "--config.training.epochs=1")
    with locked(tmp_path / "run"):
        assert "another process" in refused(capsys, train, PLANTED, *small, f"--workdir={tmp_path / 'run'}")
    assert not list(tmp_path.rglob("results*"))


def test_results_cut_short_name_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = planted.get_config()
    values.model.encoder, values.training.epochs = "average", 1
    claim(tmp_path, parse(values))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "part.jsonl").write_text('{"split": "dev", "seed": 0}\n{"split": "te')
    flags = ("--config.model.encoder=average", "--config.training.epochs=1", f"--workdir={tmp_path}")
    assert "part.jsonl, line 2 is not JSON" in refused(capsys, train, PLANTED, *flags)


@pytest.mark.parametrize("module", [train, ablate, evaluate, report, explain, export, prepare, quickstart])
def test_help_explains_and_names_every_flag(module, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(module, "--help") == 0
    text = capsys.readouterr().out
    flags = getattr(module, "FLAGS", {})
    assert f"launch.{module.__name__.split('.')[-1]}" in text or "quickstart.sh" in text
    assert [name for name in flags if f"--{name}" not in text] == []


def test_a_missing_archive_says_what_was_expected_and_where_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # refuses at once
    workdir, raw = tmp_path / "run", tmp_path / "raw"
    raw.mkdir()
    arguments = [SST, f"--config.data.raw_dir={raw}", f"--config.data.data_dir={tmp_path / 'data'}"]
    sentence = refused(capsys, train, *arguments, f"--workdir={workdir}")
    assert f"put it in {tmp_path / 'data' / 'downloads'}" in sentence
    assert "trainDevTestTrees_PTB.zip" in sentence and "https://nlp.stanford.edu" in sentence
    assert not workdir.exists()


def test_an_unparsable_tree_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "(3 (2 a) (3 film))\n"
    with zipfile.ZipFile(tmp_path / "trainDevTestTrees_PTB.zip", "w") as archive:
        for split in ("train", "dev", "test"):
            archive.writestr(f"trees/{split}.txt", good * 3 + ("(3 (2 a (3 film)\n" if split == "dev" else ""))
    arguments = [SST, f"--config.data.raw_dir={tmp_path}", f"--config.data.data_dir={tmp_path / 'data'}"]
    sentence = refused(capsys, prepare, *arguments)
    assert "dev.txt" in sentence and "line 4" in sentence, sentence


def test_a_ragged_vector_file_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, workdir = tmp_path / "words.vec.gz", tmp_path / "run"
    path.write_bytes(gzip.compress(b"good 0.1 0.2\nbad 0.1\n"))
    arguments = [PLANTED, f"--config.data.vectors={path}", "--config.model.embedding_size=2", f"--workdir={workdir}"]
    sentence = refused(capsys, train, *arguments)
    assert str(path) in sentence and "line 2" in sentence, sentence
    assert not workdir.exists()


def test_a_workdir_of_another_configuration_is_refused_with_the_differing_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim(tmp_path, parse(planted.get_config()))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    arguments = [PLANTED, "--config.epsilon=7", "--config.model.encoder=cnn", f"--workdir={tmp_path}"]
    sentence = refused(capsys, train, *arguments)
    assert "config.epsilon: 1.0 -> 7.0" in sentence and "config.model.encoder: 'bilstm' -> 'cnn'" in sentence
    assert "config.technique" not in sentence
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_evaluate_refuses_a_folder_that_is_no_workdir(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no config.json" in refused(capsys, evaluate, f"--workdir={tmp_path}")
    assert "--split must be" in refused(capsys, evaluate, f"--workdir={tmp_path}", "--split=tset")
    assert "--workdir=DIR is missing" in refused(capsys, evaluate)


def test_importing_an_entry_point_defines_no_flag() -> None:
    from absl import flags

    assert "workdir" not in flags.FLAGS and "config" not in flags.FLAGS and sys.modules["launch.train"] is train


def test_a_reader_that_has_gone_is_left_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich alone would end the process with code 1, where launch.explain means 0."""

    def gone(*_: object) -> None:
        """A pipe without a reader."""
        raise BrokenPipeError

    console = cli.console()
    monkeypatch.setattr(console, "file", type("Pipe", (io.StringIO,), {"write": gone, "flush": gone})())
    with pytest.raises(BrokenPipeError):
        console.print("said")


def test_a_reader_that_has_gone_is_no_fault_of_the_file_system(tmp_path: Path) -> None:
    """The process ends with 1, without a word."""
    (tmp_path / "mine.csv").write_text("text,label\ngood,x\n")
    program = "import sys; from launch import cli, prepare; sys.exit(cli.run(prepare, prepare.main))"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, "--check", str(tmp_path / "mine.csv")],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (cli.FAILED, "")
