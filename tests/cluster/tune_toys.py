"""Trials that train nothing: they tell numbers, note in a folder that they ran, and kill themselves where asked to."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # processes of Ray do not see the folder of tests
MEETING_SECONDS = 30.0
EPOCHS = 9  # more than any toy has


@dataclass(frozen=True)
class ToyUnit:
    """Tells `values`, one after every `pause` seconds, and the best once more; its first `kills` attempts end by
    SIGKILL."""

    name: str
    values: tuple[float, ...] = (0.5,)
    pause: float = 0.0
    kills: int = 0
    meets: str | None = None  # another unit, for which it waits before it tells anything


@dataclass(frozen=True)
class Toy:
    """What a trial does. NAME.1.json, NAME.2.json, ... in the folder say of every attempt when and where it was."""

    folder: Path

    def __call__(self, unit: ToyUnit, tell: Callable[[Mapping[str, float]], None], source: Any) -> None:
        attempt = len(self.notes(unit.name)) + 1
        note = {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id(), "began": time.time()}
        self._write(unit, attempt, note)
        if attempt <= unit.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        until = time.time() + MEETING_SECONDS
        while unit.meets is not None and not self.notes(unit.meets) and time.time() < until:
            time.sleep(0.05)
        try:
            for epoch, value in enumerate(unit.values, start=1):
                time.sleep(unit.pause)
                tell({"epoch": epoch, "value": value})
        except SystemExit:
            self._write(unit, attempt, note | {"stopped": time.time()})
            raise
        self._write(unit, attempt, note | {"ended": time.time()})
        if unit.values:
            tell({"epoch": EPOCHS, "value": max(unit.values)})

    def notes(self, name: str = "*") -> list[dict[str, Any]]:
        """The notes of all attempts of a unit, or of all."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"{name}.*.json"))]

    def _write(self, unit: ToyUnit, attempt: int, note: Mapping[str, Any]) -> None:
        path = self.folder / f"{unit.name}.{attempt}.json"
        path.with_suffix(".part").write_text(json.dumps({"name": unit.name, **note}))
        path.with_suffix(".part").replace(path)


@dataclass
class Heard:
    """What the driver hears: ("began" | "told" | "ended", unit, what more there is)."""

    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    events: list[tuple[str, str, Any]] = field(default_factory=list)

    def began(self, unit: ToyUnit) -> None:
        self.events.append(("began", unit.name, None))

    def told(self, unit: ToyUnit, epoch: int, value: float) -> None:
        self.events.append(("told", unit.name, (epoch, value)))

    def ended(self, unit: ToyUnit, lost: str | None) -> None:
        self.events.append(("ended", unit.name, lost))

    def of(self, kind: str) -> list[tuple[str, Any]]:
        """Who and what more, of one kind."""
        return [(name, more) for what, name, more in self.events if what == kind]


def at_once(notes: Sequence[Mapping[str, Any]]) -> int:
    """The most attempts that overlap in time; of one that says nothing of its end, it is its beginning."""
    times = sorted(
        moment
        for note in notes
        for moment in ((note["began"], 1), (note.get("ended", note.get("stopped", note["began"])), -1))
    )
    return max(sum(step for _, step in times[: k + 1]) for k in range(len(times)))


@dataclass(frozen=True)
class ToyMember:
    """A member of a population whose value is its rate: it tells with a checkpoint that holds who trained it so far."""

    folder: Path

    def __call__(
        self,
        unit: ToyUnit,
        rate: float,
        given: Path | None,
        name: str,
        tell: Callable[[Mapping[str, float], Path | None], None],
        source: Any,
    ) -> None:
        past = [] if given is None else json.loads((given / "past.json").read_text())
        home = self.folder / f"at-{name}"
        home.mkdir(exist_ok=True)
        for epoch in range(len(past) + 1, EPOCHS):
            past.append([unit.name, rate])
            (home / "past.json").write_text(json.dumps(past))
            time.sleep(0.1)
            tell({"epoch": epoch, "value": rate}, home)
        (self.folder / f"{name}.json").write_text(json.dumps(past))
        tell({"epoch": EPOCHS, "value": rate}, None)
