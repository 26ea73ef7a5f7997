"""ERASER movie reviews: texts, rationales, and what a row that does not fit its review is told."""

import io
import json
import tarfile

import pytest
import tensorflow_datasets as tfds

from flax_attnat.data.errors import DataError
from flax_attnat.data.movies.movies_dataset_builder import Builder
from flax_attnat.data.movies.source import MEMBERS, SOURCE
from flax_attnat.data.source import Example, Notes

DOCS = {"a.txt": "a dull film .\nso very dull\n", "b.txt": "lovely caf\u00e9", "c.txt": "no marks here"}
NO_EVIDENCE = "reviews have no marked evidence"


def evidence(start, end, docid="a.txt"):
    """One marked passage."""
    return {"docid": docid, "start_token": start, "end_token": end, "text": "", "start_sentence": -1}


def row(name="a.txt", verdict="NEG", evidences=()):
    """One row as JSON."""
    return json.dumps({"annotation_id": name, "classification": verdict, "evidences": list(evidences)})


ROWS = (
    row("b.txt", "POS", [[evidence(0, 1, "b.txt")]]),
    row("a.txt", "NEG", [[evidence(5, 7), evidence(1, 2)], [evidence(1, 3)]]),
    row("c.txt", "POS"),
)
EXAMPLES = [
    Example(DOCS["b.txt"], "positive", rationale=(0,)),
    Example(DOCS["a.txt"], "negative", rationale=(1, 2, 5, 6)),
    Example(DOCS["c.txt"], "positive", rationale=None),
]


@pytest.fixture
def raw(tmp_path):
    """Writes an archive or an extracted folder with the given training rows; gives its path."""

    def write(rows=ROWS, kind="archive", docs=DOCS, prefix=""):
        files = {MEMBERS["train"]: "\n".join(rows), MEMBERS["dev"]: row(), MEMBERS["test"]: row()}
        files |= {f"movies/docs/{name}": text for name, text in docs.items()}
        data = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        if kind == "folder":
            for name, content in data.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            return folder / "movies"
        with tarfile.open(folder / SOURCE.official.name, "w:gz") as archive:
            for name, content in data.items():
                entry = tarfile.TarInfo(prefix + name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return folder / SOURCE.official.name

    return write


@pytest.mark.parametrize(("kind", "prefix"), [("archive", ""), ("archive", "./"), ("folder", "")])
def test_reviews(raw, kind, prefix):
    """In the order of the rows; all passages of a review together, sorted, once each; none marked is no rationale."""
    notes = Notes()
    path = raw((*ROWS, ""), kind, prefix=prefix)
    assert list(SOURCE.examples(path, "train", notes)) == EXAMPLES
    assert notes == {NO_EVIDENCE: 1}
    assert [SOURCE.words(DOCS["a.txt"])[place] for place in EXAMPLES[1].rationale] == ["dull", "film", "very", "dull"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (row(verdict="NEUTRAL"), "classification is 'NEUTRAL' instead of NEG or POS"),
        (row(verdict=["NEG"]), r"classification is \['NEG'\] instead of NEG or POS"),
        (row("x.txt"), r"there is no review movies/docs/x\.txt"),
        (row("../docs/a.txt"), r"there is no review movies/docs/\.\./docs/a\.txt"),
        (row(3), "annotation_id is 3 instead of the name of a review"),
        (ROWS[0], r"annotation_id 'b\.txt' stands in an earlier row too"),
        (row(evidences=[[evidence(5, 8)]]), r"evidence from word 5 to 8 is not inside a\.txt, which has 7 words"),
        (row(evidences=[[evidence(-1, 2)]]), "evidence from word -1 to 2 is not inside"),
        (row(evidences=[[evidence(3, 2)]]), "evidence from word 3 to 2 is not inside"),
        (row(evidences=[[evidence("1", 2)]]), "evidence from word '1' to 2 is not inside"),
        (row(evidences=[[evidence(0, 1, "b.txt")]]), r"the evidence .*'b\.txt'.* is not of the review a\.txt"),
        (row(evidences=[evidence(0, 1)]), "evidences is no list of lists"),
        (row(evidences=[["dull"]]), r"the evidence 'dull' is not of the review a\.txt"),
        ('{"annotation_id": "a.txt", "classification": "NEG"}', "evidences is no list of lists"),
        ("[]", "the row is no JSON object"),
        ('{"annotation_id": ', r"Expecting value: line 1 column 19 \(char 18\)"),
        ("[" * 200_000, "recursion"),
    ],
)
@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_wrong_rows(raw, line, sentence, kind):
    """The sentence has the file, the line and what is wrong there; the rows before it are read."""
    path = raw((ROWS[0], line), kind)
    found = SOURCE.examples(path, "train", Notes())
    assert next(found) == EXAMPLES[0]
    with pytest.raises(DataError, match=rf"movies.*, movies/train\.jsonl, line 2: .*{sentence}"):
        next(found)


