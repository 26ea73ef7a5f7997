"""Reading results.jsonl: a cut end is left out and said, anything else that is wrong is named by file and line."""

import json
import math
import re

import pytest

from flax_attnat.reporting.lines import check_one_configuration, read_results
from flax_attnat.reporting.results import ResultsError
from flax_attnat.training.workdir import write_lines


def line(**fields):
    """A line of results.jsonl."""
    plain = {"dataset": "sst", "technique": "attention_at", "reading": None, "epsilon": 1.0, "lambda": 1.0}
    plain |= {"learning_rate": 0.001, "weight_decay": 1e-5, "seed": 0, "split": "test"}
    return plain | {"family": "prediction", "n": 1725, "auc": 0.8} | fields


def written(tmp_path, *texts, end="\n"):
    """A file of such lines, text or objects."""
    path = tmp_path / "results.jsonl"
    lines = [text if isinstance(text, str) else json.dumps(text) for text in texts]
    path.write_bytes(("\n".join(lines) + end).encode("utf-8", "surrogateescape"))
    return path


def test_lines_come_back_as_they_were_written(tmp_path):
    """Of all splits and suites, with the NaN of a run that was frozen."""
    lines = [line(), line(split="dev"), line(seed=1, auc=math.nan), line(family="faithfulness", radius="inf")]
    write_lines(tmp_path, "results", "attention_at", lines)
    found = read_results(tmp_path / "results.jsonl")
    assert found.notes == ()
    assert json.dumps(found.lines) == json.dumps(lines)


def test_a_file_cut_at_any_byte_gives_its_whole_lines_and_says_what_it_leaves_out(tmp_path):
    lines = [line(seed=seed) for seed in range(3)]
    content = written(tmp_path, *lines).read_bytes()
    ends = [at for at, byte in enumerate(content) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for size in range(ends[0], len(content) + 1):
        cut.write_bytes(content[:size])
        whole = sum(end <= size for end in ends)
        left_over = size not in {*ends, *(end + 1 for end in ends)}
        found = read_results(cut)
        assert found.lines == lines[:whole]
        assert found.notes == ((f"{cut}, line {whole + 1} is cut short and left out.",) if left_over else ())


def test_a_text_cut_inside_a_letter_is_cut_short(tmp_path):
    path = tmp_path / "results.jsonl"
    last = json.dumps(line(seed=1, dataset="é"), ensure_ascii=False).encode()
    path.write_bytes(json.dumps(line()).encode() + b"\n" + last[: last.index("é".encode()) + 1])
    found = read_results(path)
    assert (found.lines, len(found.notes)) == ([line()], 1)


@pytest.mark.parametrize("broken", ['{"seed": 1', "}", "\x00\x00", "\udcff", "[" * 100_000, "seed 1", "9" * 5000])
def test_a_broken_line_is_named(tmp_path, broken):
    """In the middle; and at the end, if the line was ended: nothing was cut there."""
    for path in (written(tmp_path, line(), broken, line(seed=1)), written(tmp_path, line(), broken)):
        with pytest.raises(ResultsError, match=rf"^{re.escape(str(path))}, line 2 is not JSON: give"):
            read_results(path)


@pytest.mark.parametrize("value", ["[]", "null", '"seed"', "12"])
def test_a_line_must_be_an_object(tmp_path, value):
    path = written(tmp_path, line(), value, end="")
    with pytest.raises(ResultsError, match=r"results\.jsonl, line 2 is not an object"):
        read_results(path)


@pytest.mark.parametrize("name", ["dataset", "technique", "split", "seed"])
def test_a_line_must_name_its_run(tmp_path, name):
    with pytest.raises(ResultsError, match=rf"line 2 has no {name}: give the file"):
        read_results(written(tmp_path, line(), line(seed=1) | {name: None}))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dataset": ["sst"]}, "dataset is not a text"),
        ({"split": 1}, "split is not a text"),
        ({"family": {}}, "family is not a text"),
        ({"epsilon": "1"}, "epsilon is not a number"),
        ({"seed": [0]}, "seed is not a number"),
    ],
)
def test_a_run_is_named_by_texts_and_numbers(tmp_path, fields, problem):
    with pytest.raises(ResultsError, match=f"line 1: {problem}: give"):
        read_results(written(tmp_path, line(**fields)))


def test_nothing_to_read_is_said_with_what_to_do(tmp_path):
    path = tmp_path / "results.jsonl"
    with pytest.raises(
        ResultsError, match=r"results\.jsonl does not exist: finish a training there with launch\.train"
    ):
        read_results(path)
    for content, problem in ((b"", "holds no results"), (b"\n \r\n", "holds no results"), (b'{"a', "no whole line")):
        path.write_bytes(content)
        with pytest.raises(ResultsError, match=rf"results\.jsonl .*{problem}: finish a training there"):
            read_results(path)
    with pytest.raises(ResultsError, match=r"cannot be read .*: finish a training there"):
        read_results(tmp_path)


def test_no_line_is_there_twice(tmp_path):
    """A line without a family says how well a run predicts; 1 and 1.0 are the same epsilon."""
    old = line(epsilon=1)
    del old["family"]
    with pytest.raises(ResultsError) as error:
        read_results(written(tmp_path, line(), line(split="dev"), "", old, line(seed=1)))
    assert str(error.value) == (
        f"{tmp_path}/results.jsonl, line 4 repeats line 1: sst attention_at test prediction epsilon 1 lambda 1"
        " learning rate 0.001 weight decay 1e-05 seed 0. Give lines of one training only."
    )


DIFFERENT = (
    {"dataset": "imdb"},
    {"technique": "word_at"},
    {"reading": "span"},
    {"epsilon": 2.0},
    {"lambda": 0.5},
    {"learning_rate": 0.01},
    {"weight_decay": 0.0},
    {"seed": 12345678},
    {"split": "dev"},
    {"family": "faithfulness"},
)


@pytest.mark.parametrize("fields", DIFFERENT)
def test_what_differs_in_one_name_is_another_line(tmp_path, fields):
    """In one file, and in two workdirs."""
    assert len(read_results(written(tmp_path, line(), line(**fields))).lines) == 2
    check_one_configuration({"a": [line()], "b": [line(**fields)]}, group=False)


def test_two_configurations_are_refused_by_name():
    """Figures do not matter; workdirs that share nothing are not named."""
    seeds = [line(seed=seed) for seed in (7, 12345678)]
    workdirs = {"runs/a": seeds[:1], "runs/b": [line(technique="vanilla")], "runs/c": seeds}
    workdirs["runs/d"] = [seeds[1] | {"auc": 0.1, "n": 3}]
    with pytest.raises(ResultsError) as error:
        check_one_configuration(workdirs, group=False)
    assert str(error.value) == (
        "runs/a, runs/c and runs/d are of different configurations: more than one has sst attention_at test prediction"
        " epsilon 1 lambda 1 learning rate 0.001 weight decay 1e-05 seed 7. Give one of them, or --group to report them"
        " together."
    )
    with pytest.raises(ResultsError, match=r"seed 12345678\. Give one of them"):
        check_one_configuration({name: workdirs[name] for name in ("runs/c", "runs/d")}, group=False)
    check_one_configuration(workdirs, group=True)


def test_one_workdir_is_one_configuration():
    """Whatever it holds; and none is none."""
    check_one_configuration({"a": [line(), line()]}, group=False)
    check_one_configuration({}, group=False)
