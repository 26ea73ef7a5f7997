"""What a workdir holds, measured: cohorts that were cut, one seed only, trainings under way, other options."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_attnat.ablation import Watch, train_all
from flax_attnat.config import Config, DataConfig, ModelConfig, PopulationConfig, TrainingConfig
from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.data.load import load
from flax_attnat.evaluate import Task, evaluate
from flax_attnat.evaluation.suite import Options
from flax_attnat.training.loop import Stopped
from flax_attnat.training.memory import TooLarge, with_fewer_rows
from flax_attnat.training.workdir import read_lines

CONFIG = Config(
    technique="attention_at",
    seeds=(0, 1, 2),
    data=DataConfig(bucket_widths=(32,)),
    model=ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
    training=TrainingConfig(epochs=2, batch_size=8),
)
OPTIONS = Options(linf=(0.5,), l2=(1.0,), steps=2, restarts=1)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    whole = load(CONFIG)
    cut = {name: Split(of.records[:40], of.tokens[:40], of.labels[:40]) for name, of in whole.splits.items()}
    return whole._replace(splits=cut)


def test_seeds_of_a_cohort_that_was_cut_are_measured_together(dataset: Dataset, tmp_path: Path) -> None:
    """Two runs in one population and one in another: three attentions to compare, three seeds of one setting."""
    config = dataclasses.replace(CONFIG, population=PopulationConfig(max_runs=2))
    train_all(config, dataset, None, tmp_path)
    assert len(list((tmp_path / "trained").iterdir())) == 2
    report = evaluate(config, dataset, tmp_path, Task(suites=("interpretability",), options=OPTIONS))
    (measured,) = report.measured
    assert measured.seeds == (0, 1, 2) and measured.probability.shape == (3, 40, 2)
    lines = report.families["interpretability"]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert all(line["seed_divergence"]["n"] == 40 and line["seed_divergence"]["mean"] > 0 for line in lines)
    (file,) = (tmp_path / "instances").iterdir()
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["seed"].tolist() == [0, 1, 2] and arrays["length"].shape == arrays["label"].shape == (40,)
        assert arrays["attention_tokens"].shape == (3, arrays["length"].sum())
        first = arrays["attention_tokens"][:, : arrays["length"][0]]
    np.testing.assert_allclose(first.sum(axis=-1), 1, rtol=1e-5)


def test_suites_are_measured_again_only_where_something_else_is_asked(dataset: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, seeds=(4,))
    train_all(config, dataset, None, tmp_path)
    task = Task(suites=("interpretability", "robustness"), options=OPTIONS)
    first = evaluate(config, dataset, tmp_path, task)
    assert set(first.seconds) == {"describe", "agree", "intervene", "attack", "delete", "summaries"}
    (line,) = first.families["interpretability"]
    assert line["not_available"]["seed_divergence"] == "there is one seed only of the setting"
    again = evaluate(config, dataset, tmp_path, task)
    assert again.seconds == {} and again.families == first.families
    wider = evaluate(config, dataset, tmp_path, task._replace(options=OPTIONS._replace(linf=(0.5, 1.0))))
    assert set(wider.seconds) == {"describe", "attack", "delete", "summaries"}
    assert len(wider.families["robustness"][0]["attacked_linf"]) == 2
    families = [line["family"] for line in read_lines(tmp_path, "results")]
    assert sorted(families) == ["interpretability", "prediction", "prediction", "robustness"]


def test_figures_of_a_training_under_way_are_shown_and_not_kept(dataset: Dataset, tmp_path: Path) -> None:
    calls = iter(range(100))
    with pytest.raises(Stopped):
        train_all(CONFIG, dataset, None, tmp_path, Watch(stop=lambda: next(calls) > 2, say=lambda _: None))
    said: list[str] = []
    report = evaluate(CONFIG, dataset, tmp_path, Task(suites=("robustness",), options=OPTIONS, say=said.append))
    assert "its figures are provisional" in said[0] and len(report.families["robustness"]) == 3
    assert not (tmp_path / "instances").exists() and read_lines(tmp_path, "results") == []


def test_fewer_texts_are_tried_until_the_memory_holds_them() -> None:
    tried = []

    def work(rows: int, enough: int) -> int:
        tried.append(rows)
        if rows > enough:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return rows

    assert with_fewer_rows(lambda rows: work(rows, 16)) == 16 and tried == [128, 16]
    with pytest.raises(TooLarge, match="with a single text at once"):
        with_fewer_rows(lambda rows: work(rows, 0))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with_fewer_rows(lambda rows: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL")))
