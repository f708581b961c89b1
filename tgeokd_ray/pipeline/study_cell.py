"""One dataset and one seed of a study: the ordinary chain, every rule's students, and what each of them came to.

N rows, M teachers.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.denoising import denoises, denoising_plan
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.other_teachers import OTHER_TEACHERS, RECALIBRATED, judges, recalibrated, stacked, taught_by
from tgeokd_ray.pipeline.plans import AllAtOnce, StudentsPlan, students_plan
from tgeokd_ray.pipeline.references import (
    REFERENCE,
    agreement,
    commit_reference,
    mixtures,
    read_ratios,
    reference_weights,
)
from tgeokd_ray.pipeline.rivals import RIVALS, refused
from tgeokd_ray.tables.cards import Card, load_card
from tgeokd_ray.tables.inputs import raw_files
from tgeokd_ray.tables.regimes.catalogue import build, table_of
from tgeokd_ray.tables.regimes.regime import Regime
from tgeokd_ray.tables.regimes.writing import Written, write
from tgeokd_ray.training.spec import HIGHER_IS_BETTER, Finished, RunSpec

# The grid that all rules are compared on.
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
    options of the job that go over the regime's own. Artifacts lie under `root`, raw files under `folder`.
    """

    root: str
    folder: str
    rules: tuple[str, ...]
    cards: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def __call__(self, cell: Cell) -> dict[str, Any]:
        began = time.monotonic()
        told: dict[str, Any] = {"dataset": cell.dataset, "seed": cell.seed}
        try:
            told |= self._run(cell)
        except UserError as error:
            told["error"] = str(error)
        return told | {"seconds": round(time.monotonic() - began, 1)}

    def _run(self, cell: Cell) -> dict[str, Any]:
        regime = self._regime(cell.dataset)
        written = write(regime, cell.seed, Path(self.folder) / cell.name)
        out = refused(self.rules, len(regime.classes))
        job, card = self._job(cell, written, out)
        engine = LocalEngine("cpu", job.threads)
        folder = Path(self.root) / "runs" / cell.name
        chain = Chain(job, card, Path(self.root), folder, lambda: engine, Silent())
        table = chain.encode(job.data)
        logits = self._logits(chain, table, written)
        plan = students_plan(job, card.name, table, logits, chain.root, folder)
        if TWO_PHASES not in self.rules:
            plan = replace(plan, shapes=(), learned=None)
        row_ids, weights = reference_weights(regime, table, logits)
        known = commit_reference(chain.root, f"{card.name}-{REFERENCE}", table, row_ids, weights)
        grid = replace(plan.grid, halving=False, measure_all=True)
        plan = replace(plan, controls=(*plan.controls, *_following(plan, known)), grid=grid)
        done = self._trained(plan, chain, table, logits)
        if ONE_STEP in self.rules:
            done += self._trained(_in_one_step(plan, chain, table, logits), chain, table, logits)[-1:]
        for rule in (one for one in OTHER_TEACHERS if one in self.rules):
            other = self._other_teachers(rule, plan, chain, table, logits)
            done += self._trained(taught_by(plan, rule, other), chain, table, logits)[1:]
        done += engine.train(AllAtOnce(self._permuted(plan, done, table, cell)), Silent())
        return {
            "metric": job.metric,
            "students": [_figures(run) for run in done if "mean_logit" not in run.metrics],
            "ratio": agreement(done, row_ids, weights, regime),
            "refused": out,
        }

    def _regime(self, dataset: str) -> Regime:
        table = table_of(dataset)
        if table is None or table not in self.data:
            return build(dataset)
        card = load_card(self.cards[table])
        return build(dataset, card, raw_files(card, self.data[table]))

    def _job(self, cell: Cell, written: Written, out: Collection[str]) -> tuple[Job, Card]:
        """The job of a cell, without the rivals that are `out`, and its card."""
        rivals = [rule for rule in self.rules if rule in RIVALS and rule not in out]
        grid = [f"distill.constants={list(CONSTANTS)}", f"distill.more_temperatures={list(TEMPERATURES)}"]
        settings = [*grid, f"distill.rivals={rivals}", *self.settings]  # the last one wins
        options = {"card": str(written.card), "data": [str(written.rows)], "root": self.root, "seed": cell.seed}
        job, card = resolve(options, settings=settings)
        return job, card.model_copy(update={"name": cell.name})

    def _logits(self, chain: Chain, table: Artifact, written: Written) -> list[Artifact]:
        """Of the teachers that the regime defines, or of one that is trained here."""
        if not written.teachers:
            return [chain.precompute(table, chain.teachers(table))]
        logits = []
        for number, path in enumerate(written.teachers):
            imported = {"file": str(path), "kind": "logits", "name": f"{chain.card.name}-teacher{number}"}
            teacher = chain.job.teacher.model_copy(
                update={"imported": chain.job.teacher.imported.model_copy(update=imported)}
            )
            logits.append(replace(chain, job=chain.job.model_copy(update={"teacher": teacher})).imported(table))
        return logits

    def _trained(self, plan: StudentsPlan, chain: Chain, table: Artifact, logits: Sequence[Artifact]) -> list[Finished]:
        """Every student; by denoised labels where the job, or the evidence, asks for a channel."""
        engine = chain.engine()
        if not denoises(chain.job, chain.card.name, chain.root, table, logits, Silent()):
            return engine.train(plan, Silent())
        denoising = denoising_plan(plan, chain.card.name)
        return denoising.told(engine.train(denoising, Silent()))[1]

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
        self, plan: StudentsPlan, done: Sequence[Finished], table: Artifact, cell: Cell
    ) -> tuple[RunSpec, ...]:
        """The ratio that won, dealt to other rows: what is left of the gain does not come from the assignment."""
        learned = next((run for run in done if run.name == "tgeo" and run.error is None), None)
        if PERMUTED not in self.rules or learned is None or "choice" not in learned.metrics:
            return ()
        best = learned.metrics["choice"]["best"]
        shape = [run for run in done if "mean_logit" in run.metrics][int(best["source"])]
        row_ids, ratios = read_ratios(open_artifact(Path(shape.artifact)))
        order = np.random.default_rng(cell.seed).permutation(len(row_ids))
        name = f"{cell.name}-{PERMUTED}"
        mixed = commit_reference(Path(self.root), name, table, row_ids, mixtures(ratios[order]))
        rule = {name: best[name] for name in ("kind", "strength", "shift", "mean")}
        spec = replace(plan.controls[0], name=PERMUTED, artifact=name, rule=rule, ratios=(str(mixed.path),))
        return (replace(spec, temperature=best["temperature"]),)


def _in_one_step(plan: StudentsPlan, chain: Chain, table: Artifact, logits: Sequence[Artifact]) -> StudentsPlan:
    """The same controls, which are there by now, and TGeo-KD in one step after them."""
    distill = chain.job.distill.model_copy(update={"rule": ONE_STEP})
    job, name = chain.job.model_copy(update={"distill": distill}), chain.card.name
    other = students_plan(job, name, table, logits, chain.root, chain.folder)
    assert other.learned is not None
    learned = replace(other.learned, name=ONE_STEP, artifact=f"{name}-{ONE_STEP}")
    return replace(other, controls=plan.controls, learned=learned)


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
    if "choice" in metrics:
        kept["choice"] = metrics["choice"]
    return kept
