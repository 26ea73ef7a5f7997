"""JSON lines of sentence pairs, and the Stanford Natural Language Inference corpus."""

import json
import re
import zipfile
from collections import Counter

import pytest
import tensorflow_datasets as tfds

from flax_attnat.data.archive import find_raw
from flax_attnat.data.errors import DataError
from flax_attnat.data.inference import DROPPED_NOTE, LABEL_NAMES, read_pairs
from flax_attnat.data.snli.snli_dataset_builder import Builder
from flax_attnat.data.snli.source import MEMBERS, OFFICIAL, SOURCE
from flax_attnat.data.source import Notes


def pair(number=1, label="neutral", **fields):
    """A line of the official form, without its parses."""
    found = {
        "annotator_labels": [label],
        "captionID": f"{number}.jpg#0",
        "gold_label": label,
        "pairID": f"{number}.jpg#0r1n",
        "sentence1": f"A man isn't at No. {number}.",
        "sentence2": "He's out.",
    }
    return json.dumps({name: value for name, value in (found | fields).items() if value is not ...})


LINES = {
    "train": [pair(1), pair(2, "entailment"), pair(3, "-"), pair(4, "contradiction")],
    "dev": [pair(1, "entailment")],
    "test": [pair(1, "-"), pair(2, "neutral")],
}


def write(folder, lines=LINES, name=OFFICIAL.name):
    """An archive of the official layout."""
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, found in lines.items():
            archive.writestr(MEMBERS[split], "\n".join(found) + "\n")
    return folder / name


def test_pairs_in_order(tmp_path):
    """Premise, hypothesis and label; pairs without a majority are left out and counted."""
    notes = Notes()
    found = list(SOURCE.examples(write(tmp_path), "train", notes))
    assert [example.label for example in found] == ["neutral", "entailment", "contradiction"]
    assert (found[2].text, found[2].query) == ("A man isn't at No. 4.", "He's out.")
    assert SOURCE.words(found[2].text) == ("a", "man", "is", "n't", "at", "no", ".", "qqq", ".")
    assert notes == {DROPPED_NOTE: 1}


def test_what_does_not_matter(tmp_path):
    """No pairID, blank lines, Windows line ends, escapes, and the same pairID in another split."""
    lines = [pair(1, pairID=...), "", pair(2, pairID=...) + "\r", pair(3, sentence2="caf\u00e9 \u4e2d")]
    found = list(SOURCE.examples(write(tmp_path, {"train": lines, "dev": [pair(3)]}), "train", Notes()))
    assert len(found) == 3
    assert found[2].query == "caf\u00e9 \u4e2d"
    assert len(list(SOURCE.examples(tmp_path / OFFICIAL.name, "dev", Notes()))) == 1


