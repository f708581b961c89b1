"""A small table, a teacher that stands outside of the package, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_stage
from tgeokd_ray.tables.cards import PACKAGED

LOCAL = Place(local=True)
SPLITS = ("train", "outer", "valid", "test")
SMALL = ["student.training.epochs=2", "distill.constants=[1.0]"]


class Said(Silent):
    """Keeps the warnings, once each."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, message: str) -> None:
        self.warnings += [message] if message not in self.warnings else []


def write_card(path: Path, **format: Any) -> Path:
    """The packaged synthetic card with 3,000 rows in several shards."""
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    card["format"] |= {"rows": 3000, "chunk_rows": 1000, **format}
    path.write_text(yaml.safe_dump(card))
    return path


def job_of(card: Path, root: Path, file: Path | None, *settings: str) -> Any:
    """(job, card) of a job with this file as its teacher."""
    options = {"card": str(card), "root": str(root), "teacher-logits": None if file is None else str(file)}
    return resolve(options, settings=[*SMALL, *settings])


def import_file(card: Path, root: Path, table: Artifact, file: Path, *settings: str) -> tuple[Artifact, list[str]]:
    """(logits, warnings) of the stage alone."""
    said = Said()
    job, own = job_of(card, root, file, *settings)
    (made,) = run_stage("import", job, own, {"table": [table]}, LOCAL, said)
    return made, said.warnings


def rows(artifact: Artifact, *splits: str, columns: tuple[str, ...] = ("row_id", "label")) -> dict[str, np.ndarray]:
    """Columns of all rows of the splits in stored order."""
    listed = [e for e in artifact.manifest.files if e.extra.get("split") in (splits or SPLITS)]
    whole = pa.concat_tables([pq.read_table(artifact.file(e.path), columns=list(columns)) for e in listed])
    return {name: np.array(whole[name].to_pylist()) for name in columns}


def told_of(table: Artifact, *splits: str, sure: float = 1.0) -> pa.Table:
    """What a good teacher says of the rows, in an order of its own: list logits of float32."""
    found = rows(table, *splits)
    rng = np.random.default_rng(7)
    odds = (2.0 * found["label"] - 1 + rng.normal(size=len(found["label"])) * 1.2) * sure
    logits = np.stack([-odds / 2, odds / 2], axis=1).astype(np.float32)
    order = rng.permutation(len(odds))
    values = pa.array(logits[order].tolist(), pa.list_(pa.float32()))
    return pa.table({"row_id": found["row_id"][order], "logits": values})


def write(table: pa.Table, path: Path) -> Path:
    pq.write_table(table, path)
    return path
