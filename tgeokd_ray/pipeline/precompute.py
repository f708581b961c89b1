"""Teacher logits as an artifact: aligned shards, class means of the train rows, parents table and teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgeokd_ray.artifacts import (
    Artifact,
    FileEntry,
    Parent,
    Staging,
    find,
    inputs_digest,
    siblings,
    staging,
    write_json,
)
from tgeokd_ray.config.job import Job
from tgeokd_ray.errors import ConfigError, IntegrityError, Problem, UserError
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.engine import Engine
from tgeokd_ray.pipeline.whose_rows import check_teachers
from tgeokd_ray.training.reuse import load_metrics

if TYPE_CHECKING:
    from tgeokd_ray.feed.class_means import ClassMeans
    from tgeokd_ray.training.scoring import Scored

MEANS_SPLIT = "train"
# Raised when the same teacher and rows are to give other logits than before.
SCORING = 2


@dataclass(frozen=True)
class Scoring:
    """What decides the logits beside table and teachers: precision of the pass, how they are stored, which splits."""

    precision: str = "fp32"
    dtype: str = "float32"
    top_k: int | None = None
    splits: tuple[str, ...] = ("train", "outer", "valid", "test")
    in_sample: bool = False

    @classmethod
    def of(cls, job: Job) -> Scoring:
        logits = job.logits
        return cls(job.precision, logits.dtype, logits.top_k, logits.splits, job.teacher.in_sample)

    def arguments(self) -> dict[str, Any]:
        """For the artifact's digest. Temperature is never baked in."""
        return {
            "scoring": SCORING,
            "dtype": self.dtype,
            "top_k": self.top_k,
            "precision": self.precision,
            "splits": list(self.splits),
            "means": MEANS_SPLIT,
        }


def logits_parents(table: Artifact, teachers: Sequence[Artifact]) -> dict[str, Parent]:
    """Parents by role: `table`, and `teacher`, or `teacher_0`, ... of F folds."""
    roles = ["teacher"] if len(teachers) == 1 else [f"teacher_{fold}" for fold in range(len(teachers))]
    named = dict(zip(roles, teachers, strict=True))
    return {role: artifact.as_parent() for role, artifact in {"table": table, **named}.items()}


def precompute(
    root: Path,
    name: str,
    table: Artifact,
    teachers: Sequence[Artifact],
    *,
    scoring: Scoring,
    engine: Callable[[], Engine],
    progress: Progress,
) -> tuple[Artifact, bool]:
    """Score every shard of the splits asked for and commit the logits; (artifact, whether it was there already).

    Shards that an interrupted attempt finished are kept, and so are those of earlier logits of these teachers for the
    same rows: of a table that grew only the new shards are scored. ProvenanceError for a teacher of another table, and
    for one that would score rows on which it was trained.
    """
    check_teachers(table, teachers, scoring.splits, in_sample=scoring.in_sample, progress=progress)
    parents = logits_parents(table, teachers)
    there = find(root, "logits", name, inputs_digest("logits", scoring.arguments(), parents))
    if there is not None:
        return there, True
    shards = asked_shards(table, scoring.splits, scoring.dtype, scoring.top_k)
    progress.started("precompute", sum(shard.rows or 0 for shard in shards.values()))
    with staging(root, "logits", name, arguments=scoring.arguments(), parents=parents) as stage:
        entries = {path: entry for path, entry in stage.kept.items() if path in shards}
        for entry in _taken_over(stage, root, [shard for path, shard in shards.items() if path not in entries]):
            entries[entry.path] = entry
        progress.advanced("precompute", sum(entry.rows or 0 for entry in entries.values()))
        means: dict[str, ClassMeans] = {}
        for scored in _scored(table, teachers, stage, scoring, [s for s in shards if s not in entries], engine):
            path = scored.entry.path
            progress.advanced("precompute", scored.entry.rows or 0)
            entries[path] = scored.entry
            means |= {path: scored.means} if scored.means is not None else {}
        ordered = [entries[path] for path in shards]
        if len(teachers) > 1:
            _write_metrics(stage, ordered, table, teachers, scoring)
        return stage.commit(schema=_schema(stage, table, ordered, scoring, means), record={}), False


