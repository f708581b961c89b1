"""Work in forked children of a warm parent: started, ended, and killed at a drawn moment or in a drawn step."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from faults_steps import Board, Hold, announce

from tgeokd_ray.errors import ResourceError

LIMIT_SECONDS = 30.0
_LOOK_SECONDS = 0.0002


@dataclass(frozen=True)
class Kill:
    """A kill that struck: the step that the child had announced, and whether it was held there until the signal."""

    step: str
    held: bool


def start(work: Callable[[], object]) -> int:
    """Run `work` in a forked child, which has no threads yet: its exit code is 0, or 1 after a traceback.

    What a command ends with (SystemExit) is its exit code; 6 for a ResourceError.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except ResourceError:
        code = 6
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(child: int, seconds: float = LIMIT_SECONDS) -> int:
    """The exit code of a child (negative: the signal), which is killed after `seconds`."""
    limit = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)


def undisturbed(work: Callable[[], object], board: Board) -> None:
    """Run `work` to its end in a child that announces its steps; RuntimeError if it fails."""
    board.clear()

    def announced() -> None:
        announce(board)
        work()
        board.end()

    code = end(start(announced))
    if code:
        raise RuntimeError(f"the undisturbed run ended with exit code {code}")


def killed_at_random(work: Callable[[], object], board: Board, seconds: float, dice: random.Random) -> Kill | None:
    """SIGKILL a child at a moment drawn evenly from the `seconds` after its first call; None if it had returned."""
    child = _announcing(work, board, None)
    while not board.began and not _gone(child):
        time.sleep(_LOOK_SECONDS)
    time.sleep(dice.uniform(0, seconds))
    return _strike(child, board)


def killed_in(work: Callable[[], object], board: Board, hold: Hold) -> Kill | None:
    """SIGKILL a child that stops in a call of a step; None if it returned without making that call."""
    child = _announcing(work, board, hold)
    while not board.held and not board.ended and not _gone(child):
        time.sleep(_LOOK_SECONDS)
    return _strike(child, board)


def _announcing(work: Callable[[], object], board: Board, hold: Hold | None) -> int:
    board.clear()

    def announced() -> None:
        announce(board, hold)
        work()
        board.end()

    return start(announced)


def _strike(child: int, board: Board) -> Kill | None:
    os.kill(child, signal.SIGKILL)
    code = end(child)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a child ended by itself with exit code {code}")
    return None if code == 0 or board.ended else Kill(board.step, board.held)


def _gone(child: int) -> bool:
    """Whether the child ended; it can still be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
