"""Events on their way from a worker to the driver: an actor keeps them until the driver asks.

What is told is never worth a plan: when the actor is lost the rest is not shown and the work goes on. A report waits
until the driver has heard it, who may end the work there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tgeokd_ray.events import Progress

Event = tuple[str, tuple[Any, ...]]  # method of Progress, its arguments
FLUSH_SECONDS = 0.3
ANSWER_SECONDS = 0.05  # between two looks whether the driver has heard a report
REPORTED = "reported"


@ray.remote(num_cpus=0)
class _Board:
    """Events in the order of arrival, until they are taken, and the answer to the last report."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._go: bool | None = None

    def push(self, events: list[Event]) -> None:
        self._events += events

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def report(self, metrics: dict[str, float]) -> None:
        self._go = None
        self._events.append((REPORTED, (metrics,)))

    def answer(self, go: bool) -> None:
        self._go = go

    def answered(self) -> bool | None:
        return self._go


class RemoteProgress:
    """A Progress for rank 0: sends at most every 0.3 s, at once what is not a mere advance, and never waits for it."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._events: list[Event] = []
        self._sent = time.monotonic()

    def started(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        self._send("started", stage, total, unit)

    def advanced(self, stage: str, amount: int, note: str = "") -> None:
        last = self._events[-1] if self._events else None
        if last is not None and last[0] == "advanced" and last[1][0] == stage:  # summed, so that a burst is one event
            self._events[-1] = ("advanced", (stage, last[1][1] + amount, note or last[1][2]))
        else:
            self._events.append(("advanced", (stage, amount, note)))
        if time.monotonic() - self._sent >= FLUSH_SECONDS:
            self.flush()

    def stood(self, stage: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._send("stood", stage, headings, rows)

    def warned(self, message: str) -> None:
        self._send("warned", message)

    def finished(self, stage: str, note: str = "") -> None:
        self._send("finished", stage, note)

    def reported(self, metrics: Mapping[str, float]) -> bool:
        """Send what a worker reports and wait until the driver has heard it; whether to go on."""
        self.flush()
        with contextlib.suppress(RayError):
            ray.get(self._board.report.remote(dict(metrics)))
            while (go := ray.get(self._board.answered.remote())) is None:
                time.sleep(ANSWER_SECONDS)
            return bool(go)
        return True

    def _send(self, method: str, *arguments: Any) -> None:
        self._events.append((method, arguments))
        self.flush()

    def flush(self, *, wait: bool = False) -> None:
        """Send what is kept; with `wait` return only when it has arrived."""
        events, self._events = self._events, []
        self._sent = time.monotonic()
        with contextlib.suppress(RayError):
            arrived = self._board.push.remote(events)
            if wait:
                ray.get(arrived)


class Relay:
    """The driver's side: owns the board, on its own node, and replays its events whenever `replay` is called. Reports
    go to `report`; a SystemExit out of it is kept in `ended`, and the worker is told to end."""

    def __init__(self, progress: Progress, report: Callable[[Mapping[str, float]], None] | None = None) -> None:
        self._progress, self._report = progress, report
        self.ended: SystemExit | None = None
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.board = _Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]

    def replay(self) -> bool:
        """Pass on, in order, all that has arrived since the last call; whether there was anything."""
        events: list[Event] = []
        with contextlib.suppress(RayError):
            events = ray.get(self.board.take.remote())
        for method, arguments in events:
            if method == REPORTED:
                self._hear(*arguments)
            else:
                getattr(self._progress, method)(*arguments)
        return bool(events)

    def _hear(self, metrics: Mapping[str, float]) -> None:
        if self._report is not None and self.ended is None:
            try:
                self._report(metrics)
            except SystemExit as end:
                self.ended = end
        self.board.answer.remote(self.ended is None)

    def close(self) -> None:
        """Pass on the rest and end the board."""
        self.replay()
        ray.kill(self.board)
