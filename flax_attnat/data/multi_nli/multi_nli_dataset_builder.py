"""Builder of the Multi-Genre Natural Language Inference corpus."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.multi_nli.source import SOURCE


class Builder(SourceBuilder):
    """Labelled pairs of training and both development files, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
