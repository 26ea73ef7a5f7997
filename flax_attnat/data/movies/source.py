"""The ERASER movie reviews: their raw file as labelled texts with human rationales."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flax_attnat.data.archive import Official, walk
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Notes, Source, official_splits, spaced_words

OFFICIAL = Official(
    name="movies.tar.gz",
    folders=("movies",),
    url="http://www.eraserbenchmark.com/zipped/movies.tar.gz",
    size=3_899_487,
    sha256="66e18d4e6c9df9e9f5544572b0bfe92a39673f74ecbfc3859b46cedb2f5b2dee",
)
MEMBERS = {"train": "movies/train.jsonl", "dev": "movies/val.jsonl", "test": "movies/test.jsonl"}
LABELS = {"NEG": "negative", "POS": "positive"}
_DOCS = "movies/docs/"
_LIMIT = 16 << 20  # bytes of one member; the largest has about 2.5 million
_TOTAL = 64 << 20  # bytes of all reviews and one split's rows; about 10 million
# The benchmark's paper counts 200 test reviews; the official archive holds 199.
_SIZES = {"train": 1_600, "dev": 200, "test": 199}


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The reviews of one split in the order of its rows, each with the places of all its evidence.

    Args:
      source: the official archive or its extracted folder.
      split: "train", "dev" or "test".
      notes: gets the reviews without any evidence; their rationale is None.

    Raises:
      DataError: the source cannot be read, or a row does not fit its review.
    """
    member = MEMBERS[split]
    files = dict(walk(source, _wanted(member), limit=_LIMIT, total=_TOTAL))
    if member not in files:
        raise DataError(f"{source} has no member {member}: it is another archive, or an incomplete one.")
    seen: set[str] = set()
    for number, line in enumerate(files[member].split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            example = _example(line, files, seen)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise DataError(f"{source}, {member}, line {number}: {error}.") from error
        if example.rationale is None:
            notes["reviews have no marked evidence"] += 1
        yield example
    if not seen:
        raise DataError(f"{source}, {member} holds no review.")


def _wanted(member: str) -> Callable[[str], bool]:
    """Picks the rows of a split and all reviews."""
    return lambda name: name == member or name.startswith(_DOCS)


def _example(line: bytes, files: Mapping[str, bytes], seen: set[str]) -> Example:
    """The review of one row; its name joins `seen`.

    Raises:
      ValueError: the row is wrong; the message says how.
    """
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError("the row is no JSON object")
    name, verdict = row.get("annotation_id"), row.get("classification")
    if not isinstance(name, str):
        raise ValueError(f"annotation_id is {name!r} instead of the name of a review")
    if name in seen:
        raise ValueError(f"annotation_id {name!r} stands in an earlier row too")
    if not isinstance(verdict, str) or verdict not in LABELS:
        raise ValueError(f"classification is {verdict!r} instead of {' or '.join(LABELS)}")
    if _DOCS + name not in files:
        raise ValueError(f"there is no review {_DOCS}{name}")
    seen.add(name)
    try:
        text = files[_DOCS + name].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{_DOCS}{name} is not UTF-8 ({error.reason} at byte {error.start})") from error
    return Example(text, LABELS[verdict], rationale=_rationale(row.get("evidences"), name, len(spaced_words(text))))


def _rationale(evidences: Any, name: str, length: int) -> tuple[int, ...] | None:
    """The places of all evidence in a review of `length` words, sorted; None where there is none.

    Raises:
      ValueError: the evidence is not of this review or not inside it.
    """
    if not isinstance(evidences, list) or not all(isinstance(group, list) for group in evidences):
        raise ValueError("evidences is no list of lists")
    places: set[int] = set()
    for evidence in (evidence for group in evidences for evidence in group):
        if not isinstance(evidence, dict) or evidence.get("docid") != name:
            raise ValueError(f"the evidence {str(evidence)[:80]!r} is not of the review {name}")
        start, end = evidence.get("start_token"), evidence.get("end_token")
        if type(start) is not int or type(end) is not int or not 0 <= start <= end <= length:
            raise ValueError(
                f"evidence from word {start!r} to {end!r} is not inside {name}, which has {length:,} words"
            )
        places.update(range(start, end))
    return tuple(sorted(places)) or None


SOURCE = Source(
    name="movies",
    official=OFFICIAL,
    homepage="http://www.eraserbenchmark.com/",
    version="1.0.0",
    splits=_SIZES,
    labels=tuple(LABELS.values()),
    pair=False,
    rationales=True,
    examples=examples,
    words=spaced_words,
    arrange=official_splits,
    expected=_SIZES,
)
