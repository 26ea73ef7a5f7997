"""What a brief says is what the suites say of the same runs, text by text and in the mean."""

import jax
import numpy as np
import pytest

from configs import planted
from flax_attnat.config import parse
from flax_attnat.data.load import load
from flax_attnat.evaluation.brief import RADII, build_brief, measure_brief
from flax_attnat.evaluation.measure import build_explain, measure_split
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.evaluation.suite import Options, build_stages, run_suites
from flax_attnat.training.trainer import build_trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of the planted texts at their start."""
    values = planted.get_config()
    values.data.data_dir = str(tmp_path_factory.mktemp("data"))
    values.model.hidden_size, values.model.embedding_size, values.seeds = 4, 8, (0, 1)
    config = parse(values)
    trainer = build_trainer(config, load(config), None, METRICS["auc"])
    return trainer, trainer.population.init(trainer.seeds).params


def test_a_brief_is_what_the_suites_say(trained) -> None:
    """Interpretability and robustness, of which it is a part."""
    trainer, params = trained
    measures, lines = measure_brief(trainer, build_brief(trainer), params, "dev")
    options = Options(linf=RADII, l2=(1.0,), steps=1, restarts=1)
    found = run_suites(
        trainer, build_stages(trainer, options), params, "dev", ("interpretability", "robustness"), options
    ).arrays
    agreement, robustness = found["interpretability"], found["robustness"]
    np.testing.assert_allclose(measures.probability, agreement["probability"], atol=1e-5)
    np.testing.assert_allclose(measures.largest_attention, agreement["largest_attention"], atol=1e-5)
    np.testing.assert_allclose(measures.pearson, agreement["pearson_gradient"], atol=1e-3)
    for run, line in enumerate(lines):
        for kind in ("gradient", "gradient_attached", "gradient_norm"):
            expected = {name: agreement[f"{name}_{kind}"][run] for name in ("pearson", "kendall")}
            for name, rows in expected.items():
                assert line[f"{name}_{kind}"] == pytest.approx(np.nanmean(rows), abs=2e-3)
            assert line[f"undefined_{kind}"] == np.isnan(expected["pearson"]).sum()
        certified = robustness["certified_linf"][run].mean(axis=0)
        assert line["certified"] == pytest.approx(certified, abs=1 / len(measures.labels))
        assert line["radii"] == list(RADII)


def test_a_brief_is_what_result_lines_are_made_of(trained) -> None:
    trainer, params = trained
    measures, _ = measure_brief(trainer, build_brief(trainer, ("gradient",)), params, "dev", width=50)
    expected = measure_split(trainer, build_explain(trainer), params, "dev")
    for ours, theirs in zip(jax.tree.leaves(measures), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_sizes_are_norms_over_real_tokens(trained) -> None:
    """In float64, of one text."""
    trainer, params = trained
    _, lines = measure_brief(trainer, build_brief(trainer, ("gradient_norm",)), params, "dev")
    table = np.asarray(params["embedding"]["table"], np.float64)
    for run, line in enumerate(lines):
        norms = [np.sqrt(np.square(table[run][ids]).sum()) for ids in trainer.dataset.splits["dev"].tokens]
        assert line["word_norm"] == pytest.approx(np.mean(norms), rel=1e-5)
        assert 0 < line["score_norm"] < np.inf and "pearson_gradient" not in line
