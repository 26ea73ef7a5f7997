"""Vocabulary: order, document frequency, counts, unknown words, JSON."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_attnat.data.errors import DataError
from flax_attnat.data.vocabulary import encode, fit_vocabulary, from_json, to_json

TEXTS = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=8), max_size=8)


def test_words_by_descending_count_then_alphabet():
    """Two words of the same count stand in alphabetical order, whatever the order of the texts."""
    texts = [("z", "b", "a"), ("z", "a", "b"), ("z", "m")]
    vocabulary = fit_vocabulary(texts)
    assert vocabulary.words == ("<pad>", "<unk>", "z", "a", "b", "m")
    assert vocabulary.counts.tolist() == [0, 0, 3, 2, 2, 1]
    assert fit_vocabulary(reversed(texts)).words == vocabulary.words


def test_min_df_counts_texts_not_occurrences():
    """A word that one text repeats is rarer than a word in two texts; what is left out is counted as unknown."""
    vocabulary = fit_vocabulary([("rare", "rare", "rare", "b"), ("b",)], min_df=2)
    assert vocabulary.words == ("<pad>", "<unk>", "b")
    assert vocabulary.counts.tolist() == [0, 3, 2]


@given(TEXTS, st.integers(1, 4))
def test_counts_are_those_of_the_encoded_training_texts(texts, min_df):
    """The ids of the training texts occur exactly as often as `counts` says."""
    vocabulary = fit_vocabulary(texts, min_df)
    seen = Counter(int(i) for text in texts for i in encode(vocabulary, text))
    assert [seen[i] for i in range(len(vocabulary.words))] == vocabulary.counts.tolist()
    for word in vocabulary.words[2:]:
        assert sum(word in text for text in texts) >= min_df


def test_unknown_empty_and_reserved_words():
    """A new word is 1, an empty text has no ids, and a text cannot spell padding."""
    vocabulary = fit_vocabulary([("a", "<pad>")])
    assert vocabulary.words == ("<pad>", "<unk>", "a")
    ids = encode(vocabulary, ("a", "new", "<pad>", "<unk>"))
    assert ids.tolist() == [2, 1, 1, 1]
    assert ids.dtype == np.int32
    empty = encode(vocabulary, ())
    assert empty.tolist() == []
    assert empty.dtype == np.int32


def test_vocabularies_do_not_share_an_index():
    """Encoding with many vocabularies in turn never uses the ids of another one."""
    vocabularies = [fit_vocabulary([tuple(chr(97 + (i + j) % 26) for j in range(i + 1))]) for i in range(20)]
    for _ in range(2):
        for vocabulary in vocabularies:
            assert encode(vocabulary, vocabulary.words[2:]).tolist() == list(range(2, len(vocabulary.words)))


def test_json_round_trip():
    """Through JSON text and back, words, counts and ids are the same."""
    vocabulary = fit_vocabulary([("é", "film", "film"), ("naïve",)])
    again = from_json(json.loads(json.dumps(to_json(vocabulary))))
    assert again.words == vocabulary.words
    assert again.counts.dtype == np.int64
    np.testing.assert_array_equal(again.counts, vocabulary.counts)
    assert encode(again, ("film", "x")).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "words"),
        ({"words": ["<pad>", "<unk>"]}, "counts"),
        ({"words": ["<pad>", "<unk>"], "counts": [0, -1]}, "counts"),
        ({"words": ["<unk>", "<pad>"], "counts": [0, 0]}, "damaged"),
        ({"words": ["<pad>", "<unk>", "a", "a"], "counts": [0, 0, 1, 1]}, "damaged"),
        ({"words": ["<pad>", "<unk>", "a"], "counts": [0, 0]}, "3 words and 2 counts"),
    ],
)
def test_damaged_json_is_refused(values, sentence):
    """What is no vocabulary is refused with the field that shows it."""
    with pytest.raises(DataError, match=sentence):
        from_json(values)
