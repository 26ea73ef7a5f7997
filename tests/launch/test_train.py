"""`launch.train` as a user runs it: killed, terminated, resumed, evaluated."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2

from launch import cli, evaluate, train

CHECKOUT = Path(__file__).parents[2]
ARGUMENTS = [
    "--config=configs/planted.py",
    "--config.technique=attention_iat",
    "--config.seeds=0,1",
    "--config.model.embedding_size=16",
    "--config.model.hidden_size=8",
    "--config.training.epochs=12",
    "--config.data.min_length=12",
]


def start(workdir: Path, log: Path, *more: str) -> subprocess.Popen:
    with log.open("a") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "launch.train", *ARGUMENTS, *more, f"--workdir={workdir}"],
            cwd=CHECKOUT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


def epochs_done(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) // 2 if path.exists() else 0


def wait_for_epoch(process: subprocess.Popen, workdir: Path, epoch: int, log: Path) -> None:
    """Returns when `epoch` epochs are in metrics.jsonl; fails with the log if the process ends before."""
    while epochs_done(workdir) < epoch:
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.02)


def results_without_time(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines


def points(workdir: Path, run: str) -> list[tuple[int, dict[str, float]]]:
    """Epochs and figures of one run, from every event that TensorBoard would read."""
    found = []
    for path in sorted((workdir / "tensorboard" / run).iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
            if event.HasField("summary"):
                found.append((event.step, {value.tag: value.simple_value for value in event.summary.value}))
            place += 16 + length
    return found


def check_points(workdir: Path) -> None:
    """Every number of every line of metrics.jsonl is a point, once, and there are no others."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    runs = {f"attention_iat-span-epsilon_1-lambda_1-seed_{seed}": seed for seed in (0, 1)}
    assert sorted(folder.name for folder in (workdir / "tensorboard").iterdir()) == list(runs)
    names = ("train_rows", "loss", "clean", "adversarial", "delta_norm", "raised", "dev_auc")
    for run, seed in runs.items():
        found = points(workdir, run)
        expected = [line for line in lines if line["seed"] == seed]
        assert [epoch for epoch, _ in found] == [line["epoch"] for line in expected] == list(range(1, 13))
        for (_, figures), line in zip(found, expected, strict=True):
            assert figures == pytest.approx({name: line[name] for name in names}, rel=1e-6)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    log = workdir.parent / "log"
    process = start(workdir, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    return workdir


def test_killed_three_times_and_terminated_once_equals_uninterrupted_bit_for_bit(
    uninterrupted: Path, tmp_path: Path
) -> None:
    """SIGTERM within training (exit 143, everything saved), SIGKILL at three random moments; then to the end."""
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = start(workdir, log)
    wait_for_epoch(process, workdir, 1, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, log.read_text()[-3000:]
    assert "the same command goes on from here" in log.read_text() and epochs_done(workdir) < 12
    drawn = os.urandom(8)
    print(f"seed of the moments: {drawn.hex()}")  # shown if it fails
    moments = random.Random(drawn)
    for longest in (6.0, 0.5, 0.5):
        process = start(workdir, log)
        if longest < 1:
            wait_for_epoch(process, workdir, min(epochs_done(workdir) + 1, 12), log)
        time.sleep(moments.uniform(0, longest))
        process.kill()
        # The process may have been quicker than the signal; then there is nothing left to interrupt.
        assert process.wait() in (0, -signal.SIGKILL), log.read_text()[-3000:]
    process = start(workdir, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    assert (workdir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    assert results_without_time(workdir) == results_without_time(uninterrupted)


def test_a_finished_workdir_is_shown_and_not_trained_again(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    before = {path: path.read_bytes() for path in uninterrupted.glob("*.json*")}
    assert cli.run(train, train.main, ["train", *ARGUMENTS, f"--workdir={uninterrupted}"]) == 0
    out = capsys.readouterr().out
    assert "nothing was trained" in out and "synthetic data" in out and "attention_iat (span)" in out
    assert {path: path.read_bytes() for path in uninterrupted.glob("*.json*")} == before


def test_config_json_records_what_is_needed_to_repeat_the_run(uninterrupted: Path) -> None:
    record = json.loads((uninterrupted / "config.json").read_text())
    assert record["config"]["technique"] == "attention_iat" and record["config"]["seeds"] == [0, 1]
    assert record["command"][1:-1] == ARGUMENTS and record["device"] and record["versions"]["jax"]


def test_result_lines_name_the_run_and_hold_its_figures(uninterrupted: Path) -> None:
    lines = [json.loads(line) for line in (uninterrupted / "results.jsonl").read_text().splitlines()]
    assert [(line["split"], line["seed"]) for line in lines] == [("dev", 0), ("dev", 1), ("test", 0), ("test", 1)]
    fields = "dataset technique reading epsilon lambda seed split n f1 accuracy auc pearson pearson_undefined seconds"
    assert all(field in line for field in fields.split() for line in lines)
    assert all(line["mark"] == "synthetic" and line["reading"] == "span" for line in lines)


def test_evaluate_measures_another_split_and_agrees_with_train_on_test(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(uninterrupted, workdir)
    for split in ("train", "test"):
        assert cli.run(evaluate, evaluate.main, ["evaluate", f"--workdir={workdir}", f"--split={split}"]) == 0
        assert split in capsys.readouterr().out
    lines = results_without_time(workdir)
    assert {line["split"] for line in lines} == {"train", "dev", "test"}
    trained = [line for line in results_without_time(uninterrupted) if line["split"] == "test"]
    for a, b in zip(trained, (line for line in lines if line["split"] == "test"), strict=True):
        assert a.keys() == b.keys()
        assert all(a[k] == pytest.approx(b[k], abs=1e-5) for k in a)


def test_no_room_for_a_checkpoint_is_a_sentence_and_costs_nothing_that_was_saved(
    uninterrupted: Path, tmp_path: Path
) -> None:
    """Files may not grow beyond a few kilobytes after the first epochs: as on a full disk, the write is refused."""
    workdir, log = tmp_path / "run", tmp_path / "log"
    process = start(workdir, log)
    wait_for_epoch(process, workdir, 2, log)
    process.kill()
    process.wait()
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv = sys.argv[1:]; "
        "runpy.run_module('launch.train', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "launch.train", *ARGUMENTS, f"--workdir={workdir}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Could not save a checkpoint" in done.stderr and "is intact" in done.stderr
    process = start(workdir, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    assert "cannot be read" not in log.read_text()
    assert (workdir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    assert results_without_time(workdir) == results_without_time(uninterrupted)


def test_training_shows_what_reading_brought_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    rows = [{"text": "one good film " * (1 + 9 * (i == 0)), "label": "no" if i % 2 else "yes"} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "--config=configs/custom.py",
        f"--config.data.train={tmp_path / 'mine.jsonl'}",
        f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.data.truncate=20",
        "--config.model.encoder=average",
        "--config.model.embedding_size=4",
        "--config.model.hidden_size=4",
        "--config.training.epochs=1",
    ]
    assert cli.run(train, train.main, ["train", *arguments, f"--workdir={tmp_path / 'runs'}"]) == 0
    assert "custom: 1 texts were cut off at 20 words (config.data.truncate)\n" in capsys.readouterr().out


def test_tensorboard_has_every_epoch_once_after_a_kill_and_an_older_checkpoint(
    uninterrupted: Path, tmp_path: Path
) -> None:
    """The first epoch is trained without it; later epochs are trained twice, as their checkpoints are gone."""
    workdir, log = tmp_path / "run", tmp_path / "log"
    for epoch, more in ((1, ()), (4, ("--tensorboard",))):
        process = start(workdir, log, *more)
        wait_for_epoch(process, workdir, epoch, log)
        process.kill()
        assert process.wait() == -signal.SIGKILL, log.read_text()[-3000:]
    (population,) = (workdir / "checkpoints").iterdir()
    shutil.rmtree(max((path for path in population.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)))
    process = start(workdir, log, "--tensorboard")
    assert process.wait() == 0, log.read_text()[-3000:]
    assert (workdir / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()
    check_points(workdir)


def test_tensorboard_shows_a_workdir_that_was_finished_without_it(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CHECKOUT)
    workdir = shutil.copytree(uninterrupted, tmp_path / "copy")
    for _ in range(2):
        assert cli.run(train, train.main, ["train", *ARGUMENTS, f"--workdir={workdir}", "--tensorboard"]) == 0
        assert "nothing was trained" in capsys.readouterr().out
        check_points(workdir)


def test_without_tensorboardx_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    arguments = ["train", *ARGUMENTS, f"--workdir={tmp_path / 'run'}", "--tensorboard"]
    assert cli.run(train, train.main, arguments) == 2
    assert 'pip install ".[tensorboard]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
