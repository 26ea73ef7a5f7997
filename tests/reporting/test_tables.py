"""Result lines to rows: means, standard deviations and groups, by hand."""

import numpy as np
import pytest

from flax_attnat.reporting.tables import rounded_down, summarise


def line(seed=0, **fields):
    """A line of results.jsonl."""
    plain = {"technique": "attention_at", "reading": None, "epsilon": 1.0, "lambda": 1.0, "split": "test", "seed": seed}
    return plain | {"n": 1726, "f1": 0.8, "accuracy": 0.5, "auc": 0.9, "pearson": 0.25} | fields


def test_mean_and_standard_deviation_by_hand():
    """.80, .82, .87: mean .83, sd sqrt((.0009 + .0001 + .0016) / 2) = .03606 over n - 1; Pearson is not in per cent."""
    (row,) = summarise([line(0, f1=0.80, pearson=0.1), line(1, f1=0.82, pearson=0.3), line(2, f1=0.87, pearson=0.2)])
    assert row == {
        "technique": "attention_at",
        "epsilon": "1",
        "split": "test",
        "seeds": "3",
        "n": "1,726",
        "F1": "83.0 ± 3.6",
        "accuracy": "50.0 ± 0.0",
        "AUC": "90.0 ± 0.0",
        "Pearson": "0.200 ± 0.100",
    }


def test_figures_that_are_missing():
    """One seed has no spread; a figure that some seeds lack is that of the others; one that none has is n/a."""
    (row,) = summarise([line()])
    assert (row["F1"], row["seeds"]) == ("80.0", "1")
    lines = [line(0, auc=None, pearson=None), line(1, auc=None, pearson=0.5), line(2, auc=None, f1=None)]
    row, _ = summarise([*lines, line(split="dev")])
    assert (row["AUC"], row["Pearson"], row["F1"], row["seeds"]) == ("n/a", "0.375 ± 0.177", "80.0 ± 0.0", "3")
    assert summarise([]) == []


def test_more_than_two_classes():
    """No F1 and no AUC where no line has them; parts of a split have columns of their own."""
    several = {"f1": None, "auc": None}
    (row,) = summarise([line(0, **several, accuracy_matched=0.75), line(1, **several, accuracy_matched=0.25)])
    assert list(row) == ["technique", "epsilon", "split", "seeds", "n", "accuracy", "Pearson", "matched"]
    assert row["matched"] == "50.0 ± 35.4"
    rows = summarise([line(0, **several, accuracy_matched=0.75), line(0, **several, split="dev")])
    assert [row["matched"] for row in rows] == ["75.0", "n/a"]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("technique", ("attention_at", "word_at")),
        ("reading", ("span", "released")),
        ("epsilon", (1.0, 0.02)),
        ("lambda", (1.0, 0.5)),
        ("split", ("test", "dev")),
    ],
)
def test_only_lines_that_agree_in_every_field_are_averaged(field, values):
    """Two runs apart in one field are two rows that a reader can tell apart, in the order of their first lines."""
    rows = summarise([line(0, **{field: values[0]}), line(0, **{field: values[1]}), line(1, **{field: values[0]})])
    assert [row["seeds"] for row in rows] == ["2", "1"]
    names = [tuple(row[column] for column in ("technique", "epsilon", "split")) for row in rows]
    assert names[0] != names[1]


def test_names_of_rows():
    """The reading in brackets, lambda where it is not 1, a dash for the epsilon that vanilla does not have."""
    rows = summarise(
        [
            line(technique="vanilla", epsilon=None, **{"lambda": None}),
            line(technique="attention_iat", reading="span", epsilon=0.02),
            line(technique="attention_iat", reading="span", epsilon=15.0, **{"lambda": 0.5}),
        ]
    )
    assert [(row["technique"], row["epsilon"]) for row in rows] == [
        ("vanilla", "-"),
        ("attention_iat (span)", "0.02"),
        ("attention_iat (span) lambda 0.5", "15"),
    ]


def test_what_is_certified_is_never_shown_above_itself():
    """Of float32 too, whose quotients are rounded up to whole numbers."""
    for digits in range(100, 1000):
        below = np.nextafter(np.float32(digits / 100), np.float32(0))
        assert float(rounded_down(below)) <= float(below)
