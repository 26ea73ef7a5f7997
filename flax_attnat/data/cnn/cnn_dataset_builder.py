"""Builder of CNN question answering."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.cnn.source import SOURCE


class Builder(SourceBuilder):
    """Articles with questions of the official splits, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
