"""The texts behind the arrays of a workdir, and a fingerprint of the data: what a report shows without the data set."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.data.vocabulary import UNKNOWN_ID
from flax_attnat.training.workdir import write_atomically

Text = dict[str, Any]


def write_texts(workdir: epath.PathLike, dataset: Dataset, split: str) -> epath.Path:
    """Writes `instances/<split>.texts.json`, the N texts of a split in the order of the arrays, unless it is there.

    The file is `{"dataset", "split", "mark", "labels", "data", "texts"}`. `data` has for each split `{"n", "sha256"}`.
    Of `texts`, each is `{"words", "label"}`: as many words as the model saw, and the place of its class in `labels`;
    `"rationale"` and `"unknown"` are places of words that decide the label, or are not in the vocabulary, where there
    are any, and `"query"` are the words of the question or hypothesis.

    Args:
      workdir: gets the file.
      dataset: what the workdir was trained on.
      split: "train", "dev" or "test".

    Returns:
      The file.
    """
    document = {
        "dataset": dataset.name,
        "split": split,
        "mark": dataset.mark,
        "labels": list(dataset.label_names),
        "data": {
            name: {"n": len(of.labels), "sha256": fingerprint(of, dataset.label_names)}
            for name, of in dataset.splits.items()
        },
        "texts": list(_texts(dataset.splits[split])),
    }
    # ASCII: half a surrogate, which a text may hold, has no UTF-8.
    content = json.dumps(document, separators=(",", ":")).encode()
    path = epath.Path(workdir) / "instances" / f"{split}.texts.json"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    return path


def fingerprint(split: Split, label_names: tuple[str, ...]) -> str:
    """SHA-256 of a split: of a line of ASCII JSON per text, `[label, words, query]`, in its order.

    Args:
      split: of N texts.
      label_names: names of the classes, by id.

    Returns:
      64 hexadecimal digits, the same wherever the same words have the same labels.

    >>> from flax_attnat.data.dataset import Record
    >>> record = Record(("a", "good", "film"), 1)
    >>> split = Split([record], [np.array([2, 3, 4], np.int32)], np.array([1], np.int32))
    >>> line = '["positive",["a","good","film"],[]]\\n'
    >>> fingerprint(split, ("negative", "positive")) == hashlib.sha256(line.encode()).hexdigest()
    True
    """
    found = hashlib.sha256()
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for text in _texts(split):
        line = [label_names[text["label"]], text["words"], text.get("query", [])]
        found.update(f"{encode(line)}\n".encode())
    return found.hexdigest()


def _texts(split: Split) -> Iterator[Text]:
    """The texts of a split, cut where their tokens end."""
    for place, (record, tokens) in enumerate(zip(split.records, split.tokens, strict=True)):
        text: Text = {"words": record.words[: len(tokens)], "label": int(split.labels[place])}
        if rationale := [word for word in record.rationale or () if word < len(tokens)]:
            text["rationale"] = rationale
        if (unknown := np.flatnonzero(tokens == UNKNOWN_ID)).size:
            text["unknown"] = unknown.tolist()
        if split.queries is not None:
            text["query"] = record.query[: len(split.queries[place])]
        yield text
