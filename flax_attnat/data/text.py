"""Text rules: from a text as the source has it to the words that a model reads."""

import functools
import re
from typing import Any

_NOT_WORD = re.compile(r"\W")
_SPACE = re.compile(r"\s+")


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
