"""Text rules: from a text as the source has it to the words that a model reads."""

import functools
import re
from collections.abc import Iterable
from typing import Any

_NOT_WORD = re.compile(r"\W")
_SPACE = re.compile(r"\s+")
_NOT_WORDS = re.compile(r"(\W)+")


def sst_words(leaves_text: str) -> tuple[str, ...]:
    """The words of a Stanford Sentiment Treebank sentence, as Jain & Wallace (2019) cut it.

    In this order: "-LRB-" is dropped, "-RRB-" becomes a space, so does every non-word character, lower case, split.

    Args:
      leaves_text: the leaves of the tree, joined by spaces.

    >>> sst_words("-LRB- Taymor -RRB- utilizes the co-writer\\\\/director 's idea .")
    ('taymor', 'utilizes', 'the', 'co', 'writer', 'director', 's', 'idea')
    """
    text = leaves_text.replace("-LRB-", "").replace("-RRB-", " ")
    return tuple(_NOT_WORD.sub(" ", text).lower().split())


@functools.cache
def _tokenizer() -> Any:
    """spaCy's rule tokeniser for English; no model is loaded."""
    import spacy

    return spacy.blank("en").tokenizer


def clean(text: str) -> tuple[str, ...]:
    """The words of a running English text, as Jain & Wallace (2019) clean it.

    White space is collapsed, spaCy's English rules cut the tokens, they are put in lower case, and a token that
    contains a digit becomes "qqq".

    >>> clean("It's  a 1990s film, isn't it?")
    ('it', "'s", 'a', 'qqq', 'film', ',', 'is', "n't", 'it', '?')
    """
    tokens = (token.text.lower() for token in _tokenizer()(_SPACE.sub(" ", text.strip())))
    return tuple("qqq" if any(character.isdigit() for character in token) else token for token in tokens)


def newsgroups_words(text: str) -> tuple[str, ...]:
    """The words of a newsgroup post, as Jain & Wallace (2019) cut it.

    After `clean`, every run of characters that are no word's becomes the last of them, as a word of its own. The spaces
    between the tokens count as such characters, so that marks vanish but at the end and inside a token.

    >>> newsgroups_words("Well, it's over (at last)!")
    ('well', 'it', "'", 's', 'over', 'at', 'last', '!')
    """
    return tuple(_NOT_WORDS.sub(r" \1 ", " ".join(clean(text))).split())


def natural(names: Iterable[str]) -> tuple[str, ...]:
    """Names in an order in which "2" comes before "10".

    >>> natural(["@entity10", "@entity9"])
    ('@entity9', '@entity10')
    """

    def parts(name: str) -> tuple[list[tuple[int, str]], str]:
        """Text and numbers in turn; the longer number is the greater one, so that none is too long to convert."""
        cut = re.split("0*([0-9]+)", name)
        return [(len(part) * (place % 2), part) for place, part in enumerate(cut)], name

    return tuple(sorted(names, key=parts))
