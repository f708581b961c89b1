"""An encoded table of generated clicks with a teacher's logits, written shard by shard: what feeds are measured on.

N rows, 13 numeric and 26 categorical columns, 2 classes. Only one shard's rows are in memory.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import workload

from tgeokd_ray.artifacts import Artifact, FileEntry, Staging, staging
from tgeokd_ray.feed.arrow import lists
from tgeokd_ray.feed.beside import like_shard
from tgeokd_ray.feed.class_means import ClassMeans
from tgeokd_ray.feed.logits_files import Piece, finish, one_fold, write_logits
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.tables.shards import group_rows, write_shard

CLASSES = ["0", "1"]
SHARD_ROWS = workload.BLOCK  # as encode cuts raw rows
SPLIT = "train"


def write(root: Path, num_rows: int, num_ids: int, *, logits: bool = True) -> tuple[Artifact, list[Artifact]]:
    """A table whose rows are all of the split train, in row groups as encode makes them, and the logits beside it."""
    firsts = range(0, num_rows, SHARD_ROWS)
    with staging(root, "tables", "clicks", arguments={"rows": num_rows, "ids": num_ids}, parents={}) as stage:
        for number, first in enumerate(firsts):
            _write_shard(stage, number, first, min(SHARD_ROWS, num_rows - first), num_rows, num_ids)
        for name in ("encoder.json", "card.json"):
            stage.write(name, lambda path: path.write_text("{}"))
        table = stage.commit(schema=_schema(num_rows, num_ids))
    return table, [_write_logits(root, table)] if logits else []


def _write_shard(stage: Staging, number: int, first: int, count: int, num_rows: int, num_ids: int) -> None:
    rows = workload.clicks(count, num_ids, seed=number)
    offsets = np.concatenate([[0], np.cumsum(workload.sizes(num_ids))[:-1]])
    ids, labels = np.arange(first, first + count, dtype=np.int64), rows.labels.astype(np.int32)
    size = group_rows(num_rows)
    groups = [labels[start : start + size] for start in range(0, count, size)]
    columns = {
        "row_id": pa.array(ids),
        "label": pa.array(labels),
        "numeric": lists(rows.numeric),
        "categorical": lists((rows.categorical + offsets).astype(np.int32)),
    }
    extra = {
        "split": SPLIT,
        "shard": number,
        "groups": [len(group) for group in groups],
        "labels": [np.bincount(group, minlength=2).tolist() for group in groups],
        "row_ids": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
    }
    stage.write(
        f"{SPLIT}-{number:05d}.parquet",
        partial(write_shard, pa.table(columns), group_rows=size),
        rows=count,
        extra=extra,
    )


def _schema(num_rows: int, num_ids: int) -> dict[str, Any]:
    sizes = workload.sizes(num_ids).tolist()
    firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    spaces = [{"name": f"c{k}", "offset": a, "size": n} for k, (a, n) in enumerate(zip(firsts, sizes, strict=True))]
    numeric = [f"n{k}" for k in range(workload.NUM_NUMERIC)]
    facts = {"classes": CLASSES, "negative": 0, "numeric": numeric, "categorical": spaces, "num_ids": num_ids}
    return facts | {"weight": False, "rows": {SPLIT: num_rows}, "extra": {}}


def _write_logits(root: Path, table: Artifact) -> Artifact:
    """Logits that know nothing: what they say does not matter to a feed."""
    encoded, storage = EncodedTable(table), Storage()
    with staging(root, "logits", "clicks", arguments={}, parents={"table": table}) as stage:
        written: list[FileEntry] = []
        means: dict[str, ClassMeans] = {}
        for number, shard in enumerate(sorted(e.path for e in table.manifest.files if "split" in e.extra)):
            pieces = []
            means[shard] = ClassMeans(len(CLASSES))
            for unit in encoded.shard_units(shard):
                draws = np.random.default_rng([number, unit.group]).standard_normal((unit.rows, 2), dtype=np.float32)
                first = number * SHARD_ROWS + unit.first
                ids = np.arange(first, first + unit.rows, dtype=np.int64)
                pieces.append(Piece(ids, draws, one_fold(unit.rows)))
                means[shard].add(draws, np.repeat([0, 1], unit.labels))
            extra = like_shard(encoded.entry(shard))
            written.append(write_logits(stage.folder, shard, pieces, storage, scored_by="nobody", extra=extra))
        return stage.commit(schema=finish(stage, written, encoded, storage, means))
