"""From a job to runs: the teacher, and the students whose later runs depend on earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, latest
from tgeokd_ray.config.job import Distill, Job
from tgeokd_ray.config.training import Model, Optimizer, Training
from tgeokd_ray.errors import ConfigError, Problem
from tgeokd_ray.objectives.settings import OptimizerSpec
from tgeokd_ray.pipeline.live import live_teacher
from tgeokd_ray.pipeline.rivals import check_rivals, runs_of
from tgeokd_ray.training.spec import Candidate, Choice, Finished, Fusion, RunSpec, sign_of

LEVELS = (0.05, 0.95)
ROUNDS = ((0.25, 3), (0.5, 9))  # share of the epochs, and which part of the candidates goes on
MEMBER_SEEDS = 1_000_003  # apart from the seeds that a user counts through


@dataclass(frozen=True)
class AllAtOnce:
    """The plan of runs that do not depend on one another."""

    specs: tuple[RunSpec, ...]

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        return () if finished else self.specs


@dataclass(frozen=True)
class StudentsPlan:
    """The students on labels, with every constant and with other rules, and beside them what TGeo-KD learns from them.

    Two phases: `shapes` learn which rows deserve more teacher, one for each temperature, unless such ratios are `known`
    from before; then `learned` chooses level and strength among candidates, and the best constant. In one step:
    `learned` alone, at the level of that constant. None: nothing is learned.
    """

    controls: tuple[RunSpec, ...]
    shapes: tuple[RunSpec, ...]
    learned: RunSpec | None
    metric: str
    grid: Grid
    known: tuple[Shape, ...] = ()

    def __call__(self, finished: Sequence[Finished]) -> Sequence[RunSpec]:
        if not finished:
            return (*self.controls, *self.shapes)
        if self.learned is None or len(finished) > len(self.controls) + len(self.shapes):
            return ()
        if not self.shapes and not self.known:
            return (self.levelled(self.learned, finished),)
        runs = {run.name: run for run in finished if run.error is None}
        learned = [
            Shape(runs[spec.name].artifact, runs[spec.name].metrics["mean_logit"], spec.temperature)
            for spec in self.shapes
            if spec.name in runs
        ]
        shapes = [*self.known, *learned]
        return (self.choosing(self.learned, finished, shapes),) if shapes else ()

    @property
    def constants(self) -> list[RunSpec]:
        return [spec for spec in self.controls if spec.rule["kind"] == "constant"]

    def levelled(self, learned: RunSpec, finished: Sequence[Finished]) -> RunSpec:
        """The run in one step; a rule that has no level yet takes the winning constant, kept off the ends of (0, 1)."""
        if learned.rule.get("level") != "chosen":
            return learned
        constant = chosen(finished, [spec.name for spec in self.constants], self.metric)
        values = {spec.name: _total(spec.rule["value"]) for spec in self.constants}
        level = min(max(values[constant], LEVELS[0]), LEVELS[1]) if constant is not None else 0.5
        return replace(learned, rule={**learned.rule, "level": level})

    def choosing(self, learned: RunSpec, finished: Sequence[Finished], shapes: Sequence[Shape]) -> RunSpec:
        """The run of the second phase: a candidate for every shape, strength and shift."""
        constant = chosen(finished, [spec.name for spec in self.constants], self.metric)
        incumbent = next((run.artifact for run in finished if run.name == constant), None)
        ratios = list(dict.fromkeys(shape.path for shape in shapes))
        candidates = [
            Candidate({"kind": "given", "source": ratios.index(one.path), "mean": one.mean, **point}, one.temperature)
            for one in shapes
            for point in self.grid.points
        ]
        return replace(
            learned,
            ratios=tuple(ratios),
            choice=Choice(
                tuple(candidates),
                incumbent,
                margin=self.grid.margin,
                rounds=self.grid.rounds(len(candidates)),
                measure_all=self.grid.measure_all,
            ),
        )


@dataclass(frozen=True)
class Shape:
    """Stored ratios: the artifact, the mean of u in it, and the temperature that candidates take them at."""

    path: str
    mean: float
    temperature: float


@dataclass(frozen=True)
class Grid:
    """The strengths and shifts of the second phase, by how many standard errors one of them must beat the constants,
    and whether candidates are halved on the way."""

    strengths: tuple[float, ...]
    shifts: tuple[float, ...]
    margin: float
    halving: bool
    measure_all: bool = False

    @property
    def points(self) -> list[dict[str, float]]:
        return [{"strength": strength, "shift": shift} for strength in self.strengths for shift in self.shifts]

    def rounds(self, candidates: int) -> tuple[tuple[float, int], ...]:
        """A third of the candidates goes on after a quarter of the epochs, a ninth after half of them, two at least."""
        return tuple((share, max(-(-candidates // part), 2)) for share, part in ROUNDS) if self.halving else ()


def chosen(finished: Sequence[Finished], names: Sequence[str], metric: str) -> str | None:
    """The name of the best run on valid among `names`; None where none of them has the metric."""
    sign = sign_of(metric)
    values = {
        run.name: sign * run.metrics["valid"][metric]
        for run in finished
        if run.name in names and run.error is None and run.metrics["valid"].get(metric) is not None
    }
    return max(values, key=lambda name: values[name]) if values else None


def teacher_plan(job: Job, card: str, table: Artifact, root: Path, folder: Path) -> AllAtOnce:
    """The plan of the teacher, which learns from labels on a split of its own, or of the teachers of all folds."""
    folds, hold_out = job.teacher.folds, job.teacher.hold_out

    def teacher(fold: int) -> RunSpec:
        return _spec(
            job,
            job.teacher.model,
            job.teacher.training,
            name="teacher" if folds == 1 else f"teacher-fold{fold}",
            kind="teachers",
            artifact=card if folds == 1 else fold_name(card, fold, folds),
            root=str(root),
            folder=str(folder),
            table=str(table.path),
            splits=(job.teacher.split,),
            fold=fold,
            folds=hold_out or folds,
            held_out=hold_out > 0,
        )

    return AllAtOnce(tuple(teacher(fold) for fold in range(folds)))


def fold_name(card: str, fold: int, folds: int) -> str:
    """The name of the teacher of one fold: `criteo-fold0of5`."""
    return f"{card}-fold{fold}of{folds}"


def students_plan(
    job: Job, card: str, table: Artifact, logits: Sequence[Artifact], root: Path, folder: Path
) -> StudentsPlan:
    """The plan of all students of a job; they share seeds, model, schedule and teacher, and differ in the rule.

    Rules without outer steps train on the outer rows, too. ConfigError for a rival that is undefined here.
    """
    distill, live = job.distill, live_teacher(job, table, logits)

    def student(name: str, rule: Mapping[str, Any], temperature: float, **changes: Any) -> RunSpec:
        values: dict[str, Any] = {
            "name": name,
            "kind": "students",
            "artifact": f"{card}-{name}",
            "root": str(root),
            "folder": str(folder),
            "table": str(table.path),
            "logits": tuple(str(artifact.path) for artifact in logits),
            "live": live,
            "rule": rule,
            "temperature": temperature,
            "splits": ("train", "outer"),
        }
        return _spec(job, job.student.model, job.student.training, **values | changes)

    def each(name: str, rule: Mapping[str, Any], **changes: Any) -> list[RunSpec]:
        several = len(distill.temperatures) > 1
        return [
            student(f"{name}-tau{tau:g}" if several else name, rule, tau, **changes) for tau in distill.temperatures
        ]

    mixtures: list[float | tuple[float, ...]] = [*distill.constants, *_mixtures(job, len(logits))]
    controls = [student("labels", {"kind": "labels"}, distill.temperatures[0])]
    for value in mixtures:
        controls += each(_constant_name(value), {"kind": "constant", "value": value})
    check_rivals(job, table)
    for rival in distill.rivals:
        for name, rule, changes in runs_of(rival, distill, _fusion(job)):
            controls += each(name, rule, **changes)
    grid = Grid(distill.strengths, distill.shifts, distill.margin, distill.halving)
    network = {name: getattr(distill.fusion, name) for name in ("features", "disagreement", "hidden")}
    first = distill.temperatures[0]
    if distill.rule == "tgeo_one_step":
        rule = {"kind": distill.rule, **network, "centred": distill.fusion.centred, "level": distill.fusion.level}
        learned = student("tgeo", rule, first, splits=("train",), fusion=replace(_fusion(job), look_ahead=1))
        return StudentsPlan(tuple(controls), (), learned, job.metric, grid)
    if distill.ratios:
        known = _known(distill, root)
        return StudentsPlan(tuple(controls), (), student("tgeo", {"kind": "tgeo"}, first), job.metric, grid, known)
    phase = {"kind": "ratios", "alone": True, "splits": ("train",), "ratio_splits": ("train", "outer")}
    phase |= {"fusion": _fusion(job), "members": max(distill.fusion.members, job.student.model.members)}
    shapes = each("shape", {"kind": "tgeo_shape", **network}, **phase)
    return StudentsPlan(tuple(controls), tuple(shapes), student("tgeo", {"kind": "tgeo"}, first), job.metric, grid)


def _known(distill: Distill, root: Path) -> tuple[Shape, ...]:
    """The ratios that the job names, at every temperature. ConfigError for a name that there is not."""
    found = []
    for name in distill.ratios:
        artifact = latest(root, "ratios", name)
        if artifact is None:
            raise ConfigError(f"distill.ratios: there is no ratios/{name} under {root}", fix="tgeokd list ROOT")
        mean = float(artifact.manifest.schema["mean"])
        found += [Shape(str(artifact.path), mean, temperature) for temperature in distill.temperatures]
    return tuple(found)


def _mixtures(job: Job, num_teachers: int) -> Sequence[tuple[float, ...]]:
    """ConfigError unless every mixture has one weight for each teacher."""
    wrong = [list(weights) for weights in job.distill.mixtures if len(weights) != num_teachers]
    if wrong:
        expected = f"one weight for each of {num_teachers} teachers"
        raise ConfigError([Problem("distill.mixtures", expected=expected, got=str(weights)) for weights in wrong])
    return job.distill.mixtures


def _constant_name(value: float | tuple[float, ...]) -> str:
    """`constant-0.5`, or `constant-0.5-0.25` for one weight per teacher."""
    weights = value if isinstance(value, tuple) else (value,)
    return "-".join(["constant", *(f"{weight:g}" for weight in weights)])


def _total(value: Any) -> float:
    """The weight of all teachers together."""
    return float(sum(value)) if isinstance(value, list | tuple) else float(value)


def _spec(job: Job, model: Model, training: Training, *, members: int | None = None, **places: Any) -> RunSpec:
    members = members or model.members
    return RunSpec(
        model=model.model_dump(exclude={"members"}),
        model_seeds=tuple(job.seed + MEMBER_SEEDS * member for member in range(members)),
        ensemble=members > 1,
        optimizer=_optimizer(training.optimizer),
        epochs=training.epochs,
        batch_rows=training.batch_rows,
        micro_rows=training.micro_rows,
        warm_up_steps=training.warm_up_steps,
        lower_at=training.lower_at,
        patience=training.patience,
        class_weights=training.class_weights,
        oversample=training.oversample,
        metric=job.metric,
        precision=job.precision,
        exact_sums=training.exact_sums,
        compile=training.compile,
        augment=training.augment,
        data_seed=job.seed,
        checkpoint_seconds=job.checkpoint_seconds,
        profile=job.profile,
        **places,
    )


def _fusion(job: Job) -> Fusion:
    fusion = job.distill.fusion
    return Fusion(
        optimizer=_optimizer(fusion.optimizer),
        every=fusion.every,
        batch_rows=fusion.batch_rows,
        warm_up=fusion.warm_up,
        hypergradient=fusion.hypergradient,
        look_ahead=fusion.look_ahead,
        hessian_rows=fusion.hessian_rows,
        changes=fusion.changes,
    )


def _optimizer(settings: Optimizer) -> OptimizerSpec:
    return OptimizerSpec(**settings.model_dump())
