"""What a failed worker group means: the user's error, a loss that a new attempt mends, or the end. Pure policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayError
from ray.train import TrainingFailedError

from tgeokd_ray.errors import ResourceError, UserError

RERUN = "the same command goes on from here; --debug shows the traceback"

# What a worker or node that vanishes looks like to Ray, and to its peers (a broken connection is a RuntimeError).
# Any other exception of the code itself would come again.
# Ray Train's own errors (health checks, start-up, the controller) share only the base of the public one.
LOSSES = (RayError, TrainingFailedError.__bases__[0], RuntimeError, OSError)


def worker_failures(error: BaseException) -> dict[int, BaseException]:
    """Exception per rank; under -1 what is no worker's."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", None) or {}
    if failures:
        return dict(failures)
    return {-1: getattr(error, "controller_failure", None) or error}


def user_error(error: BaseException) -> UserError | None:
    """The error of the lowest rank that can say how to mend it; its peers merely lost their connection."""
    failures = worker_failures(error)
    return next((e for _, e in sorted(failures.items(), key=lambda item: item[0]) if isinstance(e, UserError)), None)


def is_loss(error: BaseException) -> bool:
    """Whether a new attempt may succeed: every failure is a lost process, node or connection."""
    return all(isinstance(e, LOSSES) for e in worker_failures(error).values())


def explain(error: BaseException) -> UserError:
    """The user's own error where there is one, else a ResourceError with one line that names the rank."""
    mine = user_error(error)
    return mine if mine is not None else ResourceError(one_line(error), fix=RERUN)


def one_line(error: BaseException) -> str:
    """`worker 1: WorkerHealthCheckFailedError: ...`, of the lowest rank."""
    rank, failure = min(worker_failures(error).items(), key=lambda item: item[0])
    text: list[Any] = str(failure).strip().splitlines() or [""]
    where = f"worker {rank}: " if rank >= 0 else ""
    return f"{where}{type(failure).__name__}: {text[0]}"
