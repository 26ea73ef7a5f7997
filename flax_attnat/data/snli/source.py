"""The Stanford Natural Language Inference corpus: its raw file as pairs of premise and hypothesis."""

from collections.abc import Iterator
from pathlib import Path

from flax_attnat.data.archive import Official
from flax_attnat.data.inference import LABEL_NAMES, read_pairs
from flax_attnat.data.source import Example, Notes, Source, official_splits
from flax_attnat.data.text import clean

OFFICIAL = Official(
    name="snli_1.0.zip",
    folders=("snli_1.0_partial.zip", "snli_1.0"),
    url="https://nlp.stanford.edu/projects/snli/snli_1.0.zip",
    size=94_550_081,
    sha256="afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e",
)
MEMBERS = {split: f"snli_1.0/snli_1.0_{split}.jsonl" for split in ("train", "dev", "test")}


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The labelled pairs of one split, in the order of the file.

    Args:
      source: the official archive or its extracted folder.
      split: "train", "dev" or "test".
      notes: counts the pairs without a gold label; they are left out.

    Raises:
      DataError: the source cannot be read or a line is no pair.
    """
    return read_pairs(source, MEMBERS[split], notes)


SOURCE = Source(
    name="snli",
    official=OFFICIAL,
    homepage="https://nlp.stanford.edu/projects/snli/",
    version="1.0.0",
    splits={"train": 549_367, "dev": 9_842, "test": 9_824},
    labels=LABEL_NAMES,
    pair=True,
    rationales=False,
    examples=examples,
    words=clean,
    arrange=official_splits,
    expected={"train": 549_367, "dev": 9_842, "test": 9_824},
)
