"""The chain of a job: encode, teacher, precompute, distill; each stage is re-used when its inputs have not changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, open_artifact, replaced
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.denoising import SUSPICIOUS_FILE, denoises, denoising_plan
from tgeokd_ray.pipeline.effect import Learned, ratio_effect
from tgeokd_ray.pipeline.engine import Engine
from tgeokd_ray.pipeline.import_logits import Importing, calibrated, import_logits, tell
from tgeokd_ray.pipeline.plans import students_plan, teacher_plan
from tgeokd_ray.pipeline.precompute import Scoring, precompute
from tgeokd_ray.pipeline.record import known_channel
from tgeokd_ray.tables.card_damage import damage_told
from tgeokd_ray.tables.cards import SPLITS, Card
from tgeokd_ray.training.reuse import Plan, finished, replay
from tgeokd_ray.training.spec import Finished


@dataclass
class Stage:
    """One line of `stages` in results.json."""

    name: str
    seconds: float = 0.0
    rows: int = 0
    reused: bool = False


@dataclass
class Chain:
    """The stages of one job in order; `engine` is called only by a stage that has work to do."""

    job: Job
    card: Card
    root: Path
    folder: Path
    engine: Callable[[], Engine]
    progress: Progress
    stages: list[Stage] = field(default_factory=list)
    channel: Finished | None = None

    @contextmanager
    def _stage(self, name: str) -> Iterator[Stage]:
        stage, began = Stage(name), time.monotonic()
        yield stage
        stage.seconds = round(time.monotonic() - began, 3)
        self.stages.append(stage)

    def to_logits(self) -> tuple[Artifact, list[Artifact], Artifact]:
        """The chain up to the logits: table, teachers (none where they are from elsewhere), logits."""
        table = self.encode(self.job.data)
        self.check_splits(table)
        if self.job.teacher.imported.file is not None:
            return table, [], self.imported(table)
        teachers = self.teachers(table)
        return table, teachers, self.precompute(table, teachers)

    def teacher_figures(self, teachers: Sequence[Artifact], logits: Artifact) -> Finished:
        """The teacher's run; figures of several teachers, and of one from elsewhere, stand in their logits."""
        old = next(stage.reused for stage in self.stages if stage.name in ("teacher", "import"))
        return finished("teacher", teachers[0] if len(teachers) == 1 else logits, reused=old, seconds=0.0)

    def encode(self, files: Sequence[str], onto: Artifact | None = None) -> Artifact:
        """Raw files to `tables/NAME`; new ones, of the table that grows, where `onto` names it."""
        from tgeokd_ray.tables.inputs import find_table

        with self._stage("encode") as stage:
            table = find_table(self.card, files, self.root, onto=onto)
            stage.reused = table is not None
            if table is None:
                from tgeokd_ray.tables.encode import encode

                def engine_map(function: Any, items: Any, *, stage: str) -> Iterator[Any]:
                    return self.engine().map(function, items, stage=stage)

                table, _ = encode(self.card, files, self.root, engine_map, self.progress, onto=onto)
            stage.rows = sum(table.manifest.schema["rows"].values())
            self._told("encode", table, stage.reused)
            for message in table.manifest.record.get("warnings", ()) if stage.reused else ():
                self.progress.warned(message)
            damage = damage_told(table.manifest.schema)
            if damage is not None:
                self.progress.warned(f"{table.label} is damaged on purpose: {damage}")
            return table

    def check_splits(self, table: Artifact) -> None:
        """DataError, before anything is trained, for every split without rows that a later stage needs."""
        rows, teacher = table.manifest.schema["rows"], self.job.teacher
        theirs = teacher.imported.file is not None  # whatever rows that one was trained on
        needed = [split for split in SPLITS if split != "teacher" or (teacher.split == "teacher" and not theirs)]
        empty = [split for split in needed if not rows.get(split)]
        if empty:
            problems = [Problem(f"no row goes to the split {split!r}, which the job needs") for split in empty]
            raise DataError(problems, fix=f"give it a share under `splits` in the card {self.card.name}")
        if "teacher" not in needed and not theirs and rows.get("teacher"):
            self.progress.warned(
                f"{rows['teacher']} rows of the split 'teacher' are not used: the teacher trains on {teacher.split!r}"
            )

    def teachers(self, table: Artifact) -> list[Artifact]:
        """Table to `teachers/NAME`, or one for each fold."""
        with self._stage("teacher") as stage:
            runs = self._runs(teacher_plan(self.job, self.card.name, table, self.root, self.folder), stage)
            for run in runs:
                if run.error is not None:
                    raise run.error
            stage.rows = table.manifest.schema["rows"].get(self.job.teacher.split, 0)
            return [open_artifact(Path(run.artifact)) for run in runs]

    def precompute(self, table: Artifact, teachers: Sequence[Artifact]) -> Artifact:
        """Table and teachers to `logits/NAME` with class means."""
        with self._stage("precompute") as stage:
            logits, stage.reused = precompute(
                self.root,
                self.card.name,
                table,
                teachers,
                scoring=Scoring.of(self.job),
                engine=self.engine,
                progress=self.progress,
            )
            stage.rows = sum(entry.rows or 0 for entry in logits.manifest.files)
            self._told("precompute", logits, stage.reused)
            return logits

    def imported(self, table: Artifact) -> Artifact:
        """Table and a file from elsewhere to `logits/NAME`, in place of teacher and precompute."""
        with self._stage("import") as stage:
            importing = Importing.of(self.job)
            name = importing.imported.name or self.card.name
            logits, stage.reused = import_logits(self.root, name, table, importing, self.progress)
            stage.rows = sum(entry.rows or 0 for entry in logits.manifest.files)
            self._told("import", logits, stage.reused, calibrated(logits))
            return logits

    def students(self, table: Artifact, logits: Sequence[Artifact]) -> list[Finished]:
        """Table and logits to `students/NAME-*`: labels, constants, TGeo-KD; where labels are to be denoised, first to
        `channels/NAME`, kept as `channel`."""
        with self._stage("distill") as stage:
            plan = students_plan(self.job, self.card.name, table, logits, self.root, self.folder)
            stage.rows = table.manifest.schema["rows"].get("train", 0)
            for artifact in logits:
                tell(artifact, self.progress)
            means = [str(artifact.path) for artifact in logits]
            if not denoises(self.job, self.card.name, self.root, table, logits, self.progress):
                (self.folder / SUSPICIOUS_FILE).unlink(missing_ok=True)
                return self._runs(plan, stage, means)
            denoising = denoising_plan(plan, self.card.name)
            self.channel, students = denoising.told(self._runs(denoising, stage, means))
            self._list_suspicious(table, self.channel)
            return students

    def _list_suspicious(self, table: Artifact, channel: Finished) -> None:
        """The file of an earlier job in this folder stays where it tells of the same channel."""
        if channel.digest != known_channel(self.folder) or not (self.folder / SUSPICIOUS_FILE).exists():
            from tgeokd_ray.pipeline.suspicious import write_suspicious

            path = write_suspicious(table, open_artifact(Path(channel.artifact)), self.folder)
            self.progress.finished("suspicious", str(path))

    def ratio(
        self, table: Artifact, logits: Sequence[Artifact], students: Sequence[Finished]
    ) -> tuple[Learned, dict[str, Any]] | None:
        """What the ratio that the students learned does, unless they learned none that is stored."""
        learned = Learned.of(students, self.root)
        if learned is None:
            return None
        return learned, ratio_effect(self.job, table, logits, learned, self.engine, self.folder / "ratio")

    def planned(self, name: str, plan: Plan) -> list[Finished]:
        """The runs of a plan, as a stage of their own."""
        with self._stage(name) as stage:
            return self._runs(plan, stage)

    def _runs(self, plan: Plan, stage: Stage, means: Sequence[str] = ()) -> list[Finished]:
        done = replay(plan)
        stage.reused = done is not None
        if done is None:
            done = self.engine().train(plan, self.progress, means)
            for run in done:
                if run.error is None:
                    self._tell_damage(open_artifact(Path(run.artifact)))
            return done
        for run in done:
            self._told(run.name, open_artifact(Path(run.artifact)), True)
        return done

    def _told(self, stage: str, artifact: Artifact, reused: bool, more: str = "") -> None:
        self._tell_damage(artifact)
        label = f"reused {artifact.label}" if reused else artifact.label
        self.progress.finished(stage, f"{label}, {more}" if more else label)

    def _tell_damage(self, artifact: Artifact) -> None:
        for label in replaced(artifact):
            self.progress.warned(f"{label} is damaged: tgeokd verify says how; {artifact.label} is in its place")
