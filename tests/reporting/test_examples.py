"""Texts for heat maps from a workdir's files: the right rows of the right run, and sentences about broken files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flax_attnat.reporting.examples import Examples, examples
from flax_attnat.reporting.results import Choice, ResultsError, best
from flax_attnat.training.workdir import read_lines, write_arrays, write_atomically, write_lines

SIZE = 50
LENGTHS = np.array([3 + place % 4 for place in range(SIZE)], np.int32)
LABELS = np.arange(SIZE) % 2
WORDS = int(LENGTHS.sum())
SEEDS = (4, 7)
EPSILONS = {"vanilla": [None], "attention_at": [1.0, 5.0]}
NAMES = {"vanilla": "vanilla-0", "attention_at": "attention_at-1"}


def run_line(technique: str, epsilon: float | None, seed: int, split: str, **rest: object) -> dict:
    """A line; the larger epsilon is better on dev."""
    fields = {"dataset": "made", "technique": technique, "reading": None, "epsilon": epsilon, "seed": seed}
    fields |= {"lambda": None if epsilon is None else 1.0, "learning_rate": 0.001, "weight_decay": 0.0, "n": SIZE}
    return fields | {"split": split, "mark": "synthetic", "frozen_step": None, **rest}


def runs(technique: str) -> list[tuple[float | None, int]]:
    return [(epsilon, seed) for epsilon in EPSILONS[technique] for seed in SEEDS]


def weights(run: int, place: int, shift: float) -> list[float]:
    """What run `run` of a file gives the words of text `place`: no two alike."""
    return [run + shift + place / 100 + word / 1000 for word in range(LENGTHS[place])]


def arrays_of(technique: str) -> dict[str, np.ndarray]:
    made = runs(technique)
    rows = {
        f"{name}_tokens": np.array(
            [np.concatenate([weights(run, n, s) for n in range(SIZE)]) for run in range(len(made))]
        )
        for name, s in (("attention", 0.25), ("gradient", 0.5))
    }
    positive = np.array([[0.9 if (place + run) % 3 else 0.2 for place in range(SIZE)] for run in range(len(made))])
    return {name: row.astype(np.float32) for name, row in rows.items()} | {
        "probability": np.stack([1 - positive, positive], axis=-1).astype(np.float32),
        "length": LENGTHS,
        "label": LABELS,
        "seed": np.array([seed for _, seed in made]),
        "epsilon": np.array([0.5 if epsilon is None else epsilon for epsilon, _ in made]),
    }


def text(place: int) -> dict:
    words = [f"w{place}.{word}" for word in range(LENGTHS[place])]
    more = {"rationale": [0, 2], "unknown": [1], "query": ["why", "?"]} if place % 2 else {}
    return {"words": words, "label": int(LABELS[place])} | more


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("examples")
    document = {"dataset": "made", "split": "test", "mark": "synthetic", "labels": ["negative", "positive"], "data": {}}
    document["texts"] = [text(place) for place in range(SIZE)]
    write_atomically(workdir / "instances" / "test.texts.json", json.dumps(document))
    for technique, name in NAMES.items():
        both = [
            run_line(technique, epsilon, seed, split, auc=0.5 + (epsilon or 0) / 20)
            for split in ("dev", "test")
            for epsilon, seed in runs(technique)
        ]
        write_lines(workdir, "results", name, both)
        suite = [run_line(technique, *run, "test", family="interpretability") for run in runs(technique)]
        write_lines(workdir, "results", f"{name}.test.interpretability", suite)
        write_arrays(workdir, f"{name}.test.interpretability", arrays_of(technique))
    fixed = {name: array for name, array in arrays_of("attention_at").items() if array.ndim == 1}
    radius = np.arange(4, dtype=np.float32)[:, None] + np.zeros(SIZE, np.float32)
    radius[2, 0] = np.inf
    suite = [run_line("attention_at", *run, "test", family="robustness") for run in runs("attention_at")]
    write_lines(workdir, "results", "attention_at-1.test.robustness", suite)
    write_arrays(workdir, "attention_at-1.test.robustness", fixed | {"certified_radius": radius})
    return workdir


@pytest.fixture
def workdir(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def choices(workdir: Path) -> list[Choice]:
    return best(line for line in read_lines(workdir, "results") if "family" not in line)


def test_each_text_has_what_the_chosen_run_said_of_it(made: Path) -> None:
    """Of attention_at the best on dev is epsilon 5; its first seed is the third run of the file."""
    found = examples(made, choices(made), count=SIZE)
    assert found.techniques == ("attention_at", "vanilla") and found.labels == ("negative", "positive")
    for place, sentence in enumerate(found.sentences):
        assert list(sentence.words) == text(place)["words"] and sentence.label == found.labels[place % 2]
        for column, run in zip(sentence.columns, (2, 0), strict=True):
            np.testing.assert_allclose(column.attention, weights(run, place, 0.25), rtol=1e-6)
            np.testing.assert_allclose(column.importance, weights(run, place, 0.5), rtol=1e-6)
            positive = bool((place + run) % 3)
            assert column.prediction == ("positive 0.90" if positive else "negative 0.80")
            assert column.right == (positive == place % 2)
    assert [column.radius for column in found.sentences[0].columns] == ["infinite", ""]
    assert [column.radius for column in found.sentences[1].columns] == ["2", ""]
    first, second = found.sentences[:2]
    assert (first.rationale, first.known, first.query) == ([], (), [])
    assert (second.rationale, second.known[:3], second.query) == ([0, 2], [True, False, True], ["why", "?"])
    assert found.note == (
        "All 50 texts of the split test in its order. The runs: attention_at at epsilon 5, seed 4; vanilla, seed 4."
        " The data are synthetic."
    )


@pytest.mark.parametrize("count", [1, 7, 33])
def test_texts_are_spread_evenly_and_in_order(made: Path, count: int) -> None:
    found = examples(made, choices(made), count=count)
    places = [int(sentence.words[0][1:].split(".")[0]) for sentence in found.sentences]
    assert len(set(places)) == count and places == sorted(places)
    gaps = np.diff([-1 - (SIZE - 1 - places[-1]), *places])
    assert gaps.max() - gaps.min() <= 1
    assert f"{count} of the 50 texts" in found.note and "none was chosen by how it looks" in found.note


def test_what_is_lacking_is_said_with_the_command_that_writes_it(workdir: Path) -> None:
    asked, command = choices(workdir), f"python -m launch.evaluate --workdir={workdir} --suite=interpretability"
    assert f"{command} --split=dev writes them." in examples(workdir, asked, split="dev").note
    (workdir / "instances" / "vanilla-0.test.interpretability.npz").unlink()
    found = examples(workdir, asked)
    assert found.techniques == ("attention_at",) and len(found.sentences) == SIZE
    assert f"There is no attention of vanilla on the split test: {command} writes it." in found.note
    (workdir / "results" / "attention_at-1.test.interpretability.jsonl").unlink()
    found = examples(workdir, asked)
    assert not found.sentences and not found.techniques and "attention of attention_at, vanilla on" in found.note
    assert examples(workdir, []).sentences == [] and "any technique on made" in examples(workdir, []).note
    (workdir / "instances" / "test.texts.json").unlink()
    note = f"There are no texts of the split test beside the results: {command} writes them."
    assert examples(workdir, asked) == Examples([], (), (), note)


def test_other_data_sets_are_not_of_this_workdir(made: Path) -> None:
    mine = choices(made)
    found = examples(made, [*mine, mine[0]._replace(dataset="other")], count=3)
    assert found.techniques == ("attention_at", "vanilla") and "no attention" not in found.note


def changed(technique: str = "vanilla", **columns: np.ndarray) -> dict[str, np.ndarray]:
    return arrays_of(technique) | columns


def without(name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in arrays_of("vanilla").items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed(length=LENGTHS[::-1]), "length is not that of the texts in .*test.texts.json"),
        (changed(label=1 - LABELS), "label is not that of the texts"),
        (changed(seed=np.array([7, 4])), "row 0 is not of the run in line 1 of its results"),
        (changed(attention_tokens=np.zeros((2, WORDS - 1), np.float32)), "attention_tokens is .* for .* floats"),
        (changed(probability=np.zeros((2, SIZE, 3), np.float32)), "probability is .* for .* floats"),
        (changed(gradient_tokens=np.zeros((2, WORDS), "U1")), "gradient_tokens is .* for .* floats"),
        (changed(probability=np.zeros((0, SIZE, 2), np.float32)), "IndexError"),
        (without("gradient_tokens"), "KeyError"),
        (without("length"), "KeyError"),
    ],
)
def test_arrays_that_do_not_fit_are_named(workdir: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    write_arrays(workdir, "vanilla-0.test.interpretability", arrays)
    with pytest.raises(ResultsError, match=f"vanilla-0.test.interpretability.npz.*{message}.*launch.evaluate writes"):
        examples(workdir, choices(workdir))


def test_an_epsilon_that_is_not_the_choice_s_is_named(workdir: Path) -> None:
    arrays = changed("attention_at", epsilon=np.array([5.0, 5.0, 1.0, 1.0]))
    write_arrays(workdir, "attention_at-1.test.interpretability", arrays)
    with pytest.raises(ResultsError, match="row 2 is not of the run in line 3"):
        examples(workdir, choices(workdir))


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "pickle", "one array", "changed"])
def test_damaged_arrays_are_named(workdir: Path, damage: str) -> None:
    path = workdir / "instances" / "vanilla-0.test.interpretability.npz"
    content = path.read_bytes()
    middle = len(content) // 4
    if damage == "pickle":
        with path.open("wb") as file:
            np.savez(file, **changed(length=np.array([{}] * SIZE, object)))
    elif damage == "one array":
        with path.open("wb") as file:
            np.save(file, LENGTHS)
    else:
        flipped = content[:middle] + bytes(255 - byte for byte in content[middle : 2 * middle]) + content[2 * middle :]
        path.write_bytes({"cut": content[:-100], "text": b"not an archive", "empty": b"", "changed": flipped}[damage])
    with pytest.raises(ResultsError, match=r"vanilla-0\.test\.interpretability\.npz cannot be read"):
        examples(workdir, choices(workdir))


@pytest.mark.parametrize(
    "change",
    [
        {"split": "dev"},
        {"labels": [1, 2]},
        {"texts": []},
        {"texts": [{"words": ["a"], "label": 2}]},
        {"texts": [{"words": "a", "label": 0}]},
        {"texts": [{"words": [1], "label": 0}]},
        {"texts": [{"words": ["a"], "label": 0, "rationale": [1]}]},
        {"texts": [{"words": ["a"], "label": 0, "unknown": "0"}]},
        {"texts": [{"words": ["a"]}]},
        {"texts": [None]},
    ],
)
def test_texts_that_are_not_as_they_were_written_are_named(workdir: Path, change: dict) -> None:
    path = workdir / "instances" / "test.texts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ResultsError, match=r"test\.texts\.json .*: remove it, and"):
        examples(workdir, choices(workdir))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{}", pytest.param(b"[" * 100_000, id="deep")])
def test_a_damaged_file_of_texts_is_named(workdir: Path, content: bytes) -> None:
    (workdir / "instances" / "test.texts.json").write_bytes(content)
    with pytest.raises(ResultsError, match=r"test\.texts\.json cannot be read"):
        examples(workdir, choices(workdir))


def test_what_is_not_a_number_is_no_prediction(workdir: Path) -> None:
    nan = np.full((2, SIZE, 2), np.nan, np.float32)
    write_arrays(workdir, "vanilla-0.test.interpretability", changed(probability=nan))
    found = examples(workdir, choices(workdir), count=1)
    assert found.sentences[0].columns[1][1:3] == ("not a number", False)
