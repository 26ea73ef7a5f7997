"""The training step compiled for TPUs, with none at hand: it fits their memory, and runs need no communication."""

import pytest

from benchmarks import tpu_programs
from benchmarks.tpu_programs import HBM_GIB, compile_apart
from flax_attnat.allowed import TECHNIQUES

pytestmark = pytest.mark.skipif(bool(tpu_programs.why_not()), reason=tpu_programs.why_not() or "it can be compiled")

FIRST = ("attention_iat", "v5e:2x4")
# Left to evaluation and the runtime, as in flax_attnat.training.memory.
SHARE = 0.85


def check(technique: str, topology: str) -> None:
    program = compile_apart(technique, topology, quick=True)
    assert program.chips == {"v5e:2x4": 8, "v6e:2x2": 4}[topology]
    assert program.collectives == {}, "chips that share the runs talk to each other"
    assert 0.1 < program.gib < SHARE * HBM_GIB[topology]


def test_runs_shared_by_tpus_need_no_communication_and_fit() -> None:
    check(*FIRST)


@pytest.mark.slow
@pytest.mark.parametrize("topology", HBM_GIB)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_technique_on_both_topologies(technique: str, topology: str) -> None:
    if (technique, topology) == FIRST:
        pytest.skip("is among the default tests")
    check(technique, topology)


@pytest.mark.slow
def test_a_batch_shared_by_tpus_needs_communication() -> None:
    """Also the proof that communication would be seen."""
    together = compile_apart("attention_iat", "v5e:2x4", data_shards=2, quick=True)
    assert "all-reduce" in together.collectives
