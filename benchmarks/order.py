"""What the order of an epoch's batches makes of attention: batches shuffled one by one, beside stretches of one width.

    python -m benchmarks.order --raw_dir=DIR --vectors=FILE
    python -m benchmarks.order --small

Flags:
  --raw_dir=DIR    where trainDevTestTrees_PTB.zip lies
  --vectors=FILE   pretrained vectors of 300 numbers
  --small          planted texts, two runs of one epoch: figures that mean nothing
  --technique=NAME, --reading=NAME, --epsilon=E
                   what is trained (default attention_iat, released, 1)
  --runs=R         seeds (default 6)
  --epochs=N       epochs (default 3: the best is hardly ever later)
  --stretches=N,N  consecutive batches of one width (default 1,16)
  --json=FILE      writes the figures too

Parameters and the rows of every batch are the same; only the order of the batches differs.
"""

import functools
import sys
import tempfile
from collections.abc import Sequence
from unittest import mock

import numpy as np

from benchmarks.work import read_flags, save_record
from configs import planted, sst
from flax_attnat.config import Config, parse
from flax_attnat.data.load import load, load_vectors
from flax_attnat.reproduction.cohort import train_cohort
from flax_attnat.training.schedule import batches_of

FIGURES = ("auc", "pearson_gradient", "kendall_gradient")


def stretched(length: int, epoch: int, sizes: Sequence[int], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Buckets `[N]` and batches `[N]` of an epoch, in which up to `length` batches of a bucket stay together."""
    stretches = [
        [(bucket, batch) for batch in range(first, min(first + length, batches_of(size, batch_size)))]
        for bucket, size in enumerate(sizes)
        for first in range(0, batches_of(size, batch_size), length)
    ]
    order = np.random.default_rng([1, epoch]).permutation(len(stretches))
    which, batch = np.array([pair for number in order for pair in stretches[number]], np.int32).T
    return which, batch


def configured(flags: dict[str, str], data_dir: str) -> Config:
    """The configuration that the flags ask for."""
    values = planted.get_config() if "small" in flags else sst.get_config()
    values.data.update({"raw_dir": flags.get("raw_dir", ""), "vectors": flags.get("vectors", ""), "data_dir": data_dir})
    values.technique, values.reading = flags.get("technique", "attention_iat"), flags.get("reading", "released")
    values.epsilon = float(flags.get("epsilon", 1))
    values.seeds = tuple(range(2 if "small" in flags else int(flags.get("runs", 6))))
    values.training.epochs = 1 if "small" in flags else int(flags.get("epochs", 3))
    if "small" in flags:
        values.data.bucket_widths = (8, 12, 16)
    return parse(values)


def measure(flags: dict[str, str], stretches: Sequence[int]) -> dict[str, dict[str, float]]:
    """Means and standard deviations over seeds of the test figures, by length of a stretch."""
    found = {}
    with tempfile.TemporaryDirectory() as data_dir:
        config = configured(flags, data_dir)
        dataset = load(config)
        vectors = load_vectors(config, dataset.vocabulary)
        for length in stretches:
            order = functools.partial(stretched, length)
            with (
                mock.patch("flax_attnat.training.schedule.epoch_order", order),
                tempfile.TemporaryDirectory() as workdir,
            ):
                lines = train_cohort(config, dataset, vectors, workdir, {})
            test = [line for line in lines if (line["split"], line["epoch"]) == ("test", "best")]
            columns = {name: [line[name] for line in test] for name in FIGURES}
            means = {name: float(np.mean(values)) for name, values in columns.items()}
            found[str(length)] = means | {f"{name} sd": float(np.std(v, ddof=1)) for name, v in columns.items()}
            shown = "  ".join(f"{name} {means[name]:.3f} ± {found[str(length)][f'{name} sd']:.3f}" for name in FIGURES)
            print(f"stretches of {length:3}  {shown}  ({len(test)} seeds)", flush=True)
    return found


def main(argv: Sequence[str]) -> int:
    """Trains and prints."""
    flags = read_flags(argv)
    if "small" not in flags and "raw_dir" not in flags:
        print("benchmarks.order: name the folder of SST with --raw_dir, or ask for --small.", file=sys.stderr)
        return 2
    stretches = [int(length) for length in flags.get("stretches", "1,16").split(",")]
    save_record(flags, {"order": measure(flags, stretches)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