def asked_shards(table: Artifact, splits: Sequence[str], dtype: str, top_k: int | None) -> Mapping[str, FileEntry]:
    """The table's shards of the splits asked for; ConfigError where a split is unknown or storage cannot hold a row."""
    from tgeokd_ray.feed.storage import Storage

    Storage(dtype, top_k).check(len(table.manifest.schema["classes"]))
    known = table.manifest.schema["rows"]
    unknown = [
        Problem(f"unknown split {s!r} of {table.label}; it has {', '.join(known)}") for s in splits if s not in known
    ]
    if unknown:
        raise ConfigError(unknown)
    listed = (entry for entry in table.manifest.files if entry.extra.get("split") in splits)
    return {entry.path: entry for entry in listed}


def _taken_over(stage: Staging, root: Path, shards: Sequence[FileEntry]) -> Iterator[FileEntry]:
    """Shards of earlier logits, with the same teachers and arguments, whose table shard has the same bytes as now."""
    wanted = {shard.path: shard.sha256 for shard in shards}
    teachers = {role: parent.digest for role, parent in stage.parents.items() if role != "table"}
    for earlier in siblings(root, "logits", stage.name):
        made_by = {role: parent.digest for role, parent in earlier.manifest.parents.items() if role != "table"}
        if made_by != teachers or _of_a_shard(earlier.manifest.arguments) != _of_a_shard(stage.arguments):
            continue
        for entry in earlier.manifest.files:
            if wanted.get(entry.path) != entry.extra.get("of", ""):
                continue
            with suppress(IntegrityError):  # damaged since: scored again
                taken = stage.take_over(earlier, entry)
                del wanted[entry.path]
                yield taken


def _of_a_shard(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the logits of one shard: all but which others there are."""
    return {name: value for name, value in arguments.items() if name != "splits"}


def _scored(
    table: Artifact,
    teachers: Sequence[Artifact],
    stage: Staging,
    scoring: Scoring,
    shards: Sequence[str],
    engine: Callable[[], Engine],
) -> Iterator[Scored]:
    if not shards:
        return
    from tgeokd_ray.feed.storage import Storage  # torch: not for a chain that finds everything finished
    from tgeokd_ray.training.scoring import ScoreShard

    task = ScoreShard(
        str(table.path),
        tuple(str(teacher.path) for teacher in teachers),
        str(stage.folder),
        MEANS_SPLIT,
        engine().task_device,
        scoring.precision,
        Storage(scoring.dtype, scoring.top_k),
    )
    for result in engine().map(task, shards, stage="precompute"):
        if isinstance(result, UserError):
            raise result
        yield result


def _schema(
    stage: Staging, table: Artifact, entries: Sequence[FileEntry], scoring: Scoring, means: Mapping[str, ClassMeans]
) -> dict[str, Any]:
    from tgeokd_ray.feed.logits_files import finish
    from tgeokd_ray.feed.storage import Storage
    from tgeokd_ray.feed.table import EncodedTable

    storage = Storage(scoring.dtype, scoring.top_k)
    return finish(stage, entries, EncodedTable(table), storage, means, means_split=MEANS_SPLIT)


def _write_metrics(
    stage: Staging, entries: Sequence[FileEntry], table: Artifact, teachers: Sequence[Artifact], scoring: Scoring
) -> None:
    """What the teachers of all folds are worth together."""
    from tgeokd_ray.feed.storage import Storage
    from tgeokd_ray.feed.table import EncodedTable
    from tgeokd_ray.training.assess import logits_metrics

    storage = Storage(scoring.dtype, scoring.top_k)
    parameters = sum(load_metrics(teacher)["parameters"] for teacher in teachers)
    metrics = logits_metrics(stage.folder, entries, storage, EncodedTable(table), parameters=parameters)
    stage.write("metrics.json", lambda path: write_json(path, metrics))
