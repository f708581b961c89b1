"""A learned ratio per row, stored: an artifact whose shards have the names of the table's, row by row in its order.

N rows, M teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact, FileEntry
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.feed.parquet import read_group, read_shard
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.units import Shards, Unit, open_kind

Ratios = NDArray[np.float32]


@dataclass(frozen=True)
class RatiosTable:
    """An artifact of kind "ratios": for rows of some splits of a table u [M], the logit of each teacher against the
    label, and the gate, the sum of the row's weights over its mean. Ratios that were learned also hold how far student
    and teachers were apart on each row.

    With `table`, `open` raises ProvenanceError for ratios that were learned on another table.
    """

    artifact: Artifact

    @classmethod
    def open(cls, path: Path | str, table: EncodedTable | None = None) -> RatiosTable:
        ratios = cls(open_kind(path, "ratios"))
        if table is not None and ratios.artifact.manifest.parents["table"].digest != table.artifact.digest:
            what = f"{ratios.label} was learned on another table than {table.label}"
            raise ProvenanceError(what, fix="learn the ratio on this table: tgeokd distill")
        return ratios

    @property
    def label(self) -> str:
        """`ratios/criteo/v000001`."""
        return self.artifact.label

    @property
    def mean(self) -> float:
        """The mean of u over all rows and teachers."""
        return float(self.artifact.manifest.schema["mean"])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose rows have a ratio."""
        return tuple(self.artifact.manifest.schema["splits"])

    def column(self, unit: Unit) -> pa.Array:
        """[u_1, ..., u_M, gate] of a unit's rows: float32 lists of size M + 1."""
        stored = read_group(self.artifact.file(self._shards.entry(unit.shard).path), unit.group, unit.rows, ["ratio"])
        return stored.column("ratio").combine_chunks()

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of all shards, in order."""
        return tuple(self._shards.entries)

    @property
    def median_distances(self) -> tuple[float | None, ...]:
        """The median of `distance` of each teacher over the rows that have a label and its logits; None without any.

        Empty for ratios that nobody learned.
        """
        return tuple(self.artifact.manifest.schema.get("median_distances", ()))

    def read(self, shard: str, *columns: str) -> pa.Table:
        """Columns of a whole shard: `row_id`, `ratio`, and of learned ratios `distance`, float32 lists of size M: how
        far student and teacher were apart at the end of learning, NaN where the teacher did not score the row."""
        return read_shard(self.artifact.file(shard), self._shards.entry(shard).rows or 0, columns)

    def check_splits(self, splits: tuple[str, ...]) -> None:
        """ProvenanceError for a split whose rows have no ratio."""
        missing = [split for split in splits if split not in self.splits]
        if missing:
            what = f"{self.label} has no ratios for the split {missing[0]!r}, only for {', '.join(self.splits)}"
            raise ProvenanceError(what, fix="learn the ratio again: tgeokd distill")

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.artifact)


def write_ratios(
    path: Path, row_ids: NDArray[np.int64], ratios: Ratios, groups: list[int], distances: Ratios | None = None
) -> None:
    """One shard: row_id, `ratio` [N, M + 1], and `distance` [N, M] where it is known, in row groups of the sizes
    `groups`."""
    lists = {"ratio": ratios, **({} if distances is None else {"distance": distances})}
    table = pa.table({"row_id": pa.array(row_ids), **{name: _lists(values) for name, values in lists.items()}})
    plain = {"use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True, **plain) as writer:
        first = 0
        for rows in groups:
            writer.write_table(table.slice(first, rows), row_group_size=max(rows, 1))
            first += rows


def _lists(values: Ratios) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def like_shard(entry: FileEntry) -> dict[str, object]:
    """What the entry of a shard of ratios takes over from the table's."""
    return {key: entry.extra[key] for key in ("split", "shard", "groups", "row_ids")} | {"of": entry.sha256}
