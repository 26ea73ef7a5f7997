"""bAbI tasks 1 to 3: which files of the archive are read, the splits, and the prepared records."""

import importlib
import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Notes, Table
from flax_attnat.data.stories import FALLBACK_NOTE, LABEL_NAMES, OFFICIAL, TITLES

ANSWERS = {"en-10k": {"train": "garden", "test": "office"}, "en": {"train": "kitchen", "test": "hallway"}}


def source(task):
    """The dataset of a task."""
    return importlib.import_module(f"flax_attnat.data.babi{task}.source").SOURCE


def story(answer):
    """A file with one question."""
    return f"1 Mary went to the {answer}.\n2 John left.\n3 Where is Mary? \t{answer}\t1\n"


def write(folder, task, left_out=(), top="tasks_1-20_v1-2"):
    """An archive of the official layout, in which the questions of each file have an answer of their own."""
    with tarfile.open(folder / OFFICIAL.name, "w:gz") as archive:
        for language, answers in ANSWERS.items():
            for split, answer in answers.items():
                if (language, split) not in left_out:
                    content = story(answer).encode()
                    entry = tarfile.TarInfo(f"{top}/{language}/qa{task}_{TITLES[task]}_{split}.txt")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return folder / OFFICIAL.name


@pytest.mark.parametrize("task", [1, 2, 3])
def test_the_large_folder_is_read(tmp_path, task):
    """Both splits come from en-10k/, without a note, from the archive as from its folder."""
    path, notes = write(tmp_path, task), Notes()
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    for place in (path, tmp_path / "tasks_1-20_v1-2"):
        for split, answer in ANSWERS["en-10k"].items():
            (found,) = source(task).examples(place, split, notes)
            assert (found.text, found.query, found.label) == (
                f"Mary went to the {answer} . John left",
                "Where is Mary",
                answer,
            )
            assert found.rationale == (0, 1, 2, 3, 4)
    assert not notes


def test_without_its_training_file_both_splits_come_from_the_small_folder(tmp_path):
    """The test split of en-10k/ is not mixed with the training split of en/; every question is counted."""
    path, notes = write(tmp_path, 3, left_out=[("en-10k", "train")]), Notes()
    assert [next(source(3).examples(path, split, notes)).label for split in ("train", "test")] == ["kitchen", "hallway"]
    assert notes == {FALLBACK_NOTE: 2}


@pytest.mark.parametrize(
    ("left_out", "member"),
    [
        ([("en-10k", "test")], "en-10k/qa2_two-supporting-facts_test.txt"),
        ([("en-10k", "train"), ("en", "test")], "en/qa2_two-supporting-facts_test.txt"),
    ],
)
def test_a_missing_file_is_named(tmp_path, left_out, member):
    """A test file is never taken from another folder than the training file."""
    path = write(tmp_path, 2, left_out=left_out)
    with pytest.raises(DataError, match=f"{path} has no member tasks_1-20_v1-2/{member}"):
        list(source(2).examples(path, "test", Notes()))


def test_a_bad_line_is_named_with_its_file(tmp_path):
    """The sentence says which file of the archive has it."""
    write(tmp_path, 1)
    with tarfile.open(tmp_path / OFFICIAL.name) as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "tasks_1-20_v1-2" / "en-10k" / "qa1_single-supporting-fact_test.txt"
    path.write_text(story("office") + "1 a.\n2 b.\n2 c.\n")
    with pytest.raises(
        DataError, match=r"en-10k/qa1_single-supporting-fact_test\.txt, line 6: its number is 2 instead"
    ):
        list(source(1).examples(tmp_path / "tasks_1-20_v1-2", "test", Notes()))


def test_dev_is_held_out_of_train():
    """15% of the training questions, each in one of both parts; the test questions are not touched."""
    tables = {
        name: Table(np.ones(size, np.int64), np.zeros(size, np.int64))
        for name, size in {"train": 10_000, "test": 1_000}.items()
    }
    rows = source(1).arrange(tables, lambda lengths: lengths > 0, Notes())
    assert {name: len(taken) for name, ((_, taken),) in rows.items()} == source(1).expected
    assert [split for name in ("train", "dev", "test") for split, _ in rows[name]] == ["train", "train", "test"]
    ((_, train),), ((_, dev),) = rows["train"], rows["dev"]
    assert np.array_equal(np.sort(np.concatenate([train, dev])), np.arange(10_000))


@pytest.mark.parametrize("task", [1, 2, 3])
def test_builder(tmp_path, task):
    """Prepared records hold the story, the question, the answer and the rationale, and the notes."""
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw", task, left_out=[("en-10k", "train")])
    name = f"babi{task}"
    builder_class = importlib.import_module(f"flax_attnat.data.{name}.{name}_dataset_builder").Builder
    builder = builder_class(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "raw")
    builder.download_and_prepare(file_format="array_record", download_config=config)
    (record,) = builder.as_data_source()["train"]
    assert (record["text"], record["query"], record["label"], record["group"]) == (
        b"Mary went to the kitchen . John left",
        b"Where is Mary",
        b"kitchen",
        b"",
    )
    assert list(record["rationale"]) == [0, 1, 2, 3, 4]
    assert record["has_rationale"]
    assert builder.info.metadata["notes"] == {split: {FALLBACK_NOTE: 1} for split in ("train", "test")}


@pytest.mark.parametrize(
    ("task", "sizes", "longest"),
    [
        (1, {"train": 10_000, "test": 1_000}, 67),
        (2, {"train": 10_000, "test": 1_000}, 551),
        (3, {"train": 1_000, "test": 1_000}, 1_347),
    ],
)
def test_real_stories(shared, task, sizes, longest):
    """Questions, longest passages, answers and supporting sentences; task 3 is read from en/ there."""
    notes, found = Notes(), {}
    for split in sizes:
        found[split] = list(source(task).examples(shared / OFFICIAL.name, split, notes))
    everything = found["train"] + found["test"]
    assert {split: len(examples) for split, examples in found.items()} == sizes
    assert max(len(source(task).words(example.text)) for example in everything) == longest
    assert {example.label for example in everything} == set(LABEL_NAMES)
    assert {example.query.split()[1] for example in everything} == ({"is"} if task < 3 else {"was"})
    for example in everything:
        words = source(task).words(example.text)
        ends = sum(place + 1 == len(words) or words[place + 1] == "." for place in example.rationale)
        assert ends == task
        assert all(words[place] != "." for place in example.rationale)
    assert notes == ({FALLBACK_NOTE: 2_000} if task == 3 else {})
