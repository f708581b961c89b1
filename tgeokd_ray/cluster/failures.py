"""What a failed worker group means: the user's error, a loss that a new attempt mends, or the end. Pure policy."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ray.exceptions import RayError, RayTaskError
from ray.train.v2._internal.exceptions import RayTrainError, WorkerGroupStartupTimeoutError

from tgeokd_ray.errors import ResourceError, UserError

RERUN = "the same command goes on from here; --debug shows the traceback"

# What a worker or node that vanishes looks like to Ray; Ray Train's own errors share only a private base.
LOSSES = (RayError, RayTrainError, OSError)
# Its peers see a broken collective, which torch raises as a RuntimeError like many an error that would come again.
BROKEN = re.compile(r"gloo|nccl|connection|socket|timed out", re.IGNORECASE)
# Ray tells what a task's or an actor's own code raised as text, a traceback whose last line names the exception.
RAISED = re.compile(r"^[\w.]*(Error|Exception)\b.*:")


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
    """Whether a new attempt may succeed: every failure is a lost process, node or connection.

    Workers that did not start have been waited for long enough, and what a task's own code raised would come again.
    """
    return all(_is_loss(failure) for failure in worker_failures(error).values())


def _is_loss(failure: BaseException) -> bool:
    if isinstance(failure, WorkerGroupStartupTimeoutError | RayTaskError) or _raised(failure):
        return False
    broken = isinstance(failure, RuntimeError) and BROKEN.search(str(failure)) is not None
    return broken or isinstance(failure, LOSSES)


def explain(error: BaseException) -> UserError:
    """The user's own error where there is one, else a ResourceError with one line that names the rank."""
    mine = user_error(error)
    return mine if mine is not None else ResourceError(one_line(error), fix=RERUN)


def one_line(error: BaseException) -> str:
    """`worker 1: WorkerHealthCheckFailedError: ...`, of the lowest rank."""
    rank, failure = min(worker_failures(error).items(), key=lambda item: item[0])
    where = f"worker {rank}: " if rank >= 0 else ""
    first = str(failure).strip().partition("\n")[0]
    return where + (_raised(failure) or f"{type(failure).__name__}: {first}")


def _raised(failure: BaseException) -> str:
    """`KeyError: 'no column'` of code that ran in a task or made an actor, "" for what is Ray's own."""
    lines = str(failure).strip().splitlines() if isinstance(failure, RayError) else []
    return next((line for line in reversed(lines) if RAISED.match(line)), "")
