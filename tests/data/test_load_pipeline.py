"""Loading any data set: kept words, truncation, possible classes, parts of a split, users' files, simulated stories."""

import json
import os
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from flax_attnat import config as configuration
from flax_attnat.data import catalogue, corpora
from flax_attnat.data.errors import DataError
from flax_attnat.data.load import load
from flax_attnat.data.vocabulary import fit_vocabulary
from tests.fixtures import write_cnn, write_multi_nli


def make_config(dataset: str, tmp_path: Path, **data: object) -> configuration.Config:
    places = {"raw_dir": str(tmp_path), "data_dir": str(tmp_path / "data")}
    return configuration.parse({"dataset": dataset, "data": {**places, **data}})


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reviews(count: int, labels: tuple[str, ...] = ("bad", "good")) -> list[dict]:
    return [
        {"text": f"It was {labels[i % len(labels)]}, number w{chr(97 + i % 26)}.", "label": labels[i % len(labels)]}
        for i in range(count)
    ]


def test_a_second_start_reads_the_kept_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cnn(tmp_path)
    first = load(make_config("cnn", tmp_path))
    monkeypatch.setattr(corpora, "read_prepared", lambda *_, **__: pytest.fail("the records were read again"))
    again = load(make_config("cnn", tmp_path))
    assert again.vocabulary.words == first.vocabulary.words
    for name, split in first.splits.items():
        assert split.records[:] == again.splits[name].records[:]
        assert [row.tolist() for row in split.tokens] == [row.tolist() for row in again.splits[name].tokens]


