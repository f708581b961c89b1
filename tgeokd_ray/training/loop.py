"""The one loop: epochs of steps, an outer step now and then, evaluation on valid, checkpoints, early stopping.

Teachers, students, packs and every rule go through it; one worker or many.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tgeokd_ray.errors import DataError
from tgeokd_ray.events import Progress
from tgeokd_ray.feed.batches import Rows
from tgeokd_ray.training.checkpoint import Checkpoints
from tgeokd_ray.training.data import RunData
from tgeokd_ray.training.dropout import Dropout
from tgeokd_ray.training.evaluation import evaluate, signed
from tgeokd_ray.training.log import MetricsLog
from tgeokd_ray.training.pack import Pack, dropped
from tgeokd_ray.training.parts import places
from tgeokd_ray.training.profile import Profile, region
from tgeokd_ray.training.ratios import snapshot_every
from tgeokd_ray.training.spec import RunSpec
from tgeokd_ray.training.spread import means
from tgeokd_ray.training.state import State
from tgeokd_ray.training.steps import Step, Taken, as_it_is
from tgeokd_ray.training.worker import Worker

SCALARS = ("auc", "nll", "accuracy", "macro_f1", "average_precision")


@dataclass
class Loop:
    """Trains `pack` from `state` to its end on one worker; every worker calls it with its own part of the data.

    `quick` gives a quicker way to take a step, where there is one.
    """

    pack: Pack
    step: Step
    dropout: Dropout
    data: RunData
    worker: Worker
    checkpoints: Checkpoints
    log: MetricsLog
    progress: Progress
    profile: Profile | None = None
    quick: Callable[[Step], Taken] = as_it_is
    _saved: float = field(default_factory=time.monotonic)
    _clock: float | None = None
    _seconds: float = 0.0
    _steps: int = 0
    _current: tuple[tuple[int, ...], Step, Taken, Dropout] | None = None

    @property
    def spec(self) -> RunSpec:
        """What all runs of the pack agree in."""
        return self.pack.shared

    def run(self, state: State) -> State:
        """Train until the epochs or every student's patience are used up; the best state on valid is in `best_theta`.

        An interruption commits a checkpoint first. DataError where the loss stops being finite.
        """
        try:
            while state.epoch < self.spec.epochs and not state.over:
                for reached in self._epoch(state):
                    state = reached  # what an interruption saves
                    if state.step < (state.epoch + 1) * self.data.train.steps_per_epoch:  # else it is soon evaluated
                        self._keep(state)
        except (KeyboardInterrupt, SystemExit):
            self._save(state)
            raise
        if self.profile is not None:
            self.profile.close(state.step)
        return state

    def _epoch(self, state: State) -> Iterator[State]:
        """The states of an epoch. Each is given away before anybody writes its patch: a state whose tables have rows of
        a later one must never be what an interruption saves."""
        steps = self.data.train.steps_per_epoch
        total = self.spec.epochs * steps
        batches = self.data.train.batches(state.epoch, start_step=state.step - state.epoch * steps)
        while True:
            if self._to_remember(state, total):
                state = state.with_snapshot()
                yield state
            moved = self._step(state, batches, steps, total)
            if moved is None:
                break
            state = moved
            yield state
        yield self._finish_epoch(state, steps)

    def _to_remember(self, state: State, total: int) -> bool:
        """Whether a snapshot of this step is wanted, and not there; that of a step before an interruption may be so."""
        if self.spec.kind != "ratios" or not state.step or state.step % snapshot_every(self.spec, total):
            return False
        return not any(name.startswith(f"{state.step:09d}/") for name in state.snapshots)

    def _step(self, state: State, batches: Iterator[Rows], steps: int, total: int) -> State | None:
        """The state after the step on the next of these batches; None where there is none."""
        if self.profile is not None:
            self.profile.at(state.step)
        with region("whole"):
            with region("feed"):
                rows = next(batches, None)
                if rows is None:
                    return None
                rows = self.data.taught(rows, state.epoch, self.worker.device)
                outer = self._outer(state.step, total)
            _, taken, dropout = self._of(state)
            shares = self.data.train.shares(state.epoch, state.step - state.epoch * steps)
            masks = dropout.masks(state.step, shares, self.step.problem.class_means)
            parts = None if outer is None else places(shares, self.step.num_parts, self.worker.device)
            state, measures = taken(state, rows, outer, state.step / total, masks, parts)
            state = replace(state, totals={name: state.totals[name] + measures[name] for name in measures})
        self._check(state, measures, rows)
        self._timed(len(state.active))
        self._log(state, steps)
        return state

    def _finish_epoch(self, state: State, steps: int) -> State:
        if self.worker.device.type == "cuda":
            torch.cuda.synchronize(self.worker.device)  # steps that are still under way count
            self._timed(0)
        state = state.settled()
        results = self.evaluate("valid", state)
        self._clock = None
        value = torch.tensor([signed(r, self.spec.metric) for r in results], dtype=torch.float64).to(state.best)
        self._check_metric(value, results)
        measures = {name: mean.tolist() for name, mean in means(state.totals, steps).items()}
        measures |= {f"valid_{name}": [r.get(name) for r in results] for name in SCALARS}
        entry = {"epoch": state.epoch, "step": state.step} | _by_student(measures, state)
        state = state.with_best(value, self.spec.patience)
        state = state.without(dropped(self.pack, state.best.tolist(), state.ended.tolist(), state.epoch))
        self.log.write(entry)
        best = state.best.tolist()
        self.worker.report({"epoch": state.epoch + 1, self.spec.metric: max(best), "mean": sum(best) / len(best)})
        self.progress.advanced(self.pack.name, 0, f"{self.spec.metric} {abs(float(value.max())):.4f}")
        zeros = {name: torch.zeros_like(total) for name, total in state.totals.items()}
        return replace(state, epoch=state.epoch + 1, history=(*state.history, entry), totals=zeros).compacted()

    def evaluate(self, split: str, state: State) -> list[dict[str, Any]]:
        """Results on a split of the A students that still train, with their current parameters."""
        batches = self.data.sequential(split)
        table = self.data.table
        problem = self._of(state)[0].problem
        found = evaluate(problem, state.theta, batches, self.worker, table.negative, weighted=table.has_weights)
        return [summary.results() for summary in found]

    def _of(self, state: State) -> tuple[Step, Taken, Dropout]:
        """The step of the students that still train, how it is taken, and their dropout."""
        if self._current is None or len(self._current[0]) != len(state.active):
            students = tuple(state.active.tolist())
            whole = len(students) == state.num_students
            step = self.step if whole else self.step.take(students)
            self._current = students, step, self.quick(step), self.dropout if whole else self.dropout.take(students)
        return self._current[1:]

    @property
    def rows_per_second(self) -> float | None:
        """Rows of all workers and students per second of training, without starts, evaluation and the first step of an
        epoch."""
        if not self._steps or not self._seconds:
            return None
        train = self.data.train
        return train.rows / train.steps_per_epoch * self._steps / self._seconds

    def _timed(self, students: int) -> None:
        now = time.monotonic()
        if self._clock is not None:
            self._seconds, self._steps = self._seconds + now - self._clock, self._steps + students
        self._clock = now

    def _outer(self, step: int, total: int) -> Rows | None:
        """The outer batch of this inner step: every `every` steps once the warm-up is over, a pure function of it."""
        if self.data.outer is None:
            return None
        first = math.ceil(self.spec.fusion.warm_up * total)
        every = self.spec.fusion.every
        if step < first or (step - first) % every:
            return None
        return self.data.outer.at((step - first) // every).to(self.worker.device)

    def _check_metric(self, value: Tensor, results: list[dict[str, Any]]) -> None:
        if bool(torch.isfinite(value).all()):
            return
        metric = self.spec.metric
        why = results[0].get("undefined", {}).get(metric, "no value")
        raise DataError(
            f"{self.pack.name}: {metric}, by which the best epoch is chosen, is undefined on the valid rows: {why}",
            fix="give the split valid a larger share in the card, or choose another --set metric=nll",
        )

    def _check(self, state: State, measures: dict[str, Tensor], rows: Rows) -> None:
        every = 1 if self.worker.device.type == "cpu" else self.spec.log_every
        if state.step % every or bool(torch.isfinite(measures["loss"]).all()):
            return
        where = f"{'teacher' if self.spec.kind == 'teachers' else 'student'}.training.optimizer"
        ids = ", ".join(str(int(i)) for i in rows.row_id[:5])
        raise DataError(
            f"{self.pack.name}: the loss is not finite at step {state.step} (rows {ids}, ...)",
            fix=f"lower {where}.learning_rate or set {where}.clip_norm",
        )

    def _log(self, state: State, steps: int) -> None:
        if state.step % self.spec.log_every == 0 and state.step % steps:  # the epoch's end has a line of its own
            since = state.step - state.epoch * steps
            mean = {name: value.tolist() for name, value in means(state.totals, since).items()}
            self.log.write({"epoch": state.epoch, "step": state.step} | _by_student(mean, state))
        self.progress.advanced(self.pack.name, 1)

    def _keep(self, state: State) -> None:
        if time.monotonic() - self._saved >= self.spec.checkpoint_seconds:
            self._save(state)

    def _save(self, state: State) -> None:
        if self.worker.rank == 0 and state.step:
            self.checkpoints.save(state)
        self._saved = time.monotonic()


def _by_student(measures: dict[str, list[Any]], state: State) -> dict[str, list[Any]]:
    """Values [A] as lists of R; null for a student that has ended."""
    training = [(place, r) for place, r in enumerate(state.active.tolist()) if state.ended[r] < 0]
    spread: dict[str, list[Any]] = {name: [None] * state.num_students for name in measures}
    for name, values in measures.items():
        for place, r in training:
            spread[name][r] = values[place]
    return spread
