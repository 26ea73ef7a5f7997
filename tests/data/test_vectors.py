"""Word vectors: where they are, both text formats, plain and packed, and every way in which a file can be wrong."""

import gzip
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flax_attnat.data import vectors as module
from flax_attnat.data.errors import DataError
from flax_attnat.data.vectors import NAMED, find_vectors, read_vectors

WORDS = ("<pad>", "<unk>", "film", "good", "absent")
ROWS = "good 1 -2.5\nbad 0.5 0.5\nfilm 3e-1 4\n"
TABLE = [[0, 0], [0, 0], [0.3, 4], [1, -2.5], [0, 0]]


def write(path: Path, content: str | bytes) -> Path:
    """A file of the given content, packed if its name ends in .gz or .zip."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/", b"")
            archive.writestr("folder/x.txt", data)
    return path


@pytest.mark.parametrize("name", ["x.vec", "x.txt", "x.gz", "x.zip"])
@pytest.mark.parametrize("content", [ROWS, "3 2\n" + ROWS, ROWS.replace("\n", " \r\n"), ROWS.rstrip("\n")])
def test_formats(tmp_path, name, content):
    """With and without a header, plain and packed, with a space at the line's end or no newline at the file's."""
    vectors = read_vectors(write(tmp_path / name, content), WORDS, 2)
    np.testing.assert_array_equal(vectors.table, np.array(TABLE, np.float32))
    assert vectors.found.tolist() == [False, False, True, True, False]


def test_first_occurrence_wins_and_reserved_words_are_no_words(tmp_path):
    """A word's second vector is ignored, and so are vectors of the words that stand for padding and unknown."""
    path = write(tmp_path / "x.vec", "film 1 1\n<unk> 5 5\n<pad> 6 6\nfilm 2 2\n")
    vectors = read_vectors(path, WORDS, 2)
    assert vectors.table.tolist() == [[0, 0], [0, 0], [1, 1], [0, 0], [0, 0]]
    assert vectors.found.tolist() == [False, False, True, False, False]


def test_words_with_spaces(tmp_path):
    """GloVe's common crawl vectors hold words such as ". . ."; they shift no number."""
    path = write(tmp_path / "x.txt", "film 1 2\n. . . 3 4\nat name@domain.com 5 6\n")
    vectors = read_vectors(path, ("<pad>", "<unk>", ". . .", "film", "at name@domain.com"), 2)
    assert vectors.table[2:].tolist() == [[3, 4], [1, 2], [5, 6]]


