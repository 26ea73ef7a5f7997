"""`launch.explain` as a user runs it: on a terminal, piped, as JSON and as a page; on hostile texts and bad input."""

import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flax_attnat as fa
from flax_attnat.predictor import Predictor
from flax_attnat.reporting.export import HIDDEN
from flax_attnat.reporting.results import best
from flax_attnat.training.workdir import read_lines
from launch import ablate, cli, explain, train
from launch.explanation import Said, prediction_title, radius_title
from launch.explanation import explain as explain_texts

CHECKOUT = Path(__file__).parents[2]
SMALL = [
    "--config.model.encoder=average",
    "--config.model.embedding_size=8",
    "--config.model.hidden_size=4",
    "--config.data.truncate=12",
]
TRAIN = [
    "--config=configs/ablation_planted.py",
    "--config.sweep.techniques=vanilla,attention_at,attention_iat,uniform",
    "--config.sweep.readings=span,sign",
    "--config.sweep.epsilons=0.5,2",
    "--config.optimizer.learning_rate=0.03",
    "--config.seeds=3,4",
    "--config.training.epochs=1",
    *SMALL,
]
COLUMNS = ["vanilla", "attention_at", "attention_iat (span)", "attention_iat (sign)", "uniform"]
HOSTILE = "good \x1b[31m<script>x</script> [red]film[/red] \u202egnp.\x07 \0 :smile: \r&amp;"
STYLES = re.compile(r"\x1b\[[0-9;]*m")


def call(*arguments: str) -> int:
    return cli.run(explain, explain.main, ["explain", *arguments])


