"""Devices share the runs without a word to each other, and a batch without changing it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config, DataConfig, ModelConfig, SweepConfig, TrainingConfig, WordConfig
from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.data.load import load
from flax_attnat.evaluation.measure import build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.loop import Progress, Stopped, fit
from flax_attnat.training.mesh import BY_RUN, WHOLE, fetch, make_mesh, padded, put
from flax_attnat.training.population import zero_sums
from flax_attnat.training.runs import cohorts
from flax_attnat.training.saved import finish, restore_trained
from flax_attnat.training.trainer import Trainer, build_trainer, with_runs

MESHES = {"one": (1, 1), "runs": (1, 2), "batch": (2, 2)}  # data shards, devices


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    whole = load(Config())
    splits = {
        name: Split(split.records[:200], split.tokens[:200], split.labels[:200]) for name, split in whole.splits.items()
    }
    return whole._replace(splits=splits)


def trainer_of(technique: str, dataset: Dataset, mesh: str, encoder: str = "average", dropout: float = 0.0) -> Trainer:
    """Three runs, a number that two devices do not divide."""
    config = Config(
        technique=technique,
        sweep=SweepConfig(epsilons=(0.5, 1.0, 5.0)),
        data=DataConfig(bucket_widths=(12, 32)),
        model=ModelConfig(encoder=encoder, embedding_size=8, hidden_size=4, dropout=dropout),
        word=WordConfig(neighbours=3),
        training=TrainingConfig(epochs=2, batch_size=8),
    )
    shards, devices = MESHES[mesh]
    trainer = build_trainer(config, dataset, None, METRICS["auc"], mesh=make_mesh(shards, devices))
    return with_runs(trainer, cohorts(config)[0].runs)


def steps_of(trainer: Trainer, steps: int):
    """Parameters, the sums of the last step and the number of filled-up runs after some steps on the first rows."""
    states = trainer.population.init(trainer.seeds)
    neighbours = trainer.population.refresh(states.params)
    count, mesh = len(trainer.seeds), trainer.mesh
    rows = np.broadcast_to(np.arange(128, dtype=np.int32).reshape(16, 8), (count, 16, 8))
    bucket = max(trainer.buckets["train"], key=lambda bucket: bucket.tokens.shape[0])
    for step in range(steps):
        states, sums = trainer.population.run_chunk(
            states,
            put(mesh, BY_RUN, zero_sums(count)),
            (bucket,),
            put(mesh, WHOLE, np.zeros(16, np.int32)),
            put(mesh, BY_RUN, rows),
            *put(mesh, WHOLE, (np.int32(step % 16), np.int32(1))),
            trainer.hparams,
            trainer.seeds,
            neighbours,
        )
    return jax.device_get(states.params), jax.device_get(sums)


@pytest.mark.parametrize("mesh", ["runs", "batch"])
@pytest.mark.parametrize(
    ("technique", "encoder", "dropout"),
    [("attention_iat", "bilstm", 0.0), ("attention_rp", "average", 0.3), ("word_iat", "average", 0.0)],
)
def test_one_step_and_twenty_are_the_same_on_every_mesh(technique, encoder, dropout, mesh, dataset) -> None:
    """Noise and dropout are those of the whole batch, however it is shared."""
    for steps, tolerance in ((1, 1e-5), (20, 1e-4)):
        alone, alone_sums = steps_of(trainer_of(technique, dataset, "one", encoder, dropout), steps)
        shared, shared_sums = steps_of(trainer_of(technique, dataset, mesh, encoder, dropout), steps)
        np.testing.assert_allclose(shared_sums.loss[:3], alone_sums.loss, rtol=tolerance)
        for a, b in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[:3], b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("technique", ["attention_iat", "word_iat"])
def test_runs_are_shared_without_communication(technique: str, dataset: Dataset) -> None:
    collective = re.compile(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter")
    texts = {}
    for mesh in ("runs", "batch"):
        trainer = trainer_of(technique, dataset, mesh)
        states = trainer.population.init(trainer.seeds)
        arguments = (
            states,
            put(trainer.mesh, BY_RUN, zero_sums(len(trainer.seeds))),
            tuple(trainer.buckets["train"]),
            put(trainer.mesh, WHOLE, np.zeros(16, np.int32)),
            put(trainer.mesh, BY_RUN, np.zeros((len(trainer.seeds), 16, 8), np.int32)),
            *put(trainer.mesh, WHOLE, (np.int32(0), np.int32(1))),
            trainer.hparams,
            trainer.seeds,
            trainer.population.refresh(states.params),
        )
        texts[mesh] = trainer.population.run_chunk.lower(*arguments).compile().as_text()  # type: ignore[attr-defined]
    assert not collective.search(texts["runs"])
    assert collective.search(texts["batch"]), "the gradients of a shared batch are summed"


def test_filled_up_runs_leave_no_trace(dataset: Dataset, tmp_path: Path) -> None:
    """Three runs on two devices: three lines each, with the figures of one device."""
    found = {}
    for mesh in ("one", "runs"):
        trainer = trainer_of("attention_at", dataset, mesh)
        assert len(trainer.seeds) == padded(3, trainer.mesh) == {"one": 3, "runs": 4}[mesh]
        states, seconds = fit(trainer, tmp_path / mesh)
        measures = measure_split(trainer, build_explain(trainer), states.best_params, "test")
        found[mesh] = result_lines(trainer, states, "test", measures, seconds)
        assert len((tmp_path / mesh / "metrics.jsonl").read_text().splitlines()) == 2 * 3
    assert [line["epsilon"] for line in found["runs"]] == [0.5, 1.0, 5.0]
    for a, b in zip(*found.values(), strict=True):
        assert (a["auc"], a["pearson"]) == pytest.approx((b["auc"], b["pearson"]), abs=1e-2)


@pytest.mark.parametrize(("first", "second"), [("one", "runs"), ("runs", "one"), ("batch", "runs")])
def test_a_checkpoint_goes_on_on_another_mesh_and_says_so(first, second, dataset: Dataset, tmp_path: Path) -> None:
    reports: list[Progress] = []
    with pytest.raises(Stopped):  # within the second epoch, whose first span is one step
        fit(
            trainer_of("word_iat", dataset, first),
            tmp_path,
            progress=reports.append,
            stop=lambda: reports[-1].epoch == 2,
        )
    assert reports[-1].step < reports[-1].steps
    said: list[str] = []
    there = trainer_of("word_iat", dataset, second)
    states, seconds = fit(there, tmp_path, say=said.append)
    assert len(said) == 1 and "made on a mesh of" in said[0]
    whole, _ = fit(trainer_of("word_iat", dataset, first), tmp_path / "whole")
    for a, b in zip(jax.tree.leaves(states.params), jax.tree.leaves(whole.params), strict=True):
        a, b = np.asarray(a)[:3], np.asarray(b)[:3]
        np.testing.assert_allclose(a, b, atol=1e-2 * np.abs(b).max())
    # What is left of a finished population is read on any mesh too.
    finish(there, tmp_path, states, seconds)
    kept, meta = restore_trained(trainer_of("word_iat", dataset, first), tmp_path, said.append)
    for a, b in zip(jax.tree.leaves(kept.best_params), jax.tree.leaves(states.best_params), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[:3], np.asarray(b)[:3])
    assert meta["position"][0] == 2


def test_arrays_go_to_the_devices_and_come_back_whole() -> None:
    mesh = make_mesh()
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int32(4)}
    for spec in (WHOLE, BY_RUN):
        there = put(mesh, spec, values["a"])
        assert there.sharding == NamedSharding(mesh, spec)
        np.testing.assert_array_equal(fetch(mesh, there), values["a"])
    assert fetch(mesh, put(mesh, WHOLE, values))["b"] == 4


def test_devices_that_cannot_be_grouped_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"config.population.data_shards must divide .*; got 3 for 2"):
        make_mesh(3)


def test_a_checkpoint_of_one_two_four_or_eight_devices_is_read_on_each_and_steps_alike(tmp_path: Path) -> None:
    """The state is the same to the last bit, one step from it the same to rounding."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.eight_devices", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 16
    for pair, (same, apart) in found.items():
        assert same and apart < 1e-5, (pair, same, apart)
