"""Builder of IMDB."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.imdb.source import SOURCE


class Builder(SourceBuilder):
    """Labelled and unlabelled film reviews: negative ones, then positive ones, by file name."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
