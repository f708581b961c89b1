"""What fits is decided from numbers, and the message counts."""

from __future__ import annotations

import pytest

from tgeokd_ray.cluster.capacity import check_plan, check_trials, check_workers, choose_device
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
    wrong = check_plan(4, 1, 0, [{"CPU": 2.0}, {"CPU": 1.0}])
    assert isinstance(wrong, ResourceError)
    assert "4 workers x 1 CPU = 4 CPUs, the cluster has 3" in str(wrong)
    assert "--workers 3" in str(wrong)
    assert wrong.exit_code == 6


def test_exactly_enough_fits() -> None:
    assert check_plan(2, 1, 0, [{"CPU": 2.0}]) is None
    assert check_plan(2, 4, 1, [{"CPU": 4.0, "GPU": 1.0}] * 2) is None


def test_a_worker_lies_on_one_node() -> None:
    """8 CPUs in all, and yet the second worker of 4 finds no node: Ray would wait for ever."""
    wrong = check_plan(2, 4, 0, [{"CPU": 5.0}, {"CPU": 3.0}])
    assert "2 workers x 4 CPUs, each on one node: room for 1 on 1 x 5 CPUs, 1 x 3 CPUs" in str(wrong)
    assert "--workers 1" in str(wrong)
    apart = [{"CPU": 8.0}, {"CPU": 0.0, "GPU": 4.0}]
    assert "room for 0 on 1 x 8 CPUs and 0 GPUs, 1 x 0 CPUs and 4 GPUs" in str(check_plan(2, 1, 1, apart))


def test_a_gpu_for_every_worker() -> None:
    wrong = check_plan(6, 1, 1, [{"CPU": 16.0, "GPU": 5.0}])
    assert "6 workers x 1 GPU = 6 GPUs, the cluster has 5" in str(wrong)
    assert "--workers 4" in str(wrong)
    assert "--device cpu" in str(check_plan(1, 1, 1, [{"CPU": 16.0}]))


def test_too_small_for_any_number_of_workers() -> None:
    assert "--local" in str(check_plan(1, 8, 0, [{"CPU": 4.0}]))


def test_auto_takes_gpus_only_when_there_is_one_each() -> None:
    assert choose_device("auto", 2, [{"GPU": 1.0}, {"GPU": 1.0}]) == "cuda"
    assert choose_device("auto", 2, [{"GPU": 1.0}]) == "cpu"
    assert choose_device("cuda", 2, [{}]) == "cuda"


@pytest.mark.parametrize(
    ("concurrency", "cpu", "gpu", "nodes"),
    [
        (4, 1, 0, [{"CPU": 2.0}, {"CPU": 2.0}]),
        (3, 1 / 3, 0, [{"CPU": 1.0}]),
        (10, 0.1, 0, [{"CPU": 1.0}]),
        (4, 1, 0.5, [{"CPU": 8.0, "GPU": 2.0}]),
        (1, 2, 1, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}]),
    ],
)
def test_trials_that_fit(concurrency: int, cpu: float, gpu: float, nodes: list[dict[str, float]]) -> None:
    assert check_trials(concurrency, cpu, gpu, nodes) is None
    wrong = check_trials(concurrency + 1, cpu, gpu, nodes)
    assert isinstance(wrong, ConfigError)
    assert f"there is room for {concurrency} on" in str(wrong)
    assert f"concurrency: {concurrency}, or a smaller part under resources" in str(wrong)


@pytest.mark.parametrize(
    ("concurrency", "workers", "nodes"),
    [(1, 2, [{"CPU": 2.0}]), (2, 2, [{"CPU": 3.0}, {"CPU": 1.0}, {"CPU": 0.5}]), (1, 3, [{"CPU": 1.0}] * 5)],
)
def test_all_workers_of_all_trials_fit_at_once(concurrency: int, workers: int, nodes: list[dict[str, float]]) -> None:
    """Those of one trial may lie on several nodes."""
    assert check_trials(concurrency, 1, 0, nodes, workers) is None
    wrong = check_trials(concurrency + 1, 1, 0, nodes, workers)
    assert f"concurrency {concurrency + 1} x {workers} workers x 1 CPU: there is room for {concurrency} on" in str(
        wrong
    )
    assert "room for 0" in str(check_trials(1, 1, 1, nodes, workers))


def test_a_trial_lies_on_one_node() -> None:
    wrong = check_trials(1, 4, 0, [{"CPU": 3.0}, {"CPU": 3.0}])
    assert wrong is not None
    assert "concurrency 1 x 4 CPU: there is room for 0 on 2 node(s) with 6 CPUs, 0 GPUs" in str(wrong)
    assert wrong.fix == "a smaller part under resources; nodes that are still to join count when they are there"
    assert "room for 0" in str(check_trials(1, 1, 1, [{"CPU": 4.0}, {"GPU": 1.0}]))
