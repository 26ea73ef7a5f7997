"""launch.report: what it says on the command line."""

import pytest

from launch import cli, report
from tests.reporting import made


def called(*arguments):
    """The exit code of a command line."""
    return cli.run(report, report.main, ["report", *arguments])


@pytest.fixture
def workdir(tmp_path):
    made.write(tmp_path / "a" / "results.jsonl", made.every_split())
    return tmp_path / "a"


def test_it_writes_beside_the_results_and_says_where(workdir, capsys):
    assert called(f"--workdir={workdir}") == 0
    assert f"report: {workdir / 'report' / 'index.html'}" in capsys.readouterr().out
    assert (workdir / "report" / "tables" / "prediction.tex").exists()


def test_it_writes_elsewhere_if_asked(workdir, tmp_path):
    assert called(f"--workdir={workdir}", f"--out={tmp_path / 'b'}") == 0
    assert (tmp_path / "b" / "index.html").exists() and not (workdir / "report").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "--workdir=DIR is missing"),
        (("--workdir=nowhere",), "does not exist: finish a training there"),
        (("--workdir={0}", "--texts=many"), "--texts must be a whole number such as 60"),
        (("--workdir={0}", "--techniques=vanilla,at"), "--techniques names some of vanilla,"),
        (("--workdir={0},{0}",), "names a workdir twice"),
        (("--workdir={0}", "--out={0}/results.jsonl"), "--out={0}/results.jsonl is a file"),
        (("--workdir={0}", "extra"), "unexpected argument 'extra'"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(workdir, capsys, flags, sentence):
    assert called(*(flag.format(workdir) for flag in flags)) == 2
    said = capsys.readouterr().err
    assert sentence.format(workdir) in said and said.startswith("error: ") and "Traceback" not in said


def test_two_configurations_need_a_flag(workdir, tmp_path, capsys):
    made.write(tmp_path / "b" / "results.jsonl", made.every_split())
    both = f"--workdir={workdir},{tmp_path / 'b'}"
    assert called(both) == 2 and "--group" in capsys.readouterr().err
    assert called(both, "--group") == 0
