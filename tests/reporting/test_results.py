"""The choice of a search: made on dev, reported on test, and nothing lost without a word."""

import numpy as np
import pytest

from flax_attnat.reporting.results import Figure, LeftOut, ResultsError, Setting, best, table


def line(split, seed=0, **fields):
    """A line of results.jsonl."""
    plain = {"dataset": "sst", "technique": "attention_at", "reading": None, "epsilon": 1.0, "lambda": 1.0}
    plain |= {"learning_rate": 0.001, "weight_decay": 1e-5, "seed": seed, "split": split, "n": 1725, "mark": ""}
    plain |= {"f1": 0.7, "accuracy": 0.6, "auc": 0.8, "pearson": 0.25, "largest_attention": 0.5}
    return plain | {"frozen_step": None, "frozen_reason": None} | fields


def runs(dev, test, figure="auc", **fields):
    """Both lines of every seed, 0 and up, of one setting."""
    pairs = enumerate(zip(dev, test, strict=True))
    return [
        line(split, seed, **fields | {figure: value})
        for seed, values in pairs
        for split, value in zip(("dev", "test"), values, strict=True)
    ]


def without(lines, **fields):
    """Lines but those that have these values."""
    return [line for line in lines if any(line[name] != value for name, value in fields.items())]


def test_the_best_on_dev_is_reported_not_the_best_on_test():
    """Dev means .90, .91, .89; test means .80, .75, .99: the second is chosen, and its .75 reported, by hand."""
    lines = [
        *runs((0.88, 0.92), (0.8, 0.8), epsilon=1.0),
        *runs((0.90, 0.92), (0.7, 0.8), epsilon=5.0),
        *runs((0.93, 0.85), (0.99, 0.99), epsilon=10.0),
    ]
    (choice,) = best(lines)
    assert choice.setting == Setting(5.0, 1.0, 0.001, 1e-5)
    assert (choice.select, choice.seeds, choice.settings, choice.left_out) == ("auc", (0, 1), 3, ())
    assert choice.dev == Figure(pytest.approx(0.91), pytest.approx(0.02 / 2**0.5), (0.90, 0.92))
    assert choice.test["auc"] == Figure(pytest.approx(0.75), pytest.approx(0.1 / 2**0.5), (0.7, 0.8))
    assert set(choice.test) == {"f1", "accuracy", "auc", "pearson", "largest_attention"}
    assert best(lines[::-1]) == [choice]


def test_no_test_figure_can_change_the_choice():
    """The same dev lines with test figures drawn anew leave the choice as it was."""
    generator = np.random.default_rng(0)
    lines = [x for eps in (1.0, 2.0, 3.0) for x in runs(generator.random(3), generator.random(3), epsilon=eps)]
    chosen = best(lines)[0].setting
    for _ in range(20):
        drawn = [x | {"auc": generator.random()} if x["split"] == "test" else x for x in lines]
        assert best(drawn)[0].setting == chosen


def test_select():
    """By accuracy where the caller asks for it; the mean over seeds decides, not the best seed."""
    lines = [*runs((0.9,), (0.5,), accuracy=0.6), *runs((0.8,), (0.5,), epsilon=2.0, accuracy=0.7)]
    assert [best(lines, select=name)[0].setting.epsilon for name in (None, "auc", "accuracy")] == [1.0, 1.0, 2.0]
    assert best(lines, select="accuracy")[0].dev.mean == 0.7
    with pytest.raises(
        ResultsError, match="no dev line has a figure 'acuracy' to choose by; they have accuracy, auc, f1, pearson"
    ):
        best(lines, select="acuracy")
    with pytest.raises(ResultsError, match="'seed'"):
        best(lines, select="seed")
    assert best([], select="auc") == []


def test_select_that_only_one_dataset_has():
    """The other dataset says so, and a search without any dev line says that, instead of stopping the first."""
    lines = [
        *runs((0.8,), (0.7,), accuracy_matched=0.5),
        *runs((0.8,), (0.7,), dataset="imdb"),
        line("test", dataset="x"),
    ]
    choices = best(lines, select="accuracy_matched")
    assert [choice.setting is None for choice in choices] == [False, True, True]
    assert [x.reason for choice in choices for x in choice.left_out] == [
        "no dev accuracy_matched of seed 0",
        "no dev line of seed 0",
    ]
    assert best(lines[-1:], select="auc")[0].left_out[0].reason == "no dev line of seed 0"


@pytest.mark.parametrize("field", ["epsilon", "lambda", "learning_rate", "weight_decay"])
def test_a_tie_goes_to_the_smaller_value(field):
    """In whatever order the lines come; epsilon before lambda, lambda before the others."""
    lines = [x for value in (0.3, 0.1, 0.2) for x in runs((0.9,), (value,), **{field: value})]
    for order in (lines, lines[::-1]):
        assert best(order)[0].test["auc"].mean == 0.1
    pair = [*runs((0.9,), (0.5,), **{"epsilon": 1.0, "lambda": 5.0}), *runs((0.9,), (0.6,), epsilon=2.0)]
    assert best(pair)[0].setting[:2] == (1.0, 5.0)


