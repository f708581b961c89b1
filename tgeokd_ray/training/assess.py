"""A committed teacher or student measured on any split of the table that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgeokd_ray.artifacts import open_artifact, require_parent
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
    require_parent(open_artifact(model), "table", table.artifact)
    predictor = Predictor(model)
    evaluation = Evaluation(len(table.classes), negative_class=table.negative)
    units = table.units(split)
    progress.started("evaluate", sum(unit.rows for unit in units))
    for piece in DirectReader(table, (), split)(units):
        rows = decode(piece, len(table.classes)).as_batch()
        weights = rows.weights.numpy() if table.has_weights else None
        evaluation.add(predictor(rows.numeric, rows.categorical), rows.labels.numpy(), weights)
        progress.advanced("evaluate", len(rows))
    progress.finished("evaluate", f"{split} of {table.label}")
    return evaluation.results()
