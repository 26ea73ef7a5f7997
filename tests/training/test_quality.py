"""What trained models reach: on the synthetic data in a minute, on the real treebank in about 70 minutes on a core."""

from pathlib import Path

import numpy as np
import pytest

from configs import planted, sst
from flax_attnat.config import Config, parse
from flax_attnat.data.load import load, load_vectors
from flax_attnat.evaluation.measure import build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.loop import fit
from flax_attnat.training.trainer import build_trainer

RAW = Path(__file__).parents[3] / "shared" / "data"


def train(config: Config, workdir: Path) -> list[dict]:
    """Result lines of the test split."""
    dataset = load(config)
    trainer = build_trainer(config, dataset, load_vectors(config, dataset.vocabulary), METRICS["auc"])
    states, seconds = fit(trainer, workdir)
    return result_lines(
        trainer, states, "test", measure_split(trainer, build_explain(trainer), states.best_params, "test"), seconds
    )


def test_the_vanilla_bilstm_solves_planted_up_to_its_label_noise(tmp_path: Path) -> None:
    """.92 or more with 4 % of the labels wrong, where a bag of words stays below .70 (tests/data/test_planted.py)."""
    values = planted.get_config()
    values.technique = "vanilla"
    line = train(parse(values.to_dict()), tmp_path)[0]
    assert line["f1"] >= 0.92 and line["accuracy"] >= 0.92, line


@pytest.mark.slow
@pytest.mark.skipif(not RAW.is_dir(), reason=f"no raw data in {RAW}")
def test_vanilla_on_the_treebank_is_as_good_as_published(tmp_path: Path) -> None:
    """Mean test F1 of five seeds between .77 and .84; .784 is a single run published with Jain & Wallace's code."""
    values = sst.get_config()
    values.technique, values.seeds = "vanilla", (0, 1, 2, 3, 4)
    values.data.raw_dir, values.data.data_dir = str(RAW), str(tmp_path / "data")
    values.data.vectors = str(RAW / "imdb.300d.vec.gz")
    lines = train(parse(values.to_dict()), tmp_path / "run")
    assert [line["n"] for line in lines] == 5 * [1726]
    assert 0.77 <= np.mean([line["f1"] for line in lines]) <= 0.84, lines
