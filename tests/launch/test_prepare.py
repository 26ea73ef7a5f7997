"""`launch.prepare`: the table of everything that can be had, and a user's file looked over."""

import re
from pathlib import Path

import pytest

from launch import cli, prepare
from tests.fixtures import write_cnn, write_multi_nli


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address refuses at once."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])


def call(*arguments: str) -> int:
    return cli.run(prepare, prepare.main, ["launch.prepare", *arguments])


def test_all_that_can_be_had_is_shown_beside_the_sizes_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cnn(tmp_path)
    write_multi_nli(tmp_path)
    assert call("--all", f"--raw_dir={tmp_path}", f"--data_dir={tmp_path / 'data'}") == 0
    shown = capsys.readouterr().out
    rows = {tuple(line.split()[:2]): line.split()[2:5] for line in shown.splitlines() if "partial" in line}
    assert rows[("cnn", "train")] == ["120", "380,298", "partial"]
    assert rows[("cnn", "test")] == ["40", "3,198", "partial"]
    assert rows[("multi_nli", "test")] == ["114", "19,647", "partial"]
    assert re.search(r"multi_nli: 16 .*gold", shown)
    for name in ("sst", "imdb", "newsgroups", "ag_news", "babi1", "babi2", "babi3", "snli", "movies"):
        (reason,) = (line for line in shown.splitlines() if line.startswith(f"{name} was not prepared: "))
        assert "The download of" in reason and "The official file is" in reason
        assert "https://" in reason or "http://" in reason


def test_sizes_are_expected_of_the_usual_filter_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cnn(tmp_path)
    places = [f"--config.data.raw_dir={tmp_path}", f"--config.data.data_dir={tmp_path / 'data'}"]
    assert call("--config=configs/cnn.py", *places) == 0
    assert "380,298" in capsys.readouterr().out
    assert call("--config=configs/cnn.py", *places, "--config.data.max_length=1000") == 0
    assert "380,298" not in capsys.readouterr().out


def test_a_tab_and_a_line_end_in_a_field_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rows that a stray quote makes one."""
    path = tmp_path / "mine.tsv"
    path.write_text('text\tlabel\n"Great film\tpos\nbad one"\tneg\nfine\tpos\n')
    assert call("--check", str(path)) == 0
    assert "note: 1 texts hold a tab and a line end" in " ".join(capsys.readouterr().out.split())


def test_nothing_to_prepare_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--all", f"--raw_dir={tmp_path}", f"--data_dir={tmp_path / 'data'}") == 2
    assert "movies was not prepared" in capsys.readouterr().out


def test_check_lists_every_bad_row_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('text,label\n"two\nlines, ""quoted""",good\nso,\nfine,bad\none,two,three\n')
    assert call("--check", str(path)) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["row 2 (line 4)", "row 4 (line 6)"]
    assert lines[-1] == f"{path}: 4 rows of the form text, 2 of them bad; labels: bad 1, good 1"


def test_check_of_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"premise": "a b", "hypothesis": "b", "label": "yes"}\n')
    assert call(f"--check={path}") == 0
    assert capsys.readouterr().out == f"{path}: 1 rows of the form premise, 0 of them bad; labels: yes 1\n"


def test_check_of_what_is_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--check", str(tmp_path / "none.csv")) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments, meant",
    [
        (("--config=configs/planted.py", "--raw_dir=x"), "--config.data.raw_dir"),
        (("--config=configs/planted.py", "--epochs=3"), "--config.training.epochs"),
        (("--all", "--config.data.raw_dir=x"), "--raw_dir"),
    ],
)
def test_a_flag_that_lacks_its_groups_or_has_too_many(
    arguments: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err
