"""A member of a population: its student pauses now and then, and may go on as another's with another learning rate.

What a member has gone through is a list of changes of that rate, so that the same student can be trained again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tgeokd_ray.artifacts import read_json, write_json
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.config.space import Point
from tgeokd_ray.config.sweep import CHANGES, FUSION_RATE
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.pipeline.sweep_journal import Journal, trial_name
from tgeokd_ray.pipeline.sweep_student import SideBySide
from tgeokd_ray.pipeline.sweep_trial import Trials, Unit
from tgeokd_ray.training.checkpoint import Checkpoints
from tgeokd_ray.training.data import Source
from tgeokd_ray.training.reuse import run_inputs

PAST = "past.json"
# Takes what a trial tells, and the folder of a checkpoint, or none when it is over.
TellWith = Callable[[Mapping[str, float], Path | None], None]


class Pause(SystemExit):
    """Ends a run at a checkpoint, to go on from it, after so many epochs and at this value of the metric."""

    def __init__(self, epoch: int, value: float) -> None:
        super().__init__()
        self.epoch, self.value = epoch, value


@dataclass(frozen=True)
class Past:
    """The point that a student began with, and its rates since: (epoch, rate) in order."""

    point: Point
    changes: tuple[tuple[int, float], ...] = ()
    epoch: int = 0

    @property
    def rate(self) -> float:
        """The rate that it had last."""
        return float(self.changes[-1][1] if self.changes else self.point[FUSION_RATE])

    def moved(self, rate: float) -> Past:
        """The past with another rate from now on."""
        return self if rate == self.rate else replace(self, changes=(*self.changes, (self.epoch, rate)))

    @property
    def whole(self) -> Point:
        """The point whose trial is this student, from its first step on."""
        return {**self.point, CHANGES: [list(one) for one in self.changes]} if self.changes else dict(self.point)


@dataclass(frozen=True)
class Member:
    """What a trial of a population does; picklable. It pauses after `every` epochs."""

    trials: Trials
    every: int

    def __call__(self, unit: Unit, rate: float, given: Path | None, name: str, tell: TellWith, source: Source) -> None:
        """Train the student of the checkpoint `given`, or a new one, with this rate from there on; `name` is the
        member's own. Tells after each pause and at the end; a SystemExit from there ends the member."""
        (first,) = unit.points
        past = Past(first) if given is None else _read(given / PAST)
        past = past.moved(rate) if given is not None else replace(past, point={**first, FUSION_RATE: rate})
        trials = replace(self.trials, part=name)
        if given is not None:
            _adopt(trials, past, given)
        while True:
            try:
                trials(Unit((past.whole,)), _pausing(past.epoch, self.every, trials.epochs), source)
            except Pause as reached:
                past = replace(past, epoch=reached.epoch)
                folder = _packed(trials, past)
                tell({"epoch": reached.epoch, "value": reached.value}, folder)
                continue
            _end(trials, past, tell)
            return


def _pausing(since: int, every: int, over: int) -> Callable[[Mapping[str, float]], None]:
    def tell(told: Mapping[str, float]) -> None:
        # The epoch at which it paused is told again, since the checkpoint is from before its end.
        if since < told["epoch"] < over and told["epoch"] % every == 0:
            raise Pause(int(told["epoch"]), told["value"])

    return tell


def _end(trials: Trials, past: Past, tell: TellWith) -> None:
    over = Journal(trials.folder).get(trial_name(past.whole))
    if over is not None and over.value is not None:
        tell({"epoch": trials.epochs, "value": trials.sign * over.value}, None)
    shutil.rmtree(trials.folder / "work" / trials.part, ignore_errors=True)


def _checkpoints(trials: Trials, past: Past) -> Checkpoints:
    """Those of the student with this past."""
    name = trial_name(past.whole)
    home = trials.home(name)
    (spec,) = SideBySide({f"{name}-0": (trials.plan(past.whole, home), 0)})([])
    return Checkpoints(home, spec.name, run_inputs(spec))


def _adopt(trials: Trials, past: Past, given: Path) -> None:
    """The checkpoint as one of the student that goes on from it."""
    shutil.rmtree(trials.folder / "work" / trials.part, ignore_errors=True)
    _checkpoints(trials, past).adopt(given / "state", torch.device(trials.device))


def _packed(trials: Trials, past: Past) -> Path:
    """A folder with the newest checkpoint and the past that led to it."""
    newest = next(iter(versions(_checkpoints(trials, past).home)), None)
    if newest is None:  # the first step of all ends the first epoch
        raise ConfigError(
            "scheduler: pbt needs two steps an epoch at least", fix="a smaller student.training.batch_rows"
        )
    folder = trials.folder / "work" / trials.part / "pause"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(newest, folder / "state")
    write_json(folder / PAST, {"point": past.point, "changes": past.changes, "epoch": past.epoch})
    return folder


def _read(path: Path) -> Past:
    told: dict[str, Any] = read_json(path)
    changes = tuple((int(epoch), float(rate)) for epoch, rate in told["changes"])
    return Past(told["point"], changes, int(told["epoch"]))