def test_a_repeated_pair_id_is_counted(tmp_path):
    """Both pairs are kept, and whoever prepares the data reads of it; "-" rows count too."""
    notes = Notes()
    path = write(tmp_path, {"dev": [pair(1), pair(1, sentence1="Other."), pair(1, "-"), pair(2)]})
    assert len(list(SOURCE.examples(path, "dev", notes))) == 3
    assert notes == {"pairs repeat the pairID of an earlier one": 2, DROPPED_NOTE: 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (pair(2, gold_label=...), "the field gold_label is missing"),
        (pair(2, sentence1=...), "the field sentence1 is missing"),
        (pair(2, sentence2=...), "the field sentence2 is missing"),
        (pair(2, sentence1=None), "the field sentence1 is no text but null"),
        (pair(2, sentence2=["a"]), 'the field sentence2 is no text but ["a"]'),
        (pair(2, gold_label=0), "the field gold_label is no text but 0"),
        (pair(2, pairID=7), "the field pairID is no text but 7"),
        (pair(2, gold_label="Neutral"), "the field gold_label is 'Neutral'; it must be contradiction, entailment"),
        (pair(2, gold_label=""), "the field gold_label is ''; it must be"),
        (pair(2)[:-1] + ', "sentence2": "She is."}', "the field sentence2 is there twice"),
        (pair(2)[:-1] + ', "x": {"y": 1, "y": 2}}', "the field y is there twice"),
        (pair(2, sentence1="\ud800"), "the field sentence1 holds half a character"),
        (pair(2)[:40], "it is no JSON"),
        (pair(2) + pair(3), "it is no JSON (Extra data"),
        ("{" * 100_000, "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[1]", "it is JSON, but no object"),
        ('"neutral"', "it is JSON, but no object"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, reason):
    """The error has the file, the line and the field."""
    path = write(tmp_path, {"dev": [pair(1), line]})
    with pytest.raises(DataError, match=re.escape(f"{path}, snli_1.0/snli_1.0_dev.jsonl, line 2: {reason}")):
        list(SOURCE.examples(path, "dev", Notes()))


def test_bytes_that_are_no_text(tmp_path):
    """A file in another encoding is refused, not read with other characters."""
    path = tmp_path / OFFICIAL.name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBERS["dev"], pair(1, sentence1="cafe").encode().replace(b"cafe", b"caf\xe9"))
    with pytest.raises(DataError, match="line 1: 'utf-8' codec can't decode"):
        list(SOURCE.examples(path, "dev", Notes()))


@pytest.mark.parametrize("lines", [[], [""], [pair(1, "-")]])
def test_a_split_without_labels_is_named(tmp_path, lines):
    """An empty file, and one whose annotators never agree."""
    path = write(tmp_path, {"test": lines})
    with pytest.raises(DataError, match="holds no pair with a label"):
        list(SOURCE.examples(path, "test", Notes()))


@pytest.mark.parametrize("name", ["snli_1.0.zip", "snli_1.0_partial.zip", "snli_1.0"])
def test_builder(tmp_path, name):
    """Prepared records from the archive, the partial archive and the folder, and the notes."""
    raw = tmp_path / "raw"
    raw.mkdir()
    if name.endswith(".zip"):
        write(raw, name=name)
    else:
        (raw / name).mkdir()
        for split, lines in LINES.items():
            (raw / MEMBERS[split]).write_text("\n".join(lines))
    builder = Builder(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=raw)
    builder.download_and_prepare(file_format="array_record", download_config=config)
    records = builder.as_data_source()
    assert [record["label"] for record in records["train"]] == [b"neutral", b"entailment", b"contradiction"]
    (record,) = records["test"]
    assert (record["text"], record["query"], record["group"]) == (b"A man isn't at No. 2.", b"He's out.", b"")
    assert builder.info.metadata["notes"] == {"train": {DROPPED_NOTE: 1}, "dev": {}, "test": {DROPPED_NOTE: 1}}


def test_real_pairs(shared):
    """The partial archive: 1,666, 9,842 and 9,824 pairs, the latter two as in the official corpus."""
    path, notes = find_raw(shared, (OFFICIAL.name, *OFFICIAL.folders)), Notes()
    found = {split: list(SOURCE.examples(path, split, notes)) for split in SOURCE.splits}
    assert {split: len(examples) for split, examples in found.items()} == {"train": 1_666, "dev": 9_842, "test": 9_824}
    assert all({example.label for example in examples} == set(LABEL_NAMES) for examples in found.values())
    assert Counter(example.label for example in found["test"]) == {
        "contradiction": 3_237,
        "entailment": 3_368,
        "neutral": 3_219,
    }
    assert not notes


def test_real_rows_with_every_field(shared):
    """1,289 rows with parses and annotators' labels: 16 without a majority are left out."""
    notes = Notes()
    found = list(read_pairs(shared / "snli_1.0_partial.zip", "snli_1.0/official_rows.jsonl", notes))
    labels = {"entailment": 433, "neutral": 421, "contradiction": 419}
    assert Counter(example.label for example in found) == labels
    assert notes == {DROPPED_NOTE: 16}
