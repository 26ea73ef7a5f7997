r"""What trained techniques say of texts: the prediction, the words behind it, and how robust it is.

    python -m launch.explain --workdir=runs/sst --text="An utterly charming film."
    python -m launch.explain --workdir=runs/sst --technique=vanilla,attention_iat --file=texts.txt --html=texts.html
    python -m launch.explain --workdir=runs/babi1 --text="Mary went to the office." --query="Where is Mary?"
    cut -f1 reviews.tsv | python -m launch.explain --workdir=runs/imdb --json > reviews.jsonl

Flags:
  --workdir=DIR            a workdir of launch.train or launch.ablate
  --text=TEXT              one text
  --query=TEXT             its question or hypothesis, where the data have them
  --file=FILE              texts in UTF-8, one per line, empty ones too; where the data have queries, a line holds the
                           passage, a tab and the query. Without --text and --file: standard input, written alike
  --technique=NAME[,NAME]  default: every technique of the workdir
  --epsilon=X              of the techniques that perturb; default: what is best on dev, with all other settings
  --seed=N                 default: the first of that setting
  --html=FILE              writes a page too
  --json                   prints one JSON object per text, and nothing else: text, words, known (whether the vocabulary
                           has the word), length (words before the text was cut off) and, for each technique, what names
                           the run, label, probability of each class, attention and importance of each word, and
                           certified_radius ("inf", or null for pairs); null stands for what is not a number

Attention and gradient importance sum to 1 over the words of a text (a passage). On a terminal the shade of a word is
its weight relative to the largest; without colour (a pipe, NO_COLOR) the weights are printed. The certified radius is
how far the attention scores (before the softmax) may each move and the prediction provably stays. The data set is not
read. Compiled programs are kept in DIR/compiled, so that the next start takes a few seconds.

Exit codes: 0 done, 1 a file could not be written, 2 the command, its texts or the workdir cannot be used.
"""

import contextlib
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from flax_attnat.data.archive import user_path
from flax_attnat.finished import finished
from flax_attnat.predictor import Predictor, load_all
from flax_attnat.reporting.results import Choice, best
from flax_attnat.training.workdir import read_lines, write_atomically
from launch import cli
from launch.explanation import Explained, Text, explain, render_page, to_json
from launch.shades import show_explained, show_legend

FLAGS = {
    "workdir": "a workdir of launch.train or launch.ablate",
    "text": "one text",
    "query": "its query",
    "file": "texts, one per line",
    "technique": "techniques",
    "epsilon": "of the techniques that perturb",
    "seed": "of the runs",
    "html": "page to write",
}
SWITCHES = {"json": "one JSON object per text"}
# Texts between two looks at the output.
CHUNK = 64


