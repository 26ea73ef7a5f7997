"""Measuring a split of several buckets: order, exclusions, and every figure recomputed on the host."""

import jax
import numpy as np
import pytest

from flax_attnat.config import parse
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.errors import DataError
from flax_attnat.data.planted import LABEL_NAMES, generate
from flax_attnat.data.vocabulary import encode, fit_vocabulary
from flax_attnat.evaluation.measure import build_explain, check_measurable, explain_split, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS, MOST_EXAMPLES
from flax_attnat.training.population import EVALUATION_ROWS
from flax_attnat.training.trainer import build_trainer
from tests.evaluation import reference

SEEDS = (3, 8)
ONE_WORD, EMPTY = 5, 11  # places in the split of texts for which the correlation is undefined


@pytest.fixture(scope="module")
def trainer():
    """Two runs of the average encoder on 160 reviews, among them a text of one word and one of none."""
    records = [
        Record(tuple(example.text.split()), LABEL_NAMES.index(example.label), example.rationale)
        for example in generate()["test"][:158]
    ]
    records.insert(ONE_WORD, Record(("good",), 1, (0,)))
    records.insert(EMPTY, Record((), 0, ()))
    vocabulary = fit_vocabulary(record.words for record in records)
    labels = np.array([record.label for record in records], np.int32)
    split = Split(records, [encode(vocabulary, record.words) for record in records], labels)
    dataset = Dataset("planted", {"train": split, "test": split}, vocabulary, LABEL_NAMES, "synthetic")
    values = {
        "technique": "attention_at",
        "epsilon": 2.0,
        "seeds": SEEDS,
        "model": {"encoder": "average", "embedding_size": 6, "hidden_size": 4},
        "data": {"bucket_widths": (4, 20, 24)},
    }
    return build_trainer(parse(values), dataset, None, METRICS["auc"])


@pytest.fixture(scope="module")
def states(trainer):
    """The initial states; best epochs are 2 and 1, and the second run was frozen at step 7."""
    initial = trainer.population.init(trainer.seeds)
    return initial._replace(
        best_params=jax.tree.map(lambda x: 2 * x, initial.best_params),
        best_epoch=np.array([2, 1]),
        frozen_step=np.array([-1, 7]),
        frozen_reason=np.array([0, 2]),
    )


@pytest.fixture(scope="module")
def found(trainer, states):
    """What the runs say of the split."""
    sizes = [bucket.tokens.shape for bucket in trainer.buckets["test"]]
    assert len(sizes) == 3 and max(rows for rows, _ in sizes) > EVALUATION_ROWS  # one takes two batches
    return explain_split(trainer, build_explain(trainer), states.best_params, "test")


@pytest.fixture(scope="module")
def measures(trainer, states):
    """What result lines are made of."""
    return measure_split(trainer, build_explain(trainer), states.best_params, "test")


@pytest.fixture(scope="module")
def exact(trainer, states):
    """For each run and text in the order of the split: probability, attention, importance, their correlation."""
    runs = []
    for run in range(len(SEEDS)):
        params = reference.as_float64(jax.device_get(jax.tree.map(lambda x, run=run: x[run], states.best_params)))
        texts = []
        for tokens in trainer.dataset.splits["test"].tokens:
            if not len(tokens):
                probability = reference.sigmoid(params["output"]["bias"])[0]
                texts.append((probability, np.zeros(0), np.zeros(0), np.nan))
                continue
            probability, attention, importance = reference.explain(params, tokens)
            correlation = np.corrcoef(attention, importance)[0, 1] if len(tokens) > 1 else np.nan
            texts.append((probability, attention, importance, correlation))
        runs.append(texts)
    return runs


def test_rows_come_back_in_the_order_of_the_split(found, exact):
    """Every text of every bucket, for both runs, stands at its own place."""
    for run, texts in enumerate(exact):
        for place, (probability, attention, importance, correlation) in enumerate(texts):
            n = len(attention)
            assert found.lengths[place] == n
            np.testing.assert_allclose(found.probability[run, place], [1 - probability, probability], atol=1e-5)
            np.testing.assert_allclose(found.attention[run, place, :n], attention, atol=1e-5)
            np.testing.assert_allclose(found.importance[run, place, :n], importance, atol=1e-4)
            assert not found.attention[run, place, n:].any() and not found.importance[run, place, n:].any()
            assert found.pearson[run, place] == pytest.approx(correlation, abs=1e-3, nan_ok=True)
    assert np.flatnonzero(np.isnan(found.pearson[0])).tolist() == [ONE_WORD, EMPTY]


def test_result_lines_equal_a_plain_recomputation(trainer, states, measures, exact):
    lines = result_lines(trainer, states, "test", measures, 1.23456)
    labels = trainer.dataset.splits["test"].labels
    assert [line["seed"] for line in lines] == list(SEEDS)
    for line, texts in zip(lines, exact, strict=True):
        probability = np.array([text[0] for text in texts])
        said = probability > 0.5
        wins = [(p > q) + 0.5 * (p == q) for p in probability[labels == 1] for q in probability[labels == 0]]
        correlation = np.array([text[3] for text in texts])
        expected = {
            "f1": 2 * np.sum(said & (labels == 1)) / (np.sum(said) + np.sum(labels)),
            "accuracy": np.mean(said == labels),
            "auc": np.mean(wins),
            "pearson": np.nanmean(correlation),
            "largest_attention": np.mean([text[1].max(initial=0) for text in texts]),
        }
        assert {name: line[name] for name in expected} == pytest.approx(expected, abs=1e-4)
        assert (line["pearson_undefined"], line["n"], line["mark"], line["split"]) == (2, 160, "synthetic", "test")
        assert (line["technique"], line["reading"], line["epsilon"], line["lambda"]) == ("attention_at", None, 2.0, 1.0)
        assert (line["seconds"], line["matmul_precision"]) == (1.235, "float32")


def test_a_frozen_run_says_when_and_why(trainer, states, measures):
    lines = result_lines(trainer, states, "test", measures, 0.0)
    fields = ("best_epoch", "frozen_step", "frozen_reason")
    assert [tuple(line[field] for field in fields) for line in lines] == [
        (2, None, None),
        (1, 7, "gradient not finite or above 1e18"),
    ]


def test_figures_without_a_value_are_none(trainer, states, measures):
    """JSON knows no NaN: one class only has no AUC; texts that are all undefined have no correlation."""
    blank = measures._replace(labels=np.zeros_like(measures.labels), pearson=np.full_like(measures.pearson, np.nan))
    for line in result_lines(trainer, states, "test", blank, 0.0):
        assert line["auc"] is None and line["pearson"] is None and line["f1"] == 0.0
        assert line["pearson_undefined"] == 160


def test_a_split_beyond_what_the_auc_counts_is_a_sentence_before_training():
    def dataset(size, names):
        splits = {"dev": Split([], [], np.zeros(size, np.int32)), "test": Split([], [], np.zeros(1, np.int32))}
        return Dataset("custom", splits, fit_vocabulary([("a",)]), names, "")

    with pytest.raises(DataError, match="the split dev has 60,001 texts"):
        check_measurable(dataset(MOST_EXAMPLES + 1, ("no", "yes")), ("dev", "test"))
    check_measurable(dataset(MOST_EXAMPLES + 1, ("no", "yes")), ("test",))
    check_measurable(dataset(MOST_EXAMPLES, ("no", "yes")), ("dev", "test"))
    check_measurable(dataset(MOST_EXAMPLES + 1, ("no", "so", "yes")), ("dev", "test"))
