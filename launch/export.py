r"""Writes one trained run as a single file, with all that it takes to use it: to be kept, or handed on.

    python -m launch.export --workdir=runs/sst --safetensors=sst.safetensors
    python -m launch.export --workdir=runs/ablation_sst --technique=attention_at --epsilon=5 --seed=0 \
        --safetensors=out/sst.safetensors

Flags:
  --workdir=DIR           of launch.train or launch.ablate, its runs trained to the end
  --technique=NAME, --reading=NAME, --epsilon=X, --lambda=X, --learning_rate=X, --weight_decay=X, --seed=N
                          values that exactly one run has; without any, the run that is best on dev
  --safetensors=FILE      what is written: parameters of the best epoch, vocabulary, classes, configuration; ends in
                          .safetensors, in a folder that is there; may be a gs:// address. An older one is replaced.

In Python, fa.load("FILE") predicts and explains as fa.load(DIR, run) does, bit for bit on the same machine. The format
is read by the library safetensors in any language and runs no code; flax_attnat/portable.py says what lies where.
The configuration is written whole, with the paths of the data in it.

Exit codes: 0 done, 1 the file could not be written, 2 the command or the workdir cannot be used.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from flax_attnat.portable import SUFFIX, write_safetensors
from flax_attnat.predictor import load
from launch import cli
from launch.display import show

KINDS: dict[str, Callable[[str], Any]] = {
    "technique": str,
    "reading": str,
    "epsilon": float,
    "lambda": float,
    "learning_rate": float,
    "weight_decay": float,
    "seed": int,
}
FLAGS = {"workdir": "of launch.train or launch.ablate", "safetensors": "what is written"} | dict.fromkeys(
    KINDS, "of the run"
)


def main(argv: Sequence[str]) -> int:
    """Writes what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, config=False)
    workdir, path = cli.open_workdir(values.workdir), _target(values.safetensors)
    run = {name: _value(name, text, kind) for name, kind in KINDS.items() if (text := getattr(values, name))}
    predictor = load(workdir, run or None)
    write_safetensors(predictor, path)
    told = ", ".join(f"{name} {value}" for name, value in predictor.run.items() if value is not None)
    size, words = path.stat().length / 1e6, len(predictor.vocabulary.words)
    show(cli.console(), f"{path}: {told}; {words:,} words, {size:,.1f} MB.")
    return 0


def _target(text: str | None) -> epath.Path:
    """The file to be written, in a folder that is there."""
    if not text:
        raise cli.UsageError(f"--safetensors=FILE is missing: say what is to be written, with a name in {SUFFIX}.")
    path = cli.open_file(text, "safetensors")
    if path.suffix != SUFFIX:
        raise cli.UsageError(f"--safetensors={text} does not end in {SUFFIX}: give a name that does.")
    if "://" not in text and not path.parent.is_dir():
        raise cli.UsageError(f"--safetensors={text}: there is no folder {path.parent}; make it, or give another.")
    return path


def _value(name: str, text: str, kind: Callable[[str], Any]) -> Any:
    """A flag as the value of a run."""
    with contextlib.suppress(ValueError):
        value = kind(text)
        if kind is str or math.isfinite(value):
            return value
    what = "a whole number such as 0" if kind is int else "a number such as 5 or 0.5"
    raise cli.UsageError(f"--{name} must be {what}; got {text!r}.")


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
