"""The configuration of a sweep: its YAML file, checked whole before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from tgeokd_ray.config.job import Job, Metric, Rival
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.config.schedulers import Halving, Population, Resources
from tgeokd_ray.config.sources import Source, merged, with_numbers
from tgeokd_ray.config.space import (
    MOST_POINTS,
    Parameter,
    Point,
    Space,
    distinct,
    effective,
    grid_points,
    listed,
    never_held,
    order_of,
    random_points,
)
from tgeokd_ray.config.training import Count, Positive
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.tables.card_yaml import read_yaml
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.tables.validation import Strict, did_you_mean, problems_of, raise_all, validated
from tgeokd_ray.training.spec import sign_of

RULE, CONSTANT = "rule", "constant"
EPOCHS = "student.training.epochs"
FUSION_RATE = "distill.fusion.optimizer.learning_rate"
CHANGES = "distill.fusion.changes"
ONE_STEP = "tgeo_one_step"  # the one rule that learns its ratio in the run that is measured
TRIAL_RULES = ("labels", "constant", *get_args(Rival), ONE_STEP, "tgeo")
# What a trial can't have, since it is of one student, and what is searched in its place.
OTHERS = {
    "distill.rule": RULE,
    "distill.ratios": RULE,
    "distill.constants": CONSTANT,
    "distill.rivals": RULE,
    "distill.mixtures": CONSTANT,
    "distill.more_temperatures": "distill.temperature",
    "distill.channel": RULE,
}
# What may change between two runs of one sweep: how much of it is done, and where.
FREE = ("trials", "concurrency", "resources", "budget_minutes", "memory_mib", "packs", "confirm")


class Sweep(Strict):
    """What is searched and how.

    `base` is any part of a job's configuration; `space` lists parameters by their path in one, and two of their own:
    `rule`, what makes the ratio of a trial's student, and `constant`, the teacher's weight under the rule `constant`.
    `known` points are tried first. `metric` is one of the job's, always on valid. `trials` counts draws for random
    search (for each combination of `grid` parameters) and TPE; a grid has its own number. Each trial trains `seeds`
    students, whose mean counts. `memory_mib` bounds what one trial may take beyond what its process has. With `confirm`
    the winner and the first known point are trained again with so many fresh seeds, and compared on test.
    """

    name: str | None = None
    base: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Parameter]
    known: tuple[dict[str, Any], ...] = ()
    metric: str | None = None
    search: Literal["random", "grid", "tpe"] = "random"
    scheduler: Literal["none", "asha", "pbt"] = "none"
    asha: Halving = Halving()
    pbt: Population = Population()
    trials: Count = 16
    seeds: Count = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    concurrency: Count = 2
    resources: Resources = Resources()
    packs: bool = True
    memory_mib: Annotated[int, Field(ge=32)] | None = None  # threads alone have stacks of 8 MiB each
    budget_minutes: Positive | None = None
    confirm: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Sweep:
        problems = [] if self.space else ["space must name at least one parameter, got none"]
        for name, parameter in self.space.items():
            problems += [f"space.{name}.when: {text}" for text in never_held(self.space, name)]
            if self.search == "grid" and parameter.values is None:
                problems.append(f"space.{name}: a grid needs choice or grid, got {parameter.kind}")
            if self.search == "tpe" and parameter.kind == "grid":
                problems.append(f"space.{name}: TPE tries what it believes in: use choice in place of grid")
        if self.search != "tpe" and (number := listed(self.space, self.search, self.trials)) > MOST_POINTS:
            problems.append(f"search: {self.search} makes a list of {number} points, at most {MOST_POINTS}: use tpe")
        if self.scheduler == "pbt":
            problems += self._not_for_a_population()
        if self.confirm is not None and not self.known:
            problems.append("confirm compares the winner with the first of the known points, and there is none")
        if not problems:
            try:
                order_of(self.space)
            except ValueError as error:
                problems.append(f"space: {error}")
        raise_all(problems)
        return self

    def _not_for_a_population(self) -> list[str]:
        rate = self.space.get(FUSION_RATE)
        searched = rate is not None and rate.values is None and rate.when is None
        needed = f"needs {FUSION_RATE} in the space, between two ends and without a condition"
        problems = [] if searched else [f"scheduler: pbt {needed}"]
        problems += [f"scheduler: pbt draws its points: search must be random, got {self.search}"] * (
            self.search != "random"
        )
        problems += ["scheduler: pbt moves one student at a time: seeds must be 1"] * (self.seeds > 1)
        return problems

    @property
    def ordered(self) -> Space:
        """The space, parameters with conditions after what they depend on."""
        return {name: self.space[name] for name in order_of(self.space)}

    @property
    def known_points(self) -> list[Point]:
        """The known points as the search itself would give them, each once."""
        space = self.ordered
        told = [effective(space, dict(point)) for point in self.known]
        return distinct({name: space[name].settled(value) for name, value in point.items()} for point in told)

    @property
    def points(self) -> list[Point] | None:
        """All points of a grid or random search in order, known ones first; None for TPE, which thinks as it goes."""
        space, known = self.ordered, self.known_points
        if self.search == "tpe":
            return None
        found = grid_points(space) if self.search == "grid" else random_points(space, self.trials, self.seed)
        told = [point for point in found if point not in known]
        return [*known, *told] if self.search == "grid" else [*known, *told][: max(len(found), len(known))]


@dataclass(frozen=True)
class Resolved:
    """A sweep with the job that its trials start from, and the card."""

    name: str
    sweep: Sweep
    job: Job
    card: Card

    @property
    def metric(self) -> Metric:
        """By which trials are compared on valid."""
        return self.job.metric

    @property
    def sign(self) -> float:
        """1 where more of the metric is better, else -1."""
        return sign_of(self.metric)

    @property
    def most_epochs(self) -> int:
        """The most that any trial trains."""
        parts = [name for name in self.sweep.space if f"{EPOCHS}.".startswith(f"{name}.")]
        tried = [{name: value} for name in parts for value in self.sweep.space[name].samples()]
        always = any(name == EPOCHS and self.sweep.space[name].when is None for name in parts)
        jobs = [trial_job(self.job, point) for point in tried] + [self.job] * (not always)
        return max(job.student.training.epochs for job in jobs)

    @property
    def samples(self) -> list[Point]:
        """Points that stand for all: every one of a list, else one for each rule."""
        points, space = self.sweep.points, self.sweep.ordered
        if points is not None:
            return points
        first = {name: parameter.samples()[0] for name, parameter in space.items()}
        rules = space[RULE].samples() if RULE in space else ()
        return [effective(space, {**first, RULE: rule}) for rule in rules] or [effective(space, first)]

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what a trial of this sweep is, JSON-ready: two sweeps of one name must agree in it."""
        sweep = self.sweep.model_dump(mode="json", exclude={"name", "base", "metric", *FREE})
        job = self.job.model_dump(mode="json", exclude={"root", "run", "checkpoint_seconds", "profile"})
        return {"sweep": sweep, "job": job}


