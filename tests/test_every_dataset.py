"""Every technique on every data set: 30 steps of the real program on small cuts of the data.

`pytest tests/test_every_dataset.py --slow -s` prints the table: first and last loss per data set, attention and
technique. Data sets whose official files are in ../shared/data come from there, the two others from fixtures of the
same form.
"""

import dataclasses
import importlib
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.allowed import ATTENTIONS, TECHNIQUES
from flax_attnat.config import Config, ModelConfig, parse
from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.data.load import load
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.population import zero_sums
from flax_attnat.training.trainer import build_trainer
from tests.fixtures import write_cnn, write_multi_nli

SHARED = Path(__file__).parents[2] / "shared" / "data"
FIXTURES = {"cnn": write_cnn, "multi_nli": write_multi_nli}
DATASETS = ("sst", "imdb", "newsgroups", "ag_news", "babi1", "babi2", "babi3", "cnn", "snli", "multi_nli")
ROWS, STEPS, EPSILON = 32, 30, 0.5


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places")


@cache
def dataset(name: str, places: Path) -> tuple[Config, Dataset]:
    """The data set's own configuration with a small model, and its shortest 32 training texts of two words or more."""
    config = importlib.import_module(f"configs.{name}").get_config()
    raw = SHARED
    if name in FIXTURES:
        raw = places / f"raw_{name}"
        raw.mkdir()
        FIXTURES[name](raw)
    elif not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the real raw files are not here.")
    config.data.raw_dir, config.data.data_dir, config.data.min_df = str(raw), str(places / "data"), 1
    parsed = parse(config)
    found = load(parsed)
    train = found.splits["train"]
    order = np.argsort([len(tokens) for tokens in train.tokens], kind="stable")
    order = [i for i in order if len(train.tokens[i]) > 1]
    first = [i for label in np.unique(train.labels) for i in [j for j in order if train.labels[j] == label][:2]]
    rows = np.array((first + [i for i in order if i not in first])[:ROWS])
    small = Split(
        records=[train.records[int(i)] for i in rows],
        tokens=[train.tokens[i] for i in rows],
        labels=train.labels[rows],
        queries=None if train.queries is None else [train.queries[i] for i in rows],
    )
    return parsed, found._replace(splits=dict.fromkeys(("train", "dev", "test"), small))


def run(name: str, technique: str, attention: str, encoder: str, places: Path) -> dict[str, float]:
    """Loss of the first and of the last of 30 steps on the same 32 rows, and the mean norm of the perturbation."""
    base, data = dataset(name, places)
    longest = max(len(tokens) for tokens in data.splits["train"].tokens)
    config = dataclasses.replace(
        base,
        technique=technique,
        epsilon=EPSILON,
        data=dataclasses.replace(base.data, bucket_widths=(longest,)),
        model=ModelConfig(encoder=encoder, attention=attention, embedding_size=16, hidden_size=8),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=0.02),
    )
    trainer = build_trainer(config, data, None, METRICS["accuracy"], mesh=make_mesh(devices=1))
    population, (bucket,) = trainer.population, trainer.buckets["train"]
    states, hparams = population.init(trainer.seeds), trainer.hparams
    neighbours = population.refresh(states.params)
    which, rows = jnp.zeros(16, jnp.int32), jnp.broadcast_to(jnp.arange(ROWS, dtype=jnp.int32), (1, 16, ROWS))
    losses, norms = [], []
    for steps in (1, 16, 12, 1):
        states, sums = population.run_chunk(
            states,
            zero_sums(1),
            (bucket,),
            which,
            rows,
            jnp.int32(0),
            jnp.int32(steps),
            hparams,
            trainer.seeds,
            neighbours,
        )
        losses.append(float(sums.loss[0] / sums.rows[0]))
        norms.append(float(sums.delta_norm[0] / sums.rows[0]))
    assert int(states.frozen_step[0]) == -1
    assert int(states.step[0]) == STEPS
    return {"first": losses[0], "last": losses[-1], "norm": float(np.mean(norms))}


def check(found: dict[str, float], technique: str) -> None:
    assert np.isfinite(list(found.values())).all()
    assert found["last"] < found["first"]
    asked = 0 if technique == "vanilla" else EPSILON
    # A row with a zero gradient has no perturbation; there is hardly one.
    assert 0.9 * asked <= found["norm"] <= asked * (1 + 1e-5)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_questions_with_candidates_train_with_every_technique(technique: str, places: Path) -> None:
    check(run("cnn", technique, "additive", "bilstm", places), technique)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["average", "bilstm"])
@pytest.mark.parametrize("name", DATASETS)
def test_every_technique_on_every_data_set(name: str, encoder: str, places: Path) -> None:
    for attention in ATTENTIONS:
        found = {technique: run(name, technique, attention, encoder, places) for technique in TECHNIQUES}
        cells = "  ".join(f"{technique} {r['first']:.3f}>{r['last']:.3f}" for technique, r in found.items())
        norms = {round(r["norm"], 3) for r in found.values()}
        print(f"\n{name:10} {encoder:7} {attention:10} {cells}  norms {sorted(norms)}")
        for technique, result in found.items():
            check(result, technique)
