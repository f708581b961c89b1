"""The pool of actors: results in order, what is held is loaded once, a killed actor does its item again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tgeokd_ray.cluster.pool import ray_pool
from tgeokd_ray.errors import DataError, ResourceError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(100), pytest.mark.usefixtures("cluster")]


def task(folder: Path, *, always: bool = False) -> Callable[[int], tuple[int, int]]:
    """Item 0 is slow, item 2 kills its process the first time, or each time. A closure: it travels by value."""

    def work(number: int) -> tuple[int, int]:
        time.sleep(0.3 if number == 0 else 0)
        marker = folder / "killed"
        if number == 2 and (always or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 7:
            raise DataError("row 7 is bad", fix="mend it")
        return number, os.getpid() if number != 8 else number // 0

    return work


def test_k2_results_keep_the_order_and_a_killed_actor_does_its_item_again(tmp_path: Path) -> None:
    results = list(ray_pool(task(tmp_path), iter(range(6)), stage="test", actors=2))
    assert [number for number, _ in results] == list(range(6))
    assert (tmp_path / "killed").exists()
    assert len({process for _, process in results}) <= 3, "two actors, and one that was started again"
    with pytest.raises(DataError, match="row 7 is bad") as error:
        list(ray_pool(task(tmp_path), [3, 7], stage="precompute", actors=1))
    assert error.value.fix == "mend it"
    with pytest.raises(ResourceError, match="a task of precompute failed: ZeroDivisionError"):
        list(ray_pool(task(tmp_path), [8], stage="precompute", actors=1))
    assert list(ray_pool(task(tmp_path), [], stage="precompute", actors=2)) == []


def test_k2_an_actor_that_dies_each_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgeokd_ray.cluster.pool.RETRIES", 1)
    with pytest.raises(ResourceError, match="ActorDiedError"):
        list(ray_pool(task(tmp_path, always=True), [2, 3], stage="test", actors=1))
