"""Texts cut once: columns, the file they are kept in, and the same words whatever the number of processes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_attnat.data import corpus, workers
from flax_attnat.data.corpus import Ragged, build_corpus, ragged
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Notes, spaced_words

ROWS = st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=8)


def silent(*_: object) -> None:
    """Progress that nobody watches."""


def small() -> dict[str, list[Example]]:
    return {
        "train": [
            Example("b a b", "yes", "who", (0, 2), "first"),
            Example("", "no", "what is it"),
            Example("c a", "no", "", (), "second"),
        ],
        "test": [Example("a \udcff d", "yes")],
    }


def made(examples: dict[str, list[Example]]) -> corpus.Corpus:
    names = lambda answers, words: tuple(sorted(answers))  # noqa: E731
    return build_corpus(examples, spaced_words, names, Notes({"texts were odd": 3}), silent)


@given(ROWS)
def test_rows_come_back(rows: list[list[int]]) -> None:
    column = ragged(rows)
    assert [row.tolist() for row in column.rows()] == rows
    assert column.lengths().tolist() == [len(row) for row in rows]


@given(ROWS.filter(bool), st.data())
def test_take_gives_rows_in_the_order_asked(rows: list[list[int]], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    taken = ragged(rows).take(np.array(index, np.int64))
    assert [row.tolist() for row in taken.rows()] == [rows[i] for i in index]


@given(ROWS, st.integers(1, 7))
def test_head_cuts_rows_off(rows: list[list[int]], most: int) -> None:
    assert [row.tolist() for row in ragged(rows).head(most).rows()] == [row[:most] for row in rows]


def test_columns_say_what_the_examples_say() -> None:
    found = made(small())
    assert found.labels == ("no", "yes")
    assert found.words == ("b", "a", "who", "what", "is", "it", "c", "\udcff", "d")
    train = found.parts["train"]
    assert [[found.words[i] for i in row] for row in train.text.rows()] == [["b", "a", "b"], [], ["c", "a"]]
    assert [[found.words[i] for i in row] for row in train.query.rows()] == [["who"], ["what", "is", "it"], []]
    assert train.labels.tolist() == [1, 0, 0]
    assert [row.tolist() for row in train.rationale.rows()] == [[0, 2], [], []]
    assert train.has_rationale.tolist() == [True, False, True]
    assert train.groups == ("first", "", "second")


def test_a_file_gives_the_same_corpus_back(tmp_path: Path) -> None:
    found, path = made(small()), tmp_path / "new" / "words.npz"
    corpus.save(path, found)
    again = corpus.read(path)
    assert again is not None
    assert (again.words, again.labels, again.notes) == (found.words, found.labels, found.notes)
    for name, part in found.parts.items():
        for a, b in zip(part, again.parts[name], strict=True):
            columns = (a, b) if isinstance(a, Ragged) else ((a,), (b,))
            for x, y in zip(*columns, strict=True):
                np.testing.assert_array_equal(x, y)
    assert [file.name for file in path.parent.iterdir()] == ["words.npz"]


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "words.npz"
    corpus.save(path, made(small()))
    path.write_bytes(path.read_bytes()[:keep])
    assert corpus.read(path) is None
    assert corpus.read(tmp_path / "none.npz") is None


def test_a_file_with_a_flipped_byte_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "words.npz"
    corpus.save(path, made(small()))
    data = bytearray(path.read_bytes())
    place = data.index(b"who\n")
    data[place] ^= 1
    path.write_bytes(bytes(data))
    assert corpus.read(path) is None


def test_parallel_processes_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {"train": [Example(f"w{i % 700} w{i * i % 900} x", "a", f"q{i % 3}") for i in range(2_500)]}
    alone = made(examples)
    monkeypatch.setattr(corpus, "_SERIAL_CHARACTERS", 0)
    together = made(examples)
    assert together.words == alone.words
    np.testing.assert_array_equal(together.parts["train"].text.values, alone.parts["train"].text.values)
    np.testing.assert_array_equal(together.parts["train"].query.ends, alone.parts["train"].query.ends)


def test_a_process_that_dies_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_SERIAL_CHARACTERS", 0)
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="A process that cuts texts into words died"):
        made(small())


def test_progress_counts_every_example() -> None:
    seen = []
    build_corpus(small(), spaced_words, lambda a, w: tuple(a), Notes(), lambda *report: seen.append(report))
    assert seen[-1] == ("cutting texts into words", 4, 4)
