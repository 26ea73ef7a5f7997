"""TensorBoard's event files, read back record by record: every epoch of every run once, however training went."""

import dataclasses
import json
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from flax_attnat.config import Config, OptimizerConfig, SweepConfig
from flax_attnat.reporting.tensorboard import PREFIX, Scalars, check_available, run_name
from flax_attnat.training.loop import Progress
from flax_attnat.training.records import run_fields
from flax_attnat.training.runs import Cohort, Run, cohort_name, cohorts, cut
from flax_attnat.training.workdir import WorkdirError, write_lines

CONFIG = Config(
    technique="attention_at",
    seeds=(0, 1),
    sweep=SweepConfig(techniques=("vanilla", "attention_at"), epsilons=(0.5, 5.0)),
)
VANILLA, ATTENTION = cohorts(CONFIG)


def read_events(folder: Path) -> Iterator[event_pb2.Event]:
    """All events of a run's files; lengths and checksums must be right to the last byte."""
    for path in sorted(folder.iterdir()):
        assert path.name.startswith(PREFIX)
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = content[place + 12 : place + 12 + length]
            assert struct.unpack_from("<I", content, place + 8)[0] == masked_crc32c(content[place : place + 8])
            assert struct.unpack_from("<I", content, place + 12 + length)[0] == masked_crc32c(event)
            yield event_pb2.Event.FromString(event)
            place += 16 + length


def read_points(workdir: Path) -> dict[str, list[tuple[int, dict[str, float]]]]:
    """Epochs and figures by run, as they lie in the files."""
    return {
        folder.name: [
            (event.step, {value.tag: value.simple_value for value in event.summary.value})
            for event in read_events(folder)
            if event.HasField("summary")
        ]
        for folder in sorted((workdir / "tensorboard").iterdir())
    }


def lines_of(part: Cohort, epoch: int) -> list[dict[str, Any]]:
    return [
        run_fields(part.config, run)
        | {"epoch": epoch, "train_rows": 100, "loss": epoch + run.seed / 4, "clean": None, "dev_auc": 0.5}
        | {"frozen_step": None, "frozen_reason": None}
        for run in part.runs
    ]


def train(scalars: Scalars, workdir: Path, part: Cohort, epochs: Sequence[int]) -> None:
    """Reports as training gives them: some steps, then what an epoch ended with, after its metrics were written."""
    history = [line for epoch in range(1, epochs[0]) for line in lines_of(part, epoch)]
    write_lines(workdir, "metrics", cohort_name(part), history)
    for epoch in epochs:
        scalars.update(part, Progress(epoch, 1, 2))
        history += lines_of(part, epoch)
        write_lines(workdir, "metrics", cohort_name(part), history)
        scalars.update(part, Progress(epoch, 2, 2, lines_of(part, epoch)))


def epochs_of(workdir: Path, name: str) -> list[int]:
    return [epoch for epoch, _ in read_points(workdir)[name]]


def test_every_number_of_an_epoch_is_a_point_of_its_run(tmp_path: Path) -> None:
    scalars = Scalars(tmp_path, CONFIG)
    for cohort in (VANILLA, ATTENTION):
        train(scalars, tmp_path, cohort, (1, 2))
        scalars.update(cohort, None)
    points = read_points(tmp_path)
    assert list(points) == [
        *(f"attention_at-epsilon_{epsilon}-lambda_1-seed_{seed}" for epsilon in ("0.5", "5") for seed in (0, 1)),
        "vanilla-seed_0",
        "vanilla-seed_1",
    ]
    assert points["attention_at-epsilon_5-lambda_1-seed_1"] == [
        (epoch, {"train_rows": 100, "loss": epoch + 0.25, "dev_auc": 0.5}) for epoch in (1, 2)
    ]


def test_a_file_begins_with_its_version_and_voids_what_was_read_before(tmp_path: Path) -> None:
    train(Scalars(tmp_path, CONFIG), tmp_path, VANILLA, (1,))
    version, start, *points = read_events(tmp_path / "tensorboard" / "vanilla-seed_0")
    assert version.file_version == "brain.Event:2" and len(points) == 1
    assert start.session_log.status == event_pb2.SessionLog.START and start.step == 0


@pytest.mark.parametrize("again", [1, 2, 3, 4])
def test_epochs_trained_again_from_an_older_checkpoint_are_there_once(again: int, tmp_path: Path) -> None:
    train(Scalars(tmp_path, CONFIG), tmp_path, ATTENTION, (1, 2, 3))
    train(Scalars(tmp_path, CONFIG), tmp_path, ATTENTION, range(again, 6))
    assert [[epoch for epoch, _ in points] for points in read_points(tmp_path).values()] == [[1, 2, 3, 4, 5]] * 4


def test_epochs_that_were_trained_without_it_are_there_before_the_next_one_ends(tmp_path: Path) -> None:
    history = [line for epoch in (1, 2, 3) for line in lines_of(VANILLA, epoch)]
    write_lines(tmp_path, "metrics", cohort_name(VANILLA), history)
    scalars = Scalars(tmp_path, CONFIG)
    scalars.update(VANILLA, Progress(4, 1, 2))
    assert epochs_of(tmp_path, "vanilla-seed_1") == [1, 2, 3]
    scalars.update(VANILLA, Progress(4, 2, 2, lines_of(VANILLA, 4)))
    assert epochs_of(tmp_path, "vanilla-seed_1") == [1, 2, 3, 4]


