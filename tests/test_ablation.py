"""An ablation from start to end: nothing twice, cut where the memory asks for it, the same figures whatever the cut."""

import dataclasses
import json
import logging
from pathlib import Path

import jax
import pytest

from flax_attnat import ablation
from flax_attnat.ablation import TooLarge, Watch, is_finished, parts, train_all
from flax_attnat.config import (
    Config,
    DataConfig,
    ModelConfig,
    PopulationConfig,
    SweepConfig,
    TrainingConfig,
    WordConfig,
)
from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.data.load import load
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training import memory
from flax_attnat.training.loop import Stopped
from flax_attnat.training.memory import most_runs, needed_bytes
from flax_attnat.training.runs import cohort_name, cohorts
from flax_attnat.training.trainer import build_trainer
from flax_attnat.training.workdir import WorkdirError, read_lines

CONFIG = Config(
    sweep=SweepConfig(
        techniques=("vanilla", "attention_iat", "word_iat"), readings=("span", "sign"), epsilons=(0.5, 5.0)
    ),
    seeds=(0, 1),
    data=DataConfig(bucket_widths=(32,)),
    model=ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
    word=WordConfig(neighbours=3),
    training=TrainingConfig(epochs=2, batch_size=8),
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    whole = load(CONFIG)
    splits = {
        name: Split(split.records[:80], split.tokens[:80], split.labels[:80]) for name, split in whole.splits.items()
    }
    return whole._replace(splits=splits)


def figures(workdir: Path) -> list[dict]:
    """Result lines without what differs between two trainings of the same runs."""
    lines = read_lines(workdir, "results")
    for line in lines:
        del line["seconds"], line["population"]
    return sorted(lines, key=json.dumps)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    train_all(CONFIG, dataset, None, workdir)
    return workdir


def test_every_run_is_measured_on_dev_and_test_and_nothing_is_trained_twice(whole: Path, dataset: Dataset) -> None:
    lines = figures(whole)
    runs = {(line["technique"], line["reading"], line["epsilon"], line["seed"], line["split"]) for line in lines}
    swept = [("attention_iat", "span"), ("attention_iat", "sign"), ("word_iat", None)]
    expected = {("vanilla", None, None, seed) for seed in (0, 1)}
    expected |= {(*name, epsilon, seed) for name in swept for epsilon in (0.5, 5.0) for seed in (0, 1)}
    assert runs == {(*run, split) for run in expected for split in ("dev", "test")} and len(lines) == len(runs)
    reports: list = []
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    train_all(CONFIG, dataset, None, whole, Watch(progress=lambda cohort, progress: reports.append(progress)))
    assert reports == [None] * 4 and all(is_finished(whole, cohort) for cohort in cohorts(CONFIG))
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("calls", [3, 8])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(
    calls: int, whole: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """Stopped again and again after a few questions, until nothing is left."""

    def stop_soon():
        left = iter(range(calls))
        return lambda: next(left, None) is None

    for _ in range(200):
        try:
            train_all(CONFIG, dataset, None, tmp_path, Watch(stop=stop_soon()))
            break
        except Stopped:
            pass
    assert figures(tmp_path) == figures(whole)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_cut_changes_figures_by_rounding_only_and_is_kept(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, population=PopulationConfig(max_runs=3))
    train_all(config, dataset, None, tmp_path)
    sizes = json.loads((tmp_path / "cut.json").read_text())
    assert sorted(sizes.values()) == [[2], [2, 2], [2, 2], [2, 2]]
    assert [len(part.runs) for part in parts(tmp_path, config)] == [2] * 7
    for a, b in zip(figures(tmp_path), figures(whole), strict=True):
        assert {name: a[name] for name in ("technique", "epsilon", "seed")} == {
            name: b[name] for name in ("technique", "epsilon", "seed")
        }
        assert (a["auc"], a["pearson"]) == pytest.approx((b["auc"], b["pearson"]), abs=0.02)
    # What is finished keeps its cut; what is not is cut anew where fewer runs are asked for, and leaves nothing behind.
    lost = next((tmp_path / "results").glob("word_iat*"))
    lost.unlink()
    said: list[str] = []
    smaller = dataclasses.replace(CONFIG, population=PopulationConfig(max_runs=1))
    train_all(smaller, dataset, None, tmp_path, Watch(say=said.append))
    assert len(said) == 1 and f"{lost.stem}: 2 runs are cut into [1, 1]" in said[0]
    assert sorted(len(part.runs) for part in parts(tmp_path, config)) == [1] * 2 + [2] * 6
    assert not list(tmp_path.glob(f"*/{lost.stem}*"))
    assert len(figures(tmp_path)) == len(figures(whole))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == len((whole / "metrics.jsonl").read_text().splitlines())


def test_as_many_runs_as_the_memory_holds(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, technique="attention_at", sweep=SweepConfig(), seeds=tuple(range(12)))
    trainer = build_trainer(config, dataset, None, METRICS["auc"])
    needed = {runs: needed_bytes(trainer, runs) for runs in (2, 4, 12)}
    # A run's state and its moments alone: five copies of its parameters, and the one that saving makes.
    parameters = sum(
        leaf.size * 4 for leaf in jax.tree.leaves(jax.eval_shape(trainer.population.init, trainer.seeds).params)
    )
    assert needed[12] is not None and needed[4] is not None and needed[2] is not None
    assert (needed[12] - needed[4]) * 2 > 5 * parameters // 12 * 8  # two devices share the runs
    assert needed[2] < needed[4] < needed[12]
    for limit, expected in ((needed[12], 12), (needed[4], 4)):
        monkeypatch.setattr(memory, "available_bytes", lambda limit=limit: limit)
        found = most_runs(trainer)
        assert found == 12 if expected == 12 else 2 <= found <= 5
        assert needed_bytes(trainer, found) <= limit
    monkeypatch.setattr(memory, "available_bytes", lambda: 1)
    assert most_runs(trainer) == 1, "one run is tried in any case"
    assert memory._free_host_bytes() > 1 << 20


def test_out_of_memory_is_answered_by_half_as_many_runs(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, technique="attention_at", sweep=SweepConfig(epsilons=(1.0, 2.0)))
    fit, tried = ablation.fit, []

    def small_machine(trainer, *arguments, **keywords):
        tried.append(len(trainer.runs))
        if len(trainer.runs) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return fit(trainer, *arguments, **keywords)

    monkeypatch.setattr(ablation, "fit", small_machine)
    said: list[str] = []
    train_all(config, dataset, None, tmp_path, Watch(say=said.append))
    assert tried == [4, 2, 1, 1, 2, 1, 1] and len(said) == 3 and "with 4 runs at once" in said[0]
    assert len(figures(tmp_path)) == 8 and len(list((tmp_path / "trained").iterdir())) == 4
    monkeypatch.setattr(
        ablation, "fit", lambda *_, **__: small_machine(build_trainer(CONFIG, dataset, None, METRICS["auc"]))
    )
    with pytest.raises(TooLarge, match=r"with a single run .*config.training.batch_size"):
        train_all(dataclasses.replace(config, seeds=(9,), sweep=SweepConfig()), dataset, None, tmp_path)
    monkeypatch.setattr(ablation, "fit", lambda *_, **__: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL")))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        train_all(dataclasses.replace(config, seeds=(8,), sweep=SweepConfig()), dataset, None, tmp_path)


def compilations(config: Config, dataset: Dataset, workdir: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Names of the programs that an ablation compiles."""
    jax.clear_caches()
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train_all(config, dataset, None, workdir)
    found = [r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("Compiling ")]
    return sorted(found)


def test_more_epsilons_compile_no_more_programs(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(CONFIG, technique="attention_at", training=TrainingConfig(epochs=1, batch_size=8))
    one, three = (
        compilations(
            dataclasses.replace(config, sweep=SweepConfig(epsilons=epsilons)), dataset, tmp_path / name, caplog
        )
        for name, epsilons in (("one", (0.5,)), ("three", (0.5, 1.0, 5.0)))
    )
    assert one == three and any("run_chunk" in name for name in one)


def test_a_damaged_cut_is_a_sentence(dataset: Dataset, tmp_path: Path) -> None:
    for text in ('{"a": [2', "[]", '{"a": 2}'):
        (tmp_path / "cut.json").write_text(text)
        with pytest.raises(WorkdirError, match=r"cut.json is no list of cuts"):
            train_all(CONFIG, dataset, None, tmp_path)
    (tmp_path / "cut.json").write_text(json.dumps({cohort_name(cohorts(CONFIG)[0]): [5]}))
    with pytest.raises(WorkdirError, match=r"does not cut .* into its 2 runs"):
        train_all(CONFIG, dataset, None, tmp_path)


def test_the_name_of_a_part_is_that_of_its_files(whole: Path) -> None:
    names = {cohort_name(part) for part in parts(whole, CONFIG)}
    assert {path.stem for path in (whole / "results").iterdir()} == names
    assert {path.name for path in (whole / "trained").iterdir()} == names
    assert not list((whole / "checkpoints").iterdir())
