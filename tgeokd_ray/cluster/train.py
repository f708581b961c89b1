"""One worker group of Ray Train executes a whole plan: its start costs more than many a run."""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
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
REPLAY_SECONDS = 0.3

Execute = Callable[[Plan, Worker, ClusterSource, Progress], list[Finished]]


@dataclass(frozen=True)
class Group:
    """The worker group of a plan: `workers` processes with `cpus` CPUs each, and a GPU each where `device` is cuda."""

    workers: int
    device: str = "cpu"
    threads: int = 1
    cpus: int = 1

    def scaling(self) -> ray.train.ScalingConfig:
        resources = {"CPU": self.cpus} | ({"GPU": 1} if self.device == "cuda" else {})
        return ray.train.ScalingConfig(
            num_workers=self.workers, use_gpu="GPU" in resources, resources_per_worker=resources
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
    folder = storage / f".ray-{uuid.uuid4().hex}"
    try:
        for attempt in range(MAX_FAILURES + 1):
            try:
                return _attempt(task, folder, attempt, relay)
            except (ray.train.TrainingFailedError, RayError) as error:
                if user_error(error) or not is_loss(error) or attempt == MAX_FAILURES:
                    raise explain(error) from error
                progress.warned(f"the workers are started again: {one_line(error)}")
        raise AssertionError("unreachable")
    finally:
        with contextlib.suppress(RayError):
            relay.close()
        shutil.rmtree(folder, ignore_errors=True)


def _attempt(task: _Task, folder: Path, attempt: int, relay: Relay) -> list[Finished]:
    """One fit under a fresh name: Ray would restore a known one from its own state, which may be torn."""
    run_config = ray.train.RunConfig(
        name=f"attempt-{attempt}",
        storage_path=str(folder),
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
    result: list[Finished] = _beside(trainer.fit, relay.replay).return_value
    return result


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
    """The train function: every rank executes the plan; Ray returns the value of rank 0."""
    task: _Task = config["task"]
    torch.set_num_threads(task.group.threads)
    device = ray.train.torch.get_device()
    worker: Worker = ProcessGroupWorker(device, _report) if task.group.workers > 1 else LocalWorker(device)
    if worker.rank:
        return task.execute(task.plan, worker, task.source, Silent())
    progress = RemoteProgress(task.board)
    try:
        return task.execute(task.plan, worker, task.source, progress)
    finally:
        progress.flush(wait=True)


def _report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
    """Ray learns the metrics; checkpoints are ours, committed by manifest, and not copied a second time."""
    del checkpoint
    ray.train.report(dict(metrics))