@pytest.fixture(autouse=True)
def no_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard input is empty, and output is no terminal, unless a test says so."""
    monkeypatch.setattr("sys.stdin", typed(b""))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    yield


def typed(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), "utf-8")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ablation."""
    workdir = tmp_path_factory.mktemp("explain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(CHECKOUT)
        assert cli.run(ablate, ablate.main, ["ablate", *TRAIN, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of premises with hypotheses."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [f"the {who} sleeps,a {other},{who == other}" for who in ("dog", "cat") for other in ("dog", "cat")]
    (folder / "train.csv").write_text("\n".join(["premise,hypothesis,label", *rows * 10]) + "\n")
    data = [f"--config.data.train={folder / 'train.csv'}", f"--config.data.data_dir={folder / 'data'}"]
    arguments = [f"--config={CHECKOUT / 'configs' / 'custom.py'}", *data, *SMALL, "--config.training.epochs=1"]
    assert cli.run(train, train.main, ["train", *arguments, f"--workdir={folder / 'run'}"]) == 0
    return folder / "run"


def chosen(workdir: Path) -> dict[str, Predictor]:
    """The first seed of each technique at its setting that is best on dev."""
    found = {}
    for choice in best(read_lines(workdir, "results")):
        assert choice.setting is not None
        run = {"technique": choice.technique, "reading": choice.reading, "epsilon": choice.setting.epsilon, "seed": 3}
        name = f"{choice.technique} ({choice.reading})" if choice.reading else choice.technique
        found[name] = fa.load(workdir, run)
    return found


def objects(text: str) -> list[dict[str, Any]]:
    """The lines of JSON that are all of an output, none of them with a constant that JSON does not have."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_json_says_what_the_runs_say(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each technique the run that is best on dev, in the order of the configuration."""
    text = "the very good plot zzyzx film"
    assert call(f"--workdir={workdir}", f"--text={text}", "--json") == 0
    (found,) = objects(capsys.readouterr().out)
    assert found["words"] == text.split() and found["text"] == text and found["length"] == 6
    assert found["known"][4] is False and found["known"].count(True) >= 3
    predictors = chosen(workdir)
    assert len(found["predictions"]) == len(COLUMNS)
    for name, said in zip(COLUMNS, found["predictions"], strict=True):
        predictor = predictors[name]
        expected = predictor([text])
        for field in ("technique", "reading", "epsilon", "lambda", "seed"):
            assert said[field] == predictor.run[field]
        probability = [said["probability"][label] for label in predictor.label_names]
        np.testing.assert_array_equal(np.float32(probability), expected.probability[0])
        assert said["label"] == predictor.label_names[int(np.argmax(probability))]
        np.testing.assert_array_equal(np.float32(said["attention"]), expected.attention[0])
        np.testing.assert_array_equal(np.float32(said["importance"]), expected.importance[0])
        assert expected.certified_radius is not None
        assert np.float32(said["certified_radius"]) == expected.certified_radius[0]


def test_a_file_gives_an_object_for_every_line(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty ones, windows' ones and those that hold anything too; in their order, across the chunks of a file."""
    lines = ["the good", "", HOSTILE.replace("\r", ""), "bad\u2028w2 \x85", "plot " * 40, *(f"w{i}" for i in range(70))]
    content = ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()
    (tmp_path / "texts.txt").write_bytes(content)
    arguments = (f"--workdir={workdir}", "--technique=uniform,vanilla", "--json")
    assert call(*arguments, f"--file={tmp_path / 'texts.txt'}") == 0
    found = objects(said := capsys.readouterr().out)
    assert [line["text"] for line in found] == lines and said.isascii()
    assert found[1]["words"] == [] and found[1]["predictions"][0]["certified_radius"] == "inf"
    assert found[1]["predictions"][0]["attention"] == []
    assert len(found[4]["words"]) == 12 and found[4]["length"] == 40
    for line in found[2:]:
        assert [said["technique"] for said in line["predictions"]] == ["vanilla", "uniform"]
        assert math.isclose(sum(line["predictions"][0]["attention"]), 1, rel_tol=1e-5)
        np.testing.assert_allclose(line["predictions"][1]["attention"], 1 / len(line["words"]), rtol=1e-5)
    monkeypatch.setattr("sys.stdin", typed(content))
    assert call(*arguments) == 0
    assert capsys.readouterr().out == said


def test_seed_and_epsilon_choose_the_run(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for epsilon in (0.5, 2.0):
        arguments = [f"--workdir={workdir}", "--text=the good", f"--epsilon={epsilon}", "--seed=4", "--json"]
        assert call(*arguments, "--technique=vanilla,attention_at") == 0
        (found,) = objects(capsys.readouterr().out)
        assert [(said["epsilon"], said["seed"]) for said in found["predictions"]] == [(None, 4), (epsilon, 4)]
        predictor = fa.load(workdir, {"technique": "attention_at", "epsilon": epsilon, "seed": 4})
        probability = np.float32(list(found["predictions"][1]["probability"].values()))
        np.testing.assert_array_equal(probability, predictor(["the good"]).probability[0])


def test_without_colour_every_number_is_printed(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Techniques side by side, a row per word; the word that nobody knows in brackets, the last ones not read."""
    text = "the very good zzyzx " + "film " * 9
    assert call(f"--workdir={workdir}", f"--text={text}") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "[word]: not in the vocabulary" in said
    assert "the first 12 of 13 words are read (config.data.truncate)" in said
    rows = [line.split() for line in said.splitlines()]
    titles = [line for line in said.splitlines() if re.match(r" ?(attention|gradient importance) +vanilla", line)]
    assert len(titles) == 2 and all(re.split(" {2,}", line.strip())[1:] == COLUMNS for line in titles)
    predictors = chosen(workdir)
    for kind, place in (("attention", 0), ("importance", 1)):
        weights = [getattr(predictors[name]([text]), kind)[0] for name in COLUMNS]
        for word, shown in ((0, "the"), (2, "good"), (3, "[zzyzx]")):
            expected = [shown, *(f"{of[word]:.3f}" for of in weights)]
            assert [row for row in rows if row[0:1] == [shown] and len(row) == len(expected)][place] == expected
    for name in COLUMNS:
        found = predictors[name]([text])
        label = predictors[name].label_names[int(found.probability[0].argmax())]
        (line,) = [line for line in said.splitlines() if line.startswith(f"  {name}, ")]
        assert f"seed 3: {label} {found.probability[0].max():.1%}; " in line
        assert found.certified_radius is not None and line.endswith(radius_title(found.certified_radius[0]))


def test_many_columns_become_several_tables(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "console", lambda: cli.Console(width=60))
    assert call(f"--workdir={workdir}", "--text=" + "w" * 300 + " good") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COLUMNS) and "…" not in said.split("\n", 4)[4]
    assert max(map(len, said.split("uniform, seed 3")[1].splitlines()[1:])) <= 60
    assert said.count("w" * 25) >= 2 * 2 * 300 // 30 - 2


def test_on_a_terminal_the_largest_weight_has_the_fullest_shade(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = "the very good plot zzyzx film"
    arguments = (f"--workdir={workdir}", f"--text={text}", "--technique=vanilla")
    assert call(*arguments) == 0
    said = capsys.readouterr().out
    found = chosen(workdir)["vanilla"]([text])
    for colour, weights in (("70;150;255", found.attention[0]), ("255;140;0", found.importance[0])):
        (word,) = re.findall(rf"48;2;{colour}m(\w+)\x1b", said)
        assert word == text.split()[int(weights.argmax())]
    assert len(re.findall(r"\x1b\[3;4;[0-9;]*mzzyzx\x1b", said)) == 2 and "Underlined italics" in said
    assert "0.0" not in STYLES.sub("", said)
    monkeypatch.setenv("NO_COLOR", "1")
    assert call(*arguments) == 0
    said = capsys.readouterr().out
    assert "48;2" not in said and f"{found.attention[0][0]:.3f}" in said


@pytest.mark.parametrize("colour", [True, False])
def test_hostile_texts_are_shown_as_text(
    workdir: Path, colour: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a text moves the cursor, colours or reverses what follows, or is taken for markup or an emoji."""
    if colour:
        for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}.items():
            monkeypatch.setenv(name, value)
    (tmp_path / "texts.txt").write_bytes(HOSTILE.encode())
    arguments = [f"--workdir={workdir}", f"--file={tmp_path / 'texts.txt'}", f"--html={tmp_path / 'page.html'}"]
    assert call(*arguments, "--technique=vanilla") == 0
    said = STYLES.sub("", capsys.readouterr().out) if colour else capsys.readouterr().out
    assert not HIDDEN.search(said) and "\r" not in said
    for part in ("\ufffd[31m<script>x</script>", "[red]film[/red]", "\ufffdgnp.\ufffd", ":smile:", "&amp;"):
        assert said.count(part) == 3, part  # in the heading, and in attention and importance
    page = (tmp_path / "page.html").read_text()
    assert not HIDDEN.search(page) and "<script" not in page and "&lt;script&gt;x" in page and "&amp;amp;" in page


def test_the_page_holds_every_text_and_technique(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("the good zzyzx\n\nbad " + "was " * 20)
    page = tmp_path / "page.html"
    assert call(f"--workdir={workdir}", f"--file={tmp_path / 'texts.txt'}", f"--html={page}", "--json") == 0
    found = objects(capsys.readouterr().out)
    text = page.read_text()
    assert len(found) == 3 and "planted (synthetic data)" in text
    assert "1 of the texts were cut off at 12 words" in text and "zzyzx" in text and "infinite" in text
    for line in found:
        for name, said in zip(COLUMNS, line["predictions"], strict=True):
            assert name in text and f"{said['label']} {said['probability'][said['label']]:.1%}" in text
    assert "wrong" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_pairs(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(f"--workdir={pairs}", "--text=The dog sleeps", "--query=a zzyzx dog", "--json") == 0
    (found,) = objects(capsys.readouterr().out)
    assert found["words"] == ["the", "dog", "sleeps"] and found["query_words"] == ["a", "zzyzx", "dog"]
    assert found["query"] == "a zzyzx dog" and found["predictions"][0]["certified_radius"] is None
    expected = fa.load(pairs)([("The dog sleeps", "a zzyzx dog")])
    probability = np.float32(list(found["predictions"][0]["probability"].values()))
    np.testing.assert_array_equal(probability, expected.probability[0])
    monkeypatch.setattr("sys.stdin", typed(b"the cat sleeps\ta dog\n\t\n"))
    assert call(f"--workdir={pairs}", f"--html={tmp_path / 'page.html'}") == 0
    said = capsys.readouterr().out
    assert said.count("; not certified: pairs") == 2 and "  query: a dog" in said and "text 2 of 2: (empty)" in said
    assert "certified radius" not in (tmp_path / "page.html").read_text()
    monkeypatch.setattr("sys.stdin", typed(b"the cat sleeps\ta dog\nthe cat sleeps\n"))
    assert call(f"--workdir={pairs}") == 2
    assert "standard input, line 2 has 0 tabs: these runs read passages with queries" in capsys.readouterr().err
    assert call(f"--workdir={pairs}", "--text=the cat") == 2
    assert "give each text its question or hypothesis: --query=TEXT" in capsys.readouterr().err


def test_what_is_said_of_texts_without_words_or_known_ones(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(f"--workdir={workdir}", "--text=", "--technique=vanilla") == 0
    said = capsys.readouterr().out
    assert "there are no words" in said and "no attention changes it" in said and len(said.splitlines()) == 5
    assert call(f"--workdir={workdir}", "--text=zzyzx qwertz", "--technique=vanilla") == 0
    assert "none of the words is in the vocabulary" in capsys.readouterr().out


def test_a_technique_whose_every_run_was_frozen_is_left_out(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "cut.json", "trained"):
        (tmp_path / name).symlink_to(workdir / name)
    shutil.copytree(workdir / "results", tmp_path / "results")
    (file,) = (tmp_path / "results").glob("attention_at*")
    lines = [json.loads(line) | {"frozen_step": 7, "frozen_reason": "loss"} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call(f"--workdir={tmp_path}", "--text=the", "--technique=vanilla,attention_at", "--json") == 0
    said = capsys.readouterr()
    assert [of["technique"] for of in objects(said.out)[0]["predictions"]] == ["vanilla"]
    assert "note: attention_at is not shown: every setting was left out (seed 3 frozen at step 7 (loss)" in said.err
    assert call(f"--workdir={tmp_path}", "--text=the", "--technique=attention_at") == 2
    assert "has no run to show: none of attention_at has results on dev and test" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(workdir: Path, tmp_path: Path) -> None:
    """As `head` does, which closes the pipe."""
    (tmp_path / "texts.txt").write_text("the good film\n" * 2000)
    command = [sys.executable, "-m", "launch.explain", f"--workdir={workdir}", "--technique=vanilla", "--json"]
    with subprocess.Popen(
        [*command, f"--file={tmp_path / 'texts.txt'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=CHECKOUT
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["words"] == ["the", "good", "film"]
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "standard input holds no text: write one per line"),
        (["--text=a", "--file=b"], "give --text or --file, not both"),
        (["--query=a"], "--query goes with --text"),
        (["--text=a", "--query=b"], "these runs read texts alone: leave --query out"),
        (["--text=a\udcff"], "--text is not UTF-8"),
        (["--file=DIR/none.txt"], "none.txt cannot be read: No such file or directory"),
        (["--file=DIR"], "cannot be read: Is a directory"),
        (["--file=DIR/latin.txt"], "latin.txt, line 2 is not UTF-8 (invalid continuation byte): convert it"),
        (["--file=DIR/empty.txt"], "empty.txt holds no text"),
        (["--text=a", "--technique=vanilla,frozen"], "--technique=frozen: "),
        (["--text=a", "--technique=frozen"], "it has vanilla, attention_at, attention_iat, uniform."),
        (["--text=a", "--seed=7"], "--seed=7: vanilla was trained with the seeds 3, 4"),
        (["--text=a", "--seed=one"], "--seed must be a whole number; got 'one'"),
        (["--text=a", "--epsilon=1"], "--epsilon=1: the runs of attention_at have epsilon 0.5, 2"),
        (["--text=a", "--epsilon=nan"], "--epsilon must be a number; got 'nan'"),
        (["--text=a", "--html=DIR/none/page.html"], "page.html: give a file in a folder that is there"),
        (["--text=a", "--html=DIR"], "give a file in a folder that is there"),
    ],
)
def test_what_cannot_be_explained(
    workdir: Path, tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes("fine\ncaf\xe9 noir\n".encode("latin-1"))
    (tmp_path / "empty.txt").touch()
    assert call(f"--workdir={workdir}", *(each.replace("DIR", str(tmp_path)) for each in arguments)) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.out == ""


def test_workdirs_and_input_that_are_not_there(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(f"--workdir={tmp_path}", "--text=a") == 2
    assert "holds no config.json" in capsys.readouterr().err
    shutil.copy(workdir / "config.json", tmp_path)
    assert call(f"--workdir={tmp_path}", "--text=a") == 2
    assert "holds no run that is trained to the end: train it first" in capsys.readouterr().err
    assert call("--text=a") == 2
    assert "--workdir=DIR is missing" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", None)
    assert call(f"--workdir={workdir}") == 2
    assert "there is no text: give --text=TEXT or --file=FILE, or pipe texts in" in capsys.readouterr().err


def test_a_radius_in_words_is_never_above_the_radius() -> None:
    for value in np.float32(10.0) ** np.linspace(-6, 6, 997, dtype=np.float32):
        (shown,) = re.findall(r"move by (\S+) before", radius_title(value))
        assert 0.989 * value <= float(shown) <= value
    assert "certified" in radius_title(np.float32(0)) and "not numbers" in radius_title(np.float32("nan"))


def test_probabilities_that_name_no_class(workdir: Path) -> None:
    """A text that must name its answer and names none; logits that are not numbers."""
    said = Said({}, None, {"a": np.float32(0), "b": np.float32(0)}, np.zeros(0), np.zeros(0), None)
    assert prediction_title(said) == "no class: the text names none"
    predictor = fa.load(workdir, {"technique": "vanilla", "seed": 3})
    output = {name: leaf * np.float32("nan") for name, leaf in predictor.params["output"].items()}
    broken = predictor._replace(params=predictor.params | {"output": output})
    (found,) = explain_texts([explain.Text("the good", None)], [broken])
    (line,) = objects(json.dumps(explain.to_json(found), allow_nan=False))
    prediction = line["predictions"][0]
    assert prediction["label"] is prediction["certified_radius"] is None
    assert set(prediction["probability"].values()) == {None} and set(prediction["importance"]) == {None}
    assert prediction_title(found.said[0]) == "no class: the logits are not numbers"
