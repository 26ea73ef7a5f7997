"""What the README's first command shows."""

import re
from pathlib import Path

import numpy as np
import pytest

from configs import planted
from flax_attnat.config import Config
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load
from flax_attnat.evaluation.measure import SplitInstances
from flax_attnat.training.workdir import read_lines
from launch import cli, quickstart
from launch.quickstart import SENTENCES, heat_map


def test_the_heat_map_shows_the_first_test_sentences_under_each_technique() -> None:
    dataset: Dataset = load(Config(dataset="planted"))
    rng = np.random.default_rng(0)
    size = len(dataset.splits["test"].records)
    weights = rng.dirichlet(np.ones(32), (1, size)).astype(np.float32)
    probability = np.broadcast_to(np.array([0.25, 0.75], np.float32), (1, size, 2))
    instances = SplitInstances(probability, weights, weights, weights[..., 0], np.zeros(size), np.zeros(size))
    page = heat_map(dataset, {"vanilla": instances, "attention_at": instances})
    first = dataset.splits["test"].records[0]
    assert page.count("<section") == SENTENCES and page.count("<h3") == 2 * SENTENCES
    assert f"Label: {dataset.label_names[first.label]}" in page and "positive 0.75" in page
    marked = sum(len(record.rationale or ()) for record in dataset.splits["test"].records[:SENTENCES])
    assert len(re.findall(r"<u[ >]", page)) == 1 + 4 * marked, "the legend has one"
    assert "synthetic" in page


def test_it_trains_six_techniques_once_and_shows_their_figures_on_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of the table are those of results.jsonl; a second start trains nothing and shows them again."""
    monkeypatch.setenv("COLUMNS", "200")
    small = planted.get_config()
    small.model.encoder, small.model.hidden_size, small.model.embedding_size, small.training.epochs = "average", 4, 8, 1
    monkeypatch.setattr(planted, "get_config", lambda: small)
    command = ["quickstart", f"--workdir={tmp_path}"]
    assert cli.run(quickstart, quickstart.main, command) == 0
    shown = capsys.readouterr().out
    for technique in ("vanilla", "attention_rp", "attention_at", "attention_iat", "word_at", "word_iat"):
        (line,) = (line for line in read_lines(tmp_path / technique, "results") if line["split"] == "test")
        (row,) = (row for row in shown.splitlines() if re.match(rf"\W*{technique}\b.*\d", row))
        assert f"{line['f1']:.3f}" in row or f"{100 * line['f1']:.1f}" in row
    page = (tmp_path / "heatmap.html").read_text()
    assert all(f">{name}" in page for name in quickstart.SHOWN)
    monkeypatch.setattr(quickstart, "train", lambda *_: pytest.fail("it was trained again"))
    assert cli.run(quickstart, quickstart.main, command) == 0
    table = [row for row in shown.splitlines() if "attention_rp" in row][-1]
    assert table in capsys.readouterr().out and (tmp_path / "heatmap.html").read_text() == page
