"""`launch.evaluate` as a user runs it: all suites on a small workdir, again, and on what cannot be measured."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from flax_attnat.evaluation.stages import PAIRS, SOURCES
from flax_attnat.training.workdir import locked
from launch import ablate, cli, evaluate, train

CHECKOUT = Path(__file__).parents[2]
TRAIN = [
    "--config=configs/ablation_planted.py",
    "--config.sweep.techniques=vanilla,attention_at,uniform",
    "--config.sweep.epsilons=0.5",
    "--config.optimizer.learning_rate=0.03",
    "--config.seeds=0,1",
    "--config.model.encoder=average",
    "--config.model.embedding_size=16",
    "--config.model.hidden_size=8",
    "--config.training.epochs=2",
]
RUNS = {"vanilla": 2, "attention_at": 2, "uniform": 2}
SUITES = ("interpretability", "faithfulness", "robustness")


def call(*arguments: str) -> int:
    return cli.run(evaluate, evaluate.main, ["evaluate", *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ablation."""
    workdir = tmp_path_factory.mktemp("evaluate") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(CHECKOUT)
        assert cli.run(ablate, ablate.main, ["ablate", *TRAIN, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with all suites, at radii that include 0 and infinity."""
    workdir = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(trained, workdir)
    options = ("--linf=0,0.5,inf", "--l2=1", "--steps=8", "--restarts=2")
    assert call(f"--workdir={workdir}", "--suite=all", *options) == 0
    return workdir


def lines(workdir: Path, family: str) -> list[dict]:
    found = map(json.loads, (workdir / "results.jsonl").read_text().splitlines())
    return [line for line in found if line["family"] == family]


@pytest.mark.parametrize("suite", SUITES)
def test_every_run_gets_a_line_and_a_row_per_text(measured: Path, suite: str) -> None:
    found = lines(measured, suite)
    assert {name: sum(line["technique"] == name for line in found) for name in RUNS} == RUNS
    files = sorted((measured / "instances").glob(f"*.test.{suite}.npz"))
    assert len(files) == 3
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            shapes = {name: arrays[name].shape[:2] for name in arrays.files}
            words = int(arrays["length"].sum())
        for name, shape in shapes.items():
            rows = words if name.endswith("_tokens") else found[0]["n"]
            expected = {"seed": (2,), "epsilon": (2,), "length": (rows,), "label": (rows,)}.get(name, (2, rows))
            assert shape == expected, name


def test_the_figures_are_those_of_the_arrays(measured: Path) -> None:
    (file,) = (measured / "instances").glob("attention_at*.interpretability.npz")
    arrays = np.load(file, allow_pickle=False)
    predicted = [line for line in lines(measured, "prediction") if line["split"] == "test"]
    for run, line in enumerate(of for of in lines(measured, "interpretability") if of["technique"] == "attention_at"):
        mine = next(of for of in predicted if all(of[k] == line[k] for k in ("technique", "epsilon", "seed")))
        assert line["pearson_gradient"]["mean"] == pytest.approx(mine["pearson"], abs=1e-5)
        assert line["largest_attention"]["mean"] == pytest.approx(mine["largest_attention"], rel=1e-5)
        for name in PAIRS:
            tau, p_value = arrays[f"kendall_{name}"][run], arrays[f"kendall_p_{name}"][run]
            assert line[f"kendall_{name}"]["mean"] == pytest.approx(np.nanmean(tau), rel=1e-5)
            assert line[f"kendall_{name}"]["significant"] == pytest.approx(np.mean(p_value[~np.isnan(tau)] <= 0.05))
            assert line[f"kendall_{name}"]["n"] + line[f"kendall_{name}"]["undefined"] == line["n"]
        assert line["adversarial_divergence"]["mean"] == pytest.approx(
            arrays["adversarial_divergence"][run].mean(), rel=1e-5
        )
        assert arrays["adversarial_divergence"].min() >= 0 and arrays["adversarial_divergence"].max() <= np.log(2)
        assert arrays["adversarial_change"].max() <= 0.05 + 1e-6


def test_uniform_attention_has_no_order_and_nothing_to_permute(measured: Path) -> None:
    for line in lines(measured, "interpretability"):
        if line["technique"] == "uniform":
            assert line["kendall_gradient"] | {"significant": None} == line["kendall_gradient"]
            assert line["kendall_gradient"]["mean"] is None and line["kendall_gradient"]["undefined"] == line["n"]
            assert line["permutation"]["mean"] == 0 and line["seed_divergence"]["mean"] == 0
        else:
            assert line["permutation"]["mean"] > 0 and line["seed_divergence"]["mean"] > 0


def test_accuracy_falls_from_clean_over_attacked_to_certified(measured: Path) -> None:
    for line in lines(measured, "robustness"):
        assert line["radii_linf"] == [0, 0.5, "inf"] and line["radii_l2"] == [1]
        assert all(check["held"] for norm in ("linf", "l2") for check in line[f"checks_{norm}"]), line
        for norm in ("linf", "l2"):
            for certified, attacked in zip(line[f"certified_{norm}"], line[f"attacked_{norm}"], strict=True):
                assert certified <= attacked <= line["clean_accuracy"]
        assert line["attacked_linf"][0] == line["clean_accuracy"] == line["deletion_accuracy"][0]
        assert line["attacked_linf"][0] >= line["attacked_linf"][1] >= line["attacked_linf"][2]
        assert line["deletion_accuracy"] == sorted(line["deletion_accuracy"], reverse=True)


def test_planted_words_are_what_rationales_are_compared_with(measured: Path) -> None:
    for line in lines(measured, "faithfulness"):
        for source in SOURCES:
            assert 0 < line[f"auprc_{source}"]["mean"] <= 1
            if line["technique"] == "uniform" and source == "attention":  # none of the words is on top
                assert line["comprehensiveness_attention"]["mean"] is line["token_f1_attention"]["mean"] is None
                assert "constant importance" in line["not_available"]["iou_f1_attention"]
                continue
            assert line[f"comprehensiveness_{source}"]["mean"] == pytest.approx(
                np.mean(line[f"comprehensiveness_{source}"]["by_share"]), abs=1e-6
            )
        if line["technique"] == "vanilla":  # deleting the words that matter changes more than deleting any
            worst, random = (line[f"comprehensiveness_{name}"]["mean"] for name in ("leave_one_out", "random"))
            assert worst > random


def test_techniques_are_compared_with_vanilla(measured: Path) -> None:
    found = list(map(json.loads, (measured / "significance.jsonl").read_text().splitlines()))
    assert [(line["technique"], line["figure"]) for line in found] == [
        *(("attention_at", figure) for figure in ("f1", "accuracy", "pearson")),
        *(("uniform", figure) for figure in ("f1", "accuracy")),
    ]
    for line in found:
        assert line["low"] <= line["difference"] <= line["high"] and 0 < line["p_value"] <= line["p_holm"] <= 1
        assert line["seeds"] == 2 and line["n"] > 100 and line["datasets"] == 1


def test_seeds_that_are_not_trained_to_the_end_are_not_compared(
    measured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two seeds that have figures one has results."""
    real = evaluate.read_lines
    monkeypatch.setattr(
        evaluate, "read_lines", lambda *given: [line for line in real(*given) if line["seed"] == min_seed(real(*given))]
    )
    before = (measured / "significance.jsonl").read_bytes()
    try:
        assert call(f"--workdir={measured}", "--suite=significance") == 0
        found = list(map(json.loads, (measured / "significance.jsonl").read_text().splitlines()))
        assert found and all(line["seeds"] == 1 for line in found)
    finally:
        (measured / "significance.jsonl").write_bytes(before)


def min_seed(found: list[dict]) -> int:
    """The first of the seeds."""
    return min(line["seed"] for line in found)


def test_comparisons_are_kept_only_where_they_may_be(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where another process works nothing is written; a damaged file is a sentence before anything is measured."""
    workdir = tmp_path / "held"
    shutil.copytree(measured, workdir)
    (workdir / "significance.jsonl").unlink()
    with locked(workdir):
        assert call(f"--workdir={workdir}", "--suite=significance") == 0
    assert "not kept" in capsys.readouterr().out and not (workdir / "significance.jsonl").exists()
    (workdir / "significance.jsonl").write_text('{"split": 3}\n')
    assert call(f"--workdir={workdir}", "--suite=significance") == 2
    assert "significance.jsonl, line 1" in capsys.readouterr().err
    assert call(f"--workdir={workdir},{workdir}/.", "--suite=significance") == 2
    assert "names a workdir twice" in capsys.readouterr().err


def test_what_was_measured_is_shown_again_and_not_measured_again(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "again"
    shutil.copytree(measured, workdir)
    before = {file.name: file.stat().st_mtime_ns for file in (workdir / "instances").iterdir()}
    again = ("--linf=0,0.5,inf", "--l2=1", "--steps=8", "--restarts=2")
    assert call(f"--workdir={workdir}", "--suite=interpretability,faithfulness,robustness", *again) == 0
    shown = capsys.readouterr().out
    assert "seconds:" not in shown and "certified, Linf 0.5" in shown and "IOU-F1, leave-one-out" in shown
    assert (
        "Kendall tau, attention and gradient" in shown
        and "check: random noise is weaker than the attack: holds in" in shown
    )
    assert {file.name: file.stat().st_mtime_ns for file in (workdir / "instances").iterdir()} == before
    assert lines(workdir, "robustness") == lines(measured, "robustness")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--suite=interpretable"],
            "--suite names some of interpretability, faithfulness, robustness, significance, or",
        ),
        (["--linf=0.5,wide"], "--linf must be numbers of at least 0, inf included, such as 0.5,1,2; got 'wide'"),
        (["--l2=-1"], "--l2 must be numbers of at least 0"),
        (["--linf=nan"], "--linf must be numbers of at least 0"),
        (["--against=vanila"], "--against must be vanilla, attention_rp"),
        (["--restarts=0"], "--restarts must be a whole number of at least 1 such as 20; got '0'"),
    ],
)
def test_flags_that_cannot_be_used(
    trained: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(f"--workdir={trained}", *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_workdirs_that_cannot_be_measured(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(trained / "config.json", bare)
    assert call(f"--workdir={bare}", "--suite=robustness") == 2
    assert "holds no checkpoint that can be read: train it first" in capsys.readouterr().err
    without = tmp_path / "without"
    shutil.copytree(trained, without)
    for file in (without / "results").glob("vanilla*"):
        file.unlink()
    assert call(f"--workdir={without}", "--suite=significance") == 0
    said = capsys.readouterr().out
    assert "it has no vanilla that was measured on dev and test" in said and "nothing to compare with vanilla" in said
    assert not (without / "significance.jsonl").exists()


def test_data_that_have_changed_since_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, workdir = tmp_path / "train.csv", tmp_path / "run"
    words = [("good", 1), ("fine", 1), ("bad", 0), ("dull", 0)]
    rows = [
        f"a {word} film with some {filler},{label}" for filler in ("jokes", "songs", "rain") for word, label in words
    ]
    texts.write_text("\n".join(["text,label", *rows * 10]) + "\n")
    small = ("--config.model.encoder=average", "--config.model.embedding_size=4", "--config.model.hidden_size=2")
    arguments = [f"--config={CHECKOUT / 'configs' / 'custom.py'}", f"--config.data.train={texts}", *small]
    place = ["--config.training.epochs=1", f"--config.data.data_dir={tmp_path / 'data'}", f"--workdir={workdir}"]
    assert cli.run(train, train.main, ["train", *arguments, *place]) == 0
    texts.write_text("\n".join(["text,label", *rows * 10, *["a novel film,1"] * 10]) + "\n")
    assert call(f"--workdir={workdir}", "--suite=robustness") == 2
    assert re.search(r"made with a vocabulary of \d+ words and the data have \d+", capsys.readouterr().err)
