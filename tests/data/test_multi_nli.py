"""MultiNLI: its three files, the groups of the development files, and the splits."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from flax_attnat.data.errors import DataError
from flax_attnat.data.inference import DROPPED_NOTE
from flax_attnat.data.multi_nli.multi_nli_dataset_builder import Builder
from flax_attnat.data.multi_nli.source import MEMBERS, OFFICIAL, SOURCE
from flax_attnat.data.source import Notes, Table


def pair(number, label="neutral", genre="fiction"):
    """A line of the official form, without its parses."""
    return json.dumps(
        {
            "annotator_labels": [label],
            "genre": genre,
            "gold_label": label,
            "pairID": f"{number}n",
            "promptID": str(number),
            "sentence1": f"Premise {number}.",
            "sentence2": f"Hypothesis {number}.",
        }
    )


LINES = {
    "train": [pair(1), pair(2, "entailment"), pair(3, "contradiction")],
    "dev_matched": [pair(4), pair(5, "-")],
    "dev_mismatched": [pair(6, "entailment", "verbatim")],
}


def write(folder, lines=LINES):
    """An archive of the official layout, with the entries that the Finder of macOS leaves in it."""
    with zipfile.ZipFile(folder / OFFICIAL.name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("multinli_1.0/", "")
        archive.writestr("multinli_1.0/Icon\r", "")
        archive.writestr("__MACOSX/multinli_1.0/._Icon\r", b"\0\5\26\7")
        for split, found in lines.items():
            archive.writestr(f"__MACOSX/{MEMBERS[split].replace('/', '/._')}", b"\0\5\26\7")
            archive.writestr(MEMBERS[split], "\n".join(found) + "\n")
    return folder / OFFICIAL.name


def test_pairs_and_groups(tmp_path):
    """The development files are groups of their own; "-" is left out and counted."""
    path, notes = write(tmp_path), Notes()
    found = {split: list(SOURCE.examples(path, split, notes)) for split in SOURCE.splits}
    assert {split: [(e.text, e.label, e.group) for e in examples] for split, examples in found.items()} == {
        "train": [
            ("Premise 1.", "neutral", ""),
            ("Premise 2.", "entailment", ""),
            ("Premise 3.", "contradiction", ""),
        ],
        "dev_matched": [("Premise 4.", "neutral", "matched")],
        "dev_mismatched": [("Premise 6.", "entailment", "mismatched")],
    }
    assert found["train"][0].query == "Hypothesis 1."
    assert notes == {DROPPED_NOTE: 1}


def test_a_bad_line_is_named(tmp_path):
    """The sentence says in which of the three files."""
    path = write(tmp_path, LINES | {"dev_mismatched": [pair(6), "[]"]})
    with pytest.raises(DataError, match=r"multinli_1\.0_dev_mismatched\.jsonl, line 2: it is JSON, but no object"):
        list(SOURCE.examples(path, "dev_mismatched", Notes()))


def test_a_missing_file_is_named(tmp_path):
    """An archive of the training file alone."""
    path = write(tmp_path, {"train": LINES["train"]})
    with pytest.raises(DataError, match=r"has no member multinli_1\.0/multinli_1\.0_dev_matched\.jsonl"):
        list(SOURCE.examples(path, "dev_matched", Notes()))


def test_splits():
    """A fifth of the training pairs, by label, is dev; the test split is matched, then mismatched."""
    labels = np.random.default_rng(0).permutation(np.arange(SOURCE.splits["train"]) % 3)
    tables = {
        name: Table(np.ones(size, np.int64), labels[:size].astype(np.int64)) for name, size in SOURCE.splits.items()
    }
    rows = SOURCE.arrange(tables, lambda lengths: lengths > 0, Notes())
    assert {name: sum(len(taken) for _, taken in found) for name, found in rows.items()} == SOURCE.expected
    assert [split for split, _ in rows["test"]] == ["dev_matched", "dev_mismatched"]
    assert all(np.array_equal(taken, np.arange(SOURCE.splits[split])) for split, taken in rows["test"])
    ((_, train),), ((_, dev),) = rows["train"], rows["dev"]
    assert np.array_equal(np.sort(np.concatenate([train, dev])), np.arange(len(labels)))
    assert np.ptp(np.bincount(labels[dev])) <= 1


def test_builder(tmp_path):
    """Prepared records hold both sentences, label and group of all three files, and the notes."""
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw")
    builder = Builder(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "raw")
    builder.download_and_prepare(file_format="array_record", download_config=config)
    records = builder.as_data_source()
    assert {split: len(found) for split, found in records.items()} == {
        "train": 3,
        "dev_matched": 1,
        "dev_mismatched": 1,
    }
    (record,) = records["dev_mismatched"]
    assert (record["text"], record["query"], record["label"], record["group"]) == (
        b"Premise 6.",
        b"Hypothesis 6.",
        b"entailment",
        b"mismatched",
    )
    assert builder.info.metadata["notes"] == {"train": {}, "dev_matched": {DROPPED_NOTE: 1}, "dev_mismatched": {}}
