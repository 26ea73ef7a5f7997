"""Measures the best epoch of every run of a workdir: prediction, and whether its attention is interpretable and robust.

    python -m launch.evaluate --workdir=runs/sst
    python -m launch.evaluate --workdir=runs/sst --suite=interpretability,faithfulness,robustness
    python -m launch.evaluate --workdir=runs/sst,runs/imdb --suite=significance

Flags:
  --workdir=DIR[,DIR]  workdirs of launch.train or launch.ablate, from their first checkpoint on
  --split=NAME         train, dev or test (default test)
  --suite=NAME[,NAME]  what is measured beyond F1, accuracy, AUC and Pearson; all of them by --suite=all:
                       interpretability  attention against gradients and leave-one-out (Pearson, Spearman, Kendall tau,
                                         top-k); permuted and adversarial attention; divergence between seeds
                       faithfulness      comprehensiveness and sufficiency (AOPC) of attention, gradient, leave-one-out,
                                         random; AUPRC, token F1 and IOU-F1 where the data have rationales
                       robustness        accuracy under attacks on the attention scores, what is certified, and under
                                         deleted words
                       significance      each technique against vanilla, at its setting that is best on dev
  --against=NAME       the technique that significance compares the others with (default vanilla)
  --linf=R[,R]         radii of the attacks under the largest change of a score; 0 and inf are allowed
  --l2=R[,R]           radii under the Euclidean norm
  --steps=N            gradient steps of an attack (default 20)
  --restarts=N         starts of an attack (default 4), one after another: they cost time, not memory
  --raw_dir=DIR        where the raw files lie now, if they have moved since training
  --data_dir=DIR       where the prepared records lie now, likewise

Prints tables: a column per technique and setting, mean ± sd over seeds. Nothing is trained, and what was measured
before is shown as it is. results.jsonl gets a line per run and suite; instances/ gets arrays with a row per text
(NumPy .npz); significance.jsonl gets the comparisons, corrected over the workdirs given (Holm). It is one process and
joins no others.

Exit codes: 0 done, 1 a file could not be written or the memory is too small for a single text, 2 the workdir or its
data cannot be used.
"""

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath
from rich.console import Console
from rich.progress import Progress

from flax_attnat.allowed import CONTROLS, TECHNIQUES
from flax_attnat.config import PopulationConfig
from flax_attnat.data.load import load
from flax_attnat.evaluate import Report, Task, evaluate
from flax_attnat.evaluation.comparison import compare, correct
from flax_attnat.evaluation.measure import check_measurable
from flax_attnat.evaluation.suite import SUITES, Options
from flax_attnat.reporting.lines import read_comparisons
from flax_attnat.reporting.measures import check_lines, comparison_table, measure_table
from flax_attnat.reporting.results import best
from flax_attnat.training.workdir import WorkdirError, locked, read_config, read_lines, write_atomically
from launch import cli
from launch.display import preparing, show, show_table
from launch.train import report_frozen, results_title, show_results

FLAGS = {
    "workdir": "workdirs of launch.train or launch.ablate",
    "split": "train, dev or test",
    "suite": "what is measured besides",
    "against": "technique",
    "linf": "radii",
    "l2": "radii",
    "steps": "of an attack",
    "restarts": "of an attack",
    "raw_dir": "where the raw files lie now",
    "data_dir": "where the prepared records lie now",
}
SIGNIFICANCE, COMPARISONS = "significance", "significance.jsonl"
SPLITS = ("train", "dev", "test")


