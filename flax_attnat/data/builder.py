"""The TensorFlow Datasets builder that all datasets share; it needs no TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from flax_attnat.data.archive import find_raw
from flax_attnat.data.source import Notes, Source


class _LocalInfo(tfds.core.DatasetInfo):
    """Information that is never looked up in the public bucket."""

    def initialize_from_bucket(self) -> None:
        """Nothing: the original makes a temporary folder outside the data folder."""


class SourceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Reads the raw file from `DownloadConfig(manual_dir=...)`; prepare with `file_format="array_record"`.

    A dataset's package holds `class Builder(SourceBuilder)` with its `SOURCE` and release notes, and the files
    README.md (what it is, licence note) and CITATIONS.bib.
    """

    SOURCE: ClassVar[Source]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes the version and the place of the raw file from `SOURCE`; never registers: TFDS has names like ours."""
        cls.VERSION = tfds.core.Version(cls.SOURCE.version)
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.SOURCE.official.sentence()
        super().__init_subclass__(skip_registration=True, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        """Features, home page, licence note and citation."""
        metadata, source = self.get_metadata(), self.SOURCE
        features: dict[str, Any] = {"text": tfds.features.Text(), "label": tfds.features.Text()}
        if source.pair:
            features["query"] = tfds.features.Text()
        if source.rationales:
            features["rationale"] = tfds.features.Sequence(tfds.features.Scalar(dtype=np.int32))
            features["has_rationale"] = tfds.features.Scalar(dtype=np.bool_)
        features["group"] = tfds.features.Text()
        return _LocalInfo(
            builder=self,
            description=metadata.description,
            citation=metadata.citation,
            features=tfds.features.FeaturesDict(features),
            homepage=source.homepage,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(notes={}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """One generator per split of the source."""
        official = self.SOURCE.official
        raw = find_raw(dl_manager.manual_dir, (official.name, *official.folders))
        return {split: self._generate_examples(raw, split) for split in self.SOURCE.splits}

    def _generate_examples(self, raw: Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records keyed by their number, so that they keep their order; notes go to the metadata."""
        notes = Notes()
        for number, example in enumerate(self.SOURCE.examples(raw, split, notes)):
            record: dict[str, Any] = {"text": example.text, "label": example.label, "group": example.group}
            if self.SOURCE.pair:
                record["query"] = example.query
            if self.SOURCE.rationales:
                record["rationale"] = list(example.rationale or ())
                record["has_rationale"] = example.rationale is not None
            yield number, record
        self.info.metadata["notes"][split] = dict(notes)
