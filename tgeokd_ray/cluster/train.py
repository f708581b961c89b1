"""One worker group of Ray Train executes a whole plan: its start costs more than many a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train.v2.api.config import LoggingConfig

from tgeokd_ray.cluster.beside import beside
from tgeokd_ray.cluster.bundles import TrialTrainer
from tgeokd_ray.cluster.failures import explain, is_loss, one_line, user_error
from tgeokd_ray.cluster.progress import Relay, RemoteProgress
from tgeokd_ray.cluster.ray_folder import ray_folder
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.training.data import Source
from tgeokd_ray.training.distributed import ProcessGroupWorker
from tgeokd_ray.training.plan import execute as execute_plan
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished
from tgeokd_ray.training.worker import LocalWorker, Worker

MAX_FAILURES = 2  # groups lost in one plan; each new one goes on from committed runs and our own checkpoints
MAX_START_FAILURES = 10  # waits of a minute for workers that do not start
QUIET_SECONDS = 60.0  # of a group that has not told anything yet, until the driver says what it waits for

Execute = Callable[[Plan, Worker, Source, Progress], list[Finished]]
Reported = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class Group:
    """The worker group of a plan: `workers` processes with `cpus` CPUs each, and a GPU each where `device` is cuda.
    With `in_trial` it lies on what the Tune trial that starts it has reserved."""

    workers: int
    device: str = "cpu"
    threads: int = 1
    cpus: float = 1
    in_trial: bool = False

    @property
    def resources(self) -> dict[str, float]:
        """Of one worker."""
        return {"CPU": float(self.cpus), **({"GPU": 1.0} if self.device == "cuda" else {})}

    def scaling(self) -> ray.train.ScalingConfig:
        return ray.train.ScalingConfig(
            num_workers=self.workers, use_gpu="GPU" in self.resources, resources_per_worker=self.resources
        )


@dataclass(frozen=True)
class _Task:
    """What every worker of the group executes."""

    plan: Plan
    group: Group
    source: Source
    board: Any
    execute: Execute
    reports: bool


def run_plan(
    plan: Plan,
    group: Group,
    source: Source,
    progress: Progress,
    storage: Path,
    execute: Execute = execute_plan,
    report: Reported | None = None,
) -> list[Finished]:
    """Execute `plan` on one worker group and return what rank 0 returned; events of rank 0 reach `progress`.

    A group that loses a worker, a node or its controller is started again, twice at most, which is told as a warning.
    A UserError of any worker is raised at once, any other failure as a ResourceError with one line. `storage` must be
    a folder that every node sees; Ray's own files in it are removed at the end. With `report` the workers wait until it
    has heard what they report; a SystemExit out of it ends them at a checkpoint and is raised when they are gone.
    """
    relay = Relay(progress, report)
    task = _Task(plan, group, source, relay.board, execute, report is not None)
    try:
        with ray_folder(storage) as folder:
            for attempt in range(MAX_FAILURES + 1):
                try:
                    done = _attempt(task, folder / f"attempt-{attempt}", _Listener(relay, group, progress))
                except (ray.train.TrainingFailedError, RayError) as error:
                    if relay.ended is not None:
                        raise relay.ended from None
                    if user_error(error) or not is_loss(error) or attempt == MAX_FAILURES:
                        raise explain(error) from error
                    progress.warned(f"the workers are started again: {one_line(error)}")
                    continue
                if relay.ended is not None:
                    raise relay.ended
                return done
        raise AssertionError("unreachable")
    finally:
        relay.close()


def _attempt(task: _Task, folder: Path, listen: Callable[[], None]) -> list[Finished]:
    """One fit under a fresh name: Ray would restore a known one from its own state, which may be torn."""
    run_config = ray.train.RunConfig(
        name=folder.name,
        storage_path=str(folder.parent),
        failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=MAX_START_FAILURES),
        logging_config=LoggingConfig(log_level="ERROR"),
    )
    trainer = (TrialTrainer if task.group.in_trial else ray.train.torch.TorchTrainer)(
        _work,
        train_loop_config={"task": task},
        scaling_config=task.group.scaling(),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if task.group.device == "cuda" else "gloo"),
        run_config=run_config,
    )
    result: list[Finished] = beside(trainer.fit, listen).return_value
    return result


class _Listener:
    """Passes on what the workers tell; says once what they wait for when they have told nothing for a while."""

    def __init__(self, relay: Relay, group: Group, progress: Progress) -> None:
        self._relay, self._group, self._progress = relay, group, progress
        self._heard = False
        self._began = time.monotonic()

    def __call__(self) -> None:
        self._heard = self._relay.replay() or self._heard
        if not self._heard and time.monotonic() - self._began > QUIET_SECONDS:
            self._heard = True
            free, there = ray.available_resources(), ray.cluster_resources()
            needs = [
                f"{self._group.workers} x {each:g} {kind}, {free.get(kind, 0):g} of {there.get(kind, 0):g} are free"
                for kind, each in self._group.resources.items()
            ]
            self._progress.warned(f"the workers have not begun after {QUIET_SECONDS:g} s: {'; '.join(needs)}")


class _Ended(SystemExit):
    """The driver has heard enough."""


@dataclass(frozen=True)
class _Supervised:
    """What a worker reports with: rank 0 tells the driver, and all workers hear from it whether to go on."""

    worker: Worker
    progress: RemoteProgress | None

    def __call__(self, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        del checkpoint
        go = self.progress is None or self.progress.reported(metrics)
        if not bool(self.worker.broadcast(torch.tensor([float(go)], device=self.worker.device))):
            raise _Ended


def _work(config: dict[str, Any]) -> list[Finished]:
    """The train function: every rank executes the plan; Ray returns the value of rank 0.

    Metrics and checkpoints are ours, committed by manifest; Ray is not told of them a second time.
    """
    task: _Task = config["task"]
    torch.set_num_threads(task.group.threads)
    device = ray.train.torch.get_device()
    kind = ProcessGroupWorker if task.group.workers > 1 else LocalWorker
    worker: Worker = kind(device)
    progress = None if worker.rank else RemoteProgress(task.board)
    if task.reports:
        worker = kind(device, _Supervised(worker, progress))
    try:
        return task.execute(task.plan, worker, task.source, progress or Silent())
    except _Ended:
        return []
    finally:
        if progress is not None:
            progress.flush(wait=True)
