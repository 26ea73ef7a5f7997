"""Words and their ids, fitted on the training texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_attnat.data.errors import DataError

RESERVED = ("<pad>", "<unk>")
PAD_ID, UNKNOWN_ID = 0, 1


class Vocabulary(NamedTuple):
    """The V words of a model, by id.

    Attributes:
      words: "<pad>", "<unk>", then the training words by descending count, ties in alphabetical order.
      counts: `[V]` int64 occurrences in the training texts; padding 0; unknown: those of the rarer words left out.
    """

    words: tuple[str, ...]
    counts: np.ndarray


def fit_vocabulary(texts: Iterable[Sequence[str]], min_df: int = 1) -> Vocabulary:
    """The vocabulary of the words that at least `min_df` of the texts hold.

    Args:
      texts: training texts, each a sequence of words.
      min_df: least number of texts (not of occurrences) that a word must stand in.

    Returns:
      The vocabulary, the same for the same texts in any order.

    >>> vocabulary = fit_vocabulary([("a", "good", "good", "film"), ("a", "film")], min_df=2)
    >>> vocabulary.words, vocabulary.counts.tolist()
    (('<pad>', '<unk>', 'a', 'film'), [0, 2, 2, 2])
    """
    words: dict[str, int] = {}
    rows = [[words.setdefault(word, len(words)) for word in text] for text in texts]
    values = np.array([number for row in rows for number in row], np.int64)
    return fit_numbers(tuple(words), values, np.array([len(row) for row in rows], np.int64), min_df)[0]


def fit_numbers(
    words: Sequence[str], values: np.ndarray, lengths: np.ndarray, min_df: int, always: Sequence[str] = ()
) -> tuple[Vocabulary, np.ndarray]:
    """`fit_vocabulary` for texts whose words are numbers already.

    Args:
      words: W different words, by number.
      values: `[total]` the training texts' word numbers, one text after another.
      lengths: `[N]` words of each text.
      min_df: least number of texts that a word must stand in.
      always: words that enter the vocabulary however rare they are.

    Returns:
      The vocabulary, and the id of every word number, `[W]` int32.
    """
    occurrences = np.bincount(values, minlength=len(words))
    documents = occurrences
    if min_df > 1:
        # Sorted, each word's first place in each text; np.unique would hash, which takes ten times as long.
        places = np.sort(np.repeat(np.arange(len(lengths)), lengths) * len(words) + values)
        first = np.diff(places, prepend=-1) > 0
        documents = np.bincount(places[first] % max(len(words), 1), minlength=len(words))
    forced = set(always)
    kept = [
        number
        for number, word in enumerate(words)
        if ((documents[number] >= min_df and occurrences[number]) or word in forced) and word not in RESERVED
    ]
    kept.sort(key=lambda number: (-occurrences[number], words[number]))
    counts = occurrences[kept]
    vocabulary = Vocabulary(
        (*RESERVED, *(words[number] for number in kept)),
        np.concatenate([[0, occurrences.sum() - counts.sum()], counts]).astype(np.int64),
    )
    ids = np.full(len(words), UNKNOWN_ID, np.int32)
    ids[kept] = np.arange(len(RESERVED), len(RESERVED) + len(kept), dtype=np.int32)
    return vocabulary, ids


# Word tuples by identity, each with its index: hashing a whole vocabulary for every text costs more than encoding it.
_indices: dict[int, tuple[tuple[str, ...], dict[str, int]]] = {}
_MAX_INDICES = 8


def _index(words: tuple[str, ...]) -> dict[str, int]:
    """Word -> id of the training words, built once per tuple."""
    known = _indices.get(id(words))
    if known is None or known[0] is not words:
        if len(_indices) >= _MAX_INDICES:
            _indices.clear()
        index = {word: i for i, word in enumerate(words) if i >= len(RESERVED)}
        known = _indices[id(words)] = (words, index)
    return known[1]


def encode(vocabulary: Vocabulary, words: Sequence[str]) -> np.ndarray:
    """The int32 ids of `words`, one per word; a word outside the vocabulary becomes 1.

    >>> encode(fit_vocabulary([("a", "film")]), ("a", "new", "film")).tolist()
    [2, 1, 3]
    """
    index = _index(vocabulary.words)
    return np.array([index.get(word, UNKNOWN_ID) for word in words], np.int32)


def to_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The vocabulary as plain JSON types."""
    return {"words": list(vocabulary.words), "counts": vocabulary.counts.tolist()}


def from_json(values: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary that `to_json` gave.

    Raises:
      DataError: the values are no vocabulary.
    """
    words, counts = values.get("words"), values.get("counts")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError("The stored vocabulary has no list of words in its field 'words'; write it anew with to_json.")
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise DataError(
            "The stored vocabulary has no list of counts in its field 'counts'; write it anew with to_json."
        )
    if tuple(words[:2]) != RESERVED or len(set(words)) != len(words) or len(words) != len(counts):
        raise DataError(
            f"The stored vocabulary is damaged: it needs {' and '.join(RESERVED)} first, no word twice and one count"
            f" per word; it has {len(words)} words and {len(counts)} counts, and begins with {words[:2]}."
        )
    return Vocabulary(tuple(words), np.array(counts, np.int64))
