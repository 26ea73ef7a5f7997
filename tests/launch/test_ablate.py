"""`launch.ablate` as a user runs it: killed, terminated, resumed; alone and as two processes."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import ablate, cli, evaluate, local, train

CHECKOUT = Path(__file__).parents[2]
ARGUMENTS = [
    "--config=configs/ablation_planted.py",
    "--config.sweep.techniques=vanilla,attention_at,attention_rp",
    "--config.sweep.epsilons=0.5,5",
    "--config.seeds=0,1",
    "--config.model.encoder=average",
    "--config.model.embedding_size=16",
    "--config.model.hidden_size=8",
    "--config.training.epochs=4",
]
ABLATE = [sys.executable, "-m", "launch.ablate", *ARGUMENTS]
LOCAL = [sys.executable, "-m", "launch.local", "--processes=2", "--"]


def start(command: list[str], workdir: Path, log: Path, **environment: str) -> subprocess.Popen:
    with log.open("a") as out:
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"],
            cwd=CHECKOUT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        )


def epochs_done(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for_more_epochs(process: subprocess.Popen, workdir: Path, log: Path) -> None:
    """Returns when there are more lines in metrics.jsonl; fails with the log if the process ends before."""
    before = epochs_done(workdir)
    while epochs_done(workdir) <= before:
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.02)


def results(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    log = workdir.parent / "log"
    process = start(ABLATE, workdir, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    return workdir


def test_killed_and_terminated_at_random_equals_uninterrupted_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = start(ABLATE, workdir, log)
    wait_for_more_epochs(process, workdir, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, log.read_text()[-3000:]
    assert "the same command goes on from here" in log.read_text()
    drawn = os.urandom(8)
    print(f"seed of the moments: {drawn.hex()}")  # shown if it fails
    moments = random.Random(drawn)
    for _ in range(2):
        process = start(ABLATE, workdir, log)
        wait_for_more_epochs(process, workdir, log)
        time.sleep(moments.uniform(0, 1.0))
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL), log.read_text()[-3000:]
    process = start(ABLATE, workdir, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    assert (workdir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    assert results(workdir) == results(uninterrupted)
    epochs = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    keys = [(line["technique"], line["epsilon"], line["seed"], line["epoch"]) for line in epochs]
    assert len(keys) == len(set(keys)) == 4 * (2 + 4 + 4)


@pytest.mark.slow
def test_the_planted_ablation_killed_five_times_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    """Six techniques, four epsilons, three seeds; the moments are spread over the time that the whole takes."""
    command = [sys.executable, "-m", "launch.ablate", "--config=configs/ablation_planted.py"]
    as_users_have_it = {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}

    def started(name: str) -> subprocess.Popen:
        return start(command, tmp_path / name, tmp_path / "log", **as_users_have_it)

    began = time.monotonic()
    assert started("whole").wait() == 0
    seconds = time.monotonic() - began
    drawn = os.urandom(8)
    print(f"seed of the moments: {drawn.hex()}")  # shown if it fails
    moments = random.Random(drawn)
    for _ in range(5):
        process = started("run")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.08, 0.2) * seconds)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "killed too late: it was finished"
        print(
            f"killed after {epochs_done(tmp_path / 'run')} of {epochs_done(tmp_path / 'whole')} run-epochs", flush=True
        )
    assert started("run").wait() == 0
    print(f"uninterrupted: {seconds:.0f} s")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert len(results(tmp_path / "run")) == 2 * (3 + 5 * 4 * 3)


def test_a_finished_ablation_shows_every_setting_and_the_one_chosen_on_dev(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert cli.run(ablate, ablate.main, ["ablate", *ARGUMENTS, f"--workdir={uninterrupted}"]) == 0
    shown = capsys.readouterr().out
    assert "is finished; nothing was trained" in shown
    every, chosen = shown.split("the setting that is best on dev")
    assert len(re.findall(r"^ attention_at +(0\.5|5) ", every, re.MULTILINE)) == 2
    assert len(re.findall(r"^ attention_at +(0\.5|5) ", chosen, re.MULTILINE)) == 1 and "dev auc" in chosen


def test_a_poisoned_run_is_named_first_and_leaves_the_others_bit_identical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lambda at the end of float32 spoils the loss of the runs that have it, and of no other."""
    monkeypatch.chdir(CHECKOUT)
    small = [argument for argument in ARGUMENTS if "techniques" not in argument and "epochs" not in argument]
    small += ["--config.sweep.techniques=attention_at", "--config.training.epochs=1"]
    for name, weights, code in (("healthy", "1,2", 0), ("poisoned", "1,3e38", 3)):
        sweep = f"--config.sweep.adversarial_weights={weights}"
        assert (
            cli.run(ablate, ablate.main, ["ablate", *small, sweep, f"--workdir={tmp_path / name}", "--profile"]) == code
        )
        assert list((tmp_path / name / "profile").rglob("*.xplane.pb")), "a profiler trace was asked for"
    shown = capsys.readouterr().out.split("run-steps")[-1]
    frozen = (
        "attention_at, epsilon 0.5, lambda 3e+38, learning_rate 0.003, weight_decay 1e-05, seed 0: frozen at step 0"
    )
    assert frozen in shown.split("every setting")[0]
    for read in (results, metrics):
        healthy, poisoned = (
            [line for line in read(tmp_path / name) if line["lambda"] == 1.0] for name in ("healthy", "poisoned")
        )
        assert healthy == poisoned and len(healthy) >= 4
    spoilt = [line for line in metrics(tmp_path / "poisoned") if line["lambda"] != 1.0]
    assert len(spoilt) == 4 and all(line["frozen_step"] == 0 and line["loss"] is None for line in spoilt)


