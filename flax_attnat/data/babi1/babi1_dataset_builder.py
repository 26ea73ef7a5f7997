"""Builder of bAbI task 1."""

from typing import ClassVar

from flax_attnat.data.babi1.source import SOURCE
from flax_attnat.data.builder import SourceBuilder


class Builder(SourceBuilder):
    """Questions with the story so far, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
