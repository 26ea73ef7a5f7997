"""Stanford Sentiment Treebank: trees, the builder, and what it leaves on disk."""

import hashlib
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from flax_attnat.data.errors import DataError
from flax_attnat.data.prepared import locate, read_prepared
from flax_attnat.data.source import Notes
from flax_attnat.data.sst.source import LABEL_NAMES, MEMBERS, OFFICIAL, SOURCE, examples, parse_tree
from flax_attnat.data.sst.sst_dataset_builder import Builder

RECORDS = {
    "train": [(b"Good film", 1), (b"Bad film .", 0), (b"Bravo", 1)],
    "dev": [(b"Good new novel", 0)],
    "test": [(b"Unheard words", 1), (b"-LRB- -RRB-", 0)],
}


def prepared(raw_dir, data_dir, official=OFFICIAL):
    """The records of every split as pairs, with the given official file in place of the real one."""
    body = {"SOURCE": SOURCE._replace(official=official), "__module__": Builder.__module__}
    builder_class = type("Builder", (Builder,), body)
    raw = locate(official, str(raw_dir), str(data_dir))
    splits = read_prepared(builder_class, raw, str(data_dir)).splits
    return {
        split: [(record["text"], LABEL_NAMES.index(record["label"].decode())) for record in found]
        for split, found in splits.items()
    }


