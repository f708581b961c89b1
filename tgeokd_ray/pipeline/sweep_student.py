"""From a point of a sweep's space to the plan of its students, and to the job that trains the same one for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.job import Job, Rival
from tgeokd_ray.config.space import Point
from tgeokd_ray.config.sweep import CONSTANT, ONE_STEP, rule_of, trial_job
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.pipeline.plans import AllAtOnce, students_plan
from tgeokd_ray.tables.validation import problems_of
from tgeokd_ray.training.reuse import Plan
from tgeokd_ray.training.spec import Finished, RunSpec

LEVEL = 0.5  # of the rule tgeo_one_step, where none is told
SEEDS_APART = 15_485_863  # of the students of one trial; the members of an ensemble are closer


@dataclass(frozen=True)
class Place:
    """What students are made from, and where they and their checkpoints go."""

    card: str
    table: Artifact
    logits: Artifact
    root: Path
    folder: Path


def point_job(base: Job, point: Point) -> Job:
    """The job of a point alone: its rule is the only one, beside the students on labels and with one constant. What a
    job can't be is a ConfigError."""
    try:
        job = trial_job(base, point)
    except ValidationError as error:
        raise ConfigError([Problem(text) for _, text in problems_of(Job, error)], fix="narrow the space") from None
    rule, distill = rule_of(job, point), job.distill
    fusion = distill.fusion
    if rule == ONE_STEP and fusion.level == "chosen":  # in a trial there are no constants to choose it from
        fusion = fusion.model_copy(update={"level": LEVEL})
    changes = {
        "rule": rule if rule in ("tgeo", ONE_STEP) else distill.rule,
        "rivals": (rule,) if rule in get_args(Rival) else (),
        "constants": (float(point.get(CONSTANT, distill.constants[0])),),
        "mixtures": (),
        "more_temperatures": (),
        "fusion": fusion,
    }
    return job.model_copy(update={"distill": distill.model_copy(update=changes)})


def student_plan(base: Job, point: Point, place: Place) -> Plan:
    """The plan of the one student of a point, which is its last run; before it, with the rule `tgeo`, its ratios and
    the constant that they have to beat, as in a job. ConfigError for a rule that is undefined on the table."""
    job = point_job(base, point)
    rule = rule_of(job, point)
    plan = students_plan(job, place.card, place.table, [place.logits], place.root, place.folder)
    if rule == "tgeo":
        return replace(plan, controls=tuple(plan.constants))
    if rule == ONE_STEP:
        assert plan.learned is not None
        return AllAtOnce((plan.levelled(plan.learned, ()),))
    return AllAtOnce((next(spec for spec in plan.controls if spec.rule["kind"] == rule),))


@dataclass(frozen=True)
class SideBySide:
    """Plans as one, so that what they ask for at once shares packs. Every run is named after its part, has a seed of
    its own where several parts are of one point, and learns nothing of test."""

    parts: Mapping[str, tuple[Plan, int]]

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        return [
            self._placed(part, seed, spec)
            for part, (plan, seed) in self.parts.items()
            for spec in plan(runs_of_part(part, finished))
        ]

    @staticmethod
    def _placed(part: str, seed: int, spec: RunSpec) -> RunSpec:
        name = f"{part}-{spec.name}"
        seeds = tuple(own + SEEDS_APART * seed for own in spec.model_seeds)
        return replace(spec, name=name, artifact=name, model_seeds=seeds, measured=False)


def runs_of_part(part: str, finished: Sequence[Finished]) -> list[Finished]:
    """The runs of one part, under the names that its own plan knows."""
    mine = [run for run in finished if run.name.startswith(f"{part}-")]
    return [replace(run, name=run.name.removeprefix(f"{part}-")) for run in mine]


@dataclass(frozen=True)
class ForGood:
    """The plan of a point's student once more, measured on test and kept under `artifact`; its run is named best."""

    plan: Plan
    artifact: str

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        specs = [replace(spec, artifact=f"{self.artifact}-{spec.name}") for spec in self.plan(finished)]
        if specs and specs[-1].kind == "students":
            specs[-1] = replace(specs[-1], name="best", artifact=self.artifact)
        return specs