def test_evaluate_measures_another_split_of_every_population(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(uninterrupted, workdir)
    assert cli.run(evaluate, evaluate.main, ["evaluate", f"--workdir={workdir}", "--split=train"]) == 0
    new = [line for line in results(workdir) if line["split"] == "train"]
    assert len(new) == 2 + 4 + 4 and len(results(workdir)) == len(results(uninterrupted)) + len(new)
    shown = capsys.readouterr().out
    assert shown.count("attention_at") == 2 and "provisional" not in shown
    # What was trained but not measured when it was interrupted is shown; who trains it measures it.
    lost = next((workdir / "results").glob("attention_rp*"))
    lost.unlink()
    assert cli.run(evaluate, evaluate.main, ["evaluate", f"--workdir={workdir}", "--split=test"]) == 0
    assert capsys.readouterr().out.count("attention_rp") == 2 and not lost.exists()


def test_a_sweep_is_not_for_train(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert cli.run(train, train.main, ["train", *ARGUMENTS, "--workdir=nowhere"]) == 2
    assert "config.sweep is trained by python -m launch.ablate" in capsys.readouterr().err


def test_two_processes_train_what_one_does_and_outlive_the_loss_of_one(uninterrupted: Path, tmp_path: Path) -> None:
    """The second process is killed: the first one stops with a sentence, and the same command finishes the work."""
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = start(LOCAL + ABLATE, workdir, log)
    wait_for_more_epochs(process, workdir, log)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    assert process.wait() == 137, log.read_text()[-3000:]
    said = log.read_text()
    assert "process 1 has ended with exit code 137" in said
    assert "this or another process of the training failed" in said or "JAX distributed service" in said
    process = start(LOCAL + ABLATE, workdir, log)
    wait_for_more_epochs(process, workdir, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, log.read_text()[-3000:]
    process = start(LOCAL + ABLATE, workdir, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    ours, theirs = results(workdir), results(uninterrupted)
    names = ("technique", "epsilon", "seed", "split", "n", "mark")
    assert [[line[name] for name in names] for line in ours] == [[line[name] for name in names] for line in theirs]
    assert all(a["auc"] == pytest.approx(b["auc"], abs=0.05) for a, b in zip(ours, theirs, strict=True))


def test_two_processes_go_on_with_half_as_many_runs_when_one_has_too_little_memory(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("small_machine.py"))
    log, short = tmp_path / "log", "--config.training.epochs=1"
    process = start(
        [*LOCAL, sys.executable, script, *ARGUMENTS, short], tmp_path / "run", log, PYTHONPATH=str(CHECKOUT)
    )
    assert process.wait() == 0, log.read_text()[-3000:]
    assert log.read_text().count("The devices ran out of memory with 4 runs at once; going on with half as many.") == 2
    assert list(json.loads((tmp_path / "run" / "cut.json").read_text()).values()) == [[2], [2, 2], [2, 2]]
    assert len(results(tmp_path / "run")) == 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--processes=2"], "the command is missing"),
        (["--processes=2", "--"], "the command after -- is missing"),
        (["--processes=0", "--", "true"], "--processes=N must be a whole number of at least 1; got '0'"),
        (["--processes=1", "--", "nosuchcommand"], "nosuchcommand cannot be started (No such file or directory)"),
        (["--", "true"], "--processes=N must be a whole number of at least 1; got None"),
    ],
)
def test_a_command_that_cannot_be_started_is_a_sentence(arguments, sentence, capsys) -> None:
    assert cli.run(local, local.main, ["local", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--coordinator=localhost:1"], "belong together"),
        (["--num_processes=two"], "--num_processes must be a whole number; got 'two'"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_a_sentence(arguments, sentence, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert cli.run(ablate, ablate.main, ["ablate", *ARGUMENTS, f"--workdir={tmp_path}", *arguments]) == 2
    assert sentence in capsys.readouterr().err
