"""The floor counts every matrix product of a step once; the ratios are those that are asked for."""

import json

import pytest

from benchmarks import floor, run
from benchmarks.formulas import TINY, step_flops
from benchmarks.work import Sizes


@pytest.mark.parametrize("sizes", [Sizes(), Sizes(tokens=20), TINY, TINY._replace(rows=5, tokens=9, embedding=7)])
def test_the_products_compute_what_a_step_does_but_for_vectors(sizes: Sizes) -> None:
    """What is left is the attention's outer layer and the readout, products of a matrix and a vector."""
    n, units = sizes.rows * sizes.tokens, sizes.hidden
    vectors = 3 * 2 * n * units + 8 * (4 * n * units + 4 * sizes.rows * units)
    assert sum(product.flops for product in floor.products(sizes).values()) + vectors == step_flops(sizes)


def test_every_candidate_is_its_product() -> None:
    """Of each direction as many operations, with the inner axis in both operands."""
    found, tried = floor.products(TINY), floor.candidates(TINY)
    assert {one.name for one in tried.values()} == found.keys()
    for one in tried.values():
        product, batched = found[one.name], len(one.left) == 3
        assert one.left[-1] == one.right[-2] == product.shape[1]
        assert one.flops * product.times * (1 if batched else product.directions) == product.flops


def test_the_floor_is_made_of_the_fastest_candidates() -> None:
    """Seconds of 1 for all but one candidate of each product, which takes half: its rate counts."""
    tried = floor.candidates(TINY)
    fast = {one.name: key for key, one in tried.items()}
    seconds = {key: 0.5 if key in fast.values() else 1e9 for key in tried} | {floor.UPDATE: 1.0, floor.STEP: 1.0}
    found = floor.evaluate(TINY, seconds, 1)
    for name, product in floor.products(TINY).items():
        one = tried[fast[name]]
        assert found["products"][name]["form"] == one.form
        assert found["products"][name]["seconds"] == pytest.approx(0.5 * product.flops / one.flops)
    parts = [*found["products"].values(), found["optimizer"]]
    assert found["floor"] == pytest.approx(sum(part["seconds"] for part in parts))
    assert found["share"] == pytest.approx(found["floor"] / (1 / TINY.batches))


@pytest.mark.slow
def test_the_floor_is_recorded(tmp_path) -> None:
    assert floor.main(["floor", "--small", "--times=1", f"--json={tmp_path / 'out'}"]) == 0
    (found,) = json.loads((tmp_path / "out").read_text())["measured"]
    assert found["products"].keys() == floor.products(TINY).keys()
    assert found["floor"] > 0 and found["share"] == pytest.approx(found["floor"] / found["step"])


@pytest.mark.slow
def test_the_ratios_are_those_that_are_asked_for() -> None:
    found = run.measure(TINY, 2, 1, floor.SMALL_WORK, peer=False)
    assert list(found) == [
        "attention_at / vanilla",
        "attention_iat / vanilla",
        "word_at / vanilla",
        "attention_at, 2 runs / attention_at",
        "floor / attention_at",
    ]
    assert all(value > 0 for value in found.values())
