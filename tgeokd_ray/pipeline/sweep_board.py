"""What the driver of a sweep hears: it keeps the score, and writes down what trials can't write themselves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import RLock

from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_trial import Unit
from tgeokd_ray.report.sweep_wording import short, written
from tgeokd_ray.report.wording import duration, fixed, measure

STAGE = "trials"
SHOWN = 5  # of the best trials, while others run


@dataclass
class Board:
    """Listens to the trials of a sweep. `known` are those that are over, to which it adds; a trial that the scheduler
    stopped, or whose process was lost for good, is committed to the journal here. In a `population` nobody is stopped,
    and a trial ends as another point than it began. Safe to call from any thread."""

    journal: Journal
    metric: str
    sign: float
    epochs: int
    progress: Progress
    known: dict[str, Trial]
    population: bool = False
    _values: dict[str, list[float | None]] = field(default_factory=dict)
    _running: dict[str, int] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _last: str = ""
    _lock: RLock = field(default_factory=RLock)

    @property
    def curves(self) -> dict[str, list[float]]:
        """The metric after each epoch of trials that are over, larger better; those without gaps."""
        told = {name: trial.curve for name, trial in self.known.items()}
        whole = {name: [value for value in curve if value is not None] for name, curve in told.items()}
        return {n: [self.sign * v for v in curve] for n, curve in whole.items() if len(curve) == len(told[n]) > 0}

    def began(self, unit: Unit) -> None:
        with self._lock:
            self._running[unit.name] = len(unit.points)
            self._since[unit.name] = time.monotonic()
            self._tell(0)

    def told(self, unit: Unit, epoch: int, value: float) -> None:
        with self._lock:
            if epoch < self.epochs:  # beyond that it repeats what stands in the journal
                values = self._values.setdefault(unit.name, [])
                # A trial goes on from its checkpoint: what it told an earlier driver is not known here.
                values[epoch - 1 :] = [None] * (epoch - 1 - len(values)) + [value]
            self._tell(0)

    def ended(self, unit: Unit, lost: str | None) -> None:
        with self._lock:
            self._running.pop(unit.name, None)
            before = len(self.known)
            if self.population and lost is None:
                self.known |= self.journal.known()
            else:
                for name in (trial_name(point) for point in unit.points):
                    trial = self.known.get(name) or self.journal.get(name) or self._written(unit, name, lost)
                    self.known |= {} if trial is None else {name: trial}
            self._tell(len(self.known) - before)

    def _written(self, unit: Unit, name: str, lost: str | None) -> Trial | None:
        """The entry of a trial that could not write its own."""
        values = self._values.get(unit.name, [])
        point = next(point for point in unit.points if trial_name(point) == name)
        curve = tuple(None if value is None else self.sign * value for value in values)
        if lost is not None:
            reason = f"its process was lost, and lost again: {lost}"
            trial = Trial(name, point, "failed", reason=reason, code="resource")
        elif values:
            best = self.sign * max(value for value in values if value is not None)
            trial = Trial(name, point, "stopped", value=best, curve=curve, epochs=len(values))
        else:
            return None
        since = self._since.get(unit.name, time.monotonic())  # it may be lost before it began
        trial = trial.with_record(time.monotonic() - since, unit.raw)
        self.journal.keep(trial)
        return trial

    def _tell(self, amount: int) -> None:
        before, self._last = self._last, self.note
        if amount or self._last != before:
            self.progress.advanced(STAGE, amount, self._last)
            self.progress.stood(STAGE, *self.standing)

    @property
    def standing(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of the best finished trials, and what ran for how long with which parameters."""
        finished = [trial for trial in self.known.values() if trial.status == "finished" and trial.value is not None]
        best = sorted(finished, key=lambda trial: (-self.sign * (trial.value or 0.0), trial.name))[:SHOWN]
        names = short(list(dict.fromkeys(name for trial in best for name in trial.point)))
        rows = []
        for trial in best:
            point = ", ".join(
                f"{name}={written(trial.point[path])}" for path, name in names.items() if path in trial.point
            )
            rows.append([trial.name, fixed(trial.value), str(trial.epochs), duration(trial.seconds), point])
        return ["best so far", measure(self.metric), "epochs", "time", "parameters"], rows

    @property
    def note(self) -> str:
        """`best auc 0.7312 (t-1f0c...), 9 finished, 2 running, 3 stopped early, 1 failed`."""
        best = best_of(self.known, self.sign)
        parts = [] if best is None else [f"best {self.metric} {best.value:.4f} ({best.name})"]
        running = sum(self._running.values())
        counts = count_of(self.known)
        parts += [f"{counts['finished']} finished"] if counts["finished"] else []
        parts += [f"{running} running"] if running and not self.population else []
        parts += [f"{counts['stopped']} stopped early"] if counts["stopped"] else []
        parts += [f"{counts['failed']} failed"] if counts["failed"] else []
        return ", ".join(parts)


def best_of(trials: Mapping[str, Trial], sign: float) -> Trial | None:
    """The best of the finished trials, None where there is none; of equals the one whose name comes first."""
    finished = [trial for trial in trials.values() if trial.status == "finished" and trial.value is not None]
    return min(finished, key=lambda trial: (-sign * (trial.value or 0.0), trial.name), default=None)


def count_of(trials: Mapping[str, Trial]) -> dict[str, int]:
    """How many trials are finished, stopped, failed."""
    return {s: sum(t.status == s for t in trials.values()) for s in ("finished", "stopped", "failed")}
