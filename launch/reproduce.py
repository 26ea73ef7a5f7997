r"""Trains what the paper's claims need, as far as the hours go, and writes what of the paper holds.

    python -m launch.reproduce --budget_hours=0
    python -m launch.reproduce --datasets=sst,babi1 --budget_hours=2 --raw_dir=DIR --vectors=FILE

Flags:
  --budget_hours=H   trains so long; what is unfinished then is saved, and goes on with the next (default 0: nothing is
                     trained)
  --datasets=NAME[,NAME]
                     some of sst, babi1, newsgroups, imdb, ag_news, babi2, babi3, snli, multi_nli, cnn (default: the
                     first three); the record shows all that there are lines of
  --full             twelve epsilons and five seeds of each, for a GPU or TPU; without it what two CPU cores can do
  --raw_dir=DIR      where the raw files lie; --data_dir=DIR where what is prepared from them is kept
  --vectors=FILE     pretrained word vectors (not read for bAbI)
  --workdir=DIR      checkpoints of what is being trained, and compiled programs (default runs/reproduction)
  --records=DIR      a file of lines for every setting that is finished, which counts as done (default
                     docs/reproduction)
  --out=FILE         the document (default docs/reproduction.md); its figures go to the folder of the records

Says first what there is to train and how many hours that is estimated at, from a few steps of each data set or from
what is finished. Everything resumes: the same command goes on where it was stopped. The document follows from the lines
alone, byte for byte. On a CPU a training uses little more than one core, so start one command per core, each with data
sets and a workdir of its own (on Linux: taskset -c 0 python -m launch.reproduce ...); then one more with no budget, for
a document of all.

Exit codes: 0 done or out of budget, 1 a checkpoint could not be written, 2 the command or its data cannot be used, 130
and 143 interrupted or terminated with everything saved.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from rich.console import Console

from configs import reproduction
from configs.reproduction import Part
from flax_attnat.config import Config, parse
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load, load_vectors
from flax_attnat.data.vectors import Vectors
from flax_attnat.reproduction.cohort import estimate_seconds, train_cohort
from flax_attnat.reproduction.document import write_document
from flax_attnat.reproduction.records import Done, part_name, read_records, write_record
from flax_attnat.reproduction.settings import chosen, main_variant
from flax_attnat.training.loop import Stopped
from flax_attnat.training.workdir import locked
from launch import cli
from launch.display import preparing, show, show_notes
from launch.train import Signals, show_coverage

FLAGS = {
    "budget_hours": "hours of training",
    "datasets": "names of data sets",
    "raw_dir": "where the raw files lie",
    "data_dir": "where prepared records are kept",
    "vectors": "pretrained word vectors",
    "workdir": "checkpoints and compiled programs",
    "records": "lines of what is finished",
    "out": "the document",
}
SWITCHES = {"full": "twelve epsilons and five seeds"}
DEFAULTS = {"workdir": "runs/reproduction", "records": "docs/reproduction", "out": "docs/reproduction.md"}
USUAL = ("sst", "babi1", "newsgroups")

# A step of a word technique beside one of the others, and what evaluation and dev add, for estimates.
WORD_STEPS, REST = 2.2, 1.25

LEAST_SECONDS = 300.0
"""What will not be finished is begun where so much of the budget is left; less might go into starting alone."""


def main(argv: Sequence[str]) -> int:
    """Trains and writes what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, switches=SWITCHES, config=False)
    hours, datasets = _hours(values.budget_hours), _datasets(values.datasets)
    workdir, records = (
        cli.open_workdir(getattr(values, name) or DEFAULTS[name], name) for name in ("workdir", "records")
    )
    out = cli.open_file(values.out or DEFAULTS["out"], "out")
    if not hours and not records.exists():
        raise cli.UsageError(
            f"--records={records} is not there: give a folder of records, or --budget_hours=H to train."
        )
    console = cli.console()
    code = 0
    if hours:
        cli.keep_programs(workdir)
        with locked(workdir):
            code = _Training(values, workdir, records, console).train(datasets, 3600 * hours)
    lines = read_records(records).lines
    write_document(lines, records, out)
    show(console, f"{out}: {len(lines):,} lines of finished runs.")
    return code


