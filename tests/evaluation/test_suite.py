"""The suites over a split: rows in their places, runs apart from each other, and what does not apply."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.config import parse
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.planted import LABEL_NAMES, generate
from flax_attnat.data.vocabulary import encode, fit_vocabulary
from flax_attnat.evaluation.families import RUN_FIELDS, family_lines
from flax_attnat.evaluation.measure import build_explain, explain_split, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.evaluation.suite import SUITES, Options, _rationales, build_stages, run_suites
from flax_attnat.training.trainer import Trainer, build_trainer

ONE_WORD, EMPTY = 5, 11  # places in the split
OPTIONS = Options(linf=(0.5,), l2=(1.0,), steps=4, restarts=1)
# Drawn anew for another arrangement of the texts.
RANDOM = ("random", "permutation", "adversarial", "noise")


def trainer_of(pair: bool) -> Trainer:
    """Two runs of the average encoder on 44 generated reviews, one of a word and one of none, or pairs."""
    examples = generate()["test"][:42]
    records = [Record(tuple(e.text.split()), LABEL_NAMES.index(e.label), e.rationale) for e in examples]
    records.insert(ONE_WORD, Record(("good",), 1, (0,)))
    records.insert(EMPTY, Record((), 0, ()))
    if pair:
        records = [r._replace(query=("is", "it", "good"), label=i % 3, rationale=None) for i, r in enumerate(records)]
    vocabulary = fit_vocabulary((*record.words, *record.query) for record in records)
    labels = np.array([record.label for record in records], np.int32)
    queries = [encode(vocabulary, record.query) for record in records] if pair else None
    split = Split(records, [encode(vocabulary, record.words) for record in records], labels, queries)
    names = ("no", "maybe", "yes") if pair else LABEL_NAMES
    dataset = Dataset("planted", {"train": split, "test": split}, vocabulary, names, "synthetic")
    values = {
        "technique": "attention_at",
        "epsilon": 2.0,
        "seeds": (3, 8),
        "model": {"encoder": "average", "embedding_size": 6, "hidden_size": 4},
        "data": {"bucket_widths": (24,) if pair else (8, 24)},
        "training": {"selection": "accuracy"},
    }
    return build_trainer(parse(values), dataset, None, METRICS["accuracy"])


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return trainer_of(pair=False)


@pytest.fixture(scope="module")
def params(trainer: Trainer) -> Any:
    """Twice the initial parameters, so that attention is not even."""
    return jax.tree.map(lambda x: 2 * x, trainer.population.init(trainer.seeds).params)


@pytest.fixture(scope="module")
def stages(trainer: Trainer):
    return build_stages(trainer, OPTIONS)


@pytest.fixture(scope="module")
def found(trainer: Trainer, stages, params):
    done: list[int] = []
    found = run_suites(trainer, stages, params, "test", SUITES, OPTIONS, progress=done.append)
    assert done[-1] == 44 and done == sorted(done)
    return found


def test_every_text_and_word_is_in_its_place(trainer: Trainer, params, found) -> None:
    """Against the measures that take another way, text by text."""
    assert len(trainer.buckets["test"]) == 2
    exact, arrays = explain_split(trainer, build_explain(trainer), params, "test"), found.arrays["interpretability"]
    np.testing.assert_array_equal(found.lengths, exact.lengths)
    np.testing.assert_allclose(arrays["probability"], exact.probability, atol=1e-6)
    np.testing.assert_allclose(arrays["pearson_gradient"], exact.pearson, atol=1e-4)
    real = np.arange(exact.attention.shape[-1])[None, :] < exact.lengths[:, None]
    np.testing.assert_allclose(arrays["attention_tokens"], exact.attention[:, real], atol=1e-6)
    np.testing.assert_allclose(arrays["gradient_tokens"], exact.importance[:, real], atol=1e-5)
    right = exact.probability.argmax(-1) == exact.labels
    np.testing.assert_array_equal(found.arrays["robustness"]["clean"], right)


def test_how_many_texts_are_measured_at_once_changes_nothing_but_what_is_drawn(
    trainer: Trainer, params, stages, found
) -> None:
    few = run_suites(trainer, stages, params, "test", SUITES, OPTIONS, width=7)
    for suite in SUITES:
        for name, array in few.arrays[suite].items():
            if not any(word in name for word in RANDOM):
                # The same word twice in a text, left out, is a tie up to rounding, which ranks see.
                ranked = name.startswith(
                    ("kendall", "spearman", "top_k", "auprc_leave", "token_f1_leave", "iou_f1_leave")
                )
                ours, theirs = (np.minimum(x.astype(np.float64), 1e3) for x in (array, found.arrays[suite][name]))
                away = np.abs(ours - theirs)
                assert np.nanmean(away) < (0.02 if ranked else 1e-5), name
                assert ranked or np.nanmax(away) < 1e-3, name


def test_a_run_whose_parameters_are_not_numbers_leaves_the_other_alone(trainer: Trainer, params, stages, found) -> None:
    spoilt = jax.tree.map(lambda x: x.at[1].set(jnp.nan), params)
    with_nan = run_suites(trainer, stages, spoilt, "test", SUITES, OPTIONS)
    some = found.lengths > 0
    for suite in SUITES:
        for name, array in with_nan.arrays[suite].items():
            np.testing.assert_allclose(array[0], found.arrays[suite][name][0], atol=1e-6, err_msg=name)
            if array.dtype == bool:
                assert name.startswith("reverified") or not array[1].any(), name
            elif not name.startswith(("deletion", "auprc_random", "token_f1_random", "iou_f1_random")):
                rows = array[1] if name.endswith("_tokens") else array[1][some]
                assert np.isnan(rows).all(), name


@pytest.fixture(scope="module")
def lines(trainer: Trainer, params, found) -> dict[str, list[dict]]:
    states = trainer.population.init(trainer.seeds)._replace(best_params=params)
    predicted = result_lines(
        trainer, states, "test", measure_split(trainer, build_explain(trainer), params, "test"), 1.0
    )
    return family_lines(predicted, trainer.runs, found, OPTIONS) | {"prediction": predicted}


def test_lines_name_their_run_and_count_what_is_undefined(lines) -> None:
    for suite in SUITES:
        assert [line["seed"] for line in lines[suite]] == [3, 8]
        for line, predicted in zip(lines[suite], lines["prediction"], strict=True):
            assert {name: line[name] for name in RUN_FIELDS} == {name: predicted[name] for name in RUN_FIELDS}
    for line in lines["interpretability"]:
        assert line["pearson_gradient"]["undefined"] == 2 and line["permutation"]["undefined"] == 1
        assert line["largest_attention"]["n"] == 43 and line["seed_divergence"]["n"] == 43
        assert sum(each["n"] for each in line["permutation"]["by_largest_attention"]) == 43
    for line in lines["faithfulness"]:
        assert line["comprehensiveness_attention"]["undefined"] == 1 and line["auprc_attention"]["undefined"] == 1
        assert 0 < line["rationale_share"] < 0.5
    for line in lines["robustness"]:
        assert all(check["held"] for norm in ("linf", "l2") for check in line[f"checks_{norm}"])


def test_the_share_that_people_mark_is_learnt_from_training_texts() -> None:
    """From the measured ones only where no training text has a rationale."""
    tokens, labels = [np.full(4, 2, np.int32)] * 2, np.array([0, 1], np.int32)

    def split(*places: tuple[int, ...] | None) -> Split:
        """Two texts of four words, with these rationales."""
        return Split([Record(("a",) * 4, 0, of) for of in places], tokens, labels)

    def share(train: Split, test: Split) -> float:
        found = _rationales(
            Dataset("planted", {"train": train, "test": test}, fit_vocabulary([]), ("a", "b"), ""), "test"
        )
        assert found is not None
        return found.share

    assert share(split((0,), (1,)), split((0, 1, 2), (0, 1, 2))) == 0.25
    assert share(split((0,), None), split((0, 1, 2), None)) == 0.25
    assert share(split(None, None), split((0, 1, 2), None)) == 0.75


def test_pairs_of_three_classes_have_every_measure_but_certificates_and_rationales() -> None:
    trainer = trainer_of(pair=True)
    states = trainer.population.init(trainer.seeds)
    found = run_suites(trainer, build_stages(trainer, OPTIONS), states.params, "test", SUITES, OPTIONS)
    measures = measure_split(trainer, build_explain(trainer), states.params, "test")
    families = family_lines(result_lines(trainer, states, "test", measures, 1.0), trainer.runs, found, OPTIONS)
    for line in families["robustness"]:
        assert line["certified_linf"] is line["certified_l2"] is line["certified_radius_median"] is None
        assert line["certified_at_infinity"] is None
        assert "pair models are not certified" in line["not_available"]["certified_linf"]
        assert line["attacked_linf"][0] <= line["clean_accuracy"]
    for line in families["faithfulness"]:
        assert line["auprc_attention"] is None and line["rationale_share"] is None
        assert line["not_available"]["auprc_attention"] == "the data have no rationales"
        assert np.isfinite(line["comprehensiveness_leave_one_out"]["mean"])
    for line in families["interpretability"]:
        assert line["not_available"] == {} and 0 <= line["adversarial_divergence"]["mean"] <= np.log(2)
