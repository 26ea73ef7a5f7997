"""When a process looks for others, and what one process alone says."""

import pytest

from flax_attnat.training import cluster


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"JAX_PLATFORMS": "cpu"}, False),
        ({"JAX_PLATFORMS": "cpu", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"JAX_PLATFORMS": "cpu", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"JAX_PLATFORMS": "cpu", "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"JAX_PLATFORMS": "cpu", "OMPI_COMM_WORLD_SIZE": "many"}, False),
    ],
)
def test_several_processes_are_known_by_the_environment(environment, expected) -> None:
    assert cluster.detected(environment) is expected


def test_a_cloud_tpu_is_known_by_its_devices_unless_another_platform_is_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(cluster, "_TPU_DEVICES", (str(tmp_path),))
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: name)
    assert cluster.detected({}) and cluster.detected({"JAX_PLATFORMS": "tpu,cpu"})
    assert not cluster.detected({"JAX_PLATFORMS": "cuda"})


@pytest.mark.parametrize(
    "given", [("localhost:1", None, None), (None, 2, None), (None, None, 0), ("localhost:1", 2, None)]
)
def test_the_three_flags_belong_together(given) -> None:
    with pytest.raises(cluster.ClusterError, match="belong together: give all three or none"):
        cluster.connect(*given)


def test_one_process_alone_joins_nobody_and_is_the_first(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    cluster.connect(None, 1, None)
    assert cluster.is_primary()
    assert cluster.largest(0.5, True) == [0.5, 1.0]
    assert cluster.from_primary(lambda: {"a": [1, None]}) == {"a": [1, None]}
    cluster.wait_for_all("nobody")
