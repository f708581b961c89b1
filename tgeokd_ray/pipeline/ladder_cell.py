"""One seed of a ladder: the teacher, and at every size the students on labels and with constants.

S sizes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tgeokd_ray.artifacts import Artifact, open_artifact
from tgeokd_ray.config.job import Job
from tgeokd_ray.config.training import Model
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Silent
from tgeokd_ray.feed import Rows, decode
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.models.sizing import Inputs
from tgeokd_ray.pipeline.chain import Chain
from tgeokd_ray.pipeline.denoising import denoises, denoising_plan
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.ladder_sizes import Size, students
from tgeokd_ray.pipeline.plans import students_plan
from tgeokd_ray.tables.cards import Card
from tgeokd_ray.training.reuse import load_metrics
from tgeokd_ray.training.scoring import Predictor
from tgeokd_ray.training.spec import Finished

FIGURES = ("auc", "nll", "accuracy", "macro_f1")
LATENCY_ROWS, LATENCY_TURNS = 1000, 30


@dataclass(frozen=True)
class LadderSeed:
    """One seed."""

    seed: int

    @property
    def name(self) -> str:
        return f"seed{self.seed}"


@dataclass(frozen=True)
class LadderCell:
    """Picklable task: call it with a seed. Returns the figures of teacher and students, JSON-ready, or what went wrong
    under `error`.

    The `table` is there. A seed's own artifacts and its work lie under `root`, with the card's name and the seed's.
    """

    job: Job
    card: Card
    table: str
    root: str
    name: str
    sizes: tuple[Size, ...]

    def __call__(self, one: LadderSeed) -> dict[str, Any]:
        began = time.monotonic()
        told: dict[str, Any] = {"seed": one.seed}
        try:
            told |= self._run(one)
        except UserError as error:
            told["error"] = str(error)
        return told | {"seconds": round(time.monotonic() - began, 1)}

    def _run(self, one: LadderSeed) -> dict[str, Any]:
        job = self.job.model_copy(update={"seed": one.seed})
        card = self.card.model_copy(update={"name": f"{self.name}-{one.name}"})
        engine = LocalEngine("cpu", job.threads)
        chain = Chain(job, card, Path(self.root), Path(self.root) / "runs" / card.name, lambda: engine, Silent())
        table = open_artifact(Path(self.table))
        if job.teacher.imported.file is not None:
            teachers, logits = [], chain.imported(table)
        else:
            teachers = chain.teachers(table)
            logits = chain.precompute(table, teachers)
        figures = load_metrics(teachers[0] if len(teachers) == 1 else logits)
        parameters = load_metrics(teachers[0])["parameters"] if teachers else None
        encoded = EncodedTable.open(table.path)
        inputs = Inputs(encoded.num_numeric, encoded.num_ids, encoded.num_categorical, len(encoded.classes))
        teacher = {"parameters": parameters, **_splits(figures)}
        if teachers:
            seen = some_rows(EncodedTable.open(table.path, model="teachers"))  # its columns may be more
            teacher["latency_ms"] = latency(teachers[0].path, seen)
        rows, told = some_rows(encoded), []
        for size, model in students(job, self.sizes, inputs, parameters):
            rung: dict[str, Any] = {"size": size.text, "most": size.most(parameters)}
            if model is not None:
                rung |= self._rung(replace(chain, job=_with(job, model)), table, logits, size, rows)
            told.append(rung)
        return {"metric": job.metric, "teacher": teacher, "rungs": told}

    def _rung(self, chain: Chain, table: Artifact, logits: Artifact, size: Size, rows: Rows) -> dict[str, Any]:
        name = f"{chain.card.name}-{size.label}"
        plan = students_plan(chain.job, name, table, [logits], chain.root, chain.folder)
        plan = replace(plan, shapes=(), learned=None)
        engine = chain.engine()
        if denoises(chain.job, chain.card.name, chain.root, table, [logits], Silent()):
            denoising = denoising_plan(plan, name)
            done = denoising.told(engine.train(denoising, Silent()))[1]
        else:
            done = engine.train(plan, Silent())
        for run in done:
            if run.error is not None:
                raise run.error
        model = chain.job.student.model
        return {
            "model": model.model_dump(mode="json", include={"kind", "hidden", "embedding", "cross_layers"}),
            "parameters": done[0].metrics["parameters"],
            "latency_ms": latency(Path(done[0].artifact), rows),
            "students": [_student(run) for run in done],
        }


def latency(path: Path, rows: Rows) -> float:
    """Milliseconds of CPU time of this thread that a model takes for a thousand rows, the median of 30 turns. The rows
    are in memory, encoded."""
    predictor, threads = Predictor(path), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            predictor(rows.numeric, rows.categorical)
        seconds = []
        for _ in range(LATENCY_TURNS):
            began = time.thread_time()
            predictor(rows.numeric, rows.categorical)
            seconds.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return round(median(seconds) * 1000 * LATENCY_ROWS / len(rows), 4)


def some_rows(table: EncodedTable) -> Rows:
    """The first thousand encoded rows of the test split, fewer where its first shard has fewer."""
    shard = next(unit.shard for unit in table.units("test"))
    columns = ["row_id", "label", *table.feature_columns]
    told = read_shard(table.artifact.file(shard), table.entry(shard).rows or 0, columns)
    return decode(told.slice(0, LATENCY_ROWS), len(table.classes)).as_batch()


def _with(job: Job, model: Model) -> Job:
    return job.model_copy(update={"student": job.student.model_copy(update={"model": model})})


def _splits(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a model on valid and on test; those of a teacher from elsewhere may be missing."""
    return {split: {name: (metrics.get(split) or {}).get(name) for name in FIGURES} for split in ("valid", "test")}


def _student(run: Finished) -> dict[str, Any]:
    return {"name": run.name, **_splits(run.metrics)}
