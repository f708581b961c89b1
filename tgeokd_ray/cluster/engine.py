"""Ray as the engine of a chain: maps stages over items, trains plans, shares arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tgeokd_ray.cluster.capacity import check_plan, check_trials, check_workers, choose_device, total
from tgeokd_ray.cluster.connect import Connection, connect, cores
from tgeokd_ray.cluster.data import ray_map
from tgeokd_ray.cluster.pool import ray_pool
from tgeokd_ray.cluster.shared_rows import SharedRows, share_rows
from tgeokd_ray.cluster.source import ClusterSource, FeedKind
from tgeokd_ray.cluster.store import share
from tgeokd_ray.cluster.train import Group, run_plan
from tgeokd_ray.cluster.visibility import check_root_visible
from tgeokd_ray.config.proposals import Round
from tgeokd_ray.config.sweep import Sweep
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
        nodes = connection.nodes()
        device = choose_device(device, workers, nodes)
        # CPUs of our own local Ray are only counted, one a worker; elsewhere each thread must be reserved.
        cpus = 1 if connection.local else threads
        self._group = Group(workers, device, threads, cpus)
        wrong = check_plan(workers, cpus, int(device == "cuda"), nodes)
        if wrong is not None:
            raise wrong
        self._connection, self._feed, self._storage = connection, feed, storage
        self._cpus = cores() if connection.local else total(nodes, "CPU")
        self._gpus = total(nodes, "GPU")
        self.task_device = device

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, stage: str) -> Iterator[Result]:
        """`function` of every item in order: as tasks of Ray Data, or, where it `holds` what is costly to load, by a
        pool of actors; see `ray_map` and `ray_pool`."""
        gpus = int(getattr(function, "device", "cpu") == "cuda")
        most = min(self._cpus, self._gpus) if gpus else self._cpus
        if getattr(function, "holds", False):
            return ray_pool(function, items, stage=stage, actors=most, gpus=gpus)
        return ray_map(function, items, stage=stage, tasks=most, gpus=gpus)

    def train(self, plan: Plan, progress: Progress, means: Iterable[str] = ()) -> list[Finished]:
        """Execute the plan on one worker group. The rows of its first runs, which later ones read too, and the class
        means of the logits artifacts at the paths `means` are put into the object store before it starts."""
        shared = share({path: LogitsTable.open(path).class_means for path in means})
        source = ClusterSource(self._feed, shared)
        source = replace(source, shared=share_rows(plan([]), source))
        return run_plan(plan, self._group, source, progress, self._storage)

    def check_trials(self, sweep: Sweep) -> None:
        """ConfigError where not as many trials fit at once as the sweep asks for."""
        each = sweep.resources
        wrong = check_trials(sweep.concurrency, each.cpu, each.gpu, self._connection.nodes(), self._group.workers)
        if wrong is not None:
            raise wrong

    def trials(self, what: Round, progress: Progress) -> bool:
        """Run trials by Ray Tune, each by as many workers as a plan; whether there was time for all. What their specs
        read is put into the object store once, as far as it fits there; the rest is read from disk by every trial,
        which is told."""
        from tgeokd_ray.cluster.tune import run_trials  # a second of import that other jobs do without

        paths = dict.fromkeys(path for spec in what.specs for path in spec.logits)
        source = ClusterSource("direct", share({path: LogitsTable.open(Path(path)).class_means for path in paths}))
        rows = share_rows(what.specs, source)
        _tell_shared(rows, progress)
        return run_trials(what, replace(source, shared=rows), self._storage, self._group.workers)

    def close(self) -> None:
        """Give back what was started."""
        self._connection.close()


def _tell_shared(rows: SharedRows, progress: Progress) -> None:
    progress.finished("share", f"{rows.bytes / 2**20:,.0f} MiB in the object store, one copy for each node")
    if rows.left:
        progress.warned(
            f"{rows.left / 2**20:,.0f} MiB of rows do not fit into the object store: every trial reads them from disk"
        )


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
    progress.finished("ray", f"{where}, {total(connection.nodes(), 'CPU')} CPUs")
    return engine
