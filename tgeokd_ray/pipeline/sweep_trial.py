"""One trial of a sweep, in whatever process it runs: it trains, writes into the journal what came of it, and says on
the way how far it is."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.space import Point
from tgeokd_ray.errors import ResourceError, UserError
from tgeokd_ray.events import Progress, Silent
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_student import Place, SideBySide, runs_of_part, student_plan
from tgeokd_ray.training.data import Source
from tgeokd_ray.training.distributed import ProcessGroupWorker
from tgeokd_ray.training.memory import enough_memory, let_go, memory_limit
from tgeokd_ray.training.plan import execute
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import HIGHER_IS_BETTER, Finished, RunSpec, sign_of
from tgeokd_ray.training.worker import LocalWorker, Worker

# Takes {"epoch": whole epochs, "value": the metric so far, larger is better}.
Tell = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class Unit:
    """Points that are trained side by side; `raw` is what a search algorithm calls the only one."""

    points: tuple[Point, ...]
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of its first trial."""
        return trial_name(self.points[0])


@dataclass(frozen=True)
class Trials:
    """What all trials of a sweep have in common; picklable. `folder` is the sweep's own, with the journal and, below
    work/ (or a `part` of it), students and checkpoints of trials that are not over. `epochs` is more than any trial
    trains. The job says how many workers train; several are a group of Ray Train with `cpu` CPUs each."""

    job: Job
    card: str
    table: str
    logits: str
    folder: Path
    epochs: int
    device: str = "cpu"
    seeds: int = 1
    cpu: float = 1.0
    memory_mib: int | None = None
    part: str = ""

    def __call__(self, unit: Unit, tell: Tell, source: Source) -> None:
        """Train what is not over of a unit. Nothing that goes wrong in a trial leaves it but as its entry in the
        journal; an end from outside (SystemExit) leaves a checkpoint, from which the same unit goes on."""
        torch.set_num_threads(self.job.threads)
        journal = Journal(self.folder)
        missing = [point for point in unit.points if journal.get(trial_name(point)) is None]
        for point in missing:
            journal.begin(trial_name(point), point, unit.raw)
        began = time.monotonic()
        told = self._outcomes(missing, self.home(unit.name), tell, source)
        seconds = (time.monotonic() - began) / max(len(missing), 1)
        for trial in told:
            if journal.get(trial.name) is None:  # else a process that outlived its killed driver was faster
                journal.keep(trial.with_record(seconds, unit.raw))
        shutil.rmtree(self.home(unit.name), ignore_errors=True)
        over = journal.get(trial_name(unit.points[0]))
        if over is not None and over.value is not None:
            tell({"epoch": self.epochs, "value": self.sign * over.value})

    @property
    def sign(self) -> float:
        """1 for a metric of which more is better, else -1."""
        return sign_of(self.job.metric)

    def home(self, unit: str) -> Path:
        """Where students and checkpoints of a unit are until it is over."""
        return self.folder / "work" / self.part / unit

    def plan(self, point: Point, home: Path) -> Plan:
        """The plan of the student of a point; UserError where there can be none."""
        table, logits = (open_artifact(Path(path)) for path in (self.table, self.logits))
        return student_plan(self.job, point, Place(self.card, table, logits, home, home))

    def _outcomes(self, points: Sequence[Point], home: Path, tell: Tell, source: Source) -> list[Trial]:
        plans: dict[str, tuple[Plan, int]] = {}
        failed: dict[str, Trial] = {}
        for point in points:
            name = trial_name(point)
            try:
                plan = self.plan(point, home)
            except Exception as error:
                if not isinstance(error, UserError):  # which explains itself
                    self._keep_traceback(point, error)
                failed[name] = refused(point, error)
                continue
            plans |= {f"{name}-{seed}": (plan, seed) for seed in range(self.seeds)}
        try:
            runs = self._execute(SideBySide(plans), home, tell, source) if plans else []
            return [self._outcome(point, runs, failed) for point in points]
        except Exception as error:  # a fault of ours in one trial must not end the sweep
            if len(points) > 1:
                let_go(error)
                return [trial for point in points for trial in self._outcomes([point], home, tell, source)]
            if not isinstance(error, UserError) or isinstance(error, ResourceError):  # others explain themselves
                self._keep_traceback(points[0], error)
            return [refused(points[0], error)]

    def _outcome(self, point: Point, runs: Sequence[Finished], failed: Mapping[str, Trial]) -> Trial:
        name = trial_name(point)
        parts = [runs_of_part(f"{name}-{seed}", runs) for seed in range(self.seeds)]
        return failed[name] if name in failed else outcome(point, parts, self.job.metric)

    def _execute(self, plan: Plan, home: Path, tell: Tell, source: Source) -> list[Finished]:
        does = _Execute(home.name, self.memory_mib)
        if self.job.workers == 1:
            return does(plan, LocalWorker(self.device, lambda told, _: tell(told)), source, Silent())
        from tgeokd_ray.cluster.train import Group, run_plan

        group = Group(self.job.workers, self.device, self.job.threads, self.cpu, in_trial=True)
        return run_plan(plan, group, source, Silent(), home, does, tell)

    def _keep_traceback(self, point: Point, error: Exception) -> None:
        path = self.folder / "errors" / f"{trial_name(point)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")


