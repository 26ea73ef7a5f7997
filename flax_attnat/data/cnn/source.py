"""CNN question answering (Hermann et al., 2015): its raw file as articles, questions and answers."""

import re
from collections.abc import Iterator
from pathlib import Path

from flax_attnat.data.archive import Official, walk
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Notes, Source, official_splits, spaced_words

OFFICIAL = Official(
    name="cnn.tgz",
    folders=("cnn",),
    url="https://drive.google.com/uc?export=download&id=0BwmD_VLjROrfTTljRDVZMFJnVWM",
    size=None,
    sha256="9405beb90c9267e7769c86fa42720b7e479bcf38c64217c0d3f456ce8cd122ce",
)
FOLDERS = {"train": "training", "dev": "validation", "test": "test"}
ENTITY_PREFIX = "@entity"
DROPPED_NOTE = "questions were left out, because their answer is not in the article"
_ENTITY = re.compile(ENTITY_PREFIX + "[0-9]+")
_LIMIT = 1 << 20  # bytes of one question; articles have about 5,000
_TOTAL = 16 << 30  # bytes of one split
_BLOCKS = ("the address", "the article", "the question", "the answer", "the entities")


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The questions of one split, in the order of the archive; those of an extracted folder by file name.

    Args:
      source: the official archive or its extracted folder.
      split: "train", "dev" or "test".
      notes: counts the questions whose answer is not in the article; they are left out.

    Raises:
      DataError: the source cannot be read, has no question of the split, or a question is not of the official form.
    """
    folder = f"questions/{FOLDERS[split]}"
    member = re.compile(rf"(?:^|/){folder}/[^./][^/]*\.question$")
    some = False
    for name, content in walk(source, lambda name: bool(member.search(name)), limit=_LIMIT, total=_TOTAL):
        try:
            example = parse_question(content.decode("utf-8"))
        except ValueError as error:  # UnicodeDecodeError is one
            raise DataError(f"{source}, {name}: {error}.") from error
        if example.label in spaced_words(example.text):
            some = True
            yield example
        else:
            notes[DROPPED_NOTE] += 1
    if not some:
        raise DataError(f"{source} holds no question with its answer in cnn/{folder}: it is another archive.")


def parse_question(text: str) -> Example:
    r"""The article, the question and the answer of one file.

    The file has five blocks with an empty line between them: address, article, question, answer, and one line for each
    entity. All but the last are single lines.

    Raises:
      ValueError: a block is missing, the question asks for nothing, or the answer is no entity.

    >>> parse_question("http://cnn.com\n\n@entity1 met @entity0\n\n@placeholder was met\n\n@entity0\n\n@entity0:Ann\n")
    Example(text='@entity1 met @entity0', label='@entity0', query='@placeholder was met', rationale=None, group='')
    """
    lines = [line.strip() for line in text.rstrip().split("\n")]
    for number, what in enumerate(_BLOCKS):
        if number and any(lines[2 * number - 1 : 2 * number]):
            raise ValueError(f"line {2 * number} is not empty, as it should be before {what}")
        if not any(lines[2 * number : 2 * number + 1]):
            raise ValueError(f"line {2 * number + 1} is empty, where {what} should stand")
    article, question, answer, entity = lines[2:9:2]
    if "@placeholder" not in question:
        raise ValueError("line 5, the question, has no @placeholder")
    if not _ENTITY.fullmatch(answer):
        raise ValueError(f"line 7, the answer, is {answer[:60]!r} and no entity such as {ENTITY_PREFIX}0")
    if not _ENTITY.fullmatch(entity.partition(":")[0]):
        raise ValueError(f"line 9 is {entity[:60]!r} instead of an entity and its name, such as {ENTITY_PREFIX}0:Ann")
    return Example(article, answer, question)


SOURCE = Source(
    name="cnn",
    official=OFFICIAL,
    homepage="https://cs.nyu.edu/~kcho/DMQA/",
    version="1.0.0",
    splits={"train": 380_298, "dev": 3_924, "test": 3_198},
    labels=None,
    pair=True,
    rationales=False,
    examples=examples,
    words=spaced_words,
    arrange=official_splits,
    expected={"train": 380_298, "dev": 3_924, "test": 3_198},
    entity_prefix=ENTITY_PREFIX,
)
