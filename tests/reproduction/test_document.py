"""The document follows from the lines alone, says what each figure rests on, and shows no text as markup."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from configs.reproduction import Part
from flax_attnat.reporting.results import ResultsError
from flax_attnat.reproduction.document import write_document
from flax_attnat.reproduction.figure import draw_differences, rows_of
from flax_attnat.reproduction.records import part_name, read_records, write_record
from flax_attnat.reproduction.summary import summary
from tests.reproduction.made import lines_of

GRID = [
    ("vanilla", None, None, 0.80),
    *(("attention_rp", None, e, 0.801) for e in (1.0, 5.0)),
    *(("attention_at", None, e, 0.81) for e in (0.0, 1.0, 5.0)),
    *(("attention_iat", reading, e, 0.82) for reading in ("span", "released") for e in (1.0, 5.0)),
    *((name, None, e, 0.78 + e / 100) for name in ("word_at", "word_iat") for e in (1.0, 5.0)),
]


def made(dataset: str = "sst", **fields: object) -> list[dict]:
    """Lines of a small grid, three seeds."""
    lines = []
    for name, reading, epsilon, value in GRID:
        figures = [value, value + 0.01, value - 0.005]
        lines += lines_of(dataset, name, reading, epsilon, dev=figures, test=figures, **fields)
    return lines


def written(lines: list[dict], folder: epath.Path) -> str:
    """The document of some lines."""
    write_document(lines, folder / "records", folder / "out.md")
    return (folder / "out.md").read_text()


def test_the_same_lines_give_the_same_bytes(tmp_path) -> None:
    """The page and its figures."""
    one, two = (epath.Path(tmp_path) / name for name in ("one", "two"))
    texts = [written(made(), folder) for folder in (one, two)]
    assert texts[0] == texts[1]
    for name in ("sst_epsilon.svg", "sst_epsilon.png", "minus_vanilla.svg", "minus_vanilla.png"):
        assert (one / "records" / name).read_bytes() == (two / "records" / name).read_bytes()
    assert "(records/sst_epsilon.svg)" in texts[0] and "(records/minus_vanilla.svg)" in texts[0]


def test_the_figure_has_every_technique_at_its_epsilon_minus_vanilla() -> None:
    """In per cent over common seeds, epsilon 0 of Attention AT among them; nothing where vanilla is missing."""
    rows = {row.name: row for row in rows_of(made() + made("newsgroups"), "sst")}
    assert list(rows) == [
        *("attention_rp", "attention_at", "attention_iat (span)", "attention_iat (released)", "word_at", "word_iat"),
        "epsilon 0",
    ]
    assert (rows["word_at"].epsilon, rows["epsilon 0"].epsilon, rows["attention_rp"].epsilon) == (5, 0, 1)
    np.testing.assert_allclose(rows["word_at"].figure, [3.0] * 3, rtol=1e-12)
    np.testing.assert_allclose(rows["word_at"].pearson, [0.015] * 3, rtol=1e-12)
    without = [line for line in made() if line["technique"] != "vanilla"]
    assert rows_of(without, "sst") == [] and draw_differences(without) is None


def test_the_panels_of_the_figure_are_of_the_data_sets() -> None:
    drawn = draw_differences(made(mark="partial") + made("ag_news", classes=4))
    assert [axes.get_title() for axes in drawn.axes] == [
        *("sst (partial): F1 minus vanilla, %", "sst (partial): Pearson minus vanilla"),
        *("ag_news: accuracy minus vanilla, %", "ag_news: Pearson minus vanilla"),
    ]
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert labels[1:3] == ["attention_at [1]", "attention_iat (span) [1]"]


def test_every_section_says_what_its_figures_rest_on(tmp_path) -> None:
    text = written(made() + made("ag_news", mark="partial"), epath.Path(tmp_path))
    for words in (
        "1,000 / 100 / 100 texts",
        "vectors words.vec (400 of 500 words)",
        "additive attention",
        "8 epochs",
        "cpu (jax 0)",
    ):
        assert text.count(words) >= 2, words
    assert "ag_news (partial)" in text and "sst (partial)" not in text
    assert "newsgroups, imdb, babi1, babi2, babi3, cnn, snli, multi_nli" in text, "what was not tested"
    assert "81.17 ± 0.76" in text, "mean and standard deviation of 81.0, 82.0 and 80.5"
    assert "attention_iat: sign" not in text and "attention_iat (sentence)" in text.split("## Not tested")[1]


def test_runs_that_were_still_rising_are_counted(tmp_path) -> None:
    """Of the main variant, in their best lines."""
    lines = made() + made(variant="random")
    for line in lines:
        if line["technique"] in ("vanilla", "attention_rp"):
            line["best_epoch"] = 8
    text = written(lines, epath.Path(tmp_path))
    assert "Of 42 runs of all epsilons 0 are best after one" in text
    assert "the last epoch is the best in 9; more epochs might be better there. Seconds" in text
    assert "the last epoch is the best in 0. Seconds" in written(made(), epath.Path(tmp_path) / "other")


def test_the_summary_says_what_a_count_rests_on() -> None:
    """Of a data set where vanilla has all right, where most runs are best at once, and what decides claim 3."""
    lines = made("babi1", variant="random")
    for line in lines:
        line |= {"best_epoch": 2} | ({"f1": 1.0} if line["technique"] == "vanilla" else {})
    said = summary(lines)
    assert "Perturbed runs that are best after one or two epochs: babi1 (36 of 36)." in said[0]
    assert "At 100 %, where nothing can be above: vanilla on babi1. Of " in said[1]
    assert "At 100 %" not in summary(made())[1] and "Perturbed runs" not in summary(made())[0]
    curves = [line | {"epsilon": 4 * line["epsilon"]} for line in made() if line["epsilon"]]
    flat = [line | {"f1": 0.8} if line["technique"].startswith("word") else line for line in made() + curves]
    assert "of 2 readings and data sets where it is not: attention_at in 2, iAT itself in 2." in summary(flat)[3]
    slope = {"word_at": 1e-4, "word_iat": 1e-4, "attention_iat": 1e-3}  # attention_at is flat
    steep = [line | {"f1": 0.8 - slope.get(line["technique"], 0) * (line["epsilon"] or 0)} for line in flat]
    assert "of 2 readings and data sets where it is not: iAT itself in 2." in summary(steep)[3]


def test_published_figures_say_how_they_differ(tmp_path) -> None:
    text = written(made("imdb") + made("babi1", variant="random"), epath.Path(tmp_path))
    imdb, babi = text.split("\n## imdb")[1].split("\n## babi1")[0], text.split("\n## babi1")[1]
    assert "theirs has other word vectors, and another tokenisation and another test split, of 4,356 texts" in imdb
    assert "theirs has every word of the training split for a class" in babi


def test_a_technique_with_few_epsilons_shortens_no_table(tmp_path) -> None:
    """`token` at two of the four epsilons is not among the courses, nor beside Attention AT."""
    lines = []
    for name, reading in (("attention_at", None), ("attention_iat", "span"), ("attention_iat", "token")):
        for epsilon in (1.0, 5.0) if reading == "token" else (0.5, 1.0, 5.0, 15.0):
            lines += lines_of("sst", name, reading, epsilon, dev=[0.8, 0.81, 0.79], test=[0.8, 0.82, 0.79])
    text = written(lines, epath.Path(tmp_path))
    assert "| sst | attention_at | 0.5, 1, 5, 15 |" in text and "| sst | attention_iat (token) |" not in text
    assert "| sst | span | 0.5, 1, 5, 15 |" in text and "| sst | token | 1, 5 |" not in text


def test_verdicts_are_in_the_summary(tmp_path) -> None:
    """Word techniques that grow steeply, and both readings that are best, of one data set."""
    said = summary(made())
    assert len(said) <= 5
    assert said[0].startswith(
        "42 runs: some on sst; none on newsgroups, imdb, ag_news, babi1, babi2, babi3, cnn, snli, multi_nli. Verdicts"
        " go by the means of 3 seeds, however little they differ."
    )
    assert said[1] == (
        "1. Attention iAT predicts best, on nine of ten tasks: not tested on enough data sets for any reading. Data"
        " sets on which it is the best, of those decided: span, released 0 of 1."
    ), "word_at at 5 is above, and equal differences have no p value"
    assert "ranges over epsilon" not in said[3], "two epsilons do not judge"
    longer = [line | {"epsilon": 4 * line["epsilon"]} for line in made() if line["epsilon"]]
    assert re.search(r"Of 6 ranges over epsilon (none|\d) (is|are) significant\.$", summary(made() + longer)[3])
    assert said[4].endswith("not corrected). attention_at minus vanilla: sst at 1 +1.00."), "0.81 - 0.80 of every seed"
    every = summary(made() + made("ag_news", mark="partial"))[0]
    assert every.startswith("84 runs: some on sst, ag_news (partial); none on newsgroups, imdb, babi1,")
    alone = [line for line in made() if line["technique"] == "vanilla"]
    assert len(summary(alone)) == 4, "nothing is beside it"
    assert summary([]) == ["Nothing has been trained yet: no claim was tested."]


def test_normalised_words_without_a_perturbation_are_told_apart_from_word_at(tmp_path) -> None:
    """A control: it does not compete, and stands beside vanilla and Word AT wherever they are compared."""
    alone = lines_of("sst", "word_at", None, 0.0, dev=[0.99] * 3, test=[0.82, 0.83, 0.825])
    lines = [*made(), *alone]
    said = summary(lines)[4]
    assert "normalised word vectors minus epsilon 0: sst +1.33 (0.057);" in said
    assert "word_at minus normalised word vectors: sst at 5 +0.67 (0.1" in said
    text = written(lines, epath.Path(tmp_path))
    claims = text.split("## Claim ")
    assert "| sst | 81.17 ± 0.76 | 82.50 ± 0.50 | +1.33 (0.057) | 83.17 ± 0.76 | 5 | +0.67 (0.1" in claims[1]
    assert "| sst | 0.406 ± 0.004 | 0.412 ± 0.003 | +0.007 (0.057) | 0.416" in claims[2]
    assert text.count("| normalised words | 0 |") == 3
    assert "without a perturbation" not in written(made(), epath.Path(tmp_path))


def test_an_empty_record_gives_a_document(tmp_path) -> None:
    assert "no claim was tested" in written([], epath.Path(tmp_path))


def test_figures_of_pairs_are_not_certified(tmp_path) -> None:
    text = written(made(certified=None, f1=None, auc=None, classes=3, selection="accuracy"), epath.Path(tmp_path))
    assert "not certified" in text and re.search(r"\| vanilla \| - \|", text)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_table_has_a_column_twice(classes: int, tmp_path) -> None:
    f1 = {} if classes == 2 else {"f1": None, "auc": None}
    text = written(made(classes=classes, selection="accuracy", **f1), epath.Path(tmp_path))
    lines = text.splitlines()
    heads = [line.split("|")[1:-1] for line, below in itertools.pairwise(lines) if below.startswith("|---")]
    assert len(heads) > 8 and [head for head in heads if len(set(head)) < len(head)] == []


def test_records_come_back_and_are_the_same_bytes(tmp_path) -> None:
    part = Part("sst", "pretrained", "attention_iat", "span", 5.0, (0, 1, 2))
    lines = lines_of("sst", "attention_iat", "span", 5.0, dev=[0.8] * 3, test=[0.8] * 3)
    first = write_record(tmp_path, part, lines)
    assert first.name == "sst-pretrained-attention_iat-span-5-seeds0.1.2.jsonl.gz"
    content = first.read_bytes()
    assert write_record(tmp_path, part, lines).read_bytes() == content
    found = read_records(tmp_path)
    assert found.lines == lines and len(found.runs) == 3
    assert ("sst", "pretrained", "attention_iat", "span", 5.0, 2) in found.runs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "cannot be read"),
        (None, "repeats"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, content, message) -> None:
    part = Part("sst", "pretrained", "vanilla", None, None, (0,))
    write_record(tmp_path, part, lines_of("sst", "vanilla", None, None, dev=[0.8], test=[0.8]))
    other = epath.Path(tmp_path) / f"{part_name(part)}-copy.jsonl.gz"
    other.write_bytes(content or next(epath.Path(tmp_path).glob("*.gz")).read_bytes())
    with pytest.raises(ResultsError, match=message) as raised:
        read_records(tmp_path)
    assert other.name in str(raised.value) or "vanilla" in str(raised.value)


@pytest.mark.parametrize("field", [{"n": 7}, {"vectors": "other.vec"}, {"train_n": 9}, {"mark": "partial"}])
def test_runs_of_different_data_are_not_compared(tmp_path, field) -> None:
    """The message names both files; another variant may have other vectors, and nothing else."""
    lines = lines_of("sst", "vanilla", None, None, dev=[0.8], test=[0.8])
    write_record(tmp_path, Part("sst", "pretrained", "vanilla", None, None, (0,)), lines)
    other = lines_of("sst", "word_at", None, 1.0, dev=[0.8], test=[0.8], **field)
    write_record(
        tmp_path, Part("sst", "random", "word_at", None, 1.0, (0,)), [of | {"variant": "random"} for of in other]
    )
    if "vectors" in field:
        assert len(read_records(tmp_path).lines) == 6
        write_record(tmp_path, Part("sst", "pretrained", "word_at", None, 1.0, (0,)), other)
    with pytest.raises(ResultsError, match="runs that are compared are of the same data") as raised:
        read_records(tmp_path)
    assert "-word_at-1-seeds0" in str(raised.value) and "-vanilla-seeds0" in str(raised.value)


def test_each_reading_is_set_against_attention_at_over_all_settings(tmp_path) -> None:
    """In arithmetic: over the epsilons that all have, those left out that one reading has alone."""
    figures = {("span", 1.0): 0.82, ("span", 5.0): 0.82, ("sign", 1.0): 0.85, ("sign", 5.0): 0.81, ("span", 9.0): 0.1}
    lines = [line for line in made() if line["technique"] != "attention_iat"]
    for (reading, epsilon), value in figures.items():
        values = [value, value + 0.01, value - 0.005]
        lines += lines_of("sst", "attention_iat", reading, epsilon, dev=values, test=values)
    text = written(lines, epath.Path(tmp_path))
    assert [row for row in text.splitlines() if row.startswith(("| sst | span | 1, 5", "| sst | sign | 1, 5"))] == [
        f"| sst | {reading} | 1, 5 | 3 | {f1} ± 0.00 ({n}) | {f1} ± 0.00 ({n}) | {pearson} ± 0.000 ({n})"
        f" | {tau} ± 0.000 ({n}) | +0.000 ± 0.000 (0) | +0.00 ± 0.00 (0) |"
        for reading, f1, pearson, tau, n in (
            ("span", "+1.00", "+0.005", "+0.003", 2),
            ("sign", "+2.00", "+0.010", "+0.007", 1),
        )
    ]
    assert "- `span`: F1 or accuracy 1 of 1 (0), Pearson 1 of 1 (0), certified accuracy 0 of 1 (0)." in text, (
        "equal is not, and equal differences have no p value"
    )
    for line in lines:
        if (line["reading"], line["seed"]) == ("span", 2):
            line["f1"] += 0.001  # differences of 1, 1 and 1.1: t of 31 and p of 0.001
    assert "- `span`: F1 or accuracy 1 of 1 (1), Pearson" in written(lines, epath.Path(tmp_path))


def test_token_says_how_much_is_noise(tmp_path) -> None:
    """It is Attention AT: what the two differ by, at the same seed and epsilon, in the median and at most."""
    lines = made()
    for epsilon, apart in ((1.0, 0.02), (5.0, 0.04)):
        figures = [0.81 + apart, 0.82 - apart, 0.805]
        lines += lines_of("sst", "attention_iat", "token", epsilon, dev=figures, test=figures)
    text = written(lines, epath.Path(tmp_path))
    noise = "differ in F1 by 2.00 in the median and 4.00 at most, in Pearson by 0.010 in the median and 0.020 at most."
    assert noise in text and "Runs of the two" not in written(made(), epath.Path(tmp_path) / "other")


def test_every_claim_is_judged_otherwise_too(tmp_path) -> None:
    """A last epoch that turns the claim over, and curves whose epsilons are not comparable."""
    lines = [
        line | ({"f1": 0.9} if line["epoch"] == "last" and line["technique"] == "attention_iat" else {})
        for line in made()
    ]
    text = written(lines, epath.Path(tmp_path)).split("## How far")[1]
    rows = [row for row in text.splitlines() if row.startswith(("| 1 |", "| 2 |", "| 3 |"))]
    assert len(rows) == 21
    few = "not tested on enough data sets"
    assert rows[0].startswith(f"| 1 | as above | {few} (0, 1, 0) |")
    assert rows[1].startswith(f"| 1 | without word techniques | {few} (1, 0, 0) |")
    assert rows[2].startswith(f"| 1 | last epoch | {few} (1, 0, 0) |")
    assert rows[3].startswith(f"| 1 | epsilon by dev F1 | {few} (0, 1, 0) |")
    assert rows[5].startswith(f"| 1 | largest of a tie | {few} (0, 1, 0) |")
    assert rows[6].startswith("| 1 | random vectors | not tested |")
    assert "- claim 1, last epoch: true of sst for span, released\n" in text
    assert "claim 1, epsilon by dev F1:" not in text, "that turns nothing"


def test_the_claims_say_what_their_seeds_can_show(tmp_path) -> None:
    """Differences that vary over seeds alike: from their spread, and the t that two degrees of freedom ask for."""
    lines = [line for line in made() if line["technique"] != "attention_iat"]
    for epsilon in (1.0, 5.0):
        figures = [0.82 - epsilon / 1000, 0.82, 0.83]
        lines += lines_of("sst", "attention_iat", "span", epsilon, dev=figures, test=figures)
    text = written(lines, epath.Path(tmp_path)).split("## Claim 1")[1].split("## Claim 2")[0]
    assert "| sst | span | 1 (2, smallest) |" in text
    differences = np.array([0.819, 0.82, 0.83]) - np.array([0.80, 0.81, 0.795])
    needed = 100 * differences.std(ddof=1) / math.sqrt(3) * 4.303  # the tabulated quantile of p = 0.05, two-sided
    assert f"| sst | 6 | {needed:.2f} | " in text
    assert re.search(r"Of 6 comparisons \d are significant when corrected within their column, \d of them in", text)
    # With s^2 of two degrees of freedom, t is above t_0 for a true t_0, if that is large, where chi2 < 2: 1 - 1 / e.
    assert re.search(r"this size is found in 61 % of such trainings, one of half the size in 24 %", text)


def test_the_claims_say_of_what_their_significant_comparisons_are(tmp_path) -> None:
    """A reading far below everything on one data set is one finding, however many comparisons it makes."""
    lines = [line for line in made() if line["technique"] != "attention_iat"]
    for epsilon in (1.0, 5.0):
        figures = [0.2, 0.211, 0.194]
        lines += lines_of("sst", "attention_iat", "sign", epsilon, dev=figures, test=figures)
    said = (
        "Of 6 comparisons 6 are significant when corrected within their column (sst sign below vanilla, attention_rp,"
        " attention_at, word_at, word_iat, epsilon 0), 0 of them in favour of"
    )
    assert said in written(lines, epath.Path(tmp_path)).split("## Claim 1")[1].split("## Claim 2")[0]


def test_differences_that_no_figure_can_reach_are_counted(tmp_path) -> None:
    """With two seeds a t test asks for 12.7 standard errors; vanilla at 0.8 leaves a gain of at most 20."""
    lines = [line for line in made() if line["technique"] != "attention_iat"]
    for epsilon in (1.0, 5.0):
        figures = [0.75, 0.85]
        lines += lines_of("sst", "attention_iat", "span", epsilon, dev=figures, test=figures)
    text = written(lines, epath.Path(tmp_path)).split("## Claim 1")[1].split("## Claim 2")[0]
    needed = 100 * 12.706 * 0.09 / 2  # the differences of the two seeds are 0.09 apart
    assert f"| sst | 6 | out of reach | {needed:.2f} to {needed:.2f} | 6 |" in text
    assert "is found in 68 % of such trainings, one of half the size in 38 %" in text


def test_a_range_that_one_seed_makes_is_seen(tmp_path) -> None:
    """Without the seed that collapses at one epsilon, nothing is left of it; word_at's is that of every seed."""
    lines = []
    for epsilon in (0.5, 1.0, 5.0, 15.0):
        at = [0.8, 0.8, 0.5 if epsilon == 15 else 0.8]
        lines += lines_of("sst", "attention_at", None, epsilon, dev=[0.8] * 3, test=at)
        words = [0.8 - epsilon / 1000] * 3
        lines += lines_of("sst", "word_at", None, epsilon, dev=words, test=words)
    text = written(lines, epath.Path(tmp_path))
    rows = {row.split(" | ")[1]: row.split(" | ")[5:7] for row in text.splitlines() if row.startswith("| sst | ")}
    assert rows["attention_at"] == ["10.00", "0.00 to 15.00"] and rows["word_at"] == ["1.45", "1.45 to 1.45"]
    assert "by the means: sst: none below word_at." in text


