"""Builder of AG News."""

from typing import ClassVar

from flax_attnat.data.ag_news.source import SOURCE
from flax_attnat.data.builder import SourceBuilder


class Builder(SourceBuilder):
    """News descriptions of two classes, in the order of the source."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.1.0": "Escaped line breaks are white space."}
