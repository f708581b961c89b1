"""The grid that every rule of a study is tried on, temperatures by learning rates, and the one plan over its points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError
from tgeokd_ray.pipeline.plans import StudentsPlan
from tgeokd_ray.training.spec import Finished, RunSpec


@dataclass(frozen=True)
class StudyGrid:
    """Temperatures, and learning rates of students as multiples of the dataset's own."""

    temperatures: tuple[float, ...]
    rates: tuple[float, ...]


# `short` is the grid of studies that name none: two temperatures at the dataset's own learning rate.
GRIDS: dict[str, StudyGrid | None] = {
    "full": StudyGrid((1.0, 2.0, 4.0), (1.0, 0.3)),
    "short": None,
    "one": StudyGrid((1.0,), (1.0,)),
}


def read_grid(text: str) -> StudyGrid | None:
    """The grid of this name, or `1,2,4x1,0.3`: temperatures, and multiples of the learning rate. ConfigError for other
    text, for numbers that are not positive, and for one that stands there twice."""
    if text in GRIDS:
        return GRIDS[text]
    axes = [_numbers(part) for part in text.split("x")]
    if len(axes) != 2 or not all(axes):
        expected = f"{', '.join(GRIDS)}, or for instance 1,2,4x1,0.3: temperatures x multiples of the learning rate"
        raise ConfigError(f"--grid: {text!r} is no grid", fix=f"--grid takes {expected}")
    return StudyGrid(*axes)


def _numbers(text: str) -> tuple[float, ...]:
    """Positive numbers, each once; nothing where one is not."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
    return found if all(0 < one < math.inf for one in found) and len(set(found)) == len(found) else ()


def at_rates(job: Job, grid: StudyGrid | None) -> Iterator[tuple[str, Job]]:
    """The job at every learning rate of the grid, and what the names of its students end with: nothing for one rate."""
    rates = (1.0,) if grid is None else grid.rates
    for multiple in rates:
        training = job.student.training
        rate = training.optimizer.learning_rate * multiple
        optimizer = training.optimizer.model_copy(update={"learning_rate": rate})
        student = job.student.model_copy(update={"training": training.model_copy(update={"optimizer": optimizer})})
        ending = f"-lr{rate:g}" if len(rates) > 1 else ""
        yield ending, job.model_copy(update={"student": student}) if multiple != 1 else job


def ended(plan: StudentsPlan, ending: str) -> StudentsPlan:
    """The same plan, the name and the artifact of each of its runs with this ending."""

    def named(spec: RunSpec) -> RunSpec:
        return replace(spec, name=spec.name + ending, artifact=spec.artifact + ending)

    controls, shapes = tuple(map(named, plan.controls)), tuple(map(named, plan.shapes))
    learned = None if plan.learned is None else named(plan.learned)
    return replace(plan, controls=controls, shapes=shapes, learned=learned)


@dataclass(frozen=True)
class Joined:
    """Plans of the same students at other points of a grid as one plan, so that they are trained in the same packs.

    What is learned at a point has the best constant of all points to beat.
    """

    plans: tuple[StudentsPlan, ...]

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        controls = self.controls
        first = (*controls, *(spec for plan in self.plans for spec in plan.shapes))
        if not finished:
            return first
        if len(finished) > len(first):
            return ()
        found: list[RunSpec] = []
        for plan in self.plans:
            own = {spec.name for spec in (*controls, *plan.shapes)}
            found += replace(plan, controls=controls)([run for run in finished if run.name in own])
        return found

    @property
    def controls(self) -> tuple[RunSpec, ...]:
        """Those of all plans, one of each name."""
        return tuple({spec.name: spec for plan in self.plans for spec in plan.controls}.values())