def resolve_sweep(
    path: str, options: Mapping[str, Any], *, settings: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> Resolved:
    """The sweep in the file and its base job. `changes` go over keys of the sweep, `options` and `settings` over those
    of its base, as for a job. ConfigError lists everything that is wrong with file, space and base, and nothing was
    started."""
    told = merged(read_yaml(Path(path)), {key: value for key, value in (changes or {}).items() if value is not None})
    told |= {key: with_numbers(told[key]) for key in ("space", "known") if key in told}
    sweep = validated(Sweep, told, path)
    metric = _metric(sweep, path)
    given = {**options, **({} if metric is None else {"metric": metric})}
    job, card = resolve(given, config=Source(sweep.base, "base", path), settings=settings)
    problems = [*_bad_values(sweep, job, path), *_bad_known(sweep, path), *_bad_population(sweep, job, path)]
    if problems:
        raise ConfigError(problems, fix=f"correct {path}")
    return Resolved(sweep.name or Path(path).stem, sweep, job, card)


def trial_job(job: Job, point: Point) -> Job:
    """The job of one point: the values of its paths over the base. ValidationError for what a job can't be."""
    nested: dict[str, Any] = {}
    for name, value in point.items():
        if name not in (RULE, CONSTANT):
            for key in reversed(name.split(".")):
                value = {key: value}
            nested = merged(nested, value)
    return Job.model_validate(merged(job.model_dump(), nested))


def rule_of(job: Job, point: Point) -> str:
    """What makes the ratio of this point's student: the point's rule, `constant` for a point with one, else the
    job's."""
    if RULE in point:
        return str(point[RULE])
    return CONSTANT if CONSTANT in point else job.distill.rule


def _metric(sweep: Sweep, path: str) -> str | None:
    told = sweep.metric
    if told is not None and told.replace(".", "_").partition("_")[0] == "test":
        why = "a sweep chooses on valid; test is looked at once, with the best student"
        raise ConfigError([Problem(f"metric: {why}", file=path, expected="auc, nll, ...", got=told)])
    return None if told is None else told.removeprefix("valid.").removeprefix("valid_")


def _bad_values(sweep: Sweep, job: Job, path: str) -> list[Problem]:
    """What is wrong with the values of the space, each tried alone on the base."""
    texts: dict[str, None] = {}
    for name, parameter in sweep.space.items():
        for value in (*parameter.samples(), *parameter.between):
            for text in _wrong(job, name, value):
                texts.setdefault(f"space.{name}: {text}")
    return [Problem(text, file=path) for text in texts]


def _bad_known(sweep: Sweep, path: str) -> list[Problem]:
    problems = []
    for number, point in enumerate(sweep.known, start=1):
        for name, value in point.items():
            parameter = sweep.space.get(name)
            if parameter is None:
                problems.append(f"known point {number}: {name!r} is not in the space{did_you_mean(name, sweep.space)}")
            elif not parameter.has(value):
                problems.append(f"known point {number}: {name} must lie in the space, got {value!r}")
        missing = [n for n in effective(sweep.ordered, dict.fromkeys(sweep.space) | dict(point)) if n not in point]
        problems += [f"known point {number} lacks {name}" for name in missing]
    return [Problem(text, file=path) for text in problems]


def _bad_population(sweep: Sweep, job: Job, path: str) -> list[Problem]:
    rules = sweep.space[RULE].samples() if RULE in sweep.space else (job.distill.rule,)
    others = [rule for rule in rules if rule != ONE_STEP]
    if sweep.scheduler != "pbt" or not others:
        return []
    why = "scheduler: pbt moves the fusion network while its student trains"
    return [Problem(why, file=path, expected=f"the rule {ONE_STEP}", got=", ".join(map(str, others)))]


def _wrong(job: Job, name: str, value: Any) -> list[str]:
    if name == RULE:
        known = f"must be one of {', '.join(TRIAL_RULES)}, got {value!r}{did_you_mean(str(value), TRIAL_RULES)}"
        return [] if value in TRIAL_RULES else [known]
    if name == CONSTANT:
        return [] if isinstance(value, int | float) and 0 <= value <= 1 else [f"must be in 0..1, got {value!r}"]
    root = name.partition(".")[0]
    if name in OTHERS:
        return [f"a trial is of one student: search {OTHERS[name]}"]
    if root not in ("student", "distill"):
        return [f"a trial trains a student: paths begin with student. or distill., got {root!r}"]
    try:
        trial_job(job, {name: value})
    except ValidationError as error:
        return [text for _, text in problems_of(Job, error)]
    return []
