"""Prepares a data set and shows what is in it: sizes, lengths, vocabulary, class balance; "partial" if not whole.

    python -m launch.prepare --config=configs/sst.py --config.data.raw_dir=DIR

Flags:
  --config=FILE                   an experiment of configs/
  --config.data.raw_dir=DIR       folder with the official archive; without it the archive is downloaded
  --config.data.data_dir=DIR      where prepared records go (default ~/tensorflow_datasets)
  --config.data.vectors=FILE      word vectors, whose coverage of the vocabulary is shown
  --config.FIELD=VALUE            any other field, --config.data.min_length=5 say

Preparing again is quick: records that are there are read.

Exit codes: 0 done, 2 the command or its data cannot be used.
"""

import sys
from collections.abc import Sequence

import numpy as np

from flax_attnat.data.load import load, load_vectors
from launch import cli
from launch.display import results_table
from launch.train import show_coverage


def main(argv: Sequence[str]) -> int:
    """Prepares what the command line says; returns the exit code."""
    config = cli.read_config(cli.flag_values(argv, {}, config=True))
    console = cli.console()
    dataset = load(config)
    rows = []
    for name, split in dataset.splits.items():
        lengths = np.array([len(tokens) for tokens in split.tokens])
        unknown = float(np.mean(np.concatenate(split.tokens) == 1)) if lengths.sum() else 0.0
        rows.append(
            {
                "split": name,
                "n": f"{len(lengths):,}",
                "mean length": f"{lengths.mean():.1f}",
                "longest": str(lengths.max()),
                "unknown words": f"{unknown:.1%}",
                dataset.label_names[1]: f"{np.mean(split.labels == 1):.1%}",
            }
        )
    mark = f" ({dataset.mark} data)" if dataset.mark else ""
    console.print(results_table(f"{dataset.name}{mark}", rows))
    console.print(f"vocabulary: {len(dataset.vocabulary.words) - 2:,} words of the training split", highlight=False)
    show_coverage(console, load_vectors(config, dataset.vocabulary))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
