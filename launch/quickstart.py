"""Trains each of the six techniques on the embedded synthetic data set and shows what they do to attention.

    bash launch/quickstart.sh

Flags:
  --workdir=DIR    where runs and the heat map go (default runs/quickstart); what is finished there is not trained again

Prints a table of F1 and of the correlation between attention and gradient importance, and the path of a heat-map file.
One seed on synthetic sentences: a look at the parts, not a comparison of the techniques.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console

from configs import planted
from flax_attnat.ablation import is_finished
from flax_attnat.allowed import TECHNIQUES
from flax_attnat.config import Config, parse
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load
from flax_attnat.data.vocabulary import UNKNOWN_ID
from flax_attnat.evaluation.measure import SplitInstances, build_explain, explain_split
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.reporting.heatmap import Column, Sentence, render
from flax_attnat.reporting.tables import summarise
from flax_attnat.training.loop import Stopped
from flax_attnat.training.runs import cohorts
from flax_attnat.training.saved import restore_trained
from flax_attnat.training.trainer import build_trainer
from flax_attnat.training.workdir import WorkdirError, check_free, read_lines, write_atomically
from launch import cli
from launch.display import Display, results_table
from launch.train import Signals, train

SHOWN = ("vanilla", "attention_at", "attention_iat")
SENTENCES = 12


def main(argv: Sequence[str]) -> int:
    """Trains, tabulates, draws; returns the exit code."""
    values = cli.flag_values(argv, {"workdir": "where runs and the heat map go"}, config=False)
    workdir = cli.open_workdir(values.workdir or "runs/quickstart")
    console = cli.console()
    base = parse(planted.get_config().to_dict())
    dataset = load(base)
    # The techniques share most of their programs: what one has compiled, the next finds here.
    cli.keep_programs(workdir)
    signals = Signals()
    lines: list[dict[str, Any]] = []
    found: dict[str, SplitInstances] = {}
    for technique in TECHNIQUES:
        config = dataclasses.replace(base, technique=technique)
        try:
            train_once(config, dataset, workdir / technique, console, signals)
        except Stopped:
            console.print("Stopped; the same command goes on from here.")
            return 128 + (signals.received or 2)
        lines += [line for line in read_lines(workdir / technique, "results") if line["split"] == "test"]
        if technique in SHOWN:
            found[technique] = explain_test(config, dataset, workdir / technique, console)
    columns = ("technique", "epsilon", "n", "F1", "Pearson")
    rows = [{name: row[name] for name in columns} for row in summarise(lines)]
    console.print(results_table("planted, test split (synthetic data, one seed)", rows))
    page = workdir / "heatmap.html"
    write_atomically(page, heat_map(dataset, {name: found[name] for name in SHOWN}))
    console.print("Pearson: mean correlation of attention and gradient importance over the sentences.")
    console.print(f"heat map: {Path(page).resolve()}", soft_wrap=True)
    return 0


def train_once(config: Config, dataset: Dataset, workdir: epath.Path, console: Console, signals: Signals) -> None:
    """Trains and measures one technique, unless that was done before."""
    if not check_free(workdir, config) and all(is_finished(workdir, cohort) for cohort in cohorts(config)):
        return
    board = Display(console, config.training.epochs, f"{config.dataset} {config.technique}")
    train(config, dataset, None, workdir, console, board, signals)


def explain_test(config: Config, dataset: Dataset, workdir: epath.Path, console: Console) -> SplitInstances:
    """What a trained technique says of the test split."""
    trainer = build_trainer(config, dataset, None, METRICS[config.training.selection])
    restored = restore_trained(trainer, workdir, console.print)
    if restored is None:
        raise WorkdirError(f"{workdir} has results but nothing trained: delete it and run again.")
    return explain_split(trainer, build_explain(trainer), restored[0].best_params, "test")


def heat_map(dataset: Dataset, found: Mapping[str, SplitInstances]) -> str:
    """A page with the first test sentences under each technique of `found`."""
    sentences = []
    test = dataset.splits["test"]
    for place, record in enumerate(test.records[:SENTENCES]):
        size = len(record.words)
        columns = []
        for technique, instances in found.items():
            probability = instances.probability[0, place]
            said = int(probability.argmax())
            columns.append(
                Column(
                    title=technique,
                    prediction=f"{dataset.label_names[said]} {probability.max():.2f}",
                    right=said == record.label,
                    attention=np.asarray(instances.attention[0, place, :size]).tolist(),
                    importance=np.asarray(instances.importance[0, place, :size]).tolist(),
                )
            )
        known = (test.tokens[place] != UNKNOWN_ID).tolist()
        label = dataset.label_names[record.label]
        sentences.append(Sentence(record.words, label, record.rationale or (), columns, known))
    note = (
        f"The first {len(sentences)} test sentences of the synthetic data set planted, under "
        f"{len(found)} techniques, one seed each. A label may be wrong on purpose: 4 % of them are."
    )
    return render("Attention and gradient importance", note, sentences)


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