@dataclass(frozen=True)
class _Execute:
    """What every worker of a trial does, the only one or one of a group; picklable. What it reports is how good the
    students are after each epoch."""

    name: str
    memory_mib: int | None

    def __call__(self, plan: Plan, worker: Worker, source: Source, progress: Progress) -> list[Finished]:
        curve = _Curve(worker.report)

        def followed(finished: Sequence[Finished]) -> Sequence[RunSpec]:
            specs = plan(finished)
            curve.follow(specs)
            return specs

        kind = ProcessGroupWorker if worker.size > 1 else LocalWorker
        with memory_limit(self.memory_mib), enough_memory(self.name):
            return execute(followed, kind(worker.device, curve), source, progress)


class _Curve:
    """Tells how good the students of a trial are after each epoch but the last: then the trial is about to be over, and
    nobody must stop it any more."""

    def __init__(self, tell: Callable[[Mapping[str, float]], None]) -> None:
        self._tell = tell
        self._metric: str | None = None
        self._epochs = 0

    def follow(self, specs: Sequence[RunSpec]) -> None:
        """Tell of these runs; of ratios there is nothing to tell, and of a choice what its best candidate is worth."""
        self._metric = None
        if specs and all(spec.kind == "students" for spec in specs):
            self._metric = specs[0].metric if specs[0].choice is not None else "mean"
            self._epochs = specs[0].epochs

    def __call__(self, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        del checkpoint
        if self._metric is not None and metrics["epoch"] < self._epochs:
            self._tell({"epoch": metrics["epoch"], "value": metrics[self._metric]})


def outcome(point: Point, parts: Sequence[Sequence[Finished]], metric: str) -> Trial:
    """What came of the students of a point, whose runs are `parts`: the mean of the metric on valid, or the first
    error."""
    for run in (run for part in parts for run in part):
        if run.error is not None:
            return refused(point, run.error)
    metrics = [part[-1].metrics for part in parts]
    values = [one["valid"].get(metric) for one in metrics]
    if any(value is None for value in values):
        return Trial(trial_name(point), point, "failed", reason=f"{metric} is undefined on valid", code="data")
    figures = {name: _mean([one["valid"].get(name) for one in metrics]) for name in HIGHER_IS_BETTER}
    curves = [[entry.get(f"valid_{metric}") for entry in one["history"]] for one in metrics]
    return Trial(
        trial_name(point),
        point,
        "finished",
        value=fmean(values),
        curve=tuple(_mean(column) for column in zip(*curves, strict=False)),
        epochs=max(map(len, curves)),
        students=len(parts),
        parameters=metrics[0]["parameters"],
        figures=figures | {"steps": sum(run.metrics["steps"] for part in parts for run in part)},
    )


def refused(point: Point, error: BaseException) -> Trial:
    """A trial that failed, with the reason in one line and the code of its kind."""
    if isinstance(error, UserError):
        more = f" ({error.total} problems)" if error.total > 1 else ""
        reason, code = f"{error.problems[0]}{more}", error.code
    else:
        reason, code = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", UserError.code
    return Trial(trial_name(point), point, "failed", reason=reason, code=code)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