def main(argv: Sequence[str]) -> int:
    """Measures what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, config=False)
    workdirs = [cli.open_workdir(name) for name in (values.workdir or "").split(",")]
    split, suites, options = values.split or "test", _suites(values.suite), _options(values)
    against = values.against or "vanilla"
    for flag, value, known in (("split", split, SPLITS), ("against", against, TECHNIQUES + CONTROLS)):
        if value not in known:
            raise cli.UsageError(f"--{flag} must be {', '.join(known[:-1])} or {known[-1]}; got {value!r}.")
    if len({str(workdir.resolve()) for workdir in workdirs}) < len(workdirs):
        raise cli.UsageError(f"--workdir={values.workdir} names a workdir twice: give each once.")
    console = cli.console()
    for workdir in workdirs if SIGNIFICANCE in suites else ():
        read_comparisons(workdir / COMPARISONS)  # damaged ones are said before anything is measured
    writable: list[epath.Path] = []
    comparisons: list[dict[str, Any]] = []
    for workdir in workdirs:
        task = Task(split, [suite for suite in SUITES if suite in suites], options, _say(console))
        report, kept = _evaluate(workdir, task, values, console)
        _show(console, report, split)
        if SIGNIFICANCE in suites:
            comparisons += _compare(workdir, report, against, task.say)
        writable += [workdir] if kept else []
    if SIGNIFICANCE in suites:
        _show_comparisons(console, writable, correct(comparisons), split, against)
    return 0


def _suites(text: str | None) -> list[str]:
    """The suites that a flag names."""
    known = (*SUITES, SIGNIFICANCE)
    names = list(known) if text == "all" else [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise cli.UsageError(f"--suite names some of {', '.join(known)}, or all; got {name!r}.")
    return names


def _options(values: Any) -> Options:
    """Radii, steps and restarts of the attacks."""
    found: dict[str, Any] = {}
    for name in ("linf", "l2"):
        if text := getattr(values, name):
            found[name] = tuple(_number(name, part, float, 0) for part in text.split(","))
    for name in ("steps", "restarts"):
        if text := getattr(values, name):
            found[name] = _number(name, text, int, 1)
    return Options(**found)


def _number(flag: str, text: str, kind: Callable[[str], Any], least: int) -> Any:
    """A number of a flag."""
    with contextlib.suppress(ValueError):
        value = kind(text)
        if not math.isnan(value) and value >= least:
            return value
    what = "numbers of at least 0, inf included," if kind is float else "a whole number of at least 1"
    raise cli.UsageError(f"--{flag} must be {what} such as {'0.5,1,2' if kind is float else '20'}; got {text!r}.")


def _say(console: Console) -> Callable[[str], None]:
    """Prints a sentence that a user should see."""
    return lambda sentence: console.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _evaluate(workdir: epath.Path, task: Task, values: Any, console: Console) -> tuple[Report, bool]:
    """Measures one workdir; says too whether what is new may be kept there."""
    config = read_config(workdir)
    data = dataclasses.replace(
        config.data, raw_dir=values.raw_dir or config.data.raw_dir, data_dir=values.data_dir or config.data.data_dir
    )
    config = dataclasses.replace(config, data=data, population=PopulationConfig())
    cli.keep_programs(workdir)
    with preparing(console) as progress:
        dataset = load(config, progress)
    check_measurable(dataset, (task.split,))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir))
        except WorkdirError as error:
            task.say(f"{error} Figures are shown, and not kept.")
            task = task._replace(write=False)
        bar = stack.enter_context(_progress(console))
        return evaluate(config, dataset, workdir, task._replace(progress=bar)), task.write


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per population on a terminal; nothing elsewhere."""
    if not console.is_terminal:
        yield lambda part, texts, of: None
        return
    tasks: dict[str, Any] = {}
    with Progress(console=console, transient=True) as bar:

        def update(part: str, texts: int, of: int) -> None:
            """How many texts of a population are measured."""
            if part not in tasks:
                tasks[part] = bar.add_task(part, total=of)
            bar.update(tasks[part], completed=texts)

        yield update


def _show(console: Console, report: Report, split: str) -> None:
    """Prints the tables of a workdir."""
    report_frozen(console, report.lines)
    show_results(console, report.lines)
    title = results_title(report.lines)
    for suite, lines in report.families.items():
        rows, reasons = measure_table(lines)
        show_table(console, f"{title}, {split}: {suite}", rows)
        for sentence in reasons + (check_lines(lines) if suite == "robustness" else []):
            show(console, sentence)
    if report.seconds:
        parts = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in report.seconds.items())
        show(console, f"seconds: {parts}; {sum(report.seconds.values()):.0f} in all.")


def _compare(workdir: epath.Path, report: Report, against: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each technique at its setting that is best on dev against one of them at its own."""
    names = ("technique", "reading", "epsilon", "lambda", "learning_rate", "weight_decay")
    settings = {tuple(of.fields[name] for name in names): of for of in report.measured}
    chosen = []
    for choice in best(read_lines(workdir, "results")):
        if choice.setting is None:
            reasons = "; ".join(sorted({out.reason for out in choice.left_out}))
            say(f"{workdir}: {choice.technique} is not compared: every setting was left out ({reasons}).")
            continue
        # Seeds that are not trained to the end have figures here, but no results; damaged ones have no figures.
        of = settings.get((choice.technique, choice.reading, *choice.setting))
        if of is not None and (of := of.of_seeds(choice.seeds)).seeds:
            chosen.append(of)
    reference = next((of for of in chosen if of.fields["technique"] == against), None)
    if reference is None:
        say(
            f"{workdir}: nothing is compared: it has no {against} that was measured on dev and test. Train it there"
            f" with launch.ablate and --config.sweep.techniques={against},..., or name another technique by --against."
        )
        return []
    lines = [line for of in chosen if of is not reference for line in compare(of, reference)]
    return [{"workdir": str(workdir)} | line for line in lines]


def _show_comparisons(
    console: Console, workdirs: Sequence[epath.Path], lines: list[dict[str, Any]], split: str, against: str
) -> None:
    """Prints the comparisons, and writes them into workdirs beside what these had of other splits and references."""
    if not lines:
        show(console, f"There is nothing to compare with {against}.")
        return
    for workdir in workdirs:
        before = read_comparisons(workdir / COMPARISONS).lines
        kept = [line for line in before if (line["split"], line["against"]) != (split, against)]
        write_atomically(workdir / COMPARISONS, "".join(json.dumps(line) + "\n" for line in kept + lines))
    title = f"difference from {against} on {split}, each at its best setting on dev"
    show_table(console, title, comparison_table(lines), keys=3)


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
