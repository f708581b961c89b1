"""Ray as the engine of a chain: maps stages over items, trains plans, shares arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from tgeokd_ray.cluster.capacity import check_plan, check_workers, choose_device
from tgeokd_ray.cluster.connect import Connection, connect
from tgeokd_ray.cluster.data import ray_map
from tgeokd_ray.cluster.source import ClusterSource, FeedKind
from tgeokd_ray.cluster.store import Shared, share
from tgeokd_ray.cluster.train import Group, run_plan
from tgeokd_ray.cluster.visibility import check_root_visible
from tgeokd_ray.events import Progress
from tgeokd_ray.feed import LogitsTable
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayEngine:
    """The engine of a chain on a connected Ray; the same functions and plans give the same numbers as in one process.

    ConfigError or ResourceError when `workers` on `device` cannot be placed. `storage` is a folder that every node
    sees. `task_device` is where a mapped function may compute: one with an attribute `device` of "cuda" gets a GPU.
    """

    def __init__(
        self, connection: Connection, *, workers: int, device: str, threads: int, feed: FeedKind, storage: Path
    ) -> None:
        resources = connection.resources()
        device = choose_device(device, workers, resources)
        # CPUs of our own local Ray are only counted, one a worker; elsewhere each thread must be reserved.
        self._group = Group(workers, device, threads, cpus=1 if connection.local else threads)
        data_cpus = 1 if feed == "ray_data" else 0
        wrong = check_plan(workers, self._group.cpus, data_cpus, int(device == "cuda"), resources)
        if wrong is not None:
            raise wrong
        self._connection, self._feed, self._storage = connection, feed, storage
        self._tasks = max(1, int(resources.get("CPU", 1)) - 1)
        self._gpus = int(resources.get("GPU", 0))
        self.task_device = device

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, stage: str) -> Iterator[Result]:
        """`function` of every item in order, as tasks of Ray Data; see `ray_map`."""
        gpus = int(getattr(function, "device", "cpu") == "cuda")
        tasks = min(self._tasks, self._gpus) if gpus else self._tasks
        return ray_map(function, items, stage=stage, tasks=tasks, gpus=gpus)

    def train(self, plan: Plan, progress: Progress, means: Iterable[str] = ()) -> list[Finished]:
        """Execute the plan on one worker group; class means of the logits artifacts at the paths `means` are shared."""
        shared = share({path: LogitsTable.open(path).class_means for path in means})
        return run_plan(plan, self._group, ClusterSource(self._feed, shared), progress, self._storage)

    def share(self, arrays: Mapping[str, NDArray[Any]]) -> Shared:
        """Arrays into the object store, once."""
        return share(arrays)

    def close(self) -> None:
        """Give back what was started."""
        self._connection.close()


def open_engine(
    *,
    address: str | None,
    workers: int,
    device: str,
    threads: int,
    feed: FeedKind,
    root: Path,
    verbose: bool,
    progress: Progress,
) -> RayEngine:
    """Connect, check that the plan fits and that every node sees `root`, and only then return the engine.

    A number of workers that can never do is refused before Ray starts; what was started is closed on every error.
    """
    wrong = check_workers(workers)
    if wrong is not None:
        raise wrong
    progress.started("ray", None, "CPUs")
    connection = connect(address, workers=workers, verbose=verbose)
    try:
        engine = RayEngine(connection, workers=workers, device=device, threads=threads, feed=feed, storage=root)
        if not connection.local:
            check_root_visible(root)
    except BaseException:
        connection.close()
        raise
    where = "started here" if connection.local else f"joined {connection.address}"
    progress.finished("ray", f"{where}, {int(connection.resources().get('CPU', 0))} CPUs")
    return engine
