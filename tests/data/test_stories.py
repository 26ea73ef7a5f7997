"""The bAbI format: stories, questions, supporting sentences, and what is none of these."""

import re

import pytest

from flax_attnat.data.errors import DataError
from flax_attnat.data.source import spaced_words
from flax_attnat.data.stories import example, parse_stories

STORIES = (
    "1 Mary moved to the bathroom.\n2 John went back to the hallway.\n3 Where is Mary? \tbathroom\t1\n"
    "4 Mary got the milk there.\n5 Mary moved to the office.\n6 Where is the milk? \toffice\t5 4\n"
    "1 Sandra left.\n2 Where is Sandra?\tgarden\t1\n"
)


def parse(text):
    """All questions of a text."""
    return list(parse_stories(text.encode() if isinstance(text, str) else text, "FILE"))


def test_questions_and_their_stories():
    """A question sees all sentences before it in its own story; support is counted in sentences, not in lines."""
    first, second, third = parse(STORIES)
    assert first.sentences == ("Mary moved to the bathroom", "John went back to the hallway")
    assert (first.text, first.answer, first.support) == ("Where is Mary", "bathroom", (0,))
    assert second.sentences == (*first.sentences, "Mary got the milk there", "Mary moved to the office")
    assert (second.text, second.answer, second.support) == ("Where is the milk", "office", (3, 2))
    assert (third.sentences, third.support) == (("Sandra left",), (0,))


def test_the_rationale_is_the_words_of_the_supporting_sentences():
    """Case is kept, final marks go, and the stops between the sentences are words, but of no rationale."""
    found = example(parse(STORIES)[1])
    words = spaced_words(found.text)
    assert found.text == (
        "Mary moved to the bathroom . John went back to the hallway . "
        "Mary got the milk there . Mary moved to the office"
    )
    assert " ".join(words[place] for place in found.rationale) == "Mary got the milk there Mary moved to the office"
    assert (found.query, found.label, found.group) == ("Where is the milk", "office", "")


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("garden\t1\n", "garden\t1\n\n \n"), ("garden\t1\n", "garden\t1")])
def test_line_ends(change):
    """Windows line ends, blank lines at the end of the file, and none at its last line change nothing."""
    assert parse(STORIES.replace(*change)) == parse(STORIES)


A = "1 Mary moved to the bathroom.\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "FILE holds no question"),
        (" \n\n", "FILE holds no question"),
        (A, "FILE holds no question"),
        ("2 Mary left.\n", "line 1: its number is 2 instead of 1"),
        (A + "2 John left.\n2 John came.\n", "line 3: its number is 2 instead of 3 or, in a new story, 1"),
        (A + "3 John left.\n", "line 2: its number is 3 instead of 2"),
        ("0 Mary left.\n", "line 1: it is not a number, a space and a text; the line begins b'0 Mary left.'"),
        (A + "\n2 John left.\n", "line 2: it is not a number"),
        (A + "John left.\n", "line 2: it is not a number"),
        (A + "2 .\n", "line 2: the sentence has no word"),
        (A + "2 Where is Mary? bathroom 1\n", "line 2: a question has 3 parts with tabs between them, not 1"),
        (A + "2 Where is Mary?\tbathroom 1\n", "line 2: a question has 3 parts with tabs between them, not 2"),
        (A + "2 Where is Mary?\tbathroom\t1\t1\n", "line 2: a question has 3 parts with tabs between them, not 4"),
        (A + "2 Where is Mary\tbathroom\t1\n", "line 2: the question is empty or does not end in a question mark"),
        (A + "2 ?\tbathroom\t1\n", "line 2: the question is empty"),
        (A + "2 Where is Mary?\tattic\t1\n", "line 2: the answer 'attic' is none of bathroom, bedroom, garden"),
        (A + "2 Where is Mary?\t\t1\n", "line 2: the answer '' is none of"),
        (A + "2 Where is Mary?\tbathroom\t\n3 x\n", "line 2: the question names no supporting sentence"),
        (A + "2 Where is Mary?\tbathroom\t2\n", "line 2: the supporting line '2' is no earlier sentence"),
        (A + "2 Where is Mary?\tbathroom\tone\n", "line 2: the supporting line 'one' is no earlier sentence"),
        (STORIES + "3 Where is Sandra?\tgarden\t2\n", "line 9: the supporting line '2' is no earlier sentence"),
        (STORIES + "1 Where is Mary?\tbathroom\t1\n", "line 9: the supporting line '1' is no earlier sentence"),
        (A.encode() + b"2 Sandra went to the caf\xe9.\n", "line 2: 'utf-8' codec can't decode"),
    ],
)
def test_bad_lines_are_named(text, reason):
    """The error has the file, the line and what is wrong with it."""
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        parse(text)
    assert str(error.value).startswith("FILE")
