"""Text rules: the Stanford Sentiment Treebank's, the newsgroups' and the cleaner of Jain & Wallace (2019)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_attnat.data.text import clean, newsgroups_words, sst_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-LRB- Taymor -RRB- utilizes", ("taymor", "utilizes")),
        ("well-LRB-made-RRB-film", ("wellmade", "film")),  # the opening bracket is dropped, the closing one a space
        ("co-writer\\/director 's `` Idea '' .", ("co", "writer", "director", "s", "idea")),
        ("8 1\\/2 caf\u00e9 snake_case", ("8", "1", "2", "caf\u00e9", "snake_case")),
        ("-lrb- x", ("lrb", "x")),  # the rule stands before lower-casing
        ("", ()),
        (". , !", ()),
    ],
)
def test_sst_rules(text, words):
    """Each rule on a text that shows its place in the order."""
    assert sst_words(text) == words


@given(st.text())
def test_sst_rules_are_idempotent(text):
    """Words that are joined and cut again stay as they are, but for the cases where lower case itself adds a mark."""
    words = sst_words(text.lower())
    assert sst_words(" ".join(words)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  It\u00a0was\n\ta 1990s film.", ("it", "was", "a", "qqq", "film", ".")),
        ("I don't like Mr. X's U.S. trip!", ("i", "do", "n't", "like", "mr.", "x", "'s", "u.s.", "trip", "!")),
        ("2nd-rate, $5 and \u00b2", ("qqq", "-", "rate", ",", "$", "qqq", "and", "qqq")),
        ("", ()),
        (" \n ", ()),
    ],
)
def test_cleaner(text, words):
    """White space, English rules, lower case, digits."""
    assert clean(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Go, Sox!", ("go", "sox", "!")),  # the run ", " ends in a space, so the comma is lost
        ("(608) 255", ("qqq", "qqq")),
        ("really?!", ("really", "!")),
        ("well-known", ("well", "known")),  # three tokens: the run " - " ends in a space
        ("a_b u.s.a... end", ("a_b", "u", ".", "s", ".", "a", "end")),
        ("can't", ("ca", "n", "'", "t")),  # the mark inside a token stays
        ("--- \n", ("-",)),
        ("", ()),
        (" \n\t", ()),
    ],
)
def test_newsgroups_rules(text, words):
    """A run of characters that are no word's becomes its last one; a space as the last one separates only."""
    assert newsgroups_words(text) == words


@given(st.text())
def test_newsgroups_words_are_words_or_single_marks(text):
    """No word mixes letters and marks, and none is empty or holds white space."""
    for word in newsgroups_words(text):
        assert re.fullmatch(r"\w+|[^\w\s]", word)
