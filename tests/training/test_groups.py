"""Runs of a population advance together or one after another: the same runs."""

import jax
import numpy as np

from benchmarks.work import Sizes, build_ours
from flax_attnat.config import PopulationConfig

SIZES = Sizes(rows=4, tokens=6, vocabulary=40, embedding=12, hidden=8, batches=2)


def test_runs_together_or_one_after_another_are_the_same_runs() -> None:
    """Groups of one, of two and all of four runs: equal to rounding after two steps."""
    found = []
    for together in (1, 2, 4):
        ours = build_ours("attention_at", SIZES, 4, population=PopulationConfig(runs_together=together))
        states, loss = ours.run(ours.states)
        found.append((np.asarray(loss), jax.tree.map(np.asarray, states.params)))
    for loss, params in found[1:]:
        np.testing.assert_allclose(loss, found[0][0], rtol=1e-5)
        # A gradient that is zero but for rounding has a first step of either sign, as long as the learning rate.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2.5e-3), params, found[0][1])
    assert len({float(value) for value in found[0][0]}) == 4, "epsilons that differ"


def test_a_group_divides_the_runs() -> None:
    """Five runs, two together at most: one after another, none left out."""
    ours = build_ours("vanilla", SIZES, 5, population=PopulationConfig(runs_together=2))
    states, _ = ours.run(ours.states)
    assert np.asarray(states.step).tolist() == [SIZES.batches] * 5
