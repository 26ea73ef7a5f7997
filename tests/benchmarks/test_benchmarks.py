"""The benchmarks at tiny sizes: what they work out from sizes is what programs hold and compute; what they record."""

import importlib.util
import json
import math

import jax
import numpy as np
import pytest

from benchmarks import formulas, gpu, growth, order, startup
from benchmarks.formulas import TINY
from benchmarks.tpu_programs import _matmul_flops
from benchmarks.work import Ours, build_ours

RUNS = 2  # as in the quick programs, which then are compiled once for all tests


@pytest.fixture(scope="module")
def ours() -> Ours:
    return build_ours("attention_at", TINY, RUNS)


def test_the_parameters_are_as_large_as_their_formula_says(ours: Ours) -> None:
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(ours.states.params))
    assert held == RUNS * formulas.parameter_bytes(TINY)


def test_a_step_computes_what_its_formula_says(ours: Ours) -> None:
    """Against the products in the traced program; the loop over steps counts once there, that over tokens T times."""
    sizes = TINY._replace(rows=5, tokens=9)
    counted = _matmul_flops(growth.trace_chunk(ours.population, sizes, 3).jaxpr.jaxpr)
    assert counted == pytest.approx(3 * formulas.step_flops(sizes), rel=0.02)


@pytest.mark.parametrize(("exponent", "factor"), [(1.0, 0.02), (-0.5, 3.0), (0.0, 1e-4)])
def test_the_fit_finds_an_exact_power(exponent: float, factor: float) -> None:
    x = np.array([10_000, 30_000, 100_000])
    assert growth.fit_power(x, factor * x**exponent) == pytest.approx((exponent, math.log(factor)), abs=1e-9)


def test_activations_grow_with_the_batch_and_nothing_else_does() -> None:
    once, twice = (formulas.part_bytes(TINY._replace(rows=rows)) for rows in (2, 4))
    assert {name for name in once if twice[name] == 2 * once[name]} == set(formulas.activation_bytes(TINY))
    assert all(twice[name] in (once[name], 2 * once[name]) for name in once)


def test_the_memory_of_a_run_is_about_that_of_its_parts(tmp_path) -> None:
    """A run holds at least its parameters, their best, and three moments, and not twice what its parts come to."""
    assert growth.main(["growth", "--quick", "--only=memory", f"--json={tmp_path / 'out'}"]) == 0
    record = json.loads((tmp_path / "out").read_text())
    assert record.keys() == {"device", "jax", "precision", "times", "sizes", "memory"}
    (found,) = record["memory"]
    assert found["runs"] == RUNS and found["parts"] == formulas.part_bytes(TINY)
    least = sum(found["parts"][name] for name in ("parameters", "moments", "best parameters"))
    assert least < found["bytes"] < 2 * sum(found["parts"].values())
    assert found["ratio"] == pytest.approx(found["bytes"] / sum(found["parts"].values()))


@pytest.mark.parametrize("length", [1, 3, 100])
def test_stretches_cover_every_batch_once_and_stay_together(length: int) -> None:
    which, batch = order.stretched(length, 0, (50, 7, 33), 4)
    assert sorted(zip(which.tolist(), batch.tolist(), strict=True)) == [
        (bucket, number) for bucket, count in enumerate((13, 2, 9)) for number in range(count)
    ]
    together = (which[1:] == which[:-1]) & (batch[1:] == batch[:-1] + 1)
    assert together[batch[1:] % length > 0].all() and (length == 1 or together.any())


def test_the_gpu_benchmark_leaves_the_peer_out_without_torch(tmp_path, monkeypatch, capsys) -> None:
    """And its shares follow from its rates."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    assert gpu.main(["gpu", "--small", "--times=1", f"--json={tmp_path / 'out'}"]) == 0
    said, record = capsys.readouterr().out, json.loads((tmp_path / "out").read_text())
    assert "PyTorch is left out: torch is not installed" in said and "estimated" in said
    assert record["torch"] is None and record["peer_left_out"] and "float32" in record["precision"]
    (found,) = record["widths"]
    assert found["ratio"] is None and found["run_steps_per_second"] > 0
    seconds = formulas.step_flops(TINY) / record["rates"]["flops"] + found["update_ms"] / 1000
    assert found["roofline_share"] == pytest.approx(seconds * found["run_steps_per_second"])
    table = formulas.FLOAT * TINY.vocabulary * TINY.embedding
    part = found["bandwidth_share"] / found["run_steps_per_second"] / (found["update_ms"] / 1000)
    assert part == pytest.approx(table / formulas.parameter_bytes(TINY))
    minutes = sum(sum(seconds.values()) for seconds in record["figure"].values()) / 60
    assert record["estimated_minutes"] == pytest.approx(minutes)


@pytest.mark.slow
def test_growth_draws_a_panel_for_every_size(tmp_path) -> None:
    arguments = ["--quick", "--times=1", "--only=time", f"--figure={tmp_path / 'g.svg'}", f"--json={tmp_path / 'out'}"]
    assert growth.main(["growth", *arguments]) == 0
    record = json.loads((tmp_path / "out").read_text())
    assert record["growth"].keys() == growth.NAMES.keys()
    for name, found in record["growth"].items():
        assert growth.fit_power(found["values"], found["seconds"])[0] == pytest.approx(found["exponent"])
        assert f"exponent of {growth.NAMES[name]}: {found['exponent']:.2f}" in (tmp_path / "g.svg").read_text()


@pytest.mark.slow
def test_a_start_and_an_epoch_are_timed(tmp_path) -> None:
    """The entry point still tells the benchmark when its first step has ended; an epoch is longer than its end."""
    started = startup.measure_start(None, 1, tmp_path)
    assert all(0 < seconds < math.inf for values in started["seconds"].values() for seconds in values)
    epoch = startup.measure_epoch(None, 2, 1, tmp_path)
    assert epoch["whole"] > epoch["after_steps"] > 0 and epoch["ratio"] == epoch["whole"] / epoch["steps_alone"]