def test_reviews_and_rows_that_are_not_there(raw):
    """An archive without the rows of a split, an empty file of rows, a review in another encoding."""
    path = raw(())
    with pytest.raises(DataError, match=r"movies\.tar\.gz, movies/train\.jsonl holds no review"):
        list(SOURCE.examples(path, "train", Notes()))
    path = raw(docs={**DOCS, "b.txt": b"lovely caf\xe9"})
    with pytest.raises(DataError, match=r"train\.jsonl, line 1: movies/docs/b\.txt is not UTF-8 \(.* at byte 10\)"):
        list(SOURCE.examples(path, "train", Notes()))
    folder = raw(kind="folder")
    (folder / "val.jsonl").unlink()
    with pytest.raises(DataError, match=r"movies has no member movies/val\.jsonl: it is another archive"):
        list(SOURCE.examples(folder, "dev", Notes()))


def test_builder(raw, tmp_path):
    """Records carry their rationales and say where there is none."""
    builder = Builder(data_dir=str(tmp_path / "data"))
    config = tfds.download.DownloadConfig(manual_dir=str(raw().parent))
    builder.download_and_prepare(file_format="array_record", download_config=config)
    records = builder.as_data_source()["train"]
    assert [(list(found["rationale"]), bool(found["has_rationale"])) for found in records] == [
        ([0], True),
        ([1, 2, 5, 6], True),
        ([], False),
    ]
    assert [found["text"].decode() for found in records] == [example.text for example in EXAMPLES]
    assert builder.info.metadata["notes"]["train"] == {NO_EVIDENCE: 1}


def test_real_reviews(shared):
    """Sizes of DeYoung et al. (2020), halves of both classes; one review has no mark."""
    notes = Notes()
    found = {split: list(SOURCE.examples(shared / SOURCE.official.name, split, notes)) for split in MEMBERS}
    assert {split: len(examples) for split, examples in found.items()} == {"train": 1_600, "dev": 200, "test": 200}
    for examples in found.values():
        assert sum(example.label == "positive" for example in examples) == len(examples) / 2
    assert notes == {NO_EVIDENCE: 1}


def test_real_evidence_is_counted_in_words(shared):
    """The words at every place are those of the passages' own texts, read independently from the rows."""
    path = shared / SOURCE.official.name
    with tarfile.open(path) as archive:
        rows = [json.loads(line) for line in archive.extractfile(MEMBERS["test"]).read().splitlines()]
    for example, found in zip(SOURCE.examples(path, "test", Notes()), rows, strict=True):
        words = SOURCE.words(example.text)
        passages = [passage for group in found["evidences"] for passage in group]
        texts = [words[passage["start_token"] : passage["end_token"]] for passage in passages]
        assert [" ".join(text) for text in texts] == [passage["text"] for passage in passages]
        assert {words[place] for place in example.rationale} == {word for text in texts for word in text}
