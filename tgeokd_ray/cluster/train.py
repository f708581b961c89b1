"""One worker group of Ray Train executes a whole plan: its start costs more than many a run."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train.v2.api.config import LoggingConfig

from tgeokd_ray.artifacts import write_json
from tgeokd_ray.artifacts.owner import LOCK, Owner, read_owner
from tgeokd_ray.cluster.failures import explain, is_loss, one_line, user_error
from tgeokd_ray.cluster.progress import Relay, RemoteProgress
from tgeokd_ray.cluster.source import ClusterSource
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.training.distributed import ProcessGroupWorker
from tgeokd_ray.training.plan import execute as execute_plan
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished
from tgeokd_ray.training.worker import LocalWorker, Worker

MAX_FAILURES = 2  # groups lost in one plan; each new one goes on from committed runs and our own checkpoints
MAX_START_FAILURES = 10  # waits of a minute for workers that do not start
QUIET_SECONDS = 60.0  # of a group that has not told anything yet, until the driver says what it waits for
REPLAY_SECONDS = 0.3
FOLDER = ".ray-"

Execute = Callable[[Plan, Worker, ClusterSource, Progress], list[Finished]]


@dataclass(frozen=True)
class Group:
    """The worker group of a plan: `workers` processes with `cpus` CPUs each, and a GPU each where `device` is cuda."""

    workers: int
    device: str = "cpu"
    threads: int = 1
    cpus: int = 1

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
    source: ClusterSource
    board: Any
    execute: Execute


def run_plan(
    plan: Plan,
    group: Group,
    source: ClusterSource,
    progress: Progress,
    storage: Path,
    execute: Execute = execute_plan,
) -> list[Finished]:
    """Execute `plan` on one worker group and return what rank 0 returned; events of rank 0 reach `progress`.

    A group that loses a worker, a node or its controller is started again, twice at most, which is told as a warning.
    A UserError of any worker is raised at once, any other failure as a ResourceError with one line. `storage` must be
    a folder that every node sees; Ray's own files in it are removed at the end.
    """
    relay = Relay(progress)
    task = _Task(plan, group, source, relay.board, execute)
    try:
        with _folder(storage) as folder:
            for attempt in range(MAX_FAILURES + 1):
                try:
                    return _attempt(task, folder / f"attempt-{attempt}", _Listener(relay, group, progress))
                except (ray.train.TrainingFailedError, RayError) as error:
                    if user_error(error) or not is_loss(error) or attempt == MAX_FAILURES:
                        raise explain(error) from error
                    progress.warned(f"the workers are started again: {one_line(error)}")
        raise AssertionError("unreachable")
    finally:
        relay.close()


@contextlib.contextmanager
def _folder(storage: Path) -> Iterator[Path]:
    """A folder for Ray's own files, removed at the end; first those go whose driver was killed."""
    for left in storage.glob(f"{FOLDER}*"):
        owner = read_owner(left)
        if owner is not None and owner.state() == "gone":
            shutil.rmtree(left, ignore_errors=True)
    folder = storage / f"{FOLDER}{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        write_json(folder / LOCK, asdict(Owner.current()))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _attempt(task: _Task, folder: Path, listen: Callable[[], None]) -> list[Finished]:
    """One fit under a fresh name: Ray would restore a known one from its own state, which may be torn."""
    run_config = ray.train.RunConfig(
        name=folder.name,
        storage_path=str(folder.parent),
        failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=MAX_START_FAILURES),
        logging_config=LoggingConfig(log_level="ERROR"),
    )
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"task": task},
        scaling_config=task.group.scaling(),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if task.group.device == "cuda" else "gloo"),
        run_config=run_config,
    )
    result: list[Finished] = _beside(trainer.fit, listen).return_value
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


def _beside(call: Callable[[], Any], meanwhile: Callable[[], None]) -> Any:
    """`call()` in a thread while this one calls `meanwhile`. In the main thread Ray Train would take over Ctrl-C for
    good and end the process with 0; so the KeyboardInterrupt comes to us, and closing the connection ends the group."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = call()
        except BaseException as error:  # it is raised in the thread that waits
            outcome["error"] = error

    thread = threading.Thread(target=run, name="fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(REPLAY_SECONDS)
        meanwhile()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def _work(config: dict[str, Any]) -> list[Finished]:
    """The train function: every rank executes the plan; Ray returns the value of rank 0.

    Metrics and checkpoints are ours, committed by manifest; Ray is not told of them a second time.
    """
    task: _Task = config["task"]
    torch.set_num_threads(task.group.threads)
    device = ray.train.torch.get_device()
    worker: Worker = ProcessGroupWorker(device) if task.group.workers > 1 else LocalWorker(device)
    if worker.rank:
        return task.execute(task.plan, worker, task.source, Silent())
    progress = RemoteProgress(task.board)
    try:
        return task.execute(task.plan, worker, task.source, progress)
    finally:
        progress.flush(wait=True)
