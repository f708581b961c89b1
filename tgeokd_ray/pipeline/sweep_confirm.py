"""Whether the winner of a sweep beats the point that was there before, on seeds that no trial had.

N seeds, paired: both points are trained with each of them, on the same table and logits, and measured on test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgeokd_ray.config.space import Point
from tgeokd_ray.config.sweep import Resolved
from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.sweep_journal import Trial, trial_name
from tgeokd_ray.pipeline.sweep_student import Place, runs_of_part, student_plan
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished, RunSpec

STAGE = "confirm"
WINNER, KNOWN = "winner", "known"


@dataclass(frozen=True)
class Arms:
    """Plans of students as one, every run and its artifact named after its part; all are measured on test."""

    parts: Mapping[str, Plan]
    artifact: str

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        return [
            replace(spec, name=f"{part}-{spec.name}", artifact=f"{self.artifact}-{part}-{spec.name}")
            for part, plan in self.parts.items()
            for spec in plan(runs_of_part(part, finished))
        ]


def confirm(resolved: Resolved, best: Trial, chain: Chain, place: Place) -> dict[str, Any] | None:
    """`confirmation` of a sweep: the metric and NLL on test of both points by seed, the mean of the paired differences
    (winner less known) with its 95 % interval, and whether the winner `replaces` the first known point: its interval
    excludes 0 on the better side. None without `confirm`; nothing is trained where that point won. The error of the
    first run that fails is raised."""
    number = resolved.sweep.confirm
    if number is None:
        return None
    known = resolved.sweep.known_points[0]
    points: dict[str, Point] = {WINNER: best.point, KNOWN: known}
    told: dict[str, Any] = {"metric": resolved.metric, WINNER: best.name, KNOWN: trial_name(known)}
    if trial_name(known) == best.name:
        return told | {"same": True, "seeds": [], "replaces": False, "figures": {}}
    first = resolved.job.seed + 1
    seeds = list(range(first, first + number))
    parts = {
        f"{arm}-{seed}": student_plan(resolved.job.model_copy(update={"seed": seed}), point, place)
        for seed in seeds
        for arm, point in points.items()
    }
    runs = chain.planned(STAGE, Arms(parts, f"{resolved.name}-{STAGE}"))
    wrong = next((run.error for run in runs if run.error is not None), None)
    if wrong is not None:
        raise wrong
    figures = {}
    for figure in dict.fromkeys((resolved.metric, "nll")):
        values = {arm: [_value(f"{arm}-{seed}", runs, figure) for seed in seeds] for arm in points}
        figures[figure] = values | _difference(values[WINNER], values[KNOWN])
    replaces = _excludes_0(figures[resolved.metric], resolved.sign)
    return told | {"same": False, "seeds": seeds, "replaces": replaces, "figures": figures}


def _value(part: str, runs: Sequence[Finished], figure: str) -> float | None:
    """A figure on test of the part's student, which is its last run."""
    value: float | None = runs_of_part(part, runs)[-1].metrics["test"].get(figure)
    return value


def _difference(ours: Sequence[float | None], theirs: Sequence[float | None]) -> dict[str, float | None]:
    ends = ("difference", "low", "high")
    won, stayed = ([value for value in part if value is not None] for part in (ours, theirs))
    if len(won) + len(stayed) < 2 * len(ours):
        return dict.fromkeys(ends)
    return dict(zip(ends, paired_difference(won, stayed), strict=True))


def _excludes_0(found: Mapping[str, Any], sign: float) -> bool:
    """Whether all of the interval lies on the better side; not where there is none."""
    worse = found["low"] if sign > 0 else found["high"]
    return worse is not None and sign * worse > 0
