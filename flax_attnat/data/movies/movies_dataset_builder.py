"""Builder of the ERASER movie reviews."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.movies.source import SOURCE


class Builder(SourceBuilder):
    """Film reviews with the words that decide, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
