"""What a teacher from elsewhere says, joined to a table's rows by row_id, shard by shard. N rows, C classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact, FileEntry, Staging
from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.feed.folds import FOLD_NOBODY
from tgeokd_ray.feed.logits_files import SHOWN_IDS, Piece, finish, write_logits
from tgeokd_ray.feed.parquet import read_group, read_shard
from tgeokd_ray.feed.storage import Storage
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.teachers import places
from tgeokd_ray.tables.teacher_file import Told
from tgeokd_ray.tables.teacher_values import CLIP
from tgeokd_ray.training.assess import logits_metrics
from tgeokd_ray.training.calibrate import Calibration, fit_temperature

Ids = NDArray[np.int64]


@dataclass
class Coverage:
    """Rows of each split without logits, how many and the first; rows of the file that are of no row of the table."""

    rows: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[int]] = field(default_factory=dict)
    unknown: int = 0


@dataclass(frozen=True)
class Joining:
    """A table, what was told of its rows, and how that is stored; one shard's ids are in memory at a time."""

    table: EncodedTable
    told: Told
    splits: tuple[str, ...]
    file: Path
    storage: Storage
    coverage: Coverage

    @classmethod
    def of(
        cls, table: Artifact, told: Told, splits: Sequence[str], file: Path, dtype: str, top_k: int | None
    ) -> Joining:
        encoded = EncodedTable(table)
        return cls(encoded, told, tuple(splits), file, Storage(dtype, top_k), _coverage(encoded, told, splits))

    def check(self, *, refuse_missing: bool) -> None:
        """DataError where no id fits, where a split has no logits at all, and with `refuse_missing` for any row
        without; with counts and the first ids."""
        found, coverage = self.file, self.coverage
        if coverage.unknown == len(self.told.row_ids):
            what = f"none of its {len(self.told.row_ids)} row ids is one of {self.table.label}"
            got = ", ".join(map(str, self.told.row_ids[:SHOWN_IDS].tolist()))
            raise DataError(
                [Problem(what, str(found), "row_id", got=got)],
                fix="take the row ids from the table's shards, or name the table that they belong to",
            )
        problems, none = [], [s for s in self.splits if coverage.rows[s] and coverage.missing[s] == coverage.rows[s]]
        for split in self.splits:
            lacking = coverage.missing[split]
            if lacking and (refuse_missing or split in none):
                ids = ", ".join(map(str, coverage.first[split])) + (", ..." if lacking > SHOWN_IDS else "")
                what = f"has nothing for {lacking} of {coverage.rows[split]} rows of split {split!r} (row ids {ids})"
                problems.append(Problem(what, str(found)))
        if problems:
            fix = "add these rows, leave a split out (--set logits.splits=[...])"
            alone = ", or let the rows learn from their labels alone: --missing labels"
            raise DataError(problems, fix=fix + ("" if none else alone))

    def calibrate(self) -> Calibration:
        """The temperature of the valid rows that were scored."""
        if not self.table.splits.get("valid"):
            raise DataError(
                "no row is in the split valid, on which a temperature is fitted", fix="leave out --calibrate"
            )
        parts = [self._valid(shard) for shard in sorted({unit.shard for unit in self.table.units("valid")})]
        logits, labels, weights = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return fit_temperature(logits, labels, weights if self.table.has_weights else None)

    def write(self, folder: Path, shard: str, calibration: Calibration | None) -> FileEntry:
        """Write one shard, aligned with the table's; rows that nobody scored hold zeros and the fold 254."""
        pieces, uncovered = [], 0
        for row_ids in self._groups(shard):
            place, found = places(self.told.row_ids, row_ids)
            logits = np.zeros((len(row_ids), len(self.table.classes)), np.float32)
            logits[found] = self.told.logits[place[found]]
            if calibration is not None:
                logits = (logits / np.float64(calibration.temperature)).astype(np.float32)
            uncovered += int((~found).sum())
            pieces.append(Piece(row_ids, logits, np.where(found, 0, FOLD_NOBODY).astype(np.uint8)))
        entry = self.table.entry(shard)
        extra = {key: entry.extra[key] for key in ("split", "shard", "groups", "row_ids")} | {"of": entry.sha256}
        if uncovered:
            extra["uncovered"] = uncovered
        return write_logits(folder, shard, pieces, self.storage, scored_by=str(self.file), extra=extra)

    def metrics(self, folder: Path, entries: Sequence[FileEntry]) -> dict[str, Any]:
        """Figures of the scored rows, as a teacher of ours has them; nobody told us its parameters."""
        return logits_metrics(folder, entries, self.storage, self.table, parameters=None)

    def finish(self, stage: Staging, entries: Sequence[FileEntry], calibration: Calibration | None) -> dict[str, Any]:
        """Add shards and class means to the artifact; what the manifest says: as of any logits, and where these come
        from."""
        form = self.told.form
        imported: dict[str, Any] = {"kind": form.kind, "columns": form.shape, "rows": len(self.told.row_ids)}
        imported |= {"unknown_ids": self.coverage.unknown, "clip": CLIP, "clipped": self.told.clipped}
        schema = finish(stage, entries, self.table, self.storage, {}) | {"imported": imported}
        return schema if calibration is None else schema | {"calibration": calibration.to_json()}

    def _groups(self, shard: str) -> Iterator[Ids]:
        """Row ids of the row groups of a shard."""
        path = self.table.artifact.file(shard)
        for unit in self.table.shard_units(shard):
            yield read_group(path, unit.group, unit.rows, ["row_id"]).column("row_id").to_numpy()

    def _valid(self, shard: str) -> tuple[NDArray[np.float32], Ids, NDArray[np.float32]]:
        columns = ["row_id", "label", *(["weight"] if self.table.has_weights else [])]
        rows = read_shard(self.table.artifact.file(shard), self.table.entry(shard).rows or 0, columns)
        place, found = places(self.told.row_ids, rows.column("row_id").to_numpy())
        weights = rows.column("weight").to_numpy() if self.table.has_weights else np.ones(len(found), np.float32)
        return self.told.logits[place[found]], rows.column("label").to_numpy().astype(np.int64)[found], weights[found]


def _coverage(table: EncodedTable, told: Told, splits: Sequence[str]) -> Coverage:
    """One pass over the row ids of the whole table."""
    coverage, known = Coverage(), np.zeros(len(told.row_ids), dtype=bool)
    for split in table.splits:
        for shard in sorted({unit.shard for unit in table.units(split)}):
            ids = read_shard(table.artifact.file(shard), table.entry(shard).rows or 0, ["row_id"])["row_id"].to_numpy()
            place, found = places(told.row_ids, ids)
            known[place[found]] = True
            if split in splits:
                coverage.rows[split] += len(ids)
                coverage.missing[split] += int((~found).sum())
                first = coverage.first.setdefault(split, [])
                first += ids[~found][: SHOWN_IDS - len(first)].tolist()
    coverage.unknown = int((~known).sum())
    return coverage
