"""Raw files on their way to records: which file is meant, what is remembered of it, what is said when it fails."""

import hashlib
import json
import logging
import os
import shutil

import pytest

from flax_attnat.data import prepared as module
from flax_attnat.data.archive import Official
from flax_attnat.data.errors import DataError
from flax_attnat.data.prepared import Raw, locate, prepared_folder, read_prepared
from flax_attnat.data.source import Example
from flax_attnat.data.sst.source import SOURCE
from flax_attnat.data.sst.sst_dataset_builder import Builder

CONTENT = b"the raw file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OFFICIAL = Official("x.zip", ("x",), "http://127.0.0.1:1/x.zip", len(CONTENT), SHA256)


def examples(path, split, notes):
    """Three examples, and what is noted of them."""
    for number in range(3):
        notes["texts are numbered"] += 1
        yield Example(f"{path.name} {split} {number}", "positive")


def broken(path, split, notes):
    """An example, then a bad line."""
    yield Example("good", "positive")
    raise DataError(f"{path}, line 2: bad.")


def make_builder(**changes):
    """A builder of the examples above."""
    source = SOURCE._replace(**{"official": OFFICIAL, "examples": examples, **changes})
    return type("Builder", (Builder,), {"SOURCE": source, "__module__": Builder.__module__})


