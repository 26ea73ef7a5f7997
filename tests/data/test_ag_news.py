"""AG News: descriptions of two classes from comma-separated values, the splits, and what a wrong row is told."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.model_selection import train_test_split

from flax_attnat.data.ag_news.ag_news_dataset_builder import Builder
from flax_attnat.data.ag_news.source import SOURCE
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Notes, Table

TRAIN = (
    '"3","Title, with a comma","Oil ""soars"", then\\falls."\n'
    '"2","Sports","left out"\n'
    '"1","","Two\nlines of the \u00e9lys\u00e9e."\n'
    '"4","Science","left out"\n'
    '"3","Shares","Down."\n'
)
EXAMPLES = [
    ('Oil "soars", then falls.', "business"),
    ("Two\nlines of the \u00e9lys\u00e9e.", "world"),
    ("Down.", "business"),
]
TEST = '"1","Title","Talks."\n'


@pytest.fixture
def raw(tmp_path):
    """Writes an archive or an extracted folder with the given training rows; gives its path."""

    def write(train=TRAIN, kind="archive"):
        files = {"train": train if isinstance(train, bytes) else train.encode(), "test": TEST.encode()}
        folder = tmp_path / "raw"
        (folder / "ag_news_csv").mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            for split, content in files.items():
                (folder / "ag_news_csv" / f"{split}.csv").write_bytes(content)
            return folder / "ag_news_csv"
        with tarfile.open(folder / SOURCE.official.name, "w:gz") as archive:
            for split, content in files.items():
                entry = tarfile.TarInfo(f"ag_news_csv/{split}.csv")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return folder / SOURCE.official.name

    return write


def read(path, split="train"):
    """Texts and labels of one split."""
    return [(example.text, example.label) for example in SOURCE.examples(path, split, Notes())]


@pytest.mark.parametrize("kind", ["archive", "folder"])
@pytest.mark.parametrize("ending", ["\n", "", "\n\n", '\n"2","a","b"\n'])
def test_descriptions(raw, kind, ending):
    """Quotes, commas and line breaks inside a field; titles and other classes left out; any end of the file."""
    path = raw(TRAIN.rstrip("\n") + ending, kind)
    assert read(path) == EXAMPLES
    assert read(path, "test") == [("Talks.", "world")]


def test_line_ends_of_another_system(raw):
    """Rows that end in CR LF are the same rows."""
    assert read(raw('"1","a","b"\r\n"3","c","d"\r\n')) == [("b", "world"), ("d", "business")]


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (TRAIN + '"1","only a title"\n', r"ends in line 7 has 2 fields instead of 3 .* begins '1,only a title'"),
        ('"1","a","b","c"\n', r"ends in line 1 has 4 fields"),
        (TRAIN + '"5","a","b"\n', r"ends in line 7 has the class '5' instead of 1, 2, 3 or 4"),
        ('"Class Index","Title","Description"\n', r"ends in line 1 has the class 'Class Index'"),
        ('"1","a","two\nlines"\n"x","a","b"\n', r"ends in line 3 has the class 'x'"),
        (b'"1","a","b"\n"1","a","\xff"\n', r"line 2 is not UTF-8 \(invalid start byte at byte 21\)"),
        (TRAIN + '"1","a","cut in the mid', r"ends inside a row, at .*cut in the mid': it is truncated"),
        ('"1","a","' + "x" * 200_000 + '"\n', r"line 1 is no row of comma-separated values \(field larger"),
        ('"2","a","b"\n', r"holds no row of the classes 1 \(world\) and 3 \(business\)"),
        ("", r"holds no row of the classes"),
    ],
)
@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_wrong_rows(raw, train, sentence, kind):
    """The sentence has the file, the line and what is wrong there."""
    with pytest.raises(DataError, match=rf"ag_news_csv.*, ag_news_csv/train\.csv.*{sentence}"):
        read(raw(train, kind))


def test_splits():
    """The development split is scikit-learn's 15 % of the training rows, whatever their classes and lengths."""
    tables = {"train": Table(np.zeros(200, int), np.repeat([0, 1], 100)), "test": Table(np.ones(3, int), np.arange(3))}
    rows = SOURCE.arrange(tables, lambda _: pytest.fail("no filter here"), Notes())
    train, dev = train_test_split(np.arange(200), test_size=0.15, random_state=16377)
    for name, (origin, expected) in {
        "train": ("train", train),
        "dev": ("train", dev),
        "test": ("test", [0, 1, 2]),
    }.items():
        ((split, found),) = rows[name]
        assert split == origin
        np.testing.assert_array_equal(found, expected)


def test_builder(raw, tmp_path):
    """Records keep the order of the source."""
    builder = Builder(data_dir=str(tmp_path / "data"))
    config = tfds.download.DownloadConfig(manual_dir=str(raw().parent))
    builder.download_and_prepare(file_format="array_record", download_config=config)
    records = builder.as_data_source()["train"]
    assert [(row["text"].decode(), row["label"].decode()) for row in records] == EXAMPLES


def test_real_rows(shared):
    """The whole test split, and a training split that is partial: 7,993 of 60,000 descriptions."""
    tables = {}
    for split in ("train", "test"):
        found = read(shared / SOURCE.official.name, split)
        labels = np.array([SOURCE.labels.index(label) for _, label in found])
        tables[split] = Table(np.ones(len(found), int), labels)
    assert np.bincount(tables["train"].labels).tolist() == [4_067, 3_926]
    assert np.bincount(tables["test"].labels).tolist() == [1_900, 1_900]
    rows = SOURCE.arrange(tables, lambda _: pytest.fail("no filter here"), Notes())
    assert {name: len(found) for name, ((_, found),) in rows.items()} == {"train": 6_794, "dev": 1_199, "test": 3_800}


def test_official_sizes():
    """60,000 training rows give 51,000 and 9,000."""
    tables = {split: Table(np.ones(size, int), np.repeat([0, 1], size // 2)) for split, size in SOURCE.splits.items()}
    rows = SOURCE.arrange(tables, lambda _: pytest.fail("no filter here"), Notes())
    assert {name: len(found) for name, ((_, found),) in rows.items()} == SOURCE.expected
    assert SOURCE.expected == {"train": 51_000, "dev": 9_000, "test": 3_800}