def test_rounding_to_float32_does_not_break_a_tie():
    """.5 and .7 have the mean of .6 and .6, whose float32 is larger than .6: still a tie; a real difference is none."""
    smaller = [float(np.float32(value)) for value in (0.5, 0.7)]
    larger = [float(np.float32(0.6))] * 2
    assert sum(smaller) < sum(larger)
    lines = runs(smaller, (0.1, 0.1), epsilon=1.0)
    assert best([*lines, *runs(larger, (0.2, 0.2), epsilon=2.0)])[0].setting.epsilon == 1.0
    assert best([*lines, *runs((0.6, 0.600001), (0.2, 0.2), epsilon=2.0)])[0].setting.epsilon == 2.0


def test_a_frozen_run_takes_its_setting_out():
    """However good the dev figure that it stopped with."""
    frozen = {"frozen_step": 40, "frozen_reason": "loss not finite"}
    lines = [*runs((0.99, 0.99), (0.9, 0.9), epsilon=2.0), *runs((0.8, 0.8), (0.7, 0.7))]
    lines = [x | frozen if x["seed"] == 1 and x["epsilon"] == 2.0 else x for x in lines]
    (choice,) = best(lines)
    assert (choice.setting.epsilon, choice.settings) == (1.0, 1)
    assert choice.left_out == (LeftOut(Setting(2.0, 1.0, 0.001, 1e-5), "seed 1 frozen at step 40 (loss not finite)"),)
    lost = [x | {"auc": None} if x["frozen_step"] else x for x in lines]
    assert best(lost)[0].select == "auc"
    assert best(lost)[0].left_out[0].reason.endswith("(loss not finite); no dev auc of seed 1")


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_missing_seed_takes_its_setting_out(split):
    """Missing on one split or on both; the settings that have it compete without the other."""
    lines = [*runs((0.99, 0.99, 0.99), (0.9, 0.9, 0.9), epsilon=2.0), *runs((0.8, 0.8, 0.8), (0.7, 0.7, 0.7))]
    (choice,) = best(without(lines, epsilon=2.0, seed=1, split=split))
    assert (choice.setting.epsilon, choice.seeds) == (1.0, (0, 1, 2))
    assert [reason for _, reason in choice.left_out] == [f"no {split} line of seed 1"]
    (choice,) = best(without(without(lines, epsilon=2.0, seed=0), epsilon=2.0, seed=2))
    assert [x.reason for x in choice.left_out] == ["no dev line of seeds 0, 2; no test line of seeds 0, 2"]


def test_only_settings_with_the_same_seeds_compete():
    """Three settings of two seeds each: the two that share theirs compete, the third, though better, is named."""
    shifted = [x | {"seed": x["seed"] - 1} for x in runs((0.99, 0.99), (0.9, 0.9), epsilon=3.0)]
    lines = [*shifted, *runs((0.7, 0.7), (0.9, 0.9), epsilon=2.0), *runs((0.8, 0.8), (0.7, 0.7))]
    (choice,) = best(lines)
    assert (choice.setting.epsilon, choice.settings, [x.setting.epsilon for x in choice.left_out]) == (1.0, 2, [3.0])
    (choice,) = best([*shifted, *runs((0.8, 0.8), (0.7, 0.7))])
    assert choice.seeds == (-1, 0)


def test_nothing_left_to_choose_from():
    """A choice without a setting says what was left out; the other techniques are chosen all the same."""
    lost = [x | {"frozen_step": 0, "frozen_reason": "loss not finite"} for x in runs((0.9,), (0.9,))]
    first, second = choices = best([*lost, *runs((0.8,), (0.7,), technique="word_at")])
    assert (first.setting, first.seeds, first.dev, first.test, first.settings) == (None, (), (None, None, ()), {}, 0)
    assert (len(first.left_out), second.setting.epsilon) == (1, 1.0)
    row, other = table(choices)
    assert [row[name] for name in ("epsilon", "seeds", "left out", "AUC", "Pearson")] == ["n/a", "0", "1", "n/a", "n/a"]
    assert row["chosen by"] == "nothing: every setting left out"
    assert (other["left out"], other["AUC"]) == ("0", "70.0")


