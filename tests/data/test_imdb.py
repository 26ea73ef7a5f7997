"""IMDB: order, labels, words and splits of the reviews, and what a wrong archive is told."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.model_selection import train_test_split

from flax_attnat.data.errors import DataError
from flax_attnat.data.imdb.imdb_dataset_builder import Builder
from flax_attnat.data.imdb.source import SOURCE
from flax_attnat.data.source import Notes, Table

REVIEWS = {
    "README": b"no review",
    "train/urls_neg.txt": b"http://",
    "train/pos/0_9.txt": b"Good.<br /><br />Very good.",
    "train/neg/2_1.txt": b"second",
    "train/neg/10_4.txt": b"first",
    "train/unsup/1_0.txt": "caf\u00e9".encode(),
    "test/pos/3_7.txt": b"fine",
    "test/neg/0_2.txt": b"poor",
}


@pytest.fixture
def raw(tmp_path):
    """Writes an archive or an extracted folder of the given reviews; gives its path."""

    def write(reviews=REVIEWS, kind="archive", prefix=""):
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        if kind == "folder":
            for name, content in reviews.items():
                path = folder / "aclImdb" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return folder / "aclImdb"
        with tarfile.open(folder / SOURCE.official.name, "w:gz") as archive:
            for name, content in reviews.items():
                entry = tarfile.TarInfo(f"{prefix}aclImdb/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return folder / SOURCE.official.name

    return write


def read(path, split):
    """Texts and labels of one split."""
    return [(example.text, example.label) for example in SOURCE.examples(path, split, Notes())]


@pytest.mark.parametrize(("kind", "prefix"), [("archive", ""), ("archive", "./"), ("folder", "")])
def test_reviews_in_order(raw, kind, prefix):
    """Negative before positive whatever the archive's order, and "10_4.txt" before "2_1.txt" as strings are."""
    path = raw(REVIEWS, kind, prefix)
    assert read(path, "train") == [
        ("first", "negative"),
        ("second", "negative"),
        ("Good.<br /><br />Very good.", "positive"),
    ]
    assert read(path, "test") == [("poor", "negative"), ("fine", "positive")]
    assert read(path, "unsup") == [("caf\u00e9", "")]


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_an_incomplete_archive(raw, kind):
    """The folder without a review is named; splits that are whole can still be read."""
    path = raw({name: content for name, content in REVIEWS.items() if not name.startswith("train/pos")}, kind)
    with pytest.raises(DataError, match=rf"{path.name} holds no review in aclImdb/train/pos: it is another archive"):
        read(path, "train")
    assert len(read(path, "test")) == 2


def test_a_review_that_is_not_utf8(raw):
    """The file is named, with the place of the byte."""
    path = raw({**REVIEWS, "train/neg/10_4.txt": b"fi\xffst"})
    with pytest.raises(DataError, match=r"aclImdb/train/neg/10_4\.txt is not UTF-8 \(invalid start byte at byte 2\)"):
        read(path, "train")


def test_a_review_of_an_absurd_size(raw):
    """A review beyond a mebibyte is refused before it is read."""
    path = raw({**REVIEWS, "train/neg/10_4.txt": bytes(2 << 20)})
    with pytest.raises(DataError, match=r"10_4\.txt has 2,097,\d+ bytes or more; at most 1,048,576 are expected"):
        read(path, "train")


def test_words():
    """Line breaks of the source separate words; nothing else of HTML is known."""
    assert SOURCE.words("Bad<br /><br />film, 10/10<br>") == ("bad", "film", ",", "qqq", "<", "br", ">")


def test_splits():
    """The length filter stands before the split, which is scikit-learn's of the rows that pass."""
    rng = np.random.default_rng(0)
    tables = {name: Table(rng.integers(0, 50, 200), np.repeat([0, 1], 100)) for name in ("train", "test")}
    rows = SOURCE.arrange(tables, lambda lengths: lengths > 6, Notes())
    kept, test = (np.flatnonzero(tables[name].lengths > 6) for name in ("train", "test"))
    train, dev = train_test_split(kept, test_size=0.2, random_state=1378)
    for name, (origin, expected) in {"train": ("train", train), "dev": ("train", dev), "test": ("test", test)}.items():
        ((split, found),) = rows[name]
        assert split == origin
        np.testing.assert_array_equal(found, expected)


def test_builder(raw, tmp_path):
    """Records keep the order of the source; unlabelled reviews have the empty label."""
    config = tfds.download.DownloadConfig(manual_dir=str(raw().parent))
    builder = Builder(data_dir=str(tmp_path / "data"))
    builder.download_and_prepare(file_format="array_record", download_config=config)
    found = {
        split: [(row["text"].decode(), row["label"].decode()) for row in rows]
        for split, rows in builder.as_data_source().items()
    }
    assert found == {split: read(raw(), split) for split in SOURCE.splits}


def test_real_reviews(shared):
    """Sizes of Maas et al. (2011), both classes in halves; the first and last file names of the order."""
    path = shared / SOURCE.official.name
    for split, size in SOURCE.splits.items():
        labels = [label for _, label in read(path, split)]
        half = size // 2
        assert labels == ([""] * size if split == "unsup" else ["negative"] * half + ["positive"] * half)


@pytest.mark.slow
def test_real_sizes(shared):
    """Sizes after the rules: 6 < n < 400 words, then a fifth held out."""
    tables = {}
    for split in ("train", "test"):
        lengths = [len(SOURCE.words(text)) for text, _ in read(shared / SOURCE.official.name, split)]
        tables[split] = Table(np.array(lengths), np.repeat([0, 1], 12_500))
    rows = SOURCE.arrange(tables, lambda lengths: (lengths > 6) & (lengths < 400), Notes())
    assert {name: len(found) for name, ((_, found),) in rows.items()} == SOURCE.expected
    assert SOURCE.expected == {"train": 16_415, "dev": 4_104, "test": 20_762}