def main(argv: Sequence[str]) -> int:
    """Explains what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, switches=SWITCHES, config=False)
    workdir = cli.open_workdir(values.workdir)
    _check_page(values.html)
    given = _given(values)
    choices = _choose(workdir, values)
    cli.keep_programs(workdir)
    predictors = load_all(workdir, [_run(choice, values) for choice in choices])
    texts = _texts(given, values, pair=predictors[0].pair)
    try:
        found = _show(texts, predictors, values)
    except BrokenPipeError:  # whoever reads has seen enough; Python would complain of it again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if values.html:
        write_atomically(Path(values.html), render_page(found, predictors, choices[0].mark))
    return 0


def _show(texts: Sequence[Text], predictors: Sequence[Predictor], values: Any) -> list[Explained]:
    """Prints what is said of each text, as soon as it is known; gives what the page needs."""
    console, kept = cli.console(), list[Explained]()
    if not values.json:
        show_legend(console)
    number = itertools.count(1)
    for first in range(0, len(texts), CHUNK):
        for found in explain(texts[first : first + CHUNK], predictors):
            if values.json:
                print(json.dumps(to_json(found), allow_nan=False), flush=True)
            else:
                show_explained(console, found, f"text {next(number)} of {len(texts):,}")
            kept += [found] if values.html else []
    return kept


def _choose(workdir: epath.Path, values: Any) -> list[Choice]:
    """The setting of each technique asked for that is best on dev, in the order of the configuration."""
    order = list(dict.fromkeys((of.fields["technique"], of.fields["reading"]) for of in finished(workdir)))
    there = list(dict.fromkeys(technique for technique, _ in order))
    wanted = [name.strip() for name in (values.technique or "").split(",") if name.strip()] or there
    for name in wanted:
        if name not in there:
            raise cli.UsageError(f"--technique={name}: {workdir} has no such runs; it has {', '.join(there)}.")
    lines: Sequence[Mapping[str, Any]] = [of for of in read_lines(workdir, "results") if of["technique"] in wanted]
    if values.epsilon is not None:
        lines = _of_epsilon(lines, _number("epsilon", values.epsilon, float))
    chosen = []
    for choice in best(lines):
        if choice.setting is not None:
            chosen.append(choice)
            continue
        reasons = "; ".join(sorted({out.reason for out in choice.left_out}))
        print(f"note: {choice.technique} is not shown: every setting was left out ({reasons}).", file=sys.stderr)
    if not chosen:
        raise cli.UsageError(f"{workdir} has no run to show: none of {', '.join(wanted)} has results on dev and test.")
    return sorted(chosen, key=lambda choice: order.index((choice.technique, choice.reading)))


def _of_epsilon(lines: Sequence[Mapping[str, Any]], epsilon: float) -> list[Mapping[str, Any]]:
    """The lines of one epsilon, and those of techniques that have none."""
    there: dict[str, set[float]] = {}
    for line in lines:
        if line["epsilon"] is not None:
            there.setdefault(line["technique"], set()).add(line["epsilon"])
    for technique, found in there.items():
        if epsilon not in found:
            known = ", ".join(f"{value:g}" for value in sorted(found))
            raise cli.UsageError(f"--epsilon={epsilon:g}: the runs of {technique} have epsilon {known}.")
    return [line for line in lines if line["epsilon"] in (None, epsilon)]


def _run(choice: Choice, values: Any) -> dict[str, Any]:
    """What names the run of a choice."""
    seed = choice.seeds[0] if values.seed is None else _number("seed", values.seed, int)
    if seed not in choice.seeds:
        known = ", ".join(map(str, choice.seeds))
        raise cli.UsageError(f"--seed={seed}: {choice.technique} was trained with the seeds {known}.")
    assert choice.setting is not None
    setting = choice.setting._asdict()
    setting["lambda"] = setting.pop("adversarial_weight")
    return {"technique": choice.technique, "reading": choice.reading, "seed": seed} | setting


def _number(flag: str, text: str, kind: Callable[[str], Any]) -> Any:
    """A number of a flag."""
    with contextlib.suppress(ValueError):
        value = kind(text)
        if math.isfinite(value):
            return value
    raise cli.UsageError(f"--{flag} must be a {'whole ' if kind is int else ''}number; got {text!r}.")


def _check_page(name: str | None) -> None:
    """Makes sure that a page can be written before anything is computed."""
    if name is not None and (not name or Path(name).is_dir() or not Path(name).parent.is_dir()):
        raise cli.UsageError(f"--html={name}: give a file in a folder that is there.")


def _given(values: Any) -> list[tuple[str, str]]:
    """What is to be explained, each with the words for where it stands: one text, or lines."""
    if values.text is not None and values.file is not None:
        raise cli.UsageError("give --text or --file, not both.")
    if values.text is None and values.query is not None:
        raise cli.UsageError("--query goes with --text; in a file it stands behind a tab in the line of its passage.")
    if values.text is not None:
        for name in ("text", "query"):
            try:
                (getattr(values, name) or "").encode()
            except UnicodeEncodeError as error:
                raise cli.UsageError(f"--{name} is not UTF-8: write it in UTF-8, or put it into a file.") from error
        return [("--text", values.text)]
    if values.file is not None:
        try:
            return list(_lines(f"--file={values.file}", user_path(values.file).read_bytes()))
        except OSError as error:
            raise cli.UsageError(f"--file={values.file} cannot be read: {error.strerror or error}.") from error
    if sys.stdin is None or sys.stdin.isatty():
        raise cli.UsageError("there is no text: give --text=TEXT or --file=FILE, or pipe texts in, one per line.")
    return list(_lines("standard input", sys.stdin.buffer.read()))


def _lines(name: str, content: bytes) -> Iterator[tuple[str, str]]:
    """The lines of a file, each with its number."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = content.count(b"\n", 0, error.start) + 1
        raise cli.UsageError(f"{name}, line {place} is not UTF-8 ({error.reason}): convert it.") from error
    if not text:
        raise cli.UsageError(f"{name} holds no text: write one per line.")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield f"{name}, line {number}", line.removesuffix("\r")


def _texts(given: Sequence[tuple[str, str]], values: Any, *, pair: bool) -> list[Text]:
    """Texts, with their queries where the model reads them."""
    if values.text is not None:
        if pair != (values.query is not None):
            do = "give each text its question or hypothesis: --query=TEXT" if pair else "leave --query out"
            raise cli.UsageError(f"these runs read {'passages with queries' if pair else 'texts alone'}: {do}.")
        return [Text(values.text, values.query)]
    if not pair:
        return [Text(line, None) for _, line in given]
    texts = []
    for name, line in given:
        passage, *queries = line.split("\t")
        if len(queries) != 1:
            raise cli.UsageError(
                f"{name} has {len(queries)} tabs: these runs read passages with queries; write the passage, one tab,"
                " the query."
            )
        texts.append(Text(passage, queries[0]))
    return texts


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
