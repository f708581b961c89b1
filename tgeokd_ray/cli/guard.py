"""How every command ends: 0, or one block that says what is wrong and the exit code of its kind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, Any

from tgeokd_ray.errors import UserError

INTERRUPTED, TERMINATED = 130, 143


def guarded(function: Callable[[], Any], *, debug: bool) -> Any:
    """Call `function`; a UserError becomes its block on stderr and its exit code, Ctrl-C 130, SIGTERM 143.

    With `debug` the traceback is shown in place of the block. An error that is nobody's mistake but ours is raised as
    it is.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return function()
    except UserError as error:
        _show(error, debug)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _show(error: UserError, debug: bool) -> None:
    if debug:
        from tgeokd_ray.report.wording import plain  # a name from outside must not steer the terminal here either

        for line in "".join(traceback.format_exception(error)).splitlines():
            print(plain(line), file=sys.stderr)
        return
    from rich.console import Console

    from tgeokd_ray.report.terminal import error_block

    error_block(error, Console(stderr=True))


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
