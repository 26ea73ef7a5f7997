"""Builder of 20 Newsgroups."""

from typing import ClassVar

from flax_attnat.data.builder import SourceBuilder
from flax_attnat.data.newsgroups.source import SOURCE


class Builder(SourceBuilder):
    """Posts on baseball, then on hockey, each in the order of scikit-learn."""

    SOURCE = SOURCE
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