def test_more_than_two_classes():
    """No AUC: chosen by accuracy; the parts of a split are test figures, and one a seed lacks is that of others."""
    fields = {"dataset": "multinli", "f1": None, "auc": None, "accuracy_matched": 0.5}
    lines = [
        *runs((0.6, 0.6), (0.9, 0.9), "accuracy", **fields),
        *runs((0.7, 0.7), (0.5, 0.7), "accuracy", epsilon=2.0, **fields),
    ]
    lines[-1]["accuracy_matched"] = None
    lines[-1]["pearson"] = float("nan")
    (choice,) = best(lines)
    assert (choice.select, choice.setting.epsilon) == ("accuracy", 2.0)
    assert choice.test["auc"] == Figure(None, None, (None, None))
    assert choice.test["accuracy_matched"] == Figure(0.5, None, (0.5, None))
    assert choice.test["pearson"] == Figure(0.25, None, (0.25, None))
    (row,) = table([choice])
    assert list(row) == ["technique", "epsilon", "seeds", "chosen by", "accuracy", "Pearson", "matched"]
    assert (row["chosen by"], row["accuracy"], row["matched"]) == ("dev accuracy 70.0", "60.0 ± 14.1", "50.0")
    (choice,) = best(lines, select="auc")
    assert [x.reason for x in choice.left_out] == ["no dev auc of seeds 0, 1"] * 2
    assert best(lines, select="accuracy_matched")[0].setting.epsilon == 1.0


def test_two_datasets_and_vanilla_beside_sweeps():
    """Each dataset by its own figure; vanilla, the readings and the techniques apart, in the order of first lines."""
    none = {"technique": "vanilla", "epsilon": None, "lambda": None}
    span = {"technique": "attention_iat", "reading": "span"}
    lines = [
        *runs((0.906,), (0.9,), **none),
        *runs((0.8,), (0.6,), **span | {"lambda": 0.5}),
        *runs((0.7,), (0.5,), **span | {"reading": "released", "epsilon": 0.02}),
        *runs((0.4,), (0.3,), "accuracy", **none, dataset="babi", auc=None, f1=None, mark="partial", n=1000),
        *runs((0.9,), (0.99,), **span, epsilon=9.0),
    ]
    choices = best(lines)
    assert [(x.dataset, x.technique, x.reading, x.select, x.mark) for x in choices] == [
        ("sst", "vanilla", None, "auc", ""),
        ("sst", "attention_iat", "span", "auc", ""),
        ("sst", "attention_iat", "released", "auc", ""),
        ("babi", "vanilla", None, "accuracy", "partial"),
    ]
    assert choices[0].setting == Setting(None, None, 0.001, 1e-5)
    rows = table(choices)
    assert [tuple(row.values())[:5] for row in rows] == [
        ("sst", "vanilla", "-", "1", "dev auc 90.6"),
        ("sst", "attention_iat (span)", "9", "1", "dev auc 90.0"),
        ("sst", "attention_iat (released)", "0.02", "1", "dev auc 70.0"),
        ("babi (partial data)", "vanilla", "-", "1", "dev accuracy 40.0"),
    ]
    assert [row["AUC"] for row in rows] == ["90.0", "99.0", "50.0", "n/a"]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert table(best(lines[2:4]))[0]["technique"] == "attention_iat (span) lambda 0.5"


def test_table_shows_what_the_choices_differ_in():
    """The learning rate where it differs; by Pearson the dev figure has three digits; older lines have a dash."""
    new = runs((0.8, 0.9), (0.5, 0.7), "pearson")
    old = [
        {name: value for name, value in x.items() if name not in ("learning_rate", "weight_decay")}
        for x in runs((0.4, 0.4), (0.5, 0.5), "pearson", technique="vanilla", epsilon=None, **{"lambda": None})
    ]
    other = runs((0.4, 0.4), (0.5, 0.5), "pearson", technique="word_at", learning_rate=0.01)
    rows = table(best([*new, *other], select="pearson"))
    assert [(row["learning rate"], row["chosen by"], row["Pearson"]) for row in rows] == [
        ("0.001", "dev pearson 0.850", "0.600 ± 0.141"),
        ("0.01", "dev pearson 0.400", "0.500 ± 0.000"),
    ]
    assert "weight decay" not in rows[0]
    assert [row["weight decay"] for row in table(best([*new, *old]))] == ["1e-05", "-"]
    assert table([]) == []


def test_lines_that_cannot_be_compared():
    """A run that is there twice, one without a name, and two that were measured on different data."""
    lines = runs((0.8,), (0.7,))
    name = r"sst attention_at epsilon 1 lambda 1 learning rate 0\.001 weight decay 1e-05 seed 0"
    with pytest.raises(ResultsError, match=f"{name} has two lines of test"):
        best([*lines, lines[1] | {"auc": 0.99}])
    with pytest.raises(ResultsError, match="line 2 has no seed"):
        best([lines[0], {key: value for key, value in lines[1].items() if key != "seed"}])
    for fields in ({"n": 12}, {"mark": "partial"}):
        with pytest.raises(ResultsError, match="was not measured on the data of"):
            best([*lines, *runs((0.8,), (0.7,), technique="word_at", **fields)])
    assert len(best([*lines, line("train"), line("train")])) == 1
