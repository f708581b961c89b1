"""One dataset and one seed of a study: the ordinary chain, every rule's students, and what each of them came to.

N rows, M teachers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.denoising import denoised, denoises, denoising_plan
from tgeokd_ray.pipeline.other_teachers import OTHER_TEACHERS, RECALIBRATED, judges, recalibrated, stacked, taught_by
from tgeokd_ray.pipeline.plans import AllAtOnce, StudentsPlan, students_plan
from tgeokd_ray.pipeline.references import REFERENCE, agreement, commit_reference, mixtures, read_ratios
from tgeokd_ray.pipeline.rivals import RIVALS, refused
from tgeokd_ray.pipeline.study_grid import Joined, StudyGrid, at_rates, ended
from tgeokd_ray.pipeline.study_models import teacher_figures
from tgeokd_ray.pipeline.study_start import Place
from tgeokd_ray.training.spec import HIGHER_IS_BETTER, Finished, RunSpec, sign_of

# What all rules are compared on, where a study names no other grid.
CONSTANTS, TEMPERATURES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0), (1.0, 2.0)
TWO_PHASES, ONE_STEP, PERMUTED = "tgeo", "tgeo_one_step", "permuted"


@dataclass(frozen=True)
class Cell:
    """One dataset and one seed."""

    dataset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-seed{self.seed}"


@dataclass(frozen=True)
class StudyCell:
    """Picklable task: call it with a cell. Returns every student's figures on valid and test, JSON-ready, or what went
    wrong under `error`; a cell that failed leaves the others alone.

    `cards` and `data` are files by the name of a table; `rules` the rivals and learners asked for; `settings` are
    options of the job that go over the regime's own and over the `grid`. Artifacts lie under `root`, raw files under
    `folder`.
    """

    root: str
    folder: str
    rules: tuple[str, ...]
    cards: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    grid: StudyGrid | None = None

    def __call__(self, cell: Cell) -> dict[str, Any]:
        began = time.monotonic()
        told: dict[str, Any] = {"dataset": cell.dataset, "seed": cell.seed}
        try:
            told |= self._run(cell)
        except UserError as error:
            told["error"] = str(error)
        return told | {"seconds": round(time.monotonic() - began, 1)}

    def _run(self, cell: Cell) -> dict[str, Any]:
        start = self.place(cell).start(self.settings_for)
        chain, table, logits, known = start.chain, start.table, start.logits, start.known
        plans = self._plans(chain, table, logits, None if known is None else known.artifact)
        done = self._trained(plans, chain, table, logits)
        if ONE_STEP in self.rules:
            done += self._trained(self._in_one_step(plans, chain, table, logits), chain, table, logits, ONE_STEP)
        for rule in (one for one in OTHER_TEACHERS if one in self.rules):
            other = self._other_teachers(rule, plans[0], chain, table, logits)
            done += self._trained([taught_by(one, rule, other) for one in plans], chain, table, logits, rule)
        done += chain.engine().train(AllAtOnce(self._permuted(plans, done, table, cell)), Silent())
        return {
            "metric": chain.job.metric,
            "students": [_figures(run) for run in done if "mean_logit" not in run.metrics],
            "teachers": teacher_figures(table, logits, start.parameters),
            "ratio": {} if known is None else agreement(done, known.row_ids, known.weights, known.regime),
            "refused": start.refused,
        }

    def place(self, cell: Cell) -> Place:
        """Where the cell finds what it starts from."""
        one = (cell.name, cell.dataset, cell.seed, self.root, self.folder)
        return Place(*one, self.rules, self.cards, self.data)

    def settings_for(self, num_classes: int) -> list[str]:
        """The settings of a cell's job: the grid, the rivals that are defined for its classes, and this study's own."""
        out = refused(self.rules, num_classes)
        rivals = [rule for rule in self.rules if rule in RIVALS and rule not in out]
        temperatures = list(TEMPERATURES if self.grid is None else self.grid.temperatures)
        grid = [f"distill.constants={list(CONSTANTS)}", f"distill.more_temperatures={temperatures}"]
        grid += [] if self.grid is None else [f"distill.temperature={temperatures[0]}"]
        return [*grid, f"distill.rivals={rivals}", *self.settings]  # the last one wins

    def _plans(
        self, chain: Chain, table: Artifact, logits: Sequence[Artifact], known: Artifact | None
    ) -> list[StudentsPlan]:
        """The students at each learning rate of the grid."""
        plans = []
        for ending, job in at_rates(chain.job, self.grid):
            plan = students_plan(job, chain.card.name, table, logits, chain.root, chain.folder)
            if TWO_PHASES not in self.rules:
                plan = replace(plan, shapes=(), learned=None)
            grid = replace(plan.grid, halving=False, measure_all=True)
            plan = replace(
                plan, controls=(*plan.controls, *(() if known is None else _following(plan, known))), grid=grid
            )
            plans.append(ended(plan, ending))
        return plans

    def _trained(
        self,
        plans: Sequence[StudentsPlan],
        chain: Chain,
        table: Artifact,
        logits: Sequence[Artifact],
        rule: str | None = None,
    ) -> list[Finished]:
        """Every student, or those of one rule; by denoised labels where the job, or the evidence, asks for them."""
        engine = chain.engine()
        if denoises(chain.job, chain.card.name, chain.root, table, logits, Silent()):
            first = denoising_plan(plans[0], chain.card.name)
            alone = replace(first, students=replace(plans[0], controls=(), shapes=(), learned=None))
            channel, _ = alone.told(engine.train(alone, Silent()))
            plans = [denoised(plan, channel.artifact) for plan in plans]
        done = engine.train(Joined(tuple(plans)), Silent())
        return [run for run in done if rule is None or run.name == rule or run.name.startswith(f"{rule}-")]

    def _in_one_step(
        self, plans: Sequence[StudentsPlan], chain: Chain, table: Artifact, logits: Sequence[Artifact]
    ) -> list[StudentsPlan]:
        """The same controls, which are there by now, and TGeo-KD in one step after them, at every point of the grid."""
        distill = chain.job.distill.model_copy(update={"rule": ONE_STEP})
        temperatures = distill.temperatures if self.grid is not None else distill.temperatures[:1]
        found = []
        one_step = chain.job.model_copy(update={"distill": distill})
        for plan, (ending, job) in zip(plans, at_rates(one_step, self.grid), strict=True):
            other = students_plan(job, chain.card.name, table, logits, chain.root, chain.folder)
            assert other.learned is not None
            for tau in temperatures:
                name = (f"{ONE_STEP}-tau{tau:g}" if len(temperatures) > 1 else ONE_STEP) + ending
                learned = replace(other.learned, name=name, artifact=f"{chain.card.name}-{name}", temperature=tau)
                found.append(replace(other, controls=plan.controls, learned=learned))
        return found

    def _other_teachers(
        self, rule: str, plan: StudentsPlan, chain: Chain, table: Artifact, logits: Sequence[Artifact]
    ) -> list[Artifact]:
        """Logits of the teachers that a control has in place of those that are there."""
        name = f"{chain.card.name}-{rule}"
        if rule == RECALIBRATED:
            return recalibrated(chain.root, name, table, logits)
        runs = chain.engine().train(AllAtOnce(judges(plan.controls[0], chain.card.name)), Silent())
        for run in runs:
            if run.error is not None:
                raise run.error
        return stacked(chain.root, name, table, logits, [open_artifact(Path(run.artifact)) for run in runs])

    def _permuted(
        self, plans: Sequence[StudentsPlan], done: Sequence[Finished], table: Artifact, cell: Cell
    ) -> tuple[RunSpec, ...]:
        """The ratio that won, dealt to other rows: what is left of the gain does not come from the assignment."""
        found = {run.name: run for run in done if run.error is None}
        learned = [(found.get(plan.learned.name), plan) for plan in plans if plan.learned is not None]
        won = [(run.metrics["choice"]["best"], plan) for run, plan in learned if run and "choice" in run.metrics]
        if PERMUTED not in self.rules or not won:
            return ()
        sign = sign_of(plans[0].metric)
        best, plan = max(won, key=lambda one: sign * one[0]["valid"])
        shape = [found[spec.name] for spec in plan.shapes if spec.name in found][int(best["source"])]
        row_ids, ratios = read_ratios(open_artifact(Path(shape.artifact)))
        order = np.random.default_rng(cell.seed).permutation(len(row_ids))
        name = f"{cell.name}-{PERMUTED}"
        mixed = commit_reference(Path(self.root), name, table, row_ids, mixtures(ratios[order]))
        rule = {name: best[name] for name in ("kind", "strength", "shift", "mean")}
        spec = replace(plan.controls[0], name=PERMUTED, artifact=name, rule=rule, ratios=(str(mixed.path),))
        return (replace(spec, temperature=best["temperature"]),)


def _following(plan: StudentsPlan, known: Artifact) -> list[RunSpec]:
    """A student for each temperature whose ratio is the reference itself."""
    rule = {"kind": "given", "strength": 1.0, "shift": 0.0, "mean": 0.0}
    constants = {spec.temperature: spec for spec in reversed(plan.constants)}
    found = []
    for spec in constants.values():
        name = REFERENCE + "".join(spec.name.partition("-tau")[1:])
        artifact = spec.artifact.removesuffix(spec.name) + name
        found.append(replace(spec, name=name, artifact=artifact, rule=rule, ratios=(str(known.path),)))
    return found


def _figures(run: Finished) -> dict[str, Any]:
    """What a study keeps of a student: its rule, figures on valid and test, and of a choice all its candidates."""
    if run.error is not None:
        return {"name": run.name, "error": str(run.error)}
    metrics = run.metrics
    kept: dict[str, Any] = {"name": run.name, "rule": metrics["rule"]}
    kept |= {split: {name: metrics[split].get(name) for name in HIGHER_IS_BETTER} for split in ("valid", "test")}
    kept |= {"parameters": metrics["parameters"], "calibration": metrics["test"].get("calibration")}
    if "choice" in metrics:
        kept["choice"] = metrics["choice"]
    return kept