def test_words_that_only_some_readers_split(tmp_path):
    """No-break spaces and next-line characters stay inside a word, and a word may look like a number."""
    words = ("<pad>", "<unk>", "8\u00a01/2", "a\u0085b", "1990", "\u2028")
    path = write(tmp_path / "x.vec", "4 2\n8\u00a01/2 1 2\na\u0085b 3 4\n1990 5 6\n\u2028 7 8\n")
    assert read_vectors(path, words, 2).table[2:].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "good 1 2\nbad 1\n",
            r"line 2 has 1 fields after the word 'bad' where 2 numbers are expected: the row is ragged",
        ),
        ("good 1 2\nbad 1 2 3\n", r"line 2 has 3 fields after the word 'bad'"),
        ("good 1 2\n\nfilm 1 2\n", r"line 2 has 0 fields"),
        ("2 2\ngood 1 2\nbad 1\n", r"line 3 has 1 fields"),
        (
            "good 1 2 3\nfilm 1 2 3\n",
            r"line 1: the file's vectors have 3 numbers, but config\.model\.embedding_size is 2",
        ),
        (
            "2 3\ngood 1 2 3\nfilm 1 2 3\n",
            r"line 1: the file's vectors have 3 numbers, but config\.model\.embedding_size is 2",
        ),
        ("2 2\ngood 1 2 3\nfilm 1 2 3\n", r"line 2: the file's vectors have 3 numbers"),
        ("good 1\n", r"line 1: the file's vectors have 1 numbers"),
        ("good 1 2\nfilm 1 two\n", r"line 2: the vector of 'film' is not all numbers \(.*'two'\)"),
        ("good 1 2\nfilm 1 nan\n", r"line 2: the vector of 'film' has a number that is not finite"),
        ("good 1 2\nfilm -inf 1\n", r"line 2: the vector of 'film' has a number that is not finite"),
        ("good 1 2\nfilm 1e39 1\n", r"line 2: the vector of 'film' has a number that is not finite"),
        (b"good 1 2\nfi\xfflm 1 2\n", r"line 2 is not UTF-8 \(invalid start byte at byte 2\)"),
        (b"\x80\x02}q\x00", r"line 1 is not UTF-8"),
        ("5 2\n" + ROWS, r"line 1 promises 5 vectors, but the file ends after 3 \(line 4\); it is truncated"),
        ("", r"holds no vector"),
        ("0 2\n", r"holds no vector"),
        ("word " * 300_000, r"line 1 has more than 1,048,576 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["x.vec", "x.vec.gz", "x.zip"])
def test_wrong_files(tmp_path, content, sentence, name):
    """The sentence has the path, the line and what is wrong there."""
    with pytest.raises(DataError, match=rf"{name}.*{sentence}"):
        read_vectors(write(tmp_path / name, content), WORDS, 2)


def test_truncated_and_damaged_gzip(tmp_path):
    """A packed file that is cut, or whose bytes are damaged, is not taken for a short one."""
    lines = "".join(f"w{i} {i * 7919 % 1000} {i}\n" for i in range(5000))
    path = write(tmp_path / "x.vec.gz", lines)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.vec\.gz cannot be read after line \d+ .*: it is truncated or damaged"):
        read_vectors(path, WORDS, 2)
    path.write_bytes(whole[:-8] + b"\x00" * 8)  # the checksum
    with pytest.raises(DataError, match="CRC check failed"):
        read_vectors(path, WORDS, 2)
    path.write_bytes(whole[:1000] + bytes(200) + whole[1200:])
    with pytest.raises(DataError, match="truncated or damaged"):
        read_vectors(path, WORDS, 2)


def test_damaged_zip(tmp_path):
    """A zip archive that is cut or damaged, encrypted, empty, or holds two files."""
    path = write(tmp_path / "x.zip", "".join(f"w{i} {i * 7919 % 1000} {i}\n" for i in range(5000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.zip cannot be read after line 0 .*: it is truncated or damaged"):
        read_vectors(path, WORDS, 2)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(20) + whole[middle + 20 :])
    with pytest.raises(DataError, match=r"x\.zip cannot be read after line \d+"):
        read_vectors(path, WORDS, 2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "film 1 2\n")
        archive.writestr("b", "film 1 2\n")
    with pytest.raises(DataError, match=r"x\.zip holds more than one file"):
        read_vectors(path, WORDS, 2)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", "film 1 2\n")
    with pytest.raises(DataError, match="packed by method 14"):
        read_vectors(path, WORDS, 2)


def test_packed_vectors_are_not_unpacked_at_once(tmp_path):
    """40 MB of lines take a fraction of that."""
    path = write(tmp_path / "x.zip", "1000000 2\n" + "word 0.12345678901 0.1234567890123456789\n" * 1_000_000)
    tracemalloc.start()
    assert next(module._lines(path)) == (1, "1000000 2")
    lines = module._lines(path)
    assert [next(lines)[0] for _ in range(100_000)][-1] == 100_000
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_find_vectors(tmp_path):
    """A path is itself; a name is its file in `raw_dir`, packed or not, else among the downloads."""
    raw, data = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    (data / "downloads").mkdir(parents=True)
    own = write(tmp_path / "own.vec", ROWS)
    assert find_vectors(str(own), "", "") == own
    downloaded = write(data / "downloads" / "wiki.simple.vec", ROWS)
    assert find_vectors("fasttext-simple", str(raw), str(data)) == downloaded
    assert find_vectors("fasttext-simple", "", str(data)) == downloaded
    found = write(raw / "wiki.simple.vec", ROWS)
    assert find_vectors("fasttext-simple", str(raw), str(data)) == found
    unpacked = write(raw / "glove.840B.300d.txt", ROWS)
    assert find_vectors("glove-840b", str(raw), str(data)) == unpacked


def test_neither_name_nor_file(tmp_path):
    """The sentence lists the names."""
    with pytest.raises(DataError, match=r"glove is not a file; .*one of fasttext-simple, glove-840b"):
        find_vectors(str(tmp_path / "glove"), "", str(tmp_path))


def test_vectors_that_cannot_be_downloaded(tmp_path, monkeypatch):
    """The sentence says where to put them by hand."""
    nowhere = NAMED["glove-840b"]._replace(url="http://127.0.0.1:1/x", mirrors=())
    monkeypatch.setitem(NAMED, "glove-840b", nowhere)
    with pytest.raises(DataError, match=rf"failed: .*2,176,768,927 bytes.*put it in {tmp_path}/downloads as glove"):
        find_vectors("glove-840b", "", str(tmp_path))


def test_missing_file(tmp_path):
    """A path to nothing names the configuration field."""
    with pytest.raises(DataError, match=r"config\.data\.vectors: .*x\.vec is not a file"):
        read_vectors(tmp_path / "x.vec", WORDS, 2)


def test_real_vectors(shared):
    """The first line of the file, read independently of the reader; every word of a sample is found."""
    path = shared / "imdb.300d.vec.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        assert file.readline() == "34211 300\n"
        word, *numbers = file.readline().split()
    vectors = read_vectors(path, ("<pad>", "<unk>", "film", word, "zzzunheard"), 300)
    np.testing.assert_array_equal(vectors.table[3], np.array(numbers, np.float32))
    assert vectors.found.tolist() == [False, False, True, True, False]
    assert not vectors.table[[0, 1, 4]].any()
    with pytest.raises(DataError, match=r"vectors have 300 numbers, but config\.model\.embedding_size is 50"):
        read_vectors(path, (word,), 50)