@pytest.fixture
def raw_dir(tmp_path):
    """A folder that holds the raw file."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "x.zip").write_bytes(CONTENT)
    return folder


def test_an_archive_is_known_by_its_bytes(raw_dir, tmp_path, caplog):
    """Its SHA-256; another file is another one, of which is said once that it is not the official one."""
    assert locate(OFFICIAL, str(raw_dir), str(tmp_path)) == Raw(raw_dir / "x.zip", SHA256)
    assert not caplog.records
    (raw_dir / "x.zip").write_bytes(b"repacked")
    with caplog.at_level(logging.WARNING):
        raw = locate(OFFICIAL, str(raw_dir), str(tmp_path))
    assert raw.identity == hashlib.sha256(b"repacked").hexdigest()
    assert [SHA256 in record.getMessage() for record in caplog.records] == [True]
    assert not (tmp_path / "checksums.json").exists()


def test_a_folder_is_known_by_names_sizes_and_times(tmp_path):
    """Each of them changes the identity; reading does not, nor where the folder lies."""

    def identity(raw_dir="raw"):
        """Of the folder x."""
        return locate(OFFICIAL, str(tmp_path / raw_dir), str(tmp_path)).identity

    inner = tmp_path / "raw" / "x" / "inner"
    inner.mkdir(parents=True)
    for name in ("a", "b"):
        (inner / name).write_bytes(b"text")
        os.utime(inner / name, ns=(10, 20))
    (inner / "broken").symlink_to("nowhere")
    first = identity()
    shutil.copytree(tmp_path / "raw", tmp_path / "copy", symlinks=True)
    assert identity() == identity("copy") == first
    found = {first}
    os.utime(inner / "a", ns=(10, 21))
    found.add(identity())
    (inner / "a").write_bytes(b"longer")
    os.utime(inner / "a", ns=(10, 20))
    found.add(identity())
    (inner / "b").rename(inner / "c")
    found.add(identity())
    assert len(found) == 4


def test_without_raw_dir(tmp_path):
    """The published SHA-256 stands for the file, else its address."""
    assert locate(OFFICIAL, "", str(tmp_path)) == Raw(None, SHA256)
    unpublished = OFFICIAL._replace(sha256=None)
    address = hashlib.sha256(OFFICIAL.url.encode()).hexdigest()
    assert locate(unpublished, "", str(tmp_path)) == Raw(None, address)


def test_a_raw_dir_without_the_file(tmp_path):
    """The official file is meant; a folder that is not there is a mistake."""
    assert locate(OFFICIAL, str(tmp_path), str(tmp_path)) == Raw(None, SHA256)
    with pytest.raises(DataError, match="is not a folder") as error:
        locate(OFFICIAL, str(tmp_path / "nowhere"), str(tmp_path))
    assert str(error.value).endswith(OFFICIAL.sentence())
    with pytest.raises(DataError, match="read from local folders only"):
        locate(OFFICIAL, "", "gs://bucket")


def test_checksums_of_large_files_are_remembered(raw_dir, tmp_path, monkeypatch):
    """As long as size and time stay; a memory that is damaged or cannot be written is none."""
    monkeypatch.setattr(module, "_SLOW_BYTES", len(CONTENT))
    path, memory = raw_dir / "x.zip", tmp_path / "data" / "checksums.json"

    def identity():
        """As found now."""
        return locate(OFFICIAL, str(raw_dir), str(tmp_path / "data")).identity

    os.utime(path, ns=(10, 20))
    assert identity() == SHA256
    path.write_bytes(CONTENT[::-1])
    reverse = hashlib.sha256(CONTENT[::-1]).hexdigest()
    os.utime(path, ns=(10, 20))
    assert identity() == SHA256  # what a file of this size and time had
    os.utime(path, ns=(10, 21))
    assert identity() == reverse
    for damage in ("{", "[]", json.dumps({str(path): 1}), json.dumps({str(path): [1]})):
        memory.write_text(damage)
        assert identity() == reverse
    assert [file.name for file in memory.parent.iterdir()] == ["checksums.json"]
    memory.unlink()
    memory.mkdir()
    assert identity() == reverse


def test_records_and_notes_come_back(raw_dir, tmp_path, monkeypatch):
    """In the order of the source, over the bounds of batches, now and at the next start, which writes nothing."""
    monkeypatch.setattr(module, "_BATCH", 2)
    raw = locate(OFFICIAL, str(raw_dir), str(tmp_path))
    for builder_class in (make_builder(), make_builder(examples=broken)):  # the second is not asked
        prepared = read_prepared(builder_class, raw, str(tmp_path))
        assert list(prepared.splits) == ["train", "dev", "test"]
        for split, records in prepared.splits.items():
            assert [record["text"].decode() for record in records] == [f"x.zip {split} {n}" for n in range(3)]
        assert prepared.notes == {split: {"texts are numbered": 3} for split in prepared.splits}
    folder = prepared_folder("sst", SOURCE.version, SHA256, str(tmp_path))
    assert folder == tmp_path / f"raw-{SHA256[:12]}" / "sst" / SOURCE.version
    assert (folder / "dataset_info.json").is_file()


def test_a_bad_line_is_followed_by_the_official_file_once(raw_dir, tmp_path):
    """The sentence of the source, then where to get the right file; nothing is left."""
    raw = locate(OFFICIAL, str(raw_dir), str(tmp_path))
    with pytest.raises(DataError, match=r"x\.zip, line 2: bad\.") as error:
        read_prepared(make_builder(examples=broken), raw, str(tmp_path))
    assert str(error.value).endswith(f"line 2: bad. {OFFICIAL.sentence()}")
    assert str(error.value).count(SHA256) == 1
    assert not list(tmp_path.rglob("*.array_record*"))


def test_an_incomplete_folder_is_named(raw_dir, tmp_path):
    """It is not written over."""
    raw = locate(OFFICIAL, str(raw_dir), str(tmp_path))
    folder = prepared_folder("sst", SOURCE.version, raw.identity, str(tmp_path))
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=f"{folder} is an incomplete folder of prepared records; delete it"):
        read_prepared(make_builder(), raw, str(tmp_path))


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_the_downloaded_file_is_prepared(tmp_path, sha256):
    """It is taken from the folder of downloads if it is there; else the sentence names that folder."""
    official = OFFICIAL._replace(sha256=sha256)
    raw = locate(official, "", str(tmp_path))
    with pytest.raises(DataError, match=rf"failed: .*put it in {tmp_path}/downloads as x\.zip") as error:
        read_prepared(make_builder(official=official), raw, str(tmp_path))
    assert str(error.value).count(official.sentence()) == 1
    (tmp_path / "downloads" / "x.zip").write_bytes(CONTENT)
    prepared = read_prepared(make_builder(official=official), raw, str(tmp_path))
    assert prepared.splits["dev"][0]["text"] == b"x.zip dev 0"
