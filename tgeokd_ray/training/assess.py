"""Models and logits measured on a split of the table that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import FileEntry, open_artifact, require_parent
from tgeokd_ray.events import Progress
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.parquet import read_shard
from tgeokd_ray.feed.reader import DirectReader
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.teachers import scored
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.training.result import with_intervals
from tgeokd_ray.training.scoring import Predictor


def assess(model: Path, table: EncodedTable, split: str, progress: Progress) -> dict[str, Any]:
    """Results of `Evaluation` on the rows of a split that have a label, one row group in memory at a time, with the
    columns that this model sees.

    ProvenanceError where the model was made from another table: its inputs would be encoded in another way.
    """
    artifact = open_artifact(model)
    require_parent(artifact, "table", table.artifact)
    table = table.seen_by(artifact.kind)
    predictor = Predictor(model)
    evaluation = Evaluation(len(table.classes), negative_class=table.negative)
    units = table.units(split)
    progress.started("evaluate", sum(unit.rows for unit in units))
    for piece in DirectReader(table, (), split)(units):
        rows = decode(piece, len(table.classes)).as_batch()
        known = rows.labels.numpy() >= 0
        weights = rows.weights.numpy()[known] if table.has_weights else None
        evaluation.add(predictor(rows.numeric, rows.categorical)[known], rows.labels.numpy()[known], weights)
        progress.advanced("evaluate", len(rows))
    progress.finished("evaluate", f"{split} of {table.label}")
    return evaluation.results()


def logits_metrics(
    folder: Path, entries: Sequence[FileEntry], storage: Storage, table: EncodedTable, *, parameters: int | None
) -> dict[str, Any]:
    """`metrics.json` of logits whose shards lie in `folder`, as a teacher's own: results on valid and test where they
    were scored, test with intervals. For teachers of which no single one has such figures."""
    metrics: dict[str, Any] = {"history": [], "epoch": None, "steps": None, "parameters": parameters, "rule": None}
    for split in ("valid", "test"):
        shards = [entry for entry in entries if entry.extra["split"] == split]
        evaluation = Evaluation(len(table.classes), negative_class=table.negative)
        for entry in shards:
            _count(evaluation, folder / entry.path, entry, storage, table)
        if shards:
            told = (
                with_intervals(evaluation, 0, weighted=table.has_weights) if split == "test" else evaluation.results()
            )
        metrics[split] = told if shards else None
    return metrics


def _count(evaluation: Evaluation, path: Path, entry: FileEntry, storage: Storage, table: EncodedTable) -> None:
    """Add the scored rows of one shard, which lie in the same order in the table's."""
    rows = entry.rows or 0
    stored = read_shard(path, rows, [*storage.columns, "fold"])
    logits = storage.decode(stored, path, len(table.classes))
    columns = ["label", *(["weight"] if table.has_weights else [])]
    truth = read_shard(table.artifact.file(entry.path), rows, columns)
    weights = truth.column("weight").to_numpy() if table.has_weights else None
    known = scored(stored).astype(bool)
    evaluation.add(logits[known], truth.column("label").to_numpy()[known], None if weights is None else weights[known])