def files(folder: Path) -> dict[str, int]:
    """Every file under a folder and when it was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("line", "tree"),
    [
        ("(3 (2 Good) (2 .))", (3, ["Good", "."])),
        ("(0 No)", (0, ["No"])),
        ("(4 (2 (2 a) (2 b)) (1 (2 c) (2 d) (2 e)))", (4, list("abcde"))),
        ("(1 (2 8\u00a01\\/2) (2 -LRB-))", (1, ["8\u00a01\\/2", "-LRB-"])),  # a no-break space is part of a word
        ("(2 3)", (2, ["3"])),
    ],
)
def test_trees(line, tree):
    """Root grade and leaves of well-formed trees."""
    assert parse_tree(line) == tree


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "there is no tree"),
        ("Good film", "'Good' stands before the tree"),
        ("(3 (2 Good) (2 .)", "1 nodes are not closed"),
        ("(3 (2 Good) (2 .)))", r"'\)' follows the end of the tree"),
        ("(3 (2 Good)) (2 .)", r"'\(' follows the end of the tree"),
        ("(3 a) b", "'b' follows the end"),
        ("(5 (2 Good) (2 .))", "a node begins with '5' instead of a grade from 0 to 4"),
        ("(3 (x Good) (2 .))", "a node begins with 'x'"),
        ("(3 Good film)", "the word 'film' is not alone in its node"),
        ("(3 (2 Good) film)", "the word 'film' is not alone in its node"),
        ("(3 Good (2 film))", "a node stands beside a word"),
        ("(3 (2 ) (2 film))", "a node is empty"),
        ("(3", "not closed"),
        ("(", "a node begins with 'nothing'"),
    ],
)
def test_what_is_no_tree(line, reason):
    """The reason names what stands where it should not."""
    with pytest.raises(ValueError, match=reason):
        parse_tree(line)


def test_sentences_have_their_side(sst_zip):
    """Grades 0 and 1 are negative, 3 and 4 positive, 2 is left out."""
    found = [(example.text, example.label) for example in examples(sst_zip() / OFFICIAL.name, "train", Notes())]
    assert found == [("Good film", "positive"), ("Bad film .", "negative"), ("Bravo", "positive")]


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_endings(sst_zip, trees, ending):
    """Windows line ends and blank lines at the end of the file change nothing."""
    source = sst_zip({name: text.replace("\n", ending) + ending * 2 for name, text in trees.items()}) / OFFICIAL.name
    for split, records in RECORDS.items():
        found = [(e.text.encode(), LABEL_NAMES.index(e.label)) for e in examples(source, split, Notes())]
        assert found == records


def test_prepare_and_read_back(sst_zip, tmp_path):
    """Records come back in the order of the source; a second read writes nothing."""
    raw = sst_zip()
    assert prepared(raw, tmp_path / "data") == RECORDS
    before = files(tmp_path)
    assert prepared(raw, tmp_path / "data") == RECORDS
    assert files(tmp_path) == before


@pytest.mark.parametrize("folder", ["trees", "trainDevTestTrees_PTB/trees"])
def test_extracted_folder(tmp_path, trees, folder):
    """The folder of the archive's files serves as well, whether or not it lies in one of the archive's name."""
    target = tmp_path / "raw" / folder
    target.mkdir(parents=True)
    for name, text in trees.items():
        (target / Path(name).name).write_text(text)
    assert prepared(tmp_path / "raw", tmp_path / "data") == RECORDS
    (target / "dev.txt").unlink()
    with pytest.raises(DataError, match=rf"has no member trees/dev\.txt.*{OFFICIAL.sha256}"):
        prepared(tmp_path / "raw", tmp_path / "data")


def test_another_raw_file_is_prepared_anew(sst_zip, trees, tmp_path):
    """Two raw files share a data folder without being taken for each other."""
    first = sst_zip()
    second = sst_zip({**trees, "trees/dev.txt": "(4 (2 Other) (2 text))\n"}, folder="other")
    assert prepared(first, tmp_path / "data") == RECORDS
    assert prepared(second, tmp_path / "data") == {**RECORDS, "dev": [(b"Other text", 1)]}
    assert prepared(first, tmp_path / "data") == RECORDS


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (
            "(3 (2 Good) film)",
            r"trees/dev\.txt, line 2: the word 'film' is not alone .* begins b'\(3 \(2 Good\) film\)'",
        ),
        ("", r"trees/dev\.txt, line 2: there is no tree"),
        (b"(3 caf\xe9)", r"trees/dev\.txt, line 2: 'utf-8' codec can't decode"),
    ],
)
def test_a_bad_line_is_named_and_leaves_nothing_half_made(sst_zip, trees, tmp_path, line, place):
    """The error has file and line; train is written by then, but no later run takes it for a prepared data set."""
    line = line.encode() if isinstance(line, str) else line
    bad = {**trees, "trees/dev.txt": b"(3 a)\n" + line + b"\n(1 b)\n"}
    with pytest.raises(DataError, match=place):
        prepared(sst_zip(bad), tmp_path / "data")
    assert not files(tmp_path / "data")
    with pytest.raises(DataError, match=place):
        prepared(tmp_path / "raw", tmp_path / "data")
    assert prepared(sst_zip(), tmp_path / "data") == RECORDS


def test_a_split_without_a_side_is_refused(sst_zip, trees, tmp_path):
    """A file that holds neutral sentences only is no split."""
    with pytest.raises(DataError, match=r"trees/test\.txt holds no sentence with a side"):
        prepared(sst_zip({**trees, "trees/test.txt": "(2 so)\n"}), tmp_path / "data")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is truncated or no archive"),
        (lambda path: path.write_text("<html>404</html>"), "is a web page"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "has no member trees/train.txt"),
        (lambda path: shutil.rmtree(path.parent), "raw is not a folder"),
    ],
)
def test_bad_raw_files(sst_zip, tmp_path, spoil, sentence):
    """The sentence has the path, what is wrong, and address, size and SHA-256 of the official file."""
    raw = sst_zip()
    spoil(raw / OFFICIAL.name)
    with pytest.raises(DataError, match=sentence) as error:
        prepared(raw, tmp_path / "data")
    for part in (str(raw), OFFICIAL.url, "789,539 bytes", OFFICIAL.sha256):
        assert part in str(error.value)


def test_damaged_records_are_noticed(sst_zip, tmp_path):
    """A shard that is cut or absent, and a folder without its description, are not read as a data set."""
    raw = sst_zip()
    prepared(raw, tmp_path / "data")
    (shard,) = (tmp_path / "data").rglob("sst-train*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{shard.parent}.*delete that folder and run again"):
        prepared(raw, tmp_path / "data")
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.parent}.*delete that folder and run again"):
        prepared(raw, tmp_path / "data")
    (shard.parent / "dataset_info.json").unlink()
    with pytest.raises(DataError, match=rf"{shard.parent} is an incomplete folder"):
        prepared(raw, tmp_path / "data")
    shutil.rmtree(shard.parent)
    assert prepared(raw, tmp_path / "data") == RECORDS


def test_without_raw_dir(sst_zip, tmp_path):
    """The official file, once prepared or downloaded, is not fetched again; else the sentence says how to get it."""
    archive = sst_zip() / OFFICIAL.name
    content = archive.read_bytes()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        official = OFFICIAL._replace(
            url=f"http://127.0.0.1:{unused.getsockname()[1]}/{OFFICIAL.name}",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        with pytest.raises(DataError, match=f"failed: .*put it in {tmp_path}/a/downloads as {OFFICIAL.name}"):
            prepared("", tmp_path / "a", official)
        shutil.copy(archive, tmp_path / "a" / "downloads")
        assert prepared("", tmp_path / "a", official) == RECORDS
        assert prepared(archive.parent, tmp_path / "b", official) == RECORDS
        assert prepared("", tmp_path / "b", official) == RECORDS


def test_prepared_records_need_a_local_folder(sst_zip):
    """A bucket is refused before anything is read."""
    with pytest.raises(DataError, match=r"config\.data\.data_dir is gs://nowhere, .*local folders only"):
        prepared(sst_zip(), "gs://nowhere")


def test_builder_stays_inside_its_folder(sst_zip, run_python, tmp_path):
    """In a fresh process: no network, no TensorFlow, no output, nothing in the home or the temporary folder."""
    code = f"""
import sys
from flax_attnat.data.prepared import locate, read_prepared
from flax_attnat.data.sst.sst_dataset_builder import Builder
import flax_attnat.data.archive, logging
logging.getLogger("flax_attnat").setLevel(logging.ERROR)
for _ in range(2):
    places = {str(sst_zip())!r}, {str(tmp_path / "data")!r}
    read_prepared(Builder, locate(Builder.SOURCE.official, *places), places[1])
assert "tensorflow" not in sys.modules and "spacy" not in sys.modules
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert not files(tmp_path / "home")
    assert not list((tmp_path / "tmp").iterdir())
    assert len(list((tmp_path / "data").rglob("*.array_record*"))) == 3


def test_real_trees(shared):
    """Sizes of the binary treebank (Socher et al., 2013): 6,920, 872 and 1,821 sentences."""
    source = shared / OFFICIAL.name
    assert [len(list(examples(source, split, Notes()))) for split in MEMBERS] == [6_920, 872, 1_821]
