"""Tables of a report: figures by hand, the best in bold among its own, marks where a difference was tested."""

import math

import pytest

from flax_attnat.reporting import summary
from flax_attnat.reporting.results import best
from flax_attnat.reporting.rows import Group
from tests.reporting import made


def group(lines, comparisons=(), title=""):
    """Lines as one group."""
    return Group(title, lines, best(lines), comparisons)


def cells(table, technique, column, **keys):
    """The cells of a technique's rows in a column."""
    place = table.columns.index(column)
    named = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    fit = [
        row for row in named if row["technique"].text == technique and all(row[k].text == v for k, v in keys.items())
    ]
    return [row[table.columns[place]] for row in fit]


def test_mean_and_standard_deviation_by_hand_and_the_best_in_bold():
    """.82 and .84: mean 83.0, sd 1.4 over n - 1; it is the best of the three."""
    table = summary.prediction_table([group(made.every_split())])
    (cell,) = cells(table, "attention_at", "F1")
    assert (cell.text, cell.bold) == ("83.0 ± 1.4", True)
    assert [cell.bold for row in table.rows for cell in row].count(True) == 4  # F1, accuracy, AUC, Pearson
    assert cells(table, "attention_iat (span)", "F1")[0].text == "79.0 ± 1.4"
    assert cells(table, "vanilla", "epsilon")[0].text == "-" and cells(table, "vanilla", "seeds")[0].text == "2"


def test_one_technique_has_nothing_in_bold():
    table = summary.prediction_table([group(made.every_split(("vanilla",)))])
    assert not any(cell.bold for row in table.rows for cell in row)


@pytest.mark.parametrize(
    ("p_holm", "p_holm_seeds", "mark"), [(0.05, 0.2, "*"), (0.06, 0.2, ""), (0.01, 0.05, "*†"), (None, None, "")]
)
def test_marks_say_what_was_found(p_holm, p_holm_seeds, mark):
    found = made.comparison("attention_at", "f1", p_holm=p_holm, p_holm_seeds=p_holm_seeds)
    table = summary.prediction_table([group(made.every_split(), [found])])
    assert cells(table, "attention_at", "F1")[0].mark == mark
    assert cells(table, "attention_at", "accuracy")[0].mark == ""
    assert "Differs from vanilla" in table.title


@pytest.mark.parametrize("other", [{"epsilon": 1.0}, {"dataset": "imdb"}, {"reading": "span"}, {"split": "dev"}])
def test_a_comparison_of_another_setting_marks_nothing(other):
    table = summary.prediction_table([group(made.every_split(), [made.comparison("attention_at", "f1", **other)])])
    assert all(cell.mark == "" for row in table.rows for cell in row)


def test_without_comparisons_the_title_says_that_nothing_was_tested():
    assert "not tested" in summary.prediction_table([group(made.every_split())]).title


def test_each_data_set_has_its_own_best():
    imdb = made.every_split(dataset="imdb")
    lines = [line | {"f1": 1 - line["f1"]} for line in imdb] + made.every_split()
    table = summary.prediction_table([group(lines)])
    assert cells(table, "attention_iat (span)", "F1", **{"data set": "imdb"})[0].bold
    assert cells(table, "attention_at", "F1", **{"data set": "sst"})[0].bold
    wide = summary.overview_table([group(lines)])
    assert wide.columns == ("technique", "imdb F1", "sst F1")
    assert [cell.text for cell in wide.rows[0]] == ["vanilla", "19.0 ± 1.4", "81.0 ± 1.4"]


def test_one_data_set_has_no_overview():
    assert summary.overview_table([group(made.every_split())]) is None


def test_partial_data_are_called_so_in_every_table():
    lines = [*made.every_split(mark="partial"), made.robustness("vanilla", mark="partial")]
    assert "partial" in summary.prediction_table([group(lines)]).title
    assert cells(summary.robustness_table([group(lines)], "linf"), "vanilla", "data set")[0].text == "sst (partial)"


def test_robustness_has_a_row_for_what_is_attacked_and_one_for_what_is_certified():
    """80 and 82 on clean texts, 5 and 10 points less at the radii."""
    lines = made.every_split() + [made.robustness("vanilla", seed) for seed in (0, 1)]
    table = summary.robustness_table([group(lines)], "l2")
    assert table.columns[-3:] == ("radius 0", "0.5", "1")
    assert [cells(table, "vanilla", name, accuracy="attacked")[0].text for name in table.columns[-3:]] == [
        "81.0 ± 1.4",
        "76.0 ± 1.4",
        "71.0 ± 1.4",
    ]
    assert len(cells(table, "vanilla", "0.5", accuracy="certified")) == 1


def test_pairs_have_no_certified_row():
    lines = [*made.every_split(("vanilla",)), made.robustness("vanilla", certified_linf=None)]
    assert len(summary.robustness_table([group(lines)], "linf").rows) == 1


def test_smaller_sufficiency_is_better_and_what_nobody_has_is_no_column():
    lines = made.every_split() + [made.faithfulness(name) for name in ("vanilla", "attention_iat")]
    table = summary.faithfulness_table([group(lines)])
    assert cells(table, "attention_iat (span)", "suff., attention")[0].bold
    assert cells(table, "vanilla", "compr., attention")[0].bold
    assert not cells(table, "vanilla", "compr., random")[0].bold
    assert not any("AUPRC" in name for name in table.columns)


def test_agreement_has_the_seeds_that_were_measured():
    lines = [*made.every_split(), made.interpretability("attention_at", 1)]
    table = summary.agreement_table([group(lines)])
    assert [cell.text for cell in table.rows[0]][:4] == ["attention_at", "5", "1", "0.340"]
    assert "seed JSD" not in table.columns


