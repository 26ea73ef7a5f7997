"""CNN question answering: the parts of a question, the archive, and the prepared records."""

import io
import tarfile

import pytest
import tensorflow_datasets as tfds

from flax_attnat.data.cnn.cnn_dataset_builder import Builder
from flax_attnat.data.cnn.source import DROPPED_NOTE, FOLDERS, OFFICIAL, SOURCE, parse_question
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Notes

QUESTION = (
    "http://web.archive.org/web/20090101id_/http://www.cnn.com/a.html\n\n"
    "( @entity2 ) -- @entity10 of @entity1 said on friday that he 'll run . @entity10 ran before\n\n"
    "@placeholder says he will run in @entity1\n\n"
    "@entity10\n\n"
    "@entity2:CNN\n@entity1:Utopia\n@entity10:Ann Other: a name\n"
)
ARTICLE = "( @entity2 ) -- @entity10 of @entity1 said on friday that he 'll run . @entity10 ran before"


def write(folder, members, top="cnn/questions/"):
    """An archive of the official layout with the given members."""
    with tarfile.open(folder / OFFICIAL.name, "w:gz") as archive:
        for name, text in members.items():
            content = text.encode() if isinstance(text, str) else text
            entry = tarfile.TarInfo(top + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return folder / OFFICIAL.name


def asked(split, letter, answer="@entity10"):
    """A member of a split, and a question that names its letter."""
    question = QUESTION.replace("@placeholder", f"{letter} @placeholder").replace("\n@entity10\n", f"\n{answer}\n", 1)
    return {f"{FOLDERS[split]}/{letter * 40}.question": question}


def test_parts_of_a_question():
    """Article, question and answer are lines of their own; entities stay words."""
    found = parse_question(QUESTION)
    assert found.text == ARTICLE
    assert (found.query, found.label) == ("@placeholder says he will run in @entity1", "@entity10")
    assert SOURCE.words(found.text)[1:4] == ("@entity2", ")", "--")
    assert parse_question(QUESTION.replace("\n", "\r\n")) == parse_question(QUESTION.rstrip()) == found


def test_splits_come_from_their_folders(tmp_path):
    """In the order of the archive; files of other kinds and folders, and hidden ones, are passed over."""
    others = {
        "training/readme.txt": "x",
        "test/._c.question": "x",
        "training/old/d.question": "x",
        "training/e.story": "x",
    }
    members = asked("train", "b") | others | asked("train", "a") | asked("dev", "v") | asked("test", "t")
    path, notes = write(tmp_path, members), Notes()
    found = {split: [q.query.split()[0] for q in SOURCE.examples(path, split, notes)] for split in SOURCE.splits}
    assert found == {"train": ["b", "a"], "dev": ["v"], "test": ["t"]}
    assert not notes


def test_extracted_folder_is_sorted_by_name(tmp_path):
    """Whatever the order in which the archive was packed."""
    path = write(tmp_path, asked("test", "b") | asked("test", "a"))
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    assert [q.query.split()[0] for q in SOURCE.examples(tmp_path / "cnn", "test", Notes())] == ["a", "b"]


def test_answers_outside_the_article_are_counted(tmp_path):
    """@entity1 is no word of an article because @entity10 is; such a question is left out."""
    lost = asked("dev", "b", "@entity3")
    near = {name: text.replace("of @entity1 said", "said") for name, text in asked("dev", "c", "@entity1").items()}
    path, notes = write(tmp_path, asked("dev", "a") | lost | near), Notes()
    assert [q.query.split()[0] for q in SOURCE.examples(path, "dev", notes)] == ["a"]
    assert notes == {DROPPED_NOTE: 2}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: "", "line 1 is empty, where the address should stand"),
        (lambda text: "\n".join(text.split("\n")[:2]), "line 3 is empty, where the article should stand"),
        (lambda text: text.replace(ARTICLE, ""), "line 3 is empty, where the article should stand"),
        (lambda text: text.replace(" said", "\nsaid"), "line 4 is not empty, as it should be before the question"),
        (lambda text: "\n".join(text.split("\n")[:6]), "line 7 is empty, where the answer should stand"),
        (lambda text: "\n".join(text.split("\n")[:8]), "line 9 is empty, where the entities should stand"),
        (lambda text: text.replace("@placeholder", "she"), "line 5, the question, has no @placeholder"),
        (lambda text: text.replace("\n@entity10\n", "\nAnn\n"), "line 7, the answer, is 'Ann' and no entity"),
        (lambda text: text.replace("\n@entity2:CNN", "\nCNN"), "line 9 is 'CNN' instead of an entity and its name"),
        (lambda text: text.encode() + b"\xff", "'utf-8' codec can't decode"),
    ],
)
def test_bad_questions_are_named(tmp_path, spoil, reason):
    """The error has the archive, the member, the line and what should stand there."""
    path = write(tmp_path, asked("train", "a") | {"training/bad.question": spoil(QUESTION)})
    with pytest.raises(DataError, match=rf"cnn\.tgz, cnn/questions/training/bad\.question: {reason}"):
        list(SOURCE.examples(path, "train", Notes()))


def test_a_split_without_questions_is_named(tmp_path):
    """Another archive, for instance that of the stories, is not read as an empty split."""
    path = write(tmp_path, asked("train", "a"))
    with pytest.raises(DataError, match="holds no question with its answer in cnn/questions/validation"):
        list(SOURCE.examples(path, "dev", Notes()))


def test_builder(tmp_path):
    """Prepared records hold article, question and answer of all splits, and the notes."""
    (tmp_path / "raw").mkdir()
    members = asked("train", "a") | asked("dev", "v") | asked("test", "t") | asked("test", "u", "@entity3")
    write(tmp_path / "raw", members)
    builder = Builder(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "raw")
    builder.download_and_prepare(file_format="array_record", download_config=config)
    (record,) = builder.as_data_source()["test"]
    assert record["text"].decode() == ARTICLE
    assert record["query"].decode() == "t @placeholder says he will run in @entity1"
    assert record["label"] == b"@entity10"
    assert builder.info.metadata["notes"] == {"train": {}, "dev": {}, "test": {DROPPED_NOTE: 1}}
