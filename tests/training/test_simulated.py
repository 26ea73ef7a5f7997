"""What is learnt from simulated stories holds for the official ones."""

import dataclasses
import importlib
from pathlib import Path

import pytest

from flax_attnat.config import parse
from flax_attnat.data.load import load
from flax_attnat.data.vocabulary import encode
from flax_attnat.evaluation.measure import build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.loop import fit
from flax_attnat.training.trainer import build_trainer

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.slow
def test_a_model_of_simulated_stories_answers_the_official_test(tmp_path: Path) -> None:
    """bAbI task 1, vanilla, the model of configs/babi1.py for 12 epochs: accuracy of .95 at least."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the real raw files are not here.")
    settings = importlib.import_module("configs.babi1").get_config()
    settings.technique = "vanilla"
    settings.training.epochs = 12
    settings.data.raw_dir, settings.data.data_dir = str(SHARED), str(tmp_path)
    config = parse(settings)
    official = load(config).splits["test"]
    simulated = load(dataclasses.replace(config, dataset="simulated1"))
    # The official test in the ids of the simulated training stories; both name the same six places.
    test = official._replace(
        tokens=[encode(simulated.vocabulary, record.words) for record in official.records],
        queries=[encode(simulated.vocabulary, record.query) for record in official.records],
    )
    assert all((tokens > 1).all() for tokens in test.tokens)
    dataset = simulated._replace(splits={**simulated.splits, "test": test})
    trainer = build_trainer(config, dataset, None, METRICS["accuracy"])
    states, seconds = fit(trainer, tmp_path / "workdir", say=print)
    (line,) = result_lines(
        trainer, states, "test", measure_split(trainer, build_explain(trainer), states.best_params, "test"), seconds
    )
    print(f"accuracy on the official test: {line['accuracy']:.3f}, best epoch {line['best_epoch']}")
    assert line["n"] == 1_000
    assert line["accuracy"] >= 0.95
