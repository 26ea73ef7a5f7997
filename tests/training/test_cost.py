"""What a training step costs, in counts that no machine changes: loops over time, operations, programs."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.growth import trace_chunk
from benchmarks.work import Sizes, build_ours
from flax_attnat.allowed import TECHNIQUES
from flax_attnat.config import PopulationConfig

SIZES = Sizes(rows=4, tokens=6, vocabulary=40, embedding=12, hidden=8, batches=2)


def programs(jaxpr: Any) -> Iterator[Any]:
    """A program and all that it calls; a loop's body counts once."""
    yield jaxpr
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from programs(inner)


def traced(technique: str) -> Any:
    """The program that trains one run."""
    return trace_chunk(build_ours(technique, SIZES).population, SIZES, 1)


def loops_over_time(technique: str) -> int:
    """Loops whose body holds a product, but that over the steps: each goes forward or backward through the tokens."""
    count = 0
    for program in programs(traced(technique).jaxpr):
        for equation in program.eqns:
            if equation.primitive.name in ("scan", "while"):
                bodies = [equation.params[name].jaxpr for name in ("jaxpr", "body_jaxpr") if name in equation.params]
                products = sum(e.primitive.name == "dot_general" for body in bodies for e in body.eqns)
                count += products > 0
    return count - 1


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_encoder_runs_once_for_attention_and_twice_for_words(technique: str) -> None:
    """Forward and backward are a loop each; a word technique needs both for the clean and for the moved words."""
    loops = loops_over_time(technique)
    assert loops == (4 if technique.startswith("word_") else 2)


def operations(technique: str) -> float:
    """Floating-point operations of one step by XLA's count, loop bodies once."""
    return traced(technique).lower().compile().cost_analysis()["flops"]


def test_adversarial_attention_costs_few_operations_more_than_none() -> None:
    vanilla = operations("vanilla")
    assert vanilla > 1e4
    assert operations("attention_at") < 1.1 * vanilla
    assert 1.3 * vanilla < operations("word_at")


@pytest.mark.parametrize("runs", [1, 3])
def test_other_steps_and_values_compile_nothing(runs: int) -> None:
    ours = build_ours("attention_at", SIZES, runs)
    states, _ = ours.run(ours.states, 0, 1)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("jax._src.compiler.backend_compile_and_load", refuse)
        states, loss = ours.run(states, 1, 1)
    assert np.isfinite(np.asarray(loss)).all()


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("compiled again")


def test_runs_together_or_one_after_another_are_the_same_runs() -> None:
    """Groups of one, of two and all of four runs: equal to rounding after a few steps."""
    found = []
    for together in (1, 2, 4):
        ours = build_ours("attention_at", SIZES, 4, population=PopulationConfig(runs_together=together))
        states, loss = ours.run(ours.states)
        found.append((np.asarray(loss), jax.tree.map(np.asarray, states.params)))
    for loss, params in found[1:]:
        np.testing.assert_allclose(loss, found[0][0], rtol=1e-5)
        # Rounding of a gradient near zero turns Adam's first steps round.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2.5e-3), params, found[0][1])
    assert len({float(value) for value in found[0][0]}) == 4, "epsilons that differ"


def test_a_group_divides_the_runs() -> None:
    """Five runs, two together at most: one after another, none left out."""
    ours = build_ours("vanilla", SIZES, 5, population=PopulationConfig(runs_together=2))
    states, _ = ours.run(ours.states)
    assert np.asarray(states.step).tolist() == [SIZES.batches] * 5
    assert dataclasses.asdict(PopulationConfig())["runs_together"] == 0
