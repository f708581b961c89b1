"""Teacher logits as an artifact: aligned shards, class means of the train rows, parents table and teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import Artifact, FileEntry, find, inputs_digest, require_parent, staging
from tgeokd_ray.errors import UserError
from tgeokd_ray.events import Progress
from tgeokd_ray.pipeline.engine import Engine

SPLITS = ("train", "outer", "valid", "test")
# Raised when the same teacher and rows are to give other logits than before.
SCORING = 1


def logits_arguments(precision: str) -> dict[str, Any]:
    """What decides the logits beside table and teacher. Temperature is never baked in."""
    return {"scoring": SCORING, "dtype": "float32", "precision": precision, "splits": list(SPLITS), "means": "train"}


def find_logits(root: Path, name: str, table: Artifact, teacher: Artifact, precision: str) -> Artifact | None:
    """The logits of this teacher on this table, if they are there."""
    parents = {"table": table.as_parent(), "teacher": teacher.as_parent()}
    inputs = inputs_digest("logits", logits_arguments(precision), parents)
    return find(root, "logits", name, inputs)


def precompute(
    root: Path,
    name: str,
    table: Artifact,
    teacher: Artifact,
    *,
    precision: str,
    engine: Callable[[], Engine],
    progress: Progress,
) -> tuple[Artifact, bool]:
    """Score every shard of the student's splits and commit the logits; (artifact, whether it was there already).

    Shards that an interrupted attempt finished are kept; their part of the class means is read back from their entry.
    ProvenanceError for a teacher of another table: its encoder, and so its inputs, would be others.
    """
    require_parent(teacher, "table", table)
    there = find_logits(root, name, table, teacher, precision)
    if there is not None:
        return there, True
    from tgeokd_ray.training.scoring import ScoreShard  # torch: not for a chain that finds everything finished

    parents = {"table": table, "teacher": teacher}
    shards = [entry.path for entry in table.manifest.files if entry.extra.get("split") in SPLITS]
    progress.started("precompute", sum(e.rows or 0 for e in table.manifest.files if e.path in shards))
    with staging(root, "logits", name, arguments=logits_arguments(precision), parents=parents) as stage:
        entries = {path: entry for path, entry in stage.kept.items() if path in shards}
        task = ScoreShard(
            str(table.path), str(teacher.path), str(stage.folder), "train", engine().task_device, precision
        )
        for result in engine().map(task, [path for path in shards if path not in entries], stage="precompute"):
            if isinstance(result, UserError):
                raise result
            progress.advanced("precompute", result.rows or 0)
            entries[result.path] = result
        for path in shards:
            stage.add(entries[path])
        return stage.commit(schema=_schema(table, [entries[path] for path in shards]), record={}), False


def _schema(table: Artifact, entries: list[FileEntry]) -> dict[str, Any]:
    """Classes in order and the mean teacher distribution per class, merged in shard order; null without rows."""
    classes = table.manifest.schema["classes"]
    sums = [[0.0] * len(classes) for _ in classes]
    counts = [0] * len(classes)
    for means in (entry.extra["means"] for entry in entries if "means" in entry.extra):
        sums = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(sums, means["sums"], strict=True)]
        counts = [a + b for a, b in zip(counts, means["counts"], strict=True)]
    return {
        "num_classes": len(classes),
        "classes": classes,
        "class_means": [[s / n for s in row] if n else None for row, n in zip(sums, counts, strict=True)],
        "class_counts": counts,
    }
