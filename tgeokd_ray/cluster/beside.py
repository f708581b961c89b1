"""Waiting for Ray in a thread of its own, so that this one can listen and hear Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

LISTEN_SECONDS = 0.3


def beside(call: Callable[[], Any], meanwhile: Callable[[], None]) -> Any:
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
        thread.join(LISTEN_SECONDS)
        meanwhile()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]
