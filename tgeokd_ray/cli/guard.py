"""How every command ends: 0, or one block that says what is wrong and the exit code of its kind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, Any

from tgeokd_ray.errors import UserError

INTERRUPTED, TERMINATED = 130, 143


def guarded(function: Callable[[], Any], *, debug: bool) -> Any:
    """Call `function`; a UserError becomes its block on stderr and its exit code, Ctrl-C 130, SIGTERM 143.

    The traceback is shown with `debug` only. An error that is nobody's mistake but ours is raised as it is.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return function()
    except UserError as error:
        if debug:
            raise
        from rich.console import Console

        from tgeokd_ray.report.terminal import error_block

        error_block(error, Console(stderr=True))
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(TERMINATED)


@contextlib.contextmanager
def only_json(wanted: bool) -> Iterator[IO[str]]:
    """The stream for results. With `wanted`, everything else that reaches file descriptor 1 goes to stderr, also what
    child processes print."""
    if not wanted:
        yield sys.stdout
        return
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(saved), "w") as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
