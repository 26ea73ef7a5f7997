"""Builder of the binary Stanford Sentiment Treebank."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.sst.source import SOURCE


class Builder(SourceBuilder):
    """Binary sentences of the official splits, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"2.0.0": "Labels are names, not numbers."}