@pytest.mark.parametrize(
    ("five", "said"),
    [
        ([0.2, 0.21, 0.19], "exceed vanilla: confirmed (0.100 against 0.400 of vanilla, p <0.001 over seeds)"),
        ([0.9, 0.91, 0.89], "exceed vanilla: refuted (0.450 against 0.400 of vanilla, p 0.003 over seeds)"),
        ([0.2, 0.21, 1.4], "neither confirmed nor refuted; the means say the same (0.302 against 0.400"),
    ],
)
def test_the_early_measurement_is_confirmed_by_what_is_significant(five: list[float], said: str, tmp_path) -> None:
    """Pearson is half of the figures given."""
    lines = lines_of("sst", "vanilla", None, None, dev=[0.8, 0.8, 0.8], test=[0.79, 0.81, 0.8])
    lines += lines_of("sst", "attention_iat", "released", 5.0, dev=five, test=five)
    assert said in written(lines, epath.Path(tmp_path))


def test_a_line_that_lacks_a_field_is_named(tmp_path) -> None:
    (line, *_) = lines_of("sst", "vanilla", None, None, dev=[0.8], test=[0.8])
    del line["device"]
    write_record(tmp_path, Part("sst", "pretrained", "vanilla", None, None, (0,)), [line])
    with pytest.raises(ResultsError, match=r"line 1 has no device: give the file"):
        read_records(tmp_path)
    for changed, flaw in (
        ({"technique": "uniform"}, "is of the technique 'uniform', reading None, which is not of the grid"),
        ({"technique": "attention_iat"}, "is of the technique 'attention_iat', reading None"),
        ({"population": None}, "has no population"),
    ):
        write_record(
            tmp_path, Part("sst", "pretrained", "vanilla", None, None, (0,)), [line | {"device": "cpu"} | changed]
        )
        with pytest.raises(ResultsError, match=flaw):
            read_records(tmp_path)
    del line["frozen_step"]
    write_record(tmp_path, Part("sst", "pretrained", "vanilla", None, None, (0,)), [line | {"device": "cpu"}])
    with pytest.raises(ResultsError, match=r"line 1 has no frozen_step"):
        read_records(tmp_path)


def test_the_committed_document_is_that_of_the_committed_lines(tmp_path) -> None:
    """Byte for byte; and the README says what it says."""
    docs, here = Path(__file__).parents[2] / "docs", epath.Path(tmp_path)
    lines = read_records(docs / "reproduction").lines
    write_document(lines, here / "reproduction", here / "reproduction.md")
    assert (here / "reproduction.md").read_text() == (docs / "reproduction.md").read_text()
    readme = " ".join((docs.parent / "README.md").read_text().split())
    for sentence in summary(lines):
        assert sentence in readme