def test_kept_words_that_are_damaged_are_made_anew(tmp_path: Path) -> None:
    write_cnn(tmp_path)
    first = load(make_config("cnn", tmp_path))
    (kept,) = (tmp_path / "data").rglob("words-*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert load(make_config("cnn", tmp_path)).splits["test"].records[0] == first.splits["test"].records[0]
    assert kept.stat().st_size > 100


def test_changed_text_rules_are_not_served_old_words(monkeypatch: pytest.MonkeyPatch) -> None:
    before = corpora.rules_hash(corpora.clean)
    monkeypatch.setattr(corpora.inspect, "getsource", lambda _: "another rule")
    assert corpora.rules_hash(corpora.clean) != before


def test_only_entities_of_the_passage_are_possible(tmp_path: Path) -> None:
    write_cnn(tmp_path)
    dataset = load(make_config("cnn", tmp_path, min_df=1_000))
    classes = dataset.entity_classes
    assert classes is not None
    assert dataset.label_names == tuple(f"@entity{n}" for n in range(12))
    named = {word: dataset.label_names[c] for word, c in zip(dataset.vocabulary.words, classes, strict=True) if c >= 0}
    assert named == {name: name for name in dataset.label_names}  # kept in the vocabulary, however rare
    for split in dataset.splits.values():
        for tokens, record in zip(split.tokens, split.records, strict=True):
            assert set(classes[tokens]) - {-1} == {dataset.label_names.index(w) for w in record.words if "@" in w}
            assert record.label in classes[tokens]


def test_texts_cut_before_their_answer_are_dropped_and_counted(tmp_path: Path) -> None:
    write_cnn(tmp_path)
    whole, cut = load(make_config("cnn", tmp_path)), load(make_config("cnn", tmp_path, truncate=6))
    notes = dict(cut.notes)
    dropped = notes["texts do not hold their answer and were dropped"]
    assert dropped == sum(len(whole.splits[n].tokens) - len(cut.splits[n].tokens) for n in cut.splits) > 0
    assert max(len(tokens) for split in cut.splits.values() for tokens in split.tokens) == 6
    longer = sum(len(tokens) > 6 for split in whole.splits.values() for tokens in split.tokens)
    assert notes["texts were cut off at 6 words (config.data.truncate)"] == longer


def test_matched_and_mismatched_pairs_are_one_test_split(tmp_path: Path) -> None:
    write_multi_nli(tmp_path, rows=180)
    dataset = load(make_config("multi_nli", tmp_path))
    sizes = {name: len(split.tokens) for name, split in dataset.splits.items()}
    # 180 rows of which 10 are "-"; 60 of which 3 are, twice; a fifth of 170 is held out by class.
    assert sizes == {"train": 136, "dev": 34, "test": 114}
    assert dataset.splits["test"].groups == ["matched"] * 57 + ["mismatched"] * 57
    assert dataset.splits["train"].groups is None
    assert np.bincount(dataset.splits["dev"].labels).max() - np.bincount(dataset.splits["dev"].labels).min() <= 1
    assert dataset.mark == "partial"
    assert all(len(query) for query in dataset.splits["train"].queries or [])


def test_a_very_long_text_is_truncated_counted_and_keeps_its_rationale(tmp_path: Path) -> None:
    rows = reviews(40)
    rows[0] = {"text": "word " * 100_000 + "end", "label": "good", "rationale": "word word"}
    path = write_lines(tmp_path / "train.jsonl", rows)
    dataset = load(make_config("custom", tmp_path, train=path, truncate=500))
    lengths = [len(tokens) for split in dataset.splits.values() for tokens in split.tokens]
    assert max(lengths) == 500
    assert dict(dataset.notes)["texts were cut off at 500 words (config.data.truncate)"] == 1
    records = [record for split in dataset.splits.values() for record in split.records]
    assert [record.rationale for record in records if record.rationale is not None] == [tuple(range(500))]


def test_a_tenth_of_a_users_file_is_held_out_by_class(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", reviews(300, ("bad", "fair", "good")))
    dataset = load(make_config("custom", tmp_path, train=path))
    assert dataset.label_names == ("bad", "fair", "good")
    counts = {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [80, 80, 80], "dev": [10, 10, 10], "test": [10, 10, 10]}
    again = load(make_config("custom", tmp_path, train=path))
    assert again.splits["dev"].records[:] == dataset.splits["dev"].records[:]


def test_a_users_test_file_is_taken_whole_and_must_know_the_labels(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", reviews(60))
    test = write_lines(tmp_path / "test.jsonl", reviews(7))
    dataset = load(make_config("custom", tmp_path, train=train, test=test))
    assert [len(dataset.splits[name].tokens) for name in ("train", "dev", "test")] == [54, 6, 7]
    write_lines(tmp_path / "test.jsonl", [*reviews(7), {"text": "so", "label": "superb"}])
    with pytest.raises(DataError, match=r"test\.jsonl: .*'superb' \(row 8\)"):
        load(make_config("custom", tmp_path, train=train, test=test))


def test_a_users_pairs(tmp_path: Path) -> None:
    rows = [
        {"passage": f"Ann is in the {room}. Bob sleeps.", "question": "Where is Ann?", "answer": room}
        for room in ("hall", "office") * 20
    ]
    dataset = load(make_config("custom", tmp_path, train=write_lines(tmp_path / "t.jsonl", rows)))
    record = dataset.splits["train"].records[0]
    assert record.query == ("where", "is", "ann", "?")
    assert record.words[:4] == ("ann", "is", "in", "the")
    assert dataset.label_names == ("hall", "office")
    queries = dataset.splits["train"].queries
    assert queries is not None
    assert [dataset.vocabulary.words[i] for i in queries[0]] == ["where", "is", "ann", "?"]


def test_words_of_queries_are_counted_as_texts_are(tmp_path: Path) -> None:
    """A word that only hypotheses hold is known if two of them hold it; each query is a text of its own."""
    rows = [
        {"premise": "so it is", "hypothesis": f"not so w{chr(97 + i)}", "label": ("a", "b")[i % 2]} for i in range(24)
    ]
    rows[0]["premise"], rows[0]["hypothesis"] = "so rare", "rare so not"
    dataset = load(make_config("custom", tmp_path, train=write_lines(tmp_path / "t.jsonl", rows), min_df=2))
    train = dataset.splits["train"]
    texts = [words for record in train.records[:] for words in (record.words, record.query)]
    wanted = fit_vocabulary(texts, min_df=2)
    assert dataset.vocabulary.words == wanted.words and "not" in wanted.words
    assert dataset.vocabulary.counts.tolist() == wanted.counts.tolist()


@pytest.mark.parametrize("rows", [20, 21, 22])
def test_the_fewest_texts_that_can_be_held_out(tmp_path: Path, rows: int) -> None:
    """Three classes, of which two held-out texts cannot show all."""
    path = write_lines(tmp_path / "train.jsonl", reviews(rows, ("bad", "fair", "good")))
    dataset = load(make_config("custom", tmp_path, train=path))
    assert [len(dataset.splits[name].tokens) for name in ("train", "dev", "test")] == [rows - 4, 2, 2]


def test_a_home_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"~nobody-of-this-name/t\.csv cannot be read \(No such file"):
        load(make_config("custom", tmp_path, train="~nobody-of-this-name/t.csv"))


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_too_few_texts_to_hold_any_out(tmp_path: Path, rows: int) -> None:
    path = write_lines(tmp_path / "train.jsonl", reviews(rows))
    with pytest.raises(DataError, match=r"train"):
        load(make_config("custom", tmp_path, train=path))


def test_a_users_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read \(No such file"):
        load(make_config("custom", tmp_path, train=str(tmp_path / "nowhere.csv")))


def test_simulated_stories_load_like_babi() -> None:
    dataset = load(configuration.parse({"dataset": "simulated1"}))
    assert {name: len(split.tokens) for name, split in dataset.splits.items()} == {
        "train": 8_500,
        "dev": 1_500,
        "test": 1_000,
    }
    assert dataset.mark == "simulated"
    assert dataset.label_names == ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
    record = dataset.splits["test"].records[0]
    assert record.rationale
    assert record.words[record.rationale[-1]] == dataset.label_names[record.label]


def test_a_filter_that_leaves_nothing_to_split_is_a_sentence(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "aclImdb_v1.tar.gz", "w:gz") as archive:
        for split in ("train", "test"):
            for side in ("neg", "pos"):
                for number in range(3):
                    entry = tarfile.TarInfo(f"aclImdb/{split}/{side}/{number}_1.txt")
                    entry.size = 4
                    archive.addfile(entry, BytesIO(b"good"))
        entry = tarfile.TarInfo("aclImdb/train/unsup/0_0.txt")
        entry.size = 4
        archive.addfile(entry, BytesIO(b"good"))
    assert len(load(make_config("imdb", tmp_path)).splits["test"].tokens) == 6
    with pytest.raises(DataError, match=r"min_length"):
        load(make_config("imdb", tmp_path, min_length=6))


def test_an_extracted_folder_gives_what_the_archive_gives(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_cnn(tmp_path / "a")
    with tarfile.open(tmp_path / "a" / "cnn.tgz") as archive:
        archive.extractall(tmp_path / "b", filter="data")
    from_archive, from_folder = load(make_config("cnn", tmp_path / "a")), load(make_config("cnn", tmp_path / "b"))
    assert from_folder.vocabulary.words == from_archive.vocabulary.words
    assert sorted(from_folder.splits["test"].records) == sorted(from_archive.splits["test"].records)
    (file,) = (tmp_path / "b" / "cnn" / "questions" / "test").glob("*0001.question")
    os.utime(file, (1, 1))  # a touched folder is another one, and is prepared anew
    load(make_config("cnn", tmp_path / "b"))
    assert len(list((tmp_path / "b" / "data").glob("raw-*"))) == 2


def test_kept_words_depend_on_the_shared_rules_and_on_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = catalogue.source("imdb").words  # a rule of its own that calls one of `flax_attnat.data.text`
    assert corpora.rules_hash(words, ("negative", "positive")) != corpora.rules_hash(words, ("positive", "negative"))
    before, original = corpora.rules_hash(words), corpora.inspect.getsource
    changed = sys.modules["flax_attnat.data.text"]
    monkeypatch.setattr(corpora.inspect, "getsource", lambda module: original(module) + "#" * (module is changed))
    assert corpora.rules_hash(words) != before


def test_a_users_files_must_have_one_form(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", reviews(40))
    pairs = [{"premise": "It was good.", "hypothesis": "It was.", "label": "good"}] * 4
    test = write_lines(tmp_path / "test.jsonl", pairs)
    with pytest.raises(DataError, match=r"test\.jsonl has the fields premise,hypothesis,label, but .* has text,label"):
        load(make_config("custom", tmp_path, train=train, test=test))


def test_empty_queries_are_counted(tmp_path: Path) -> None:
    rows = [{"premise": "so", "hypothesis": "" if i < 2 else "yes", "label": ("a", "b")[i % 2]} for i in range(40)]
    dataset = load(make_config("custom", tmp_path, train=write_lines(tmp_path / "t.jsonl", rows)))
    assert dict(dataset.notes)["queries are empty"] == 2


def test_a_split_whose_texts_are_cut_before_every_answer_is_a_sentence(tmp_path: Path) -> None:
    write_cnn(tmp_path)
    with pytest.raises(DataError, match=r"cnn: none of the .* holds its answer in the first 1 words"):
        load(make_config("cnn", tmp_path, truncate=1))
