"""Text rules: the Stanford Sentiment Treebank's and the cleaner of Jain & Wallace (2019)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_attnat.data.text import clean, sst_words


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
