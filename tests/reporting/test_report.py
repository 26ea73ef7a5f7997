"""A report: what is read, what is written, what is said of what is missing or broken."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from flax_attnat.config import Config, TrainingConfig
from flax_attnat.reporting.report import Options, write_report
from flax_attnat.reporting.results import ResultsError
from flax_attnat.training.workdir import claim
from tests.reporting import made

HOSTILE = ["<script>alert(1)</script>", "\"'&amp;", "<!--", "\u202eevil", "a\0b", "😀", "=1+1", "$x$", "-->"]


def workdir(path, lines=None, comparisons=(), texts=False, **fields):
    """A workdir of results, and if asked for, of texts and arrays."""
    lines = made.every_split(**fields) if lines is None else lines
    made.write(path / "results.jsonl", lines)
    if comparisons:
        made.write(path / "significance.jsonl", comparisons)
    if texts:
        write_texts(path)
    return path


def write_texts(path):
    """Three texts, the first of them hostile, under two techniques of two seeds."""
    words = [HOSTILE, ["a", "good", "film"], ["word"] * 100]
    texts = [{"words": of, "label": number % 2} for number, of in enumerate(words)]
    texts[1]["rationale"] = [1]
    document = {"dataset": "sst", "split": "test", "mark": "", "labels": ["bad <b>", "good"], "texts": texts}
    document["data"] = {"test": {"n": 3, "sha256": "0" * 64}}
    (path / "instances").mkdir(parents=True)
    (path / "instances" / "test.texts.json").write_text(json.dumps(document))
    size = sum(map(len, words))
    for technique in ("vanilla", "attention_at"):
        name = f"{technique}.test.interpretability"
        made.write(path / "results" / f"{name}.jsonl", [made.interpretability(technique, seed) for seed in (0, 1)])
        arrays = {"probability": np.full((2, 3, 2), 0.5, np.float32), "seed": np.array([0, 1])}
        arrays |= {"attention_tokens": np.full((2, size), 0.1, np.float32), "epsilon": np.array([5.0, 5.0])}
        arrays |= {"gradient_tokens": np.linspace(0, 1, 2 * size, dtype=np.float32).reshape(2, size)}
        arrays |= {"length": np.array([len(of) for of in words], np.int32), "label": np.array([0, 1, 0])}
        np.savez(path / "instances" / f"{name}.npz", **arrays)


def said(tmp_path, *paths, **options):
    """The page, and what was said while it was written."""
    notes = []
    page = write_report(paths, tmp_path / "report", Options(**options), notes.append)
    return page.read_text(), notes


def test_every_table_is_written_in_every_format_and_says_the_same(tmp_path):
    lines = [*made.every_split(), *(made.robustness(name, seed) for name in made.VALUES for seed in (0, 1))]
    lines += [suite(name) for suite in (made.faithfulness, made.interpretability) for name in made.VALUES]
    page, _ = said(tmp_path, workdir(tmp_path / "a", lines, [made.comparison("attention_at", "f1")]))
    names = {"prediction", "significance", "agreement", "faithfulness", "deletion"}
    names |= {"robustness_linf", "robustness_l2"}
    files = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("csv", "md", "tex", "html")}
    with (tmp_path / "report" / "tables" / "prediction.csv").open(newline="") as file:
        rows = {row["technique"]: row["F1"] for row in csv.DictReader(file)}
    assert rows == {"vanilla": "81.0 ± 1.4", "attention_at": "83.0 ± 1.4*", "attention_iat (span)": "79.0 ± 1.4"}
    assert "<b>83.0 ± 1.4</b><sup>*</sup>" in page
    assert {path.name for path in (tmp_path / "report" / "figures").iterdir()} == {
        f"sst_robustness_{norm}.{kind}" for norm in ("linf", "l2") for kind in ("png", "svg")
    }


def test_the_page_asks_for_nothing_from_outside(tmp_path):
    lines = made.every_split() + made.every_split(("attention_at",), epsilon=1.0)
    page, _ = said(tmp_path, workdir(tmp_path / "a", lines, texts=True))
    assert page.count("<img") == 2 and re.findall(r'src="([a-z]+:[a-z]+/[a-z+]+)', page) == ["data:image/svg+xml"] * 2
    assert not re.search(r"(?:href|src|action)=\"(?!#|data:)", page) and "@import" not in page and "url(" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in re.findall("<img[^>]+>", page))


def test_hostile_texts_and_labels_are_texts(tmp_path):
    page, _ = said(tmp_path, workdir(tmp_path / "a", texts=True))
    assert page.count("<script>") == 1 and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "bad <b>" not in page and "bad &lt;b&gt;" in page
    assert "<!--" not in page and "&lt;!--" in page
    assert "\u202e" not in page and "\0" not in page and "\ufffdevil" in page and "😀" in page


def test_hostile_names_of_data_sets_and_workdirs_lead_nowhere(tmp_path):
    path = workdir(tmp_path / "<b>&", dataset="../../<script>")
    page, _ = said(tmp_path, path)
    assert "<script>" not in page and "../../&lt;script&gt;" in page
    assert {path.name for path in tmp_path.iterdir()} == {"<b>&", "report"}
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"index.html", "files.json", "tables"}


def test_sizes_best_figures_and_left_out_settings_are_summed_up(tmp_path):
    lines = made.every_split() + made.every_split(("attention_at",), epsilon=1.0, frozen_step=3, frozen_reason="loss")
    page, _ = said(tmp_path, workdir(tmp_path / "a", lines))
    assert "sst: 8 runs of 3 techniques, 3 test texts." in page
    assert "Highest mean F1: attention_at 83.0 ± 1.4; vanilla 81.0 ± 1.4." in page
    assert "attention_at: left out: epsilon 1, adversarial weight 1, learning rate 0.001, weight decay 1e-05: " in page


def test_long_texts_fold_and_rationales_are_underlined(tmp_path):
    page, _ = said(tmp_path, workdir(tmp_path / "a", texts=True))
    assert "<summary>… +40 tokens</summary>" in page
    assert re.search(r"<u[^>]*>good</u>", page)


def test_texts_can_be_left_out_and_techniques_chosen(tmp_path):
    path = workdir(tmp_path / "a", texts=True)
    page, _ = said(tmp_path, path, examples=0)
    assert 'class="sentence"' not in page and "<script" not in page
    page, _ = said(tmp_path, path, techniques=("vanilla",))  # and once more where a text is folded
    assert page.count('data-technique="vanilla"') == 4 and 'data-technique="attention_at"' not in page


def test_without_arrays_the_page_says_what_writes_them(tmp_path):
    page, notes = said(tmp_path, workdir(tmp_path / "a"))
    assert any("launch.evaluate" in note and "--suite=interpretability" in note for note in notes)
    assert 'id="texts"' not in page and "Left out" in page


def test_the_record_has_the_hash_of_the_data_and_says_what_is_unknown(tmp_path):
    page, _ = said(tmp_path, workdir(tmp_path / "a", texts=True))
    assert "SHA-256 " + "0" * 64 in page and "unknown: " in page and "holds no config.json" in page


def test_a_line_that_was_cut_is_left_out_and_said(tmp_path):
    path = workdir(tmp_path / "a")
    whole = (path / "results.jsonl").read_text()
    (path / "results.jsonl").write_text(whole + whole[:50])
    page, notes = said(tmp_path, path)
    assert any("line 13 is cut short and left out" in note for note in notes) and "81.0 ± 1.4" in page


@pytest.mark.parametrize("content", ["", "\n\n", '{"data'])
def test_empty_results_are_refused_and_nothing_is_written(tmp_path, content):
    (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(ResultsError, match=r"results\.jsonl holds no "):
        said(tmp_path, tmp_path)
    assert not (tmp_path / "report").exists()


def test_two_configurations_are_merged_only_if_asked(tmp_path):
    paths = workdir(tmp_path / "a"), workdir(tmp_path / "b", f1=0.5)
    with pytest.raises(ResultsError, match="--group"):
        said(tmp_path, *paths)
    page, _ = said(tmp_path, *paths, group=True)
    table = (tmp_path / "report" / "tables" / "prediction.md").read_text()
    assert "| a | vanilla |" in table and "| b | vanilla |" in table
    assert "a: sst: 6 runs" in page and "b: sst: 6 runs" in page


def test_two_data_sets_are_one_report(tmp_path):
    said(tmp_path, workdir(tmp_path / "a"), workdir(tmp_path / "b", dataset="imdb"))
    table = (tmp_path / "report" / "tables" / "overview.md").read_text()
    assert "| technique | sst F1 | imdb F1 |" in table


def test_missing_seeds_are_shown(tmp_path):
    lines = [line for line in made.every_split() if (line["technique"], line["seed"]) != ("vanilla", 1)]
    said(tmp_path, workdir(tmp_path / "a", lines))
    assert "| vanilla | - | 1 |" in (tmp_path / "report" / "tables" / "prediction.md").read_text()


@pytest.mark.parametrize(("content", "match"), [("{}\n", "has no dataset"), ("[1]\n", "is not an object")])
def test_damaged_comparisons_are_refused(tmp_path, content, match):
    path = workdir(tmp_path / "a")
    (path / "significance.jsonl").write_text(content)
    with pytest.raises(ResultsError, match=rf"significance\.jsonl, line 1 {match}"):
        said(tmp_path, path)


def test_a_damaged_configuration_is_unknown(tmp_path):
    path = workdir(tmp_path / "a")
    (path / "config.json").write_text("{")
    page, _ = said(tmp_path, path)
    assert re.search(r"<dd>unknown: [^<]*config\.json cannot be read", page)


def with_config(path, **fields):
    """A workdir of a configuration that differs from the usual in these fields of its training."""
    training = dataclasses.replace(TrainingConfig(), **fields)
    claim(path, dataclasses.replace(Config(), dataset="sst", training=training))
    return path


def test_workdirs_that_were_trained_otherwise_are_not_averaged(tmp_path):
    """Of other seeds, so that no run is there twice."""
    one = with_config(workdir(tmp_path / "a"), epochs=2)
    two = with_config(workdir(tmp_path / "b", made.every_split(seeds=(2, 3))), epochs=3)
    with pytest.raises(ResultsError, match=r"they differ in training\.epochs.*--group"):
        said(tmp_path, one, two)
    (two / "config.json").unlink()
    with_config(two, epochs=2, save_every_minutes=1.0)
    said(tmp_path, one, two)
    assert "| vanilla | - | 4 |" in (tmp_path / "report" / "tables" / "prediction.md").read_text()


def test_a_workdir_shows_its_own_comparisons_once(tmp_path):
    """launch.evaluate writes those of all workdirs into each."""
    found = [
        made.comparison("attention_at", "f1", workdir=str(tmp_path / name), dataset=dataset, p_holm=p)
        for name, dataset, p in (("a", "sst", 0.01), ("b", "imdb", 0.9))
    ]
    paths = (workdir(tmp_path / "a", comparisons=found), workdir(tmp_path / "b", comparisons=found, dataset="imdb"))
    said(tmp_path, *paths)
    table = (tmp_path / "report" / "tables" / "significance.csv").read_text().splitlines()
    assert len(table) == 3
    overview = (tmp_path / "report" / "tables" / "overview.csv").read_text()
    assert "attention_at,83.0 ± 1.4*,83.0 ± 1.4" in overview.splitlines()


def test_comparisons_of_another_workdir_are_not_taken_for_ones_of_its_own(tmp_path):
    """The only workdir that they are of is another one, with other data; of a folder that was moved they are known."""
    found = [made.comparison("attention_at", "f1", workdir="/elsewhere/imdb", dataset="imdb")]
    _, notes = said(tmp_path, workdir(tmp_path / "a", comparisons=found))
    assert any("holds comparisons of other workdirs only" in note for note in notes)
    found = [made.comparison("attention_at", "f1", workdir="/elsewhere/before")]
    page, notes = said(tmp_path, workdir(tmp_path / "b", comparisons=found))
    assert not any("holds comparisons" in note for note in notes) and "Difference from vanilla" in page


def test_what_an_earlier_report_left_is_removed_and_nothing_else(tmp_path):
    said(tmp_path, workdir(tmp_path / "a", comparisons=[made.comparison("attention_at", "f1")]))
    folder = tmp_path / "report"
    (folder / "tables" / "mine.csv").write_text("")
    names = json.loads((folder / "files.json").read_text())
    (folder / "files.json").write_text(json.dumps([*names, "../a/results.jsonl", "tables/../../a/results.jsonl", 3]))
    said(tmp_path, workdir(tmp_path / "c"))
    assert not (folder / "tables" / "significance.csv").exists() and (folder / "tables" / "mine.csv").exists()
    assert (tmp_path / "a" / "results.jsonl").exists()


def test_techniques_that_are_not_there_are_said(tmp_path):
    with pytest.raises(ResultsError, match="no runs of uniform: the techniques are vanilla, attention_at"):
        said(tmp_path, workdir(tmp_path / "a", texts=True), techniques=("vanilla", "uniform"))


def test_suites_that_were_not_measured_alike_are_not_averaged(tmp_path):
    lines = [*made.every_split(), made.robustness("vanilla"), made.robustness("vanilla", 1, steps=5)]
    with pytest.raises(ResultsError, match="steps is 20 for vanilla, seed 0, and 5 for vanilla, seed 1"):
        said(tmp_path, workdir(tmp_path / "a", lines))
    assert not (tmp_path / "report").exists()


DAMAGED = [
    ({"f1": "high"}, "f1 is not a number"),
    ({"n": "3"}, "n is not a whole number"),
    ({"n": None}, "has no n"),
    ({"family": "robustness", "clean_accuracy": 0.5}, "deletion_accuracy is not a list"),
]


@pytest.mark.parametrize(("fields", "match"), DAMAGED)
def test_lines_that_are_no_figures_are_refused(tmp_path, fields, match):
    with pytest.raises(ResultsError, match=rf"line 13.* {match}"):
        said(tmp_path, workdir(tmp_path / "a", [*made.every_split(), made.prediction("word_at", **fields)]))


def test_as_many_accuracies_as_radii(tmp_path):
    lines = [*made.every_split(), made.robustness("vanilla", attacked_l2=[0.5])]
    with pytest.raises(ResultsError, match="attacked_l2 is not a list of as many numbers as there are radii"):
        said(tmp_path, workdir(tmp_path / "a", lines))


def test_the_texts_show_the_setting_of_the_tables_or_say_that_they_do_not(tmp_path):
    one = workdir(tmp_path / "a", texts=True)
    two = workdir(tmp_path / "b", made.every_split(("attention_at",), epsilon=1.0, auc=0.99))
    _, notes = said(tmp_path, one, two)
    assert any("the texts show attention_at at the setting that is best there" in note for note in notes)


def test_the_same_results_make_the_same_bytes(tmp_path):
    path = workdir(tmp_path / "a", texts=True)
    said(tmp_path, path)
    files = [file for file in (tmp_path / "report").rglob("*") if file.is_file()]
    first = {file: file.read_bytes() for file in files}
    said(tmp_path, path)
    assert all(file.read_bytes() == content for file, content in first.items())
