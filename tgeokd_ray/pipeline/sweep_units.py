"""Which trials of a sweep are trained side by side, and what is still to be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tgeokd_ray.config.proposals import Asked, Listed
from tgeokd_ray.config.space import Point, Space, effective, grid_points, size_of
from tgeokd_ray.config.sweep import Sweep
from tgeokd_ray.pipeline.sweep_journal import Journal, Trial, trial_name
from tgeokd_ray.pipeline.sweep_student import SideBySide
from tgeokd_ray.pipeline.sweep_trial import Trials, Unit
from tgeokd_ray.training.pack import MOST_STUDENTS, packed
from tgeokd_ray.training.spec import RunSpec

HOME = Path("unit")  # one place for all: students of one pack agree in it


def proposals(sweep: Sweep, trials: Trials, number: int, known: Mapping[str, Trial]) -> Listed | Asked | None:
    """What of `number` trials is still to be tried, None where all is over. `known` are the trials that are over."""
    told = sweep.model_copy(update={"trials": number}).points
    if told is not None and sweep.scheduler == "pbt":  # a member ends as another point than it began
        left = [Unit((point,)) for point in told[len(known) :]]
        return Listed(tuple(left)) if left else None
    if told is not None:
        units = units_of(told, trials, together=sweep.packs and sweep.scheduler == "none", shares=sweep.concurrency)
        left = [unit for unit in units if any(trial_name(point) not in known for point in unit.points)]
        return Listed(tuple(left)) if left else None
    missing = total_of(sweep, number) - len(known)
    return asked(sweep, Journal(trials.folder), missing, known, trials.sign) if missing > 0 else None


def total_of(sweep: Sweep, number: int) -> int:
    """How many trials there are in all where `number` are asked for; no search finds more than the space has."""
    told = sweep.model_copy(update={"trials": number}).points
    return int(min(number, size_of(sweep.ordered))) if told is None else len(told)


def units_of(points: Sequence[Point], trials: Trials, *, together: bool, shares: int) -> list[Unit]:
    """The points in units, each a trial of the cluster. Those whose students fit into one pack go `together`, in as
    many parts as run at once; a pure function of all points, so that a sweep that goes on finds its checkpoints."""
    if not together:
        return [Unit((point,)) for point in points]
    first = {trial_name(point): first_runs(point, trials) for point in points}
    alone = {name for name, specs in first.items() if len(specs) != 1 or specs[0].alone or specs[0].ensemble}
    names = {specs[0].name: name for name, specs in first.items() if name not in alone}
    by_name = {trial_name(point): point for point in points}
    groups: list[list[str]] = [[name] for name in first if name in alone]
    for group in _agreeing([specs[0] for name, specs in first.items() if name not in alone]):
        size = max(1, min(-(-len(group) // shares), MOST_STUDENTS // trials.seeds))
        members = [names[spec.name] for spec in group]
        groups += [members[k : k + size] for k in range(0, len(members), size)]
    order = list(first)
    return [Unit(tuple(by_name[n] for n in group)) for group in sorted(groups, key=lambda g: order.index(g[0]))]


def first_runs(point: Point, trials: Trials) -> list[RunSpec]:
    """What the first seed of a point trains first; nothing where there can be no such student, which its trial says."""
    try:
        plan = trials.plan(point, HOME)
    except Exception:  # its trial fails with it, and is listed
        return []
    return list(SideBySide({trial_name(point): (plan, 0)})([]))


def _agreeing(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """The specs by whether they fit into one pack, however large."""
    groups: list[list[RunSpec]] = []
    for spec in specs:
        for group in groups:
            if len(packed([replace(group[0], model_seeds=(0,)), replace(spec, model_seeds=(0,))])) == 1:
                group.append(spec)
                break
        else:
            groups.append([spec])
    return groups


def asked(sweep: Sweep, journal: Journal, number: int, known: Mapping[str, Trial], sign: float) -> Asked:
    """So many more points of TPE. First those that were begun and those that the user knows, then, where all points
    there are will be tried, the others; what is over teaches, by `sign` times its value."""
    space = sweep.ordered
    begun = [e["raw"] for e in journal.begun() if e["raw"] and trial_name(e["point"]) not in known]
    rest = grid_points(space) if number + len(known) >= size_of(space) else []  # all of it: there is nothing to search
    told = [_raw(space, point) for point in (*sweep.known_points, *rest) if trial_name(point) not in known]
    make, first = _Maker(space), dict[str, Mapping[str, Any]]()
    for raw in (*begun, *told):
        first.setdefault(make.key(raw), raw)
    over = [trial for trial in known.values() if trial.status != "stopped"]
    return Asked(
        space=space,
        number=number,
        # What was begun before, whatever came of it, came of other dice: the same would throw the same points again.
        seed=sweep.seed + len(known) + len(begun),
        first=tuple(first.values()),
        known=tuple((t.raw, None if t.value is None else sign * t.value) for t in over if t.raw),
        make=make,
        key=make.key,
    )


class _Maker:
    """Turns a raw point into a unit; picklable."""

    def __init__(self, space: Space) -> None:
        self._space = dict(space)

    def __call__(self, raw: Mapping[str, Any]) -> Unit:
        point = {name: parameter.decoded(raw[name]) for name, parameter in self._space.items()}
        return Unit((effective(self._space, point),), dict(raw))

    def key(self, raw: Mapping[str, Any]) -> str:
        """The name of its trial: raw points that differ where they have no meaning are one."""
        return self(raw).name


def _raw(space: Space, point: Point) -> dict[str, Any]:
    """A point that the user knows as TPE sees it; a parameter without a meaning in it has any value."""
    return {name: p.encoded(point.get(name, p.samples()[0])) for name, p in space.items()}