def test_a_report_of_an_epoch_alone_is_not_written_twice(tmp_path: Path) -> None:
    """Stopped after the last step of an epoch, training resumes with its end."""
    write_lines(tmp_path, "metrics", cohort_name(VANILLA), lines_of(VANILLA, 1))
    Scalars(tmp_path, CONFIG).update(VANILLA, Progress(1, 2, 2, lines_of(VANILLA, 1)))
    assert epochs_of(tmp_path, "vanilla-seed_0") == [1]


def test_a_cohort_that_was_finished_in_parts_is_shown_whole(tmp_path: Path) -> None:
    for part in cut(ATTENTION, [3, 1]):
        write_lines(tmp_path, "metrics", cohort_name(part), lines_of(part, 1))
    Scalars(tmp_path, CONFIG).update(ATTENTION, None)
    assert [len(points) for points in read_points(tmp_path).values()] == [1, 1, 1, 1]


def test_a_population_that_is_cut_into_halves_starts_anew(tmp_path: Path) -> None:
    scalars = Scalars(tmp_path, CONFIG)
    train(scalars, tmp_path, ATTENTION, (1, 2))
    (tmp_path / "metrics" / f"{cohort_name(ATTENTION)}.jsonl").unlink()
    for part in cut(ATTENTION, [2, 2]):
        train(scalars, tmp_path, part, (1,))
    assert [[epoch for epoch, _ in points] for points in read_points(tmp_path).values()] == [[1]] * 4


def test_a_file_that_was_cut_short_by_a_kill_is_made_anew(tmp_path: Path) -> None:
    train(Scalars(tmp_path, CONFIG), tmp_path, VANILLA, (1, 2))
    (file,) = (tmp_path / "tensorboard" / "vanilla-seed_0").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    train(Scalars(tmp_path, CONFIG), tmp_path, VANILLA, (3,))
    assert epochs_of(tmp_path, "vanilla-seed_0") == [1, 2, 3]


def test_values_that_are_no_numbers_and_numbers_that_are_no_values(tmp_path: Path) -> None:
    odd = {"loss": math.nan, "clean": 1e300, "adversarial": None, "raised": True, "frozen_step": 7}
    lines = [line | odd | {"frozen_reason": "the loss was not finite"} for line in lines_of(VANILLA, 1)]
    write_lines(tmp_path, "metrics", cohort_name(VANILLA), lines)
    Scalars(tmp_path, CONFIG).update(VANILLA, None)
    ((_, figures),) = read_points(tmp_path)["vanilla-seed_0"]
    assert math.isnan(figures.pop("loss"))
    assert figures == {"train_rows": 100, "clean": math.inf, "dev_auc": 0.5, "frozen_step": 7}


def test_names_of_runs_are_safe_and_unlike_each_other() -> None:
    rates, decays = (1e-3, 1e-30, 0.1 + 0.2, 0.3), (0.0, 1.0, 1e22)
    sweep = SweepConfig(
        techniques=("vanilla", "attention_iat", "word_at"),
        readings=("span", "released"),
        epsilons=(0.0, 1.0, 1.0000000000000002),
        adversarial_weights=(1.0, 10.0),
        learning_rates=rates,
        weight_decays=decays,
    )
    config = Config(sweep=sweep, seeds=(0, 1, 10))
    names = [run_name(run_fields(each.config, run)) for each in cohorts(config) for run in each.runs]
    assert len(set(names)) == len(names) == 3 * 4 * 3 * (1 + 3 * 3 * 2)
    assert all(len(name) < 200 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") for name in names)


@pytest.mark.parametrize(
    ("rates", "decays", "name"),
    [
        ((), (), "vanilla-seed_3"),
        ((0.01,), (0.5,), "vanilla-seed_3"),
        ((0.01, 0.1), (), "vanilla-learning_rate_0.01-seed_3"),
        ((), (0.0, 0.5), "vanilla-weight_decay_0.5-seed_3"),
    ],
)
def test_what_the_sweep_varies_is_in_the_name(rates: tuple, decays: tuple, name: str, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, sweep=SweepConfig(learning_rates=rates, weight_decays=decays), optimizer=OptimizerConfig()
    )
    one = Cohort(dataclasses.replace(VANILLA.config), (Run(1.0, 1.0, 0.01, 0.5, 3),))
    Scalars(tmp_path, config).update(one, None)
    assert [folder.name for folder in (tmp_path / "tensorboard").iterdir()] == [name]


def test_without_tensorboardx_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "flax_attnat\[tensorboard\]", or in a checkout'):
        Scalars(tmp_path, CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_bucket_is_refused() -> None:
    with pytest.raises(WorkdirError, match=r"cannot be written to gs://bucket/run.*without --tensorboard"):
        check_available("gs://bucket/run")


def test_metrics_that_were_cut_short_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "a.jsonl").write_text(json.dumps({"seed": 1})[:-2] + "\n")
    with pytest.raises(WorkdirError, match=r"a\.jsonl, line 1 is not JSON"):
        Scalars(tmp_path, CONFIG).update(VANILLA, None)
