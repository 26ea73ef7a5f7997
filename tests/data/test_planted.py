"""The planted data set keeps its promises; its meaning is read from the words by a reader of this file's own."""

import hashlib
import json
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from flax_attnat.data import planted


class Record(NamedTuple):
    """A review as the tests read it."""

    text: str
    words: tuple[str, ...]
    label: int
    rationale: tuple[int, ...]


def _set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


POSITIVE = _set(
    "good great superb brilliant delightful charming moving gripping clever witty elegant fresh tender thrilling "
    "wonderful memorable"
)
NEGATIVE = _set(
    "bad awful terrible dull tedious clumsy boring shallow stale bland messy dreadful weak silly hollow forgettable"
)
NEGATORS = _set("not never hardly")
FILM = _set("film movie plot acting script dialogue story cast direction photography screenplay")
NOT_FILM = _set(
    "trailer sequel popcorn poster lobby novel musical game concert dinner weather "
    "sister brother neighbour uncle aunt cousin teacher boss dentist friend barber"
)

# SHA-256 of what `generate(0)` gives; a change of grammar, order or labels shows here and makes old results another's.
GOLDEN = "818333465cc37da352fe351b81228ab72b1afd33a612ff6bf61046c33d4c0085"


def generate(seed: int) -> dict[str, list[Record]]:
    """The data set of a seed, cut into words, with class ids."""
    return {
        name: [Record(e.text, tuple(e.text.split()), planted.LABEL_NAMES.index(e.label), e.rationale) for e in split]
        for name, split in planted.generate(seed).items()
    }


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Record]]:
    """The data set of seed 0."""
    return generate(0)


def read(words: tuple[str, ...]) -> tuple[int, tuple[int, ...]]:
    """The true label of a review and the positions that decide it: each opinion belongs to the last holder named."""
    about_film = False
    negator: tuple[int, ...] = ()
    for position, word in enumerate(words):
        if word in FILM or word in NOT_FILM:
            about_film, negator = word in FILM, ()
        elif word in NEGATORS:
            negator = (position,)
        elif word in POSITIVE | NEGATIVE and about_film:
            return int((word in POSITIVE) != bool(negator)), (*negator, position)
    raise AssertionError(f"no verdict in: {' '.join(words)}")


def digest(splits: dict[str, list[Record]]) -> str:
    """The SHA-256 of the records' JSON."""
    return hashlib.sha256(json.dumps(splits).encode()).hexdigest()


def test_same_seed_same_data(splits: dict[str, list[Record]]) -> None:
    """The records of seed 0 are the stored ones; another seed gives others."""
    assert digest(splits) == GOLDEN
    assert digest(generate(0)) == GOLDEN
    assert digest(generate(1)) != GOLDEN


def test_texts_are_plain_and_of_the_promised_size(splits: dict[str, list[Record]]) -> None:
    """A few thousand texts of 5 to 30 lower-case words, from a vocabulary of some hundreds."""
    records = [record for split in splits.values() for record in split]
    assert {name: len(split) for name, split in splits.items()} == {"train": 2400, "dev": 400, "test": 400}
    assert all(record.text == " ".join(record.words) for record in records)
    assert all(word.isalpha() and word.islower() for record in records for word in record.words)
    lengths = [len(record.words) for record in records]
    assert all(5 <= length <= 30 for length in lengths)
    assert 300 <= len({word for record in records for word in record.words}) <= 600


def test_no_text_occurs_twice(splits: dict[str, list[Record]]) -> None:
    """No text is in two splits, nor twice in one."""
    texts = [record.text for split in splits.values() for record in split]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_are_balanced_and_wrong_as_often_as_promised(seed: int) -> None:
    """In every split half the labels are positive, and 4 % of each class differ from what the words say."""
    for split in generate(seed).values():
        labels = np.array([record.label for record in split])
        truth = np.array([read(record.words)[0] for record in split])
        assert np.mean(labels) == 0.5
        for label in (0, 1):
            assert np.mean(labels[truth == label] != label) == pytest.approx(planted.NOISE)


def test_wrong_labels_are_spread_over_the_split(splits: dict[str, list[Record]]) -> None:
    """The order of the records tells nothing of label or noise: each quarter of the training split holds its share."""
    for quarter in np.array_split(np.arange(2400), 4):
        records = [splits["train"][i] for i in quarter]
        noise = np.mean([read(record.words)[0] != record.label for record in records])
        assert abs(noise - planted.NOISE) < 3 * np.sqrt(planted.NOISE * (1 - planted.NOISE) / 600)
        assert abs(np.mean([record.label for record in records]) - 0.5) < 3 * np.sqrt(0.25 / 600)


def test_rationale_is_what_decides(splits: dict[str, list[Record]]) -> None:
    """The rationale holds the deciding words; without its negator the review means the opposite."""
    negated = 0
    for record in (record for split in splits.values() for record in split):
        meaning, decisive = read(record.words)
        assert record.rationale == decisive
        if len(decisive) == 2:
            negated += 1
            negator = decisive[0]
            assert read(record.words[:negator] + record.words[negator + 1 :])[0] == 1 - meaning
    assert 0.2 < negated / 3200 < 0.36


def test_words_outside_the_rationale_do_not_decide(splits: dict[str, list[Record]]) -> None:
    """Polarity words and negators that are not the verdict's fall on both labels alike."""
    sides: dict[bool, list[int]] = {True: [], False: []}
    negators: dict[int, int] = {0: 0, 1: 0}
    for record in splits["train"]:
        meaning, decisive = read(record.words)
        for position, word in enumerate(record.words):
            if position not in decisive and word in POSITIVE | NEGATIVE:
                sides[word in POSITIVE].append(meaning)
            negators[meaning] += position not in decisive and word in NEGATORS
    for meanings in sides.values():
        assert abs(np.mean(meanings) - 0.5) < 3 * np.sqrt(0.25 / len(meanings))
    assert abs(negators[0] - negators[1]) < 3 * np.sqrt(negators[0] + negators[1])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("binary", [False, True])
def test_bag_of_words_fails(seed: int, binary: bool) -> None:
    """Unigram logistic regression stays at .70 test accuracy or below, at the best of four penalties."""
    splits = generate(seed)
    counter = CountVectorizer(binary=binary, token_pattern=r"\S+")
    counts = counter.fit_transform([record.text for record in splits["train"]])
    test_counts = counter.transform([record.text for record in splits["test"]])
    labels, test_labels = ([record.label for record in splits[name]] for name in ("train", "test"))
    for penalty in (0.01, 0.1, 1.0, 10.0):
        model = LogisticRegression(C=penalty, max_iter=2000).fit(counts, labels)
        assert model.score(test_counts, test_labels) <= 0.70
