"""The Multi-Genre Natural Language Inference corpus: its raw file as pairs of premise and hypothesis."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from flax_attnat.data.archive import Official
from flax_attnat.data.inference import LABEL_NAMES, read_pairs
from flax_attnat.data.source import Example, Keep, Notes, Rows, Source, Table, hold_out
from flax_attnat.data.text import clean

OFFICIAL = Official(
    name="multinli_1.0.zip",
    folders=("multinli_1.0",),
    url="https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip",
    size=226_850_426,
    sha256="049f507b9e36b1fcb756cfd5aeb3b7a0cfcb84bf023793652987f7e7e0957822",
)
GROUPS = {"train": "", "dev_matched": "matched", "dev_mismatched": "mismatched"}
MEMBERS = {split: f"multinli_1.0/multinli_1.0_{split}.jsonl" for split in GROUPS}
_DEV_SHARE, _DEV_SEED = 0.2, 13478


def examples(source: Path, split: str, notes: Notes) -> Iterator[Example]:
    """The labelled pairs of one split, in the order of the file.

    Args:
      source: the official archive or its extracted folder.
      split: "train", "dev_matched" or "dev_mismatched".
      notes: counts the pairs without a gold label; they are left out.

    Raises:
      DataError: the source cannot be read or a line is no pair.
    """
    return read_pairs(source, MEMBERS[split], notes, GROUPS[split])


def arrange(tables: Mapping[str, Table], keep: Keep, notes: Notes) -> dict[str, Rows]:
    """A fifth of the training pairs, by label, is dev; both official development files are the test split."""
    labels = tables["train"].labels
    stay, held = hold_out(np.arange(len(labels)), labels, _DEV_SHARE, _DEV_SEED, stratify=True)
    test = [(split, np.arange(len(tables[split].labels))) for split in ("dev_matched", "dev_mismatched")]
    return {"train": [("train", stay)], "dev": [("train", held)], "test": test}


SOURCE = Source(
    name="multi_nli",
    official=OFFICIAL,
    homepage="https://cims.nyu.edu/~sbowman/multinli/",
    version="1.0.0",
    splits={"train": 392_702, "dev_matched": 9_815, "dev_mismatched": 9_832},
    labels=LABEL_NAMES,
    pair=True,
    rationales=False,
    examples=examples,
    words=clean,
    arrange=arrange,
    expected={"train": 314_161, "dev": 78_541, "test": 19_647},
)