def _hours(text: str | None) -> float:
    """The budget."""
    try:
        hours = float(text or 0)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < float("inf"):
        raise cli.UsageError(f"--budget_hours must be a number of hours such as 2.5; got {text!r}.")
    return hours


def _datasets(text: str | None) -> tuple[str, ...]:
    """The data sets, in the order of the grid."""
    names = tuple(name.strip() for name in text.split(",")) if text else USUAL
    for name in names:
        if name not in reproduction.DATASETS:
            raise cli.UsageError(f"--datasets names some of {', '.join(reproduction.DATASETS)}; got {name!r}.")
    return tuple(name for name in reproduction.DATASETS if name in names)


class _Training:
    """Trains the parts of the grid one after another."""

    def __init__(self, values: Any, workdir: epath.Path, records: epath.Path, console: Console) -> None:
        self._values, self._workdir, self._records, self._console = values, workdir, records, console
        self._signals = Signals()
        self._data: dict[tuple[str, str], tuple[Dataset, Vectors | None]] = {}
        self._said: set[tuple[str, str]] = set()
        self._seconds: dict[str, float] = {}

    def train(self, datasets: tuple[str, ...], budget: float) -> int:
        """Trains what is not done within the budget in seconds; returns the exit code."""
        end = time.monotonic() + budget
        left = [part for part in reproduction.parts(datasets, full=self._values.full) if self._ahead(part)]
        show(self._console, self._outlook(left, budget))
        for place, planned in enumerate(left):
            # An epsilon that is chosen by what was trained meanwhile may be another now.
            if (part := self._todo(planned)) is None:
                continue
            needed, rest = self._estimate(part), end - time.monotonic()
            others = f"{len(left) - place} of {len(left)} settings are for another time."
            if rest < min(needed, LEAST_SECONDS):
                took = f"{part_name(part)} would take about {_duration(needed)}, and {_duration(max(rest, 0))} are left"
                show(self._console, f"{took}: {others}")
                return 0
            try:
                self._train_part(part, end)
            except Stopped:
                if self._signals.received is not None:
                    show(self._console, f"Stopped; the same command goes on from here ({self._workdir}).")
                    return 128 + self._signals.received
                saved = f"The budget is over within {part_name(part)}, which is saved in {self._workdir}"
                show(self._console, f"{saved}: {others}")
                return 0
        return 0

    def _train_part(self, part: Part, end: float) -> None:
        """Trains one part and writes its lines; stops with everything saved when the clock is at `end`."""
        began = time.monotonic()
        config, (dataset, vectors) = self._config(part), self._load(part)
        folder = self._workdir / part_name(part)
        facts = {"variant": part.variant}

        def stop() -> bool:
            """Whether a signal came, or the budget is over."""
            return self._signals.received is not None or time.monotonic() > end

        lines = train_cohort(config, dataset, vectors, folder, facts, stop=stop, say=self._say)
        write_record(self._records, part, lines)
        folder.rmtree(missing_ok=True)
        figure = "f1" if lines[0]["classes"] == 2 else "accuracy"
        test = [line[figure] for line in lines if (line["split"], line["epoch"]) == ("test", "best")]
        said = ", ".join("n/a" if value is None else f"{100 * value:.1f}" for value in test)
        show(self._console, f"{part_name(part)}: {figure} {said}; {_duration(time.monotonic() - began)}")

    def _say(self, sentence: str) -> None:
        """A sentence between the lines of progress."""
        self._console.print(sentence, style="yellow", highlight=False, markup=False)

    def _ahead(self, part: Part) -> bool:
        """Whether a part is to be trained, now or once its epsilon is known."""
        return self._todo(part) is not None or (part.epsilon == "chosen" and self._chosen(part) is None)

    def _todo(self, part: Part) -> Part | None:
        """The part with its epsilon, and the seeds that are not done; None without a seed, or a known epsilon."""
        done = read_records(self._records)
        if part.epsilon == "chosen":
            if (epsilon := self._chosen(part)) is None:
                return None
            part = part._replace(epsilon=epsilon)
        seeds = tuple(seed for seed in part.seeds if Done(*part[:5], seed) not in done.runs)
        return part._replace(seeds=seeds) if seeds else None

    def _chosen(self, part: Part) -> float | None:
        """The epsilon of a technique that is best on dev so far; None before it was trained."""
        best = chosen(read_records(self._records).lines, part.dataset, main_variant(part.dataset))
        setting = best.get((part.technique, part.reading))
        return None if setting is None else setting.epsilon

    def _config(self, part: Part) -> Config:
        """The configuration of one part."""
        values = reproduction.base(part.dataset)
        values.technique, values.seeds = part.technique, part.seeds
        values.epsilon = float(part.epsilon or 0)
        if part.reading:
            values.reading = part.reading
        if part.variant == "scaled_dot":
            values.model.attention = "scaled_dot"
        config = parse(values)
        named = {name: getattr(self._values, name) or getattr(config.data, name) for name in ("raw_dir", "data_dir")}
        random = "random" in (part.variant, main_variant(part.dataset))
        vectors = "" if random else self._values.vectors or ""
        if not random and not vectors:
            raise cli.UsageError(f"{part.dataset} starts from pretrained vectors: say where they are, --vectors=FILE.")
        return dataclasses.replace(config, data=dataclasses.replace(config.data, vectors=vectors, **named))

    def _load(self, part: Part) -> tuple[Dataset, Vectors | None]:
        """The data of a part, read once."""
        config = self._config(part)
        key = (part.dataset, config.data.vectors)
        if key not in self._data:
            with preparing(self._console) as progress:
                dataset = load(config, progress)
                vectors = load_vectors(config, dataset.vocabulary, progress)
            self._check(part.dataset, dataset)
            if key not in self._said:
                show_notes(self._console, dataset)
                show_coverage(self._console, vectors)
                self._said.add(key)
            self._data = {key: (dataset, vectors)}  # one at a time: they take memory
        return self._data[key]

    def _check(self, name: str, dataset: Dataset) -> None:
        """Raises UsageError, before anything is trained, for data that the lines of the record are not of."""
        here = {"train_n": len(dataset.splits["train"].labels), "vocabulary": len(dataset.vocabulary.words)}
        for line in read_records(self._records).lines:
            there = {field: line[field] for field in here}
            if line["dataset"] == name and there != here:
                raise cli.UsageError(
                    f"the lines of {name} in {self._records} are of other data ({there['train_n']:,} training texts of"
                    f" {there['vocabulary']:,} words; here {here['train_n']:,} of {here['vocabulary']:,}): what is"
                    f" compared is of the same data. Remove {name}-*.jsonl.gz there, or give another --records."
                )

    def _estimate(self, part: Part) -> float:
        """Seconds that a part takes about: from what is done of its data set on such a device, or from a few steps."""
        name, device = part.dataset, jax.devices()[0].device_kind
        weight = WORD_STEPS if part.technique.startswith("word_") else 1.0
        if name not in self._seconds:
            past = [
                line["seconds"] / line["population"] / (WORD_STEPS if line["technique"].startswith("word_") else 1.0)
                for line in read_records(self._records).lines
                if (line["dataset"], line["device"], line["split"]) == (name, device, "dev")
            ]
            if past:
                self._seconds[name] = sorted(past)[len(past) // 2]
            else:
                plain = part._replace(technique="vanilla", reading=None, epsilon=None, seeds=part.seeds[:1])
                self._seconds[name] = estimate_seconds(self._config(plain), self._load(part)[0])
        return REST * weight * self._seconds[name] * len(part.seeds)

    def _outlook(self, left: Sequence[Part], budget: float) -> str:
        """What there is to do."""
        if not left:
            return "Everything that was asked for is done."
        runs = sum(len(part.seeds) for part in left)
        seconds = sum(self._estimate(part) for part in left)
        return (
            f"{runs} runs of {len(left)} settings are left, estimated at {_duration(seconds)} on"
            f" {jax.devices()[0].device_kind}; the budget is {_duration(budget)}."
        )


def _duration(seconds: float) -> str:
    """Minutes, or hours from two on."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
