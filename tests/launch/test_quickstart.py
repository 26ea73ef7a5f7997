"""What the README's first command shows."""

import re

import numpy as np

from flax_attnat.config import Config
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.load import load
from flax_attnat.evaluation.measure import SplitInstances
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
