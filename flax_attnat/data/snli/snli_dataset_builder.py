"""Builder of the Stanford Natural Language Inference corpus."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.snli.source import SOURCE


class Builder(SourceBuilder):
    """Labelled pairs of the official splits, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
