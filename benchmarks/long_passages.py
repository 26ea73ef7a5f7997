"""Peak memory of training on CNN-sized questions: 90 passages of 760 words a batch, 60,000 words, 530 entities.

    python -m benchmarks.long_passages
    python -m benchmarks.long_passages vanilla word_iat

One process per technique takes three steps of the program of configs/cnn.py on random words and prints its peak memory.
"""

import dataclasses
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from configs import cnn
from flax_attnat.allowed import TECHNIQUES
from flax_attnat.config import parse
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.vocabulary import Vocabulary
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.population import zero_sums
from flax_attnat.training.trainer import build_trainer

WORDS, ENTITIES, LENGTH, QUERY = 60_000, 530, 760, 14
STEPS = 3


def random_questions(rows: int) -> Dataset:
    """Random passages in which the answer stands."""
    rng = np.random.default_rng(0)
    names = tuple(f"@entity{n}" for n in range(ENTITIES))
    words = ("<pad>", "<unk>", *names, *(f"w{n}" for n in range(WORDS - ENTITIES)))
    tokens = rng.integers(2, len(words), (rows, LENGTH)).astype(np.int32)
    labels = rng.integers(0, ENTITIES, rows).astype(np.int32)
    tokens[:, 10] = labels + 2
    queries = rng.integers(2, len(words), (rows, QUERY)).astype(np.int32)
    split = Split([Record((), int(label)) for label in labels], list(tokens), labels, list(queries))
    classes = np.full(len(words), -1, np.int32)
    classes[2 : 2 + ENTITIES] = np.arange(ENTITIES)
    vocabulary = Vocabulary(words, np.array([0, 0, *[10] * (len(words) - 2)], np.int64))
    return Dataset("cnn", dict.fromkeys(("train", "dev", "test"), split), vocabulary, names, "synthetic", classes)


def measure(technique: str) -> None:
    """Three steps of one technique in this process; prints seconds a step and peak memory."""
    config = dataclasses.replace(parse(cnn.get_config()), technique=technique)
    size = config.training.batch_size
    trainer = build_trainer(
        config, random_questions(STEPS * size), None, METRICS["accuracy"], mesh=make_mesh(devices=1)
    )
    (bucket,) = trainer.buckets["train"]
    states, hparams = trainer.population.init(trainer.seeds), trainer.hparams
    neighbours = trainer.population.refresh(states.params)
    rows = np.full((1, 16, size), -1, np.int32)
    rows[0, :STEPS] = np.arange(STEPS * size).reshape(STEPS, size)
    losses = []
    for steps in (1, STEPS - 1):
        began = time.monotonic()
        states, sums = trainer.population.run_chunk(
            states,
            zero_sums(1),
            (bucket,),
            jnp.zeros(16, jnp.int32),
            jnp.asarray(rows),
            jnp.int32(0),
            jnp.int32(steps),
            hparams,
            trainer.seeds,
            neighbours,
        )
        losses.append(float(sums.loss[0] / sums.rows[0]))
        seconds = (time.monotonic() - began) / steps
    assert int(states.frozen_step[0]) == -1, "the run was frozen"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shape = "x".join(map(str, (size, bucket.tokens.shape[1])))
    print(
        f"{technique:13}  batch {shape}  {seconds:6.1f} s a step  peak {peak:5.1f} GiB  loss {losses[0]:.3f}",
        flush=True,
    )


def main(argv: Sequence[str]) -> int:
    """Measures the techniques named, or all, each in a process of its own."""
    if len(argv) == 3 and argv[1] == "--one":
        jax.config.update("jax_default_matmul_precision", "float32")
        measure(argv[2])
        return 0
    for technique in argv[1:] or TECHNIQUES:
        subprocess.run([sys.executable, "-m", "benchmarks.long_passages", "--one", technique], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
