"""Lines of the suites to rows: every measure has one, with a figure or a reason."""

from flax_attnat.reporting.measures import check_lines, comparison_table, measure_table

CHECK = {"name": "a larger radius is never safer", "detail": "not so at 1 of 2 radii"}


def line(seed: int = 0, **fields):
    """A line of the suite robustness, of one radius a norm."""
    plain = {"technique": "attention_at", "reading": None, "epsilon": 0.5, "lambda": 1.0, "seed": seed}
    plain |= {"family": "robustness", "clean_accuracy": 0.8, "radii_linf": [0.5], "radii_l2": ["inf"]}
    plain |= {f"{kind}_{norm}": [0.5] for kind in ("attacked", "certified", "noise") for norm in ("linf", "l2")}
    plain |= {
        "certified_radius_median": "inf",
        "certified_at_infinity": 0.6,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
    }
    plain |= {"deletion_accuracy": [0.8, 0.4], "deletion_words": {"mean": 1.5}, "not_available": {}}
    return plain | {"checks_linf": [CHECK | {"held": True}], "checks_l2": [CHECK | {"held": True}]} | fields


def test_mean_and_standard_deviation_over_seeds_by_hand():
    """.80 and .82: mean .81, sd .0141 over n - 1."""
    rows, reasons = measure_table([line(0), line(1, clean_accuracy=0.82), line(0, technique="vanilla", epsilon=None)])
    table = {row["measure"]: row for row in rows}
    assert table["seeds"] == {"measure": "seeds", "attention_at 0.5": "2", "vanilla": "1"}
    assert table["accuracy"]["attention_at 0.5"] == "81.0 ± 1.4" and table["accuracy"]["vanilla"] == "80.0"
    assert table["attacked, L2 inf"]["vanilla"] == "50.0" and table["accuracy, 1 word deleted"]["vanilla"] == "40.0"
    assert reasons == []


def test_what_is_not_available_has_a_reason():
    lacking = line(certified_linf=None, certified_l2=None, deletion_words={"mean": None})
    rows, reasons = measure_table([lacking | {"not_available": {"certified_linf": "not certified"}}])
    table = {row["measure"]: row["attention_at 0.5"] for row in rows}
    assert table["certified, Linf 0.5"] == table["deleted words where it broke (at most 5)"] == "n/a"
    assert reasons == ["n/a: not certified: all: certified_linf."]


def test_checks_are_named_with_what_they_hold_for_and_where_they_do_not():
    found = check_lines([line(), line(3, checks_l2=[CHECK | {"held": False}])])
    assert found == [
        "check: a larger radius is never safer: holds in 3 of 4.",
        "  attention_at 0.5, seed 3, L2: not so: a larger radius is never safer (not so at 1 of 2 radii).",
    ]


def test_settings_that_differ_in_more_than_epsilon_have_columns_of_their_own():
    rows, _ = measure_table([line(0, learning_rate=0.1), line(1, learning_rate=0.1), line(0, learning_rate=0.01)])
    assert rows[0] == {
        "measure": "seeds",
        "attention_at 0.5 learning rate 0.1": "2",
        "attention_at 0.5 learning rate 0.01": "1",
    }


def test_a_comparison_shows_what_is_undefined():
    found = {
        "technique": "uniform",
        "dataset": "sst",
        "figure": "f1",
        "difference": -0.0123,
        "low": -0.02,
        "high": 0.01,
    }
    found |= {"p_value": 0.5, "p_holm": 1.0, "effect": None, "p_value_seeds": None, "p_holm_seeds": None}
    (row,) = comparison_table([found | {"n": 1821, "seeds": 1}])
    assert (row["difference"], row["95 %"], row["effect"], row["n"]) == ("-0.012", "-0.020 to 0.010", "n/a", "1,821")
