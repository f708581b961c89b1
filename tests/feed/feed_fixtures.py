"""Small encoded tables and logits, written with the artifacts API as encode and precompute write them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgeokd_ray.artifacts import save_tensors, staging
from tgeokd_ray.feed import EncodedTable, LogitsTable, Unit
from tgeokd_ray.feed.arrow import packed
from tgeokd_ray.feed.class_means import MEANS
from tgeokd_ray.feed.storage import Storage

CLASSES = ("normal", "dos", "probe")


@dataclass(frozen=True)
class Columns:
    """The rows of one split as arrays: the truth that a feed must give back."""

    row_id: np.ndarray
    label: np.ndarray
    numeric: np.ndarray
    categorical: np.ndarray
    logits: np.ndarray


def make_columns(
    rows: int, *, first_id: int = 0, num_numeric: int = 3, num_categorical: int = 2, num_classes: int = 3
) -> Columns:
    """Random rows; row ids are spread and out of order, and every value is a function of the row id."""
    rng = np.random.default_rng([rows, first_id, num_numeric, num_categorical])
    ids = first_id + 7 * rng.permutation(rows).astype(np.int64)
    label = (rng.random(rows) ** 2 * num_classes).astype(np.int32)
    numeric = rng.normal(size=(rows, num_numeric)).astype(np.float32)
    categorical = rng.integers(0, 10, (rows, num_categorical)).astype(np.int32)
    logits = rng.normal(size=(rows, num_classes)).astype(np.float32)
    return Columns(ids, label, numeric, categorical, logits)


def fixed(values: np.ndarray) -> pa.Array:
    """[N, W] as lists of the fixed size W."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def ids_digest(ids: np.ndarray) -> str:
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()


def pieces(rows: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]


def writer(table: pa.Table, group: int) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path, row_group_size=group, write_page_checksum=True)


def table_columns(columns: Columns, part: slice, weight: bool) -> dict[str, pa.Array]:
    found = {"row_id": pa.array(columns.row_id[part]), "label": pa.array(columns.label[part])}
    for name in ("numeric", "categorical"):
        values = getattr(columns, name)[part]
        if values.shape[1]:
            found[name] = fixed(values)
    if weight:
        found["weight"] = pa.array(columns.row_id[part].astype(np.float32) / 2)
    return found


def write_table(
    root: Path,
    splits: dict[str, Columns],
    *,
    shard_rows: int = 100,
    group: int = 16,
    weight: bool = False,
    classes: Sequence[str] = CLASSES,
    name: str = "small",
    lists: Callable[[int], bool] = lambda shard: False,
) -> EncodedTable:
    """A table with shards of `shard_rows` rows and row groups of `group`; some may be in `lists`, as all once were."""
    some = next(iter(splits.values()))
    with staging(root, "tables", name, arguments={"weight": weight}, parents={}) as stage:
        for split, columns in splits.items():
            for shard, part in enumerate(pieces(len(columns.row_id), shard_rows)):
                labels = columns.label[part]
                groups = pieces(len(labels), group)
                extra = {
                    "split": split,
                    "shard": shard,
                    "groups": [len(labels[rows]) for rows in groups],
                    "labels": [np.bincount(labels[rows], minlength=len(classes)).tolist() for rows in groups],
                    "row_ids": ids_digest(columns.row_id[part]),
                }
                data = pa.table(table_columns(columns, part, weight))
                data = data if lists(shard) else packed(data)
                stage.write(f"{split}-{shard:05d}.parquet", writer(data, group), rows=len(labels), extra=extra)
        num_categorical = some.categorical.shape[1]
        schema = {
            "classes": list(classes),
            "negative": 0,
            "numeric": [f"n{k}" for k in range(some.numeric.shape[1])],
            "categorical": [{"name": f"c{k}", "offset": 0, "size": 10} for k in range(num_categorical)],
            "num_ids": 10 if num_categorical else 0,
            "weight": weight,
            "rows": {split: len(columns.row_id) for split, columns in splits.items()},
            "extra": {},
        }
        return EncodedTable.open(stage.commit(schema=schema).path)


def write_logits(
    root: Path,
    table: EncodedTable,
    splits: dict[str, Columns],
    *,
    shard_rows: int = 100,
    group: int = 16,
    name: str = "small",
    classes: Sequence[str] = CLASSES,
    scale: float = 1.0,
    means: list[list[float] | None] | None = None,
    counts: Sequence[int] = (5, 3, 2),
) -> LogitsTable:
    """Logits times `scale` for the rows of `splits`, in their order; parts of the table's or shuffled ones."""
    with staging(root, "logits", name, arguments={"scale": scale}, parents={"table": table.artifact}) as stage:
        for split, columns in splits.items():
            for shard, part in enumerate(pieces(len(columns.row_id), shard_rows)):
                ids = columns.row_id[part]
                extra = {
                    "split": split,
                    "shard": shard,
                    "groups": [len(ids[rows]) for rows in pieces(len(ids), group)],
                    "row_ids": ids_digest(ids),
                }
                data = pa.table(
                    {
                        "row_id": pa.array(ids),
                        "logits": fixed(columns.logits[part] * np.float32(scale)),
                        "fold": pa.array(np.zeros(len(ids), np.uint8)),
                    }
                )
                stage.write(f"{split}-{shard:05d}.parquet", writer(data, group), rows=len(ids), extra=extra)
        rows = means or [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]]
        values = np.array([[1 / len(classes)] * len(classes) if row is None else row for row in rows])
        stage.write(MEANS, lambda path: save_tensors(path, {"means": values, "counts": np.array(counts)}))
        schema = {
            "num_classes": len(classes),
            "classes": list(classes),
            "class_counts": list(counts),
            "storage": Storage().to_json(),
        }
        return LogitsTable.open(stage.commit(schema=schema).path)


def shuffled(columns: Columns, seed: int = 0) -> Columns:
    """The same rows in another order."""
    order = np.random.default_rng(seed).permutation(len(columns.row_id))
    return select(columns, order)


def select(columns: Columns, index: np.ndarray) -> Columns:
    return Columns(*(getattr(columns, name)[index] for name in Columns.__dataclass_fields__))


def make_units(columns: Columns, group: int, num_classes: int = 3) -> tuple[Unit, ...]:
    """The rows of `columns` as units of `group` rows in one shard."""
    parts = pieces(len(columns.row_id), group)
    counts = [tuple(np.bincount(columns.label[part], minlength=num_classes).tolist()) for part in parts]
    return tuple(
        Unit("train", "train-00000.parquet", number, part.start, part.stop - part.start, counts[number])
        for number, part in enumerate(parts)
    )


class MemoryReader:
    """A reader that has the rows in memory and notes which units were asked for."""

    def __init__(self, columns: Columns, num_teachers: int = 1) -> None:
        self.columns = columns
        self.num_teachers = num_teachers
        self.read: list[int] = []

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]:
        for unit in units:
            self.read.append(unit.group)
            part = slice(unit.first, unit.first + unit.rows)
            logits = {f"logits_{m}": fixed(self.columns.logits[part] + m) for m in range(self.num_teachers)}
            yield pa.table(table_columns(self.columns, part, weight=False) | logits)
