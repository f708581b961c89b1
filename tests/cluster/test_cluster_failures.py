"""What a failed worker group means, decided from the exceptions alone."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from tgeokd_ray.cluster.failures import explain, is_loss, user_error
from tgeokd_ray.errors import ProvenanceError, ResourceError

BROKEN = RuntimeError("[gloo] Connection closed by peer\nmore")
TASK = RayTaskError(
    "read", "Traceback (most recent call last):\n  File x\nKeyError: 'no column'", KeyError("no column")
)


def test_the_users_error_is_preferred_to_the_peers_broken_connection() -> None:
    mine = ProvenanceError("other table", fix="run tgeokd precompute")
    error = WorkerGroupError("two failed", {0: BROKEN, 1: mine})
    assert user_error(error) is mine
    assert explain(error) is mine
    assert explain(error).exit_code == 4


@pytest.mark.parametrize(
    ("failures", "loss"),
    [
        ({0: BROKEN, 1: ActorDiedError()}, True),
        ({0: OSError("gone")}, True),
        ({0: WorkerCrashedError()}, True),
        ({0: KeyError("x")}, False),
        ({0: RuntimeError("mat1 and mat2 shapes cannot be multiplied")}, False),
        ({0: TASK}, False),
        ({0: BROKEN, 1: ValueError("x")}, False),
    ],
)
def test_only_losses_are_tried_again(failures: dict[int, Exception], loss: bool) -> None:
    assert is_loss(WorkerGroupError("failed", failures)) == loss


def test_a_lost_controller_is_a_loss() -> None:
    error = ControllerError(ActorDiedError())
    assert is_loss(error)
    assert explain(error).exit_code == ResourceError.exit_code


def test_what_an_actor_raised_while_it_was_made_would_come_again() -> None:
    error = ControllerError(ActorDiedError(TASK))
    assert not is_loss(error)
    assert [problem.what for problem in explain(error).problems] == ["KeyError: 'no column'"]


def test_workers_that_never_started_were_waited_for_long_enough() -> None:
    assert not is_loss(ControllerError(WorkerGroupStartupTimeoutError(2)))


def test_anything_else_is_one_line_that_names_the_rank() -> None:
    error = explain(WorkerGroupError("failed", {1: BROKEN, 0: KeyError("column x")}))
    assert isinstance(error, ResourceError)
    assert [problem.what for problem in error.problems] == ["worker 0: KeyError: 'column x'"]
    assert "more" not in str(explain(WorkerGroupError("failed", {1: BROKEN})))
    assert [problem.what for problem in explain(TASK).problems] == ["KeyError: 'no column'"]