def test_an_infinite_median_radius_is_said():
    lines = [*made.every_split(("vanilla",)), made.robustness("vanilla")]
    assert cells(summary.deletion_table([group(lines)]), "vanilla", "certified radius, median")[0].text == "inf"


def test_lines_of_an_older_version_have_gaps_not_errors():
    old = made.robustness("vanilla")
    del old["certified_at_infinity"]
    table = summary.deletion_table([group([*made.every_split(("vanilla",)), old])])
    assert "no attention changes" not in table.columns and cells(table, "vanilla", "1 deleted")[0].text == "40.0"


def test_suites_of_other_settings_and_frozen_runs_are_not_shown():
    frozen = made.robustness("vanilla", 1, frozen_step=3, clean_accuracy=0.0)
    other = made.robustness("attention_at", epsilon=1.0)
    lines = [*made.every_split(), made.robustness("vanilla"), frozen, other]
    table = summary.robustness_table([group(lines)], "linf")
    assert [row[0].text for row in table.rows] == ["vanilla", "vanilla"]
    assert cells(table, "vanilla", "radius 0", accuracy="attacked")[0].text == "80.0"


def test_nothing_measured_is_no_table():
    groups = [group(made.every_split())]
    assert summary.agreement_table(groups) is summary.faithfulness_table(groups) is None
    assert summary.robustness_table(groups, "l2") is summary.deletion_table(groups) is None
    assert summary.difference_table(groups) is summary.settings_table(groups) is None


def test_a_sweep_shows_every_setting():
    lines = made.every_split() + made.every_split(("attention_at",), epsilon=1.0, f1=0.3)
    table = summary.settings_table([group(lines)])
    assert [cell.text for cell in cells(table, "attention_at", "F1")] == ["83.0 ± 1.4", "30.0 ± 0.0"]
    assert "split" not in table.columns


def test_groups_stand_beside_each_other_by_workdir():
    groups = [group(made.every_split(), title="a"), group(made.every_split(), title="b")]
    table = summary.prediction_table(groups)
    assert [row[0].text for row in table.rows] == ["a"] * 3 + ["b"] * 3
    assert sum(cell.bold for row in table.rows for cell in row) == 8


def test_a_technique_whose_settings_were_all_left_out_is_there_without_figures():
    lines = made.every_split(("vanilla",)) + made.every_split(("attention_at",), frozen_step=2, frozen_reason="loss")
    table = summary.prediction_table([group(lines)])
    assert (
        cells(table, "attention_at", "F1")[0].text == "n/a" and cells(table, "attention_at", "epsilon")[0].text == "n/a"
    )


def test_every_comparison_is_a_row():
    found = [made.comparison("attention_at", figure) for figure in ("f1", "pearson")]
    table = summary.difference_table([group(made.every_split(), found)])
    assert [row[2].text for row in table.rows] == ["f1", "pearson"] and "vanilla" in table.title
    found.append(made.comparison("attention_at", "f1", against="word_at"))
    table = summary.difference_table([group(made.every_split(), found)])
    assert [row[0].text for row in table.rows] == ["vanilla", "vanilla", "word_at"] and table.columns[0] == "against"


def test_comparisons_of_groups_name_their_workdir():
    groups = [group(made.every_split(), [made.comparison("attention_at", "f1")], title=title) for title in ("a", "b")]
    table = summary.difference_table(groups)
    assert [row[0].text for row in table.rows] == ["a", "b"] and table.columns[0] == "workdir"


@pytest.mark.parametrize("other", [{"learning_rate": 0.01}, {"weight_decay": 0.0}, {"seeds": 3}])
def test_a_comparison_of_another_optimiser_or_of_other_seeds_marks_nothing(other):
    found = made.comparison("attention_at", "f1", **other)
    table = summary.prediction_table([group(made.every_split(), [found])])
    assert cells(table, "attention_at", "F1")[0].mark == ""


def test_frozen_runs_are_not_in_the_table_of_settings():
    frozen = made.prediction("attention_at", 1, epsilon=1.0, f1=0.0, frozen_step=3)
    lines = [*made.every_split(), made.prediction("attention_at", 0, epsilon=1.0), frozen]
    table = summary.settings_table([group(lines)])
    assert cells(table, "attention_at", "F1", epsilon="1")[0].text == "82.0" and "1 frozen run" in table.title


def test_settings_are_shown_beside_a_technique_that_is_wholly_frozen():
    lines = [
        *made.every_split(("vanilla",), frozen_step=2, frozen_reason="loss"),
        *made.every_split(("attention_at",)),
        *made.every_split(("attention_at",), epsilon=1.0),
    ]
    table = summary.settings_table([group(lines)])
    assert len(table.rows) == 2 and "2 frozen runs" in table.title


def test_what_is_not_a_number_counts_as_undefined():
    lines = [*made.every_split(), made.robustness("vanilla"), made.robustness("vanilla", 1, clean_accuracy=math.nan)]
    table = summary.robustness_table([group(lines)], "linf")
    assert cells(table, "vanilla", "radius 0", accuracy="attacked")[0].text == "80.0"
    table = summary.robustness_table([group([*lines, made.robustness("attention_iat")])], "linf")
    assert cells(table, "vanilla", "radius 0", accuracy="attacked")[0].bold


def test_an_infinite_median_of_some_seeds_is_said():
    lines = [
        *made.every_split(),
        made.robustness("vanilla"),
        made.robustness("vanilla", 1, certified_radius_median=0.5),
    ]
    table = summary.deletion_table([group(lines)])
    assert cells(table, "vanilla", "certified radius, median")[0].text == "inf (1 of 2)"
