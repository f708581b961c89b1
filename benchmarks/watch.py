"""Memory and CPU of a process and all that it starts, while it runs."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any


def descendants(pid: int) -> list[Any]:
    import psutil

    return list(psutil.Process(pid).children(recursive=True))


class Watch:
    """A process and those of its descendants that `only` names by the start of their names (all without it), sampled
    every 0.2 s: (how many, sum of their proportional set sizes in KiB), and the CPU seconds that each had used when it
    was last seen."""

    def __init__(self, pid: int, only: str = "") -> None:
        self.samples: list[tuple[int, int]] = []
        self._only = only
        self._cpu: dict[tuple[int, float], float] = {}
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_kib(self) -> int:
        return max((total for _, total in self.samples), default=0)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def _watch(self) -> None:
        import psutil

        while not self._stop.wait(0.2):
            sizes = []
            with contextlib.suppress(psutil.Error):
                family = [one for one in descendants(self._pid) if one.name().startswith(self._only)]
                sizes = [self._sample(process) for process in [psutil.Process(self._pid), *family]]
            self.samples.append((len(sizes), sum(sizes)))

    def _sample(self, process: Any) -> int:
        import psutil

        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            times = process.cpu_times()
            self._cpu[process.pid, process.create_time()] = times.user + times.system
        except (OSError, psutil.Error):
            return 0
        return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
