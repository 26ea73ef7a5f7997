"""bAbI stories: sentences with questions among them, each with its answer and the sentences that it follows from."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from flax_attnat.data.archive import Official, walk
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Keep, Notes, Rows, Source, Table, hold_out, spaced_words

OFFICIAL = Official(
    name="tasks_1-20_v1-2.tar.gz",
    folders=("tasks_1-20_v1-2",),
    url="http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz",
    size=15_719_851,
    sha256="0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898",
)
TITLES = {1: "single-supporting-fact", 2: "two-supporting-facts", 3: "three-supporting-facts"}
LABEL_NAMES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
FALLBACK_NOTE = "questions were read from en/, because en-10k/ lacks this task"
_SEPARATOR = " . "
_LIMIT = 64 << 20  # bytes of one file; the largest official one of these tasks has 5.3 million
_LINE = re.compile(r"(?P<number>[1-9][0-9]{0,8}) (?P<text>.*\S.*)", re.ASCII)
_DEV_SHARE, _DEV_SEED = 0.15, 16377


class Question(NamedTuple):
    """A question at its place in a story.

    Attributes:
      sentences: the story so far, without final full stops.
      text: the question, without its question mark.
      answer: a location.
      support: places in `sentences` of those that the answer follows from.
    """

    sentences: tuple[str, ...]
    text: str
    answer: str
    support: tuple[int, ...]


def story_source(task: int) -> Source:
    """The dataset of one of the tasks 1 to 3, with 10,000 questions to train on.

    >>> story_source(2).name
    'babi2'
    """

    def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
        """The questions of one split, as `read_questions` reads them."""
        yield from map(example, read_questions(source, task, split, notes))

    return Source(
        name=f"babi{task}",
        official=OFFICIAL,
        homepage="https://research.fb.com/downloads/babi/",
        version="1.0.0",
        splits={"train": 10_000, "test": 1_000},
        labels=LABEL_NAMES,
        pair=True,
        rationales=True,
        examples=examples,
        words=spaced_words,
        arrange=arrange,
        expected={"train": 8_500, "dev": 1_500, "test": 1_000},
    )


def arrange(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """15% of the training questions are held out as dev, whatever their answers (Jain & Wallace, 2019)."""
    labels = tables["train"].labels
    stay, held = hold_out(np.arange(len(labels)), labels, _DEV_SHARE, _DEV_SEED, stratify=False)
    return {
        "train": [("train", stay)],
        "dev": [("train", held)],
        "test": [("test", np.arange(len(tables["test"].labels)))],
    }


def example(question: Question) -> Example:
    """The question as a labelled text; all words of the supporting sentences are its rationale.

    >>> question = Question(("Mary left", "John went to the office"), "Where is John", "office", (1,))
    >>> example(question)
    Example(text='Mary left . John went to the office', label='office', query='Where is John',
        rationale=(3, 4, 5, 6, 7), group='')
    """
    places: list[int] = []
    start = 0
    for number, sentence in enumerate(question.sentences):
        end = start + len(spaced_words(sentence))
        if number in question.support:
            places += range(start, end)
        start = end + 1
    return Example(_SEPARATOR.join(question.sentences), question.answer, question.text, tuple(places))


def read_questions(source: Path, task: int, split: str, notes: Notes) -> Iterator[Question]:
    """The questions of one split in the order of the file: of en-10k/, or of en/ where en-10k/ cannot train the task.

    Args:
      source: the official archive or its extracted folder.
      task: 1, 2 or 3.
      split: "train" or "test".
      notes: counts the questions that come from en/.

    Raises:
      DataError: the source cannot be read, lacks the task, or a line of it is not what it should be.
    """
    names = {part: f"qa{task}_{TITLES[task]}_{part}.txt" for part in ("train", "test")}
    wanted = {(folder, name) for folder in ("en-10k", "en") for name in names.values()}
    files = {
        PurePosixPath(member).parts[-2:]: content
        for member, content in walk(
            source, lambda member: PurePosixPath(member).parts[-2:] in wanted, limit=_LIMIT, total=4 * _LIMIT
        )
    }
    folder = "en-10k" if ("en-10k", names["train"]) in files else "en"
    member = f"{OFFICIAL.folders[0]}/{folder}/{names[split]}"
    if (folder, names[split]) not in files:
        raise DataError(f"{source} has no member {member}: it is another archive, or an incomplete one.")
    for question in parse_stories(files[folder, names[split]], f"{source}, {member}"):
        if folder == "en":
            notes[FALLBACK_NOTE] += 1
        yield question


def parse_stories(content: bytes, place: str) -> Iterator[Question]:
    """The questions of a file in the bAbI format.

    A line is a number and a sentence, or a number, a question, a tab, its answer, a tab and the numbers of the
    sentences that it follows from. Numbers count up within a story and start at 1 in the next.

    Args:
      content: the file.
      place: what errors call it.

    Raises:
      DataError: a line is not of this form, or there is no question.
    """
    places: dict[int, int] = {}  # number of the line of a sentence -> its place in the story
    sentences: list[str] = []
    before, asked = 0, False
    for row, line in enumerate(content.rstrip().split(b"\n") if content.strip() else (), 1):
        try:
            number, text = _number(line, before)
            if number == 1:
                places, sentences = {}, []
            before = number
            if "\t" in text or "?" in text:
                asked = True
                yield _question(text, places, tuple(sentences))
            else:
                places[number] = len(sentences)
                sentences.append(_sentence(text))
        except ValueError as error:  # UnicodeDecodeError is one
            raise DataError(f"{place}, line {row}: {error}; the line begins {line[:60]!r}.") from error
    if not asked:
        raise DataError(f"{place} holds no question.")


def _number(line: bytes, before: int) -> tuple[int, str]:
    """The number of a line and its text; ValueError where the number does not follow `before`."""
    found = _LINE.fullmatch(line.decode("utf-8").removesuffix("\r"))
    if found is None:
        raise ValueError("it is not a number, a space and a text")
    number = int(found["number"])
    if number not in (1, before + 1):
        raise ValueError(f"its number is {number} instead of {before + 1} or, in a new story, 1")
    return number, found["text"]


def _sentence(text: str) -> str:
    """A sentence without its full stop."""
    sentence = text.strip().removesuffix(".").rstrip()
    if not sentence:
        raise ValueError("the sentence has no word")
    return sentence


def _question(text: str, places: Mapping[int, int], sentences: tuple[str, ...]) -> Question:
    """A question line, after the sentences that stand at `places`."""
    fields = [field.strip() for field in text.split("\t")]
    if len(fields) != 3:
        raise ValueError(f"a question has 3 parts with tabs between them, not {len(fields)}")
    query, answer, support = fields
    if not query.endswith("?") or not query.rstrip("? "):
        raise ValueError("the question is empty or does not end in a question mark")
    if answer not in LABEL_NAMES:
        raise ValueError(f"the answer {answer!r} is none of {', '.join(LABEL_NAMES)}")
    if not support:
        raise ValueError("the question names no supporting sentence")
    known = {str(number): place for number, place in places.items()}
    for name in support.split():
        if name not in known:
            raise ValueError(f"the supporting line {name!r} is no earlier sentence of the story")
    return Question(sentences, query.removesuffix("?").rstrip(), answer, tuple(known[name] for name in support.split()))
