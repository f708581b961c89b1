"""What fits is decided from numbers, and the message counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.cluster.capacity import check_plan, check_workers, choose_device
from tgeokd_ray.errors import ConfigError, ResourceError


@pytest.mark.parametrize(
    ("workers", "fits"), [(0, False), (-1, False), (5, False), (24, False)] + [(n, True) for n in (1, 2, 3, 4, 6, 12)]
)
def test_workers_divide_the_lanes(workers: int, fits: bool) -> None:
    wrong = check_workers(workers)
    assert (wrong is None) == fits
    assert fits or (
        isinstance(wrong, ConfigError) and f"got {workers}" in str(wrong) and "1, 2, 3, 4, 6, 12" in str(wrong)
    )


def test_the_message_counts() -> None:
    wrong = check_plan(2, 1, 1, 0, {"CPU": 2.0})
    assert isinstance(wrong, ResourceError)
    assert "2 workers x 1 CPU + 1 for data = 3 CPUs, the cluster has 2" in str(wrong)
    assert "--workers 1" in str(wrong)


def test_exactly_enough_fits() -> None:
    assert check_plan(2, 1, 1, 0, {"CPU": 3.0}) is None
    assert check_plan(2, 4, 0, 1, {"CPU": 8.0, "GPU": 2.0}) is None


def test_a_gpu_for_every_worker() -> None:
    wrong = check_plan(4, 1, 1, 1, {"CPU": 16.0, "GPU": 3.0})
    assert "4 workers x 1 GPU = 4 GPUs, the cluster has 3" in str(wrong)
    assert "--workers 3" in str(wrong)
    assert "--device cpu" in str(check_plan(1, 1, 1, 1, {"CPU": 16.0}))


def test_too_small_for_any_number_of_workers() -> None:
    assert "--local" in str(check_plan(1, 8, 1, 0, {"CPU": 4.0}))


def test_auto_takes_gpus_only_when_there_is_one_each() -> None:
    assert choose_device("auto", 2, {"GPU": 2.0}) == "cuda"
    assert choose_device("auto", 2, {"GPU": 1.0}) == "cpu"
    assert choose_device("cuda", 2, {}) == "cuda"


@pytest.mark.ray
@pytest.mark.timeout(100)
def test_the_engine_refuses_before_it_starts(cluster: object, tmp_path: Path) -> None:
    from tgeokd_ray.cluster.engine import RayEngine

    options = {"workers": 2, "threads": 1, "feed": "direct", "storage": tmp_path}
    with pytest.raises(ResourceError, match="2 workers x 1 GPU = 2 GPUs, the cluster has 0"):
        RayEngine(cluster, device="cuda", **options)
    with pytest.raises(ResourceError, match="6 workers x 1 CPU = 6 CPUs, the cluster has 4"):
        RayEngine(cluster, device="cpu", **(options | {"workers": 6}))
    assert RayEngine(cluster, device="auto", **options).task_device == "cpu"
