"""Writing logits: one shard file per shard of the table, rows in its order, and what the manifest says of them all.

N rows, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgeokd_ray.artifacts import FileEntry, Staging, write_file
from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.feed.class_means import MEANS, ClassMeans, probabilities
from tgeokd_ray.feed.folds import FOLD_MEAN, FOLD_NOBODY
from tgeokd_ray.feed.parquet import read_group
from tgeokd_ray.feed.storage import Floats, Storage
from tgeokd_ray.feed.table import EncodedTable

SHOWN_IDS = 5


@dataclass(frozen=True)
class Piece:
    """Some rows of a shard: ids [N], logits [N, C] float32, and who scored each row: `fold` [N] uint8."""

    row_ids: NDArray[np.int64]
    logits: Floats
    fold: NDArray[np.uint8]

    def __getitem__(self, rows: slice) -> Piece:
        return Piece(self.row_ids[rows], self.logits[rows], self.fold[rows])


def write_logits(
    folder: Path, shard: str, pieces: Sequence[Piece], storage: Storage, *, scored_by: str, extra: Mapping[str, Any]
) -> FileEntry:
    """Write one shard, a row group per piece, and return its entry; lossy storage notes its largest errors in it.

    IntegrityError, naming `scored_by` and row ids, for logits that are not finite, DataError for logits that are too
    large for the type; then nothing is written.
    """
    tables, facts = [], dict(extra)
    error = StorageError(storage)
    for piece in pieces:
        _check(piece.logits, piece.row_ids, f"{scored_by} gives logits that are not finite", shard, IntegrityError)
        columns = storage.encode(piece.logits)
        table = pa.table({"row_id": pa.array(piece.row_ids), **columns, "fold": pa.array(piece.fold)})
        if not storage.exact:
            error.add(piece, columns, scored_by, shard)
        tables.append(table)
    if not storage.exact:
        facts["error"] = error.to_json()
    return write_file(folder, shard, lambda path: _write(path, tables), rows=sum(map(len, tables)), extra=facts)


class StorageError:
    """What lossy storage costs: the largest error of a kept logit with its bound, and the total variation distance of
    the distributions at temperature 1, largest and mean."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._facts: dict[str, float] = {"logit": 0.0, "bound": 0.0, "variation": 0.0, "variation_sum": 0.0}
        self._rows = 0

    def add(self, piece: Piece, columns: Mapping[str, pa.Array], scored_by: str, shard: str) -> None:
        """Compare rows with what their columns give back. DataError for a logit that the type cannot hold."""
        storage, logits = self._storage, piece.logits
        scored = piece.fold != FOLD_NOBODY
        kept = storage.widen(_values(columns["logits"]))
        what = f"{scored_by} gives logits that are too large for {storage.dtype}"
        _check(kept, piece.row_ids, what, shard, DataError)
        whole = storage.decode(pa.table(dict(columns)), Path(shard), logits.shape[1])[scored]
        logits, kept = logits[scored], kept[scored]
        true = np.sort(logits, axis=1)[:, ::-1][:, : kept.shape[1]] if storage.top_k else logits
        distance = np.abs(probabilities(logits) - probabilities(whole)).sum(axis=1) / 2
        self.merge(
            {
                "logit": float(np.abs(kept.astype(np.float64) - true).max(initial=0)),
                "bound": storage.rounding_bound(float(np.abs(true).max(initial=0))),
                "variation": float(distance.max(initial=0)),
                "variation_sum": float(distance.sum()),
                "rows": len(logits),
            }
        )

    def merge(self, part: Mapping[str, Any]) -> None:
        """Add what `to_json` gave for other rows."""
        for name in ("logit", "bound", "variation"):
            self._facts[name] = max(self._facts[name], part[name])
        self._facts["variation_sum"] += part["variation_sum"]
        self._rows += part["rows"]

    def to_json(self) -> dict[str, Any]:
        return {**self._facts, "rows": self._rows}

    def summary(self) -> dict[str, float]:
        """For the schema: `logit` and its `bound`, `variation` (largest) and `variation_mean`."""
        facts = dict(self._facts)
        return facts | {"variation_mean": facts.pop("variation_sum") / max(self._rows, 1)}


def shard_means(path: Path, entry: FileEntry, table: EncodedTable, storage: Storage) -> ClassMeans:
    """The part of a shard that was written before in the class means, from the file and the labels of the table: what
    the rows gave when they were scored, to the last digit."""
    means = ClassMeans(len(table.classes))
    for unit in table.shard_units(entry.path):
        stored = read_group(path, unit.group, unit.rows, [*storage.columns, "fold"])
        labels = read_group(table.artifact.file(unit.shard), unit.group, unit.rows, ["label"])["label"].to_numpy()
        known = stored["fold"].to_numpy() != FOLD_NOBODY
        means.add(storage.decode(stored, path, len(table.classes))[known], labels[known])
    return means


def finish(
    stage: Staging,
    entries: Sequence[FileEntry],
    table: EncodedTable,
    storage: Storage,
    known: Mapping[str, ClassMeans],
    *,
    means_split: str = "train",
) -> dict[str, Any]:
    """Add the shards, in their order, and the file of class means to the artifact, and return its schema: classes,
    scored train rows of each, storage and its error; `uncovered`: rows that nobody scored by split, if any.

    `known` has the parts of the class means of shards that were written just now; those of others are read back.
    """
    for entry in entries:
        stage.add(entry)
    parts = (
        known.get(entry.path) or shard_means(stage.folder / entry.path, entry, table, storage)
        for entry in entries
        if entry.extra["split"] == means_split
    )
    means = ClassMeans.merged(parts, len(table.classes))
    stage.write(MEANS, means.save)
    schema: dict[str, Any] = {
        "num_classes": len(table.classes),
        "classes": list(table.classes),
        "class_counts": means.counts.tolist(),
        "storage": storage_schema(entries, storage),
    }
    uncovered = Counter[str]()
    for entry in entries:
        uncovered[entry.extra["split"]] += entry.extra.get("uncovered", 0)
    if uncovered.total():
        schema["uncovered"] = dict(+uncovered)
    return schema


def storage_schema(entries: Sequence[FileEntry], storage: Storage) -> dict[str, Any]:
    """How logits are stored, and where that loses something its `error`, over all shards."""
    if storage.exact:
        return storage.to_json()
    error = StorageError(storage)
    for entry in entries:
        error.merge(entry.extra["error"])
    return storage.to_json() | {"error": error.summary()}


def one_fold(rows: int, *, mean: bool = False) -> NDArray[np.uint8]:
    """The fold column of rows that one teacher, or the mean of all, scored."""
    return np.full(rows, FOLD_MEAN if mean else 0, dtype=np.uint8)


def _values(array: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    return values


def _check(
    logits: Floats, row_ids: NDArray[np.int64], what: str, shard: str, error: type[IntegrityError] | type[DataError]
) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        ids = ", ".join(str(int(i)) for i in row_ids[bad[:SHOWN_IDS]])
        again = "train the teacher again with a lower learning rate or clipping"
        fix = again if error is IntegrityError else "store them as float32: --set logits.dtype=float32"
        raise error(f"{what} for {len(bad)} rows of {shard} (row ids {ids})", fix=fix)


def _write(path: Path, groups: Sequence[pa.Table]) -> None:
    """Row groups as in the table's shard, pages with checksums. Ids and logits do not repeat: no dictionary of them."""
    plain = {"use_dictionary": ["fold"], "write_statistics": False}
    with pq.ParquetWriter(path, groups[0].schema, compression="zstd", write_page_checksum=True, **plain) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(len(group), 1))
