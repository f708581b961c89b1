"""A committed teacher or student measured on any split of the table that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import open_artifact
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.events import Progress
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.reader import DirectReader
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.training.scoring import Predictor


def assess(model: Path, table: EncodedTable, split: str, progress: Progress) -> dict[str, Any]:
    """Results of `Evaluation` on a split, one row group in memory at a time.

    ProvenanceError where the model was made from another table: its inputs would be encoded in another way.
    """
    made_from = open_artifact(model).manifest.parents["table"]
    if made_from.digest != table.artifact.digest:
        raise ProvenanceError(
            f"{model} was made from {made_from.label} {made_from.digest[:8]}..., but {table.label} is "
            f"{table.artifact.digest[:8]}...",
            fix=f"name {made_from.label}, or train on {table.label}",
        )
    predictor = Predictor(model)
    evaluation = Evaluation(len(table.classes), negative_class=table.negative)
    units = table.units(split)
    progress.started("evaluate", sum(unit.rows for unit in units))
    for piece in DirectReader(table, (), split)(units):
        rows = decode(piece, len(table.classes)).as_batch()
        evaluation.add(predictor(rows.numeric, rows.categorical), rows.labels.numpy())
        progress.advanced("evaluate", len(rows))
    progress.finished("evaluate", f"{split} of {table.label}")
    return evaluation.results()
