"""The last pass: each raw unit through the encoders to a shard per split. N rows, P numeric, F categorical columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgeokd_ray.artifacts import FileEntry, read_json, write_file
from tgeokd_ray.feed.arrow import bytes_of, lists, packed
from tgeokd_ray.tables.cards import LABEL, ROW_ID, SPLITS, UNLABELLED, WEIGHT
from tgeokd_ray.tables.categorical import UNSEEN
from tgeokd_ray.tables.encoders import Encoder
from tgeokd_ray.tables.ingest import SPLIT, RawUnit, read_unit
from tgeokd_ray.tables.outcome import returning_errors
from tgeokd_ray.tables.views import ENCODER_BYTES

MIN_GROUP_ROWS, MAX_GROUP_ROWS, GROUPS_WANTED = 256, 6_144, 48
MATRICES = ("numeric", "categorical")
# Columns of the student's view, and those that the teacher alone reads.
VIEWS = ("", "teacher_")
# Pages of zstd are a fifth smaller, and reading them takes twice as long.
COMPRESSION = "lz4"


@dataclass(frozen=True)
class NumberedUnit:
    """A raw unit and its number in the whole table, which names its shards."""

    index: int
    unit: RawUnit

    @property
    def shards(self) -> dict[str, str]:
        """The file of each split that has rows in this unit."""
        return {split: f"{split}-{self.index:05d}.parquet" for split in SPLITS if self.unit.rows_of(split)}


@dataclass(frozen=True)
class ShardWriter:
    """What every task of the last pass needs: folders, the encoders' files, classes, rows of a row group per split."""

    scratch: Path
    folder: Path
    encoders: tuple[FileEntry, ...]
    num_classes: int
    group_rows: Mapping[str, int]


def group_rows(split_rows: int) -> int:
    """Rows of a row group: 48 groups in a split, but between 256 and 6,144 rows each: a shuffle holds 48."""
    return min(max(-(-split_rows // GROUPS_WANTED), MIN_GROUP_ROWS), MAX_GROUP_ROWS)


@returning_errors
def transform_unit(writer: ShardWriter, item: NumberedUnit) -> list[FileEntry]:
    """Write the shards of one unit and return their entries; the same bytes whenever and wherever it runs.

    Columns: row_id int64, label int32 (-1 without one), numeric [P] float32 and categorical [F] int32, `packed` (absent
    when P or F is 0), weight float32 if the card names one; teacher_numeric and teacher_categorical in the same form,
    where the teacher sees columns that the student does not. Of images numeric is the pixels, bytes of a fixed size.
    """
    raw = read_unit(writer.scratch, item.unit)
    encoders = [_encoder(writer.folder / entry.path, entry.sha256) for entry in writer.encoders]
    views = [encoder.transform(raw) for encoder in encoders]
    codes = raw[SPLIT].to_numpy()
    entries = []
    for split, name in item.shards.items():
        rows = np.flatnonzero(codes == SPLITS.index(split))
        chosen = raw.select([c for c in (ROW_ID, LABEL, WEIGHT) if c in raw.column_names]).take(pa.array(rows))
        seen = [(numeric[rows], categorical[rows]) for numeric, categorical in views]
        shard = _shard(chosen, seen)
        extra = _facts(writer, item.index, split, shard)
        extra["unseen"] = [n for encoder, (_, ids) in zip(encoders, seen, strict=True) for n in _unseen(encoder, ids)]
        entries.append(_write(writer, name, shard, extra))
    return entries


@lru_cache(maxsize=2)
def _encoder(path: Path, sha256: str) -> Encoder:
    """The encoders of one table per process; digests are part of the key, so another table's is never taken for one."""
    del sha256
    return Encoder.from_json(read_json(path, limit=ENCODER_BYTES))


def _shard(chosen: pa.Table, views: Sequence[tuple[NDArray[Any], NDArray[np.int32]]]) -> pa.Table:
    columns = {"row_id": chosen[ROW_ID], "label": chosen[LABEL]}
    for view, (numeric, categorical) in zip(VIEWS, views, strict=False):
        for name, values in zip(MATRICES, (numeric, categorical), strict=True):
            if values.shape[1]:
                columns[f"{view}{name}"] = _column(values)
    if WEIGHT in chosen.column_names:
        columns["weight"] = chosen[WEIGHT]
    return pa.table(columns)


def _column(values: NDArray[Any]) -> pa.Array:
    if values.dtype == np.uint8:
        return bytes_of(values)
    return lists(values)


def _facts(writer: ShardWriter, index: int, split: str, shard: pa.Table) -> dict[str, Any]:
    """What a reader must know before it opens the shard; `unlabelled` rows per group only where there are some."""
    labels, size = shard["label"].to_numpy(), writer.group_rows[split]
    groups = [labels[first : first + size] for first in range(0, len(labels), size)]
    unlabelled = [int((group == UNLABELLED).sum()) for group in groups]
    return {
        "split": split,
        "shard": index,
        "groups": [len(group) for group in groups],
        "labels": [np.bincount(group[group != UNLABELLED], minlength=writer.num_classes).tolist() for group in groups],
        **({"unlabelled": unlabelled} if any(unlabelled) else {}),
        "row_ids": hashlib.sha256(shard["row_id"].to_numpy().astype("<i8").tobytes()).hexdigest(),
    }


def _unseen(encoder: Encoder, categorical: NDArray[np.int32]) -> list[int]:
    """Rows per categorical column whose value the train rows did not have, or too rarely."""
    reserved = np.array([space.offset + UNSEEN for _, space in encoder.categorical], dtype=np.int64)
    return [int(n) for n in (categorical == reserved).sum(axis=0)]


def _write(writer: ShardWriter, name: str, shard: pa.Table, extra: dict[str, Any]) -> FileEntry:
    write = partial(write_shard, shard, group_rows=writer.group_rows[extra["split"]])
    return write_file(writer.folder, name, write, rows=shard.num_rows, extra=extra)


def write_shard(shard: pa.Table, path: Path, group_rows: int) -> None:
    """The file of a shard, numbers and ids `packed`, in row groups of `group_rows` rows."""
    pq.write_table(
        packed(shard),
        path,
        row_group_size=group_rows,
        compression=COMPRESSION,
        use_dictionary=False,
        write_page_checksum=True,
        # The least and the largest of a row's bytes would say nothing.
        write_statistics=[name for name in shard.column_names if not name.endswith(MATRICES)],
    )
