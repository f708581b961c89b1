"""The logits beside a unit's rows: read in step with the table, or joined by row_id. C classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import IntegrityError, Problem, ProvenanceError
from tgeokd_ray.feed.arrow import flat, lists
from tgeokd_ray.feed.folds import FOLD_NOBODY
from tgeokd_ray.feed.parquet import read_group, read_shard
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.units import Unit

SHOWN_IDS = 5
Ids = NDArray[np.int64]


class Teacher(Protocol):
    """One teacher's logits for any unit of a split."""

    def column(self, unit: Unit, row_ids: pa.ChunkedArray) -> pa.Array:
        """Logits of the unit's rows, whose ids are `row_ids`: float32 lists of size C."""

    def covered(self, unit: Unit, row_ids: pa.ChunkedArray) -> pa.Array | None:
        """0 for each of the rows that nobody scored, else 1 (uint8); None where every row of the split has logits."""


def teacher(table: EncodedTable, logits: LogitsTable, split: str) -> Teacher:
    """The logits of a split, the fast way where both manifests have the same row-id digests.

    ProvenanceError for logits of another table, other classes, or without some of the split's rows.
    """
    if logits.check_aligned(table, split):
        return Aligned(logits)
    joined = Joined(logits, split)
    joined.check_complete(_ids(table, shard) for shard in sorted({unit.shard for unit in table.units(split)}))
    return joined


class Aligned:
    """Logits stored row by row as the table is: row group k belongs to row group k."""

    def __init__(self, logits: LogitsTable) -> None:
        self._logits = logits

    def column(self, unit: Unit, row_ids: pa.ChunkedArray) -> pa.Array:
        del row_ids
        path, storage = self._logits.artifact.file(unit.shard), self._logits.storage
        stored = read_group(path, unit.group, unit.rows, storage.columns)
        return lists(storage.decode(stored, path, len(self._logits.classes)))

    def covered(self, unit: Unit, row_ids: pa.ChunkedArray) -> pa.Array | None:
        del row_ids
        if unit.split not in self._logits.uncovered:
            return None
        stored = read_group(self._logits.artifact.file(unit.shard), unit.group, unit.rows, ["fold"])
        return flat(scored(stored))


class Joined:
    """Logits in any order of rows, all of a split in memory (8 + 4 C bytes a row), found by row_id."""

    def __init__(self, logits: LogitsTable, split: str) -> None:
        self._label, self._split = logits.label, split
        num_classes = len(logits.classes)
        ids, values = [np.empty(0, np.int64)], [np.empty((0, num_classes), np.float32)]
        covered = [np.empty(0, np.uint8)]
        lacks = split in logits.uncovered
        for shard in logits.shards(split):
            path = logits.artifact.file(shard)
            columns = ["row_id", *logits.storage.columns, *(["fold"] if lacks else [])]
            table = read_shard(path, logits.entry(shard).rows or 0, columns)
            covered += [scored(table)] if lacks else []
            ids.append(table.column("row_id").to_numpy())
            values.append(logits.storage.decode(table, path, num_classes))
        unsorted = np.concatenate(ids)
        order = np.argsort(unsorted, kind="stable")
        self._ids, self._values = unsorted[order], np.concatenate(values)[order]
        self._covered = np.concatenate(covered)[order] if lacks else None
        twice = self._ids[1:][self._ids[1:] == self._ids[:-1]]
        if len(twice):
            what = f"{len(twice)} row ids come twice in split {split!r} of {self._label}, the first is {twice[0]}"
            raise IntegrityError([Problem(what)], fix="run tgeokd precompute")

    def column(self, unit: Unit, row_ids: pa.ChunkedArray) -> pa.Array:
        del unit
        wanted = row_ids.to_numpy()
        self.check_complete([wanted])
        return lists(self._values[places(self._ids, wanted)[0]])

    def covered(self, unit: Unit, row_ids: pa.ChunkedArray) -> pa.Array | None:
        del unit
        if self._covered is None:
            return None
        return flat(self._covered[places(self._ids, row_ids.to_numpy())[0]])

    def check_complete(self, parts: Iterable[Ids]) -> None:
        """ProvenanceError, with their number and the first of them, when some of the ids have no logits."""
        missing, total, first = 0, 0, list[int]()
        for ids in parts:
            absent = ids[~places(self._ids, ids)[1]]
            missing, total = missing + len(absent), total + len(ids)
            first += absent[: SHOWN_IDS - len(first)].tolist()
        if missing:
            shown = ", ".join(map(str, first)) + (", ..." if missing > len(first) else "")
            what = f"{self._label} has no logits for {missing} of {total} rows of split {self._split!r}"
            raise ProvenanceError(f"{what} (row ids {shown})", fix="run tgeokd precompute on this table")


def places(known: Ids, wanted: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """(where each wanted id stands among the ascending known ones, whether it is there)."""
    place = np.searchsorted(known, wanted)
    found = place < len(known)
    found[found] = known[place[found]] == wanted[found]
    return place, found


def scored(shard: pa.Table) -> NDArray[np.uint8]:
    """0 for the rows of a shard that nobody scored, else 1, by its column `fold`."""
    found: NDArray[np.uint8] = (shard.column("fold").to_numpy() != FOLD_NOBODY).astype(np.uint8)
    return found


def _ids(table: EncodedTable, shard: str) -> Ids:
    entry = table.entry(shard)
    ids: Ids = read_shard(table.artifact.file(shard), entry.rows or 0, ["row_id"]).column("row_id").to_numpy()
    return ids
