"""20 Newsgroups: the order and the text of scikit-learn, the splits, and what a wrong archive is told."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import _twenty_newsgroups as twenty
from sklearn.datasets import fetch_20newsgroups
from sklearn.model_selection import train_test_split

from flax_attnat.data.errors import DataError
from flax_attnat.data.newsgroups.newsgroups_dataset_builder import Builder
from flax_attnat.data.newsgroups.source import GROUPS, SOURCE
from flax_attnat.data.source import Notes, Table

OTHERS = tuple(f"other.{letter}" for letter in "abcdefghijklmnopqr")  # with the two of ours there are 20
ABSENT = "newsgroups of 20 are absent; the order of the posts is not scikit-learn's"
LATIN = "posts are not UTF-8; read as Latin-1"


def posts(groups=(*OTHERS, *GROUPS), size=9):
    """Posts with headers, quotations and signatures in every group and both parts; one is not UTF-8, one empty."""
    found = {}
    for part, count in (("train", size), ("test", size // 2)):
        for group in groups:
            for number in range(8, 8 + count):  # "10" stands before "8" as strings do
                body = f"Subject: x\n\n> quoted\n{part} {group} {number}\n\n--\nme\n"
                found[f"20news-bydate-{part}/{group}/{number}"] = body.encode()
    found["20news-bydate-train/rec.sport.hockey/9"] = b"Subject: x\n\ncaf\xe9\n"
    found["20news-bydate-test/rec.sport.baseball/8"] = b"Subject: x\n\n> only a quotation"
    return found


@pytest.fixture
def raw(tmp_path):
    """Writes an archive or an extracted folder of the given posts; gives its path."""

    def write(found, kind="archive"):
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        if kind == "folder":
            for name, content in found.items():
                path = folder / "20news-bydate" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return folder / "20news-bydate"
        with tarfile.open(folder / SOURCE.official.name, "w:gz") as archive:
            for name, content in found.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return folder / SOURCE.official.name

    return write


def read(path):
    """Texts and labels, and the notes."""
    notes = Notes()
    return [(example.text, example.label) for example in SOURCE.examples(path, "posts", notes)], dict(notes)


def scikit_learn(path, home, monkeypatch):
    """What scikit-learn itself makes of an archive: its two sports groups, one after the other."""

    def copy(_, dirname, **__):
        return shutil.copy(path, dirname)

    monkeypatch.setattr(twenty, "_fetch_remote", copy)
    bunch = fetch_20newsgroups(data_home=home, subset="all", remove=("headers", "footers", "quotes"))
    names = np.array(bunch.target_names)[bunch.target]
    return [
        (text, GROUPS[group]) for group in GROUPS for text, name in zip(bunch.data, names, strict=True) if name == group
    ]


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_order_and_text_are_scikit_learns(raw, tmp_path, monkeypatch, kind):
    """On a small archive of 20 groups, every text in its place; the archive's own order does not count."""
    small = posts()
    expected = scikit_learn(raw(small), tmp_path / "home", monkeypatch)
    found, notes = read(raw(dict(reversed(small.items())), kind))
    assert found == expected
    assert len(found) == 26
    assert ("caf\u00e9\n", "hockey") in found and ("", "baseball") in found
    assert notes == {LATIN: 1}


def test_absent_groups_are_noted(raw):
    """The two groups alone are read, but their order is another one, which the user is told."""
    found, notes = read(raw(posts(tuple(GROUPS))))
    assert len(found) == 26
    assert notes == {LATIN: 1, ABSENT: 18}
    assert found != read(raw(posts()))[0]


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_group_without_posts(raw, kind):
    """An archive without one of the two is another archive."""
    small = {name: content for name, content in posts().items() if "baseball" not in name}
    with pytest.raises(DataError, match=r"20news-bydate.* holds no post of rec\.sport\.baseball: it is another"):
        read(raw(small, kind))


def test_splits():
    """Posts without a word go first, then a stratified fifth, then a stratified fifth of the rest."""
    rng = np.random.default_rng(0)
    lengths, labels = rng.integers(0, 10, 400), np.repeat([0, 1], [300, 100])
    notes = Notes()
    rows = SOURCE.arrange({"posts": Table(lengths, labels)}, lambda _: pytest.fail("no filter here"), notes)
    kept = np.flatnonzero(lengths)
    rest, test = train_test_split(kept, test_size=0.2, random_state=13478, stratify=labels[kept])
    train, dev = train_test_split(rest, test_size=0.2, random_state=13478, stratify=labels[rest])
    for name, expected in {"train": train, "dev": dev, "test": test}.items():
        ((split, found),) = rows[name]
        assert split == "posts"
        np.testing.assert_array_equal(found, expected)
    assert dict(notes) == {"empty texts were dropped": 400 - len(kept)}


def test_builder(raw, tmp_path):
    """One prepared split, in order; its notes are kept with it."""
    path = raw(posts())
    builder = Builder(data_dir=str(tmp_path / "data"))
    config = tfds.download.DownloadConfig(manual_dir=str(path.parent))
    builder.download_and_prepare(file_format="array_record", download_config=config)
    (rows,) = builder.as_data_source().values()
    assert [(row["text"].decode(), row["label"].decode()) for row in rows] == read(path)[0]
    assert Builder(data_dir=str(tmp_path / "data")).info.metadata["notes"] == {"posts": {LATIN: 1}}


def test_real_posts(shared, tmp_path, monkeypatch):
    """Order and text of all 1,993 posts as scikit-learn has them; sizes and notes after all rules."""
    path = shared / SOURCE.official.name
    found, notes = read(path)
    assert found == scikit_learn(path, tmp_path, monkeypatch)
    assert len(found) == SOURCE.splits["posts"] == 1_993
    assert notes == {LATIN: 13}
    lengths = np.array([len(SOURCE.words(text)) for text, _ in found])
    labels = np.array([SOURCE.labels.index(label) for _, label in found])
    notes = Notes()
    rows = SOURCE.arrange({"posts": Table(lengths, labels)}, lambda _: pytest.fail("no filter here"), notes)
    assert dict(notes) == {"empty texts were dropped": 60}
    passed = {name: part[(lengths[part] > 6) & (lengths[part] < 500)] for name, ((_, part),) in rows.items()}
    assert {name: len(part) for name, part in passed.items()} == SOURCE.expected
    assert SOURCE.expected == {"train": 1_145, "dev": 278, "test": 357}
    assert np.bincount(labels[passed["test"]]).tolist() == [179, 178]
