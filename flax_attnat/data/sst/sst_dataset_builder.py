"""TensorFlow Datasets builder of the binary Stanford Sentiment Treebank; it needs no TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from flax_attnat.data.archive import find_raw
from flax_attnat.data.sst.source import LABEL_NAMES, MEMBERS, OFFICIAL, read_sentences


class _LocalInfo(tfds.core.DatasetInfo):
    """Information that is never looked up in the public bucket."""

    def initialize_from_bucket(self) -> None:
        """Nothing: the original makes a temporary folder outside the data folder."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Reads the raw file from `DownloadConfig(manual_dir=...)`; prepare with `file_format="array_record"`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "Binary sentences of the official splits, in the order of the source."
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put the raw file, or the folder extracted from it, there. {OFFICIAL.sentence()}"

    def _info(self) -> tfds.core.DatasetInfo:
        """Text and label of a record, home page and citation."""
        metadata = self.get_metadata()
        return _LocalInfo(
            builder=self,
            description=metadata.description,
            citation=metadata.citation,
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=LABEL_NAMES)}
            ),
            supervised_keys=("text", "label"),
            homepage="https://nlp.stanford.edu/sentiment/",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """One generator per official split."""
        source = find_raw(dl_manager.manual_dir, (OFFICIAL.name, *OFFICIAL.folders))
        return {split: self._generate_examples(source, split) for split in MEMBERS}

    def _generate_examples(self, source: Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records keyed by line number, so that they keep their order."""
        for sentence in read_sentences(source, split):
            yield sentence.line, {"text": sentence.text, "label": sentence.label}
