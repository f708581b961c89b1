"""Values per row in an artifact of their own, whose shards have the names of the table's, row by row in its order.

N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact, FileEntry
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.feed.parquet import read_group, read_shard
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.units import Shards, Unit, open_kind


@dataclass(frozen=True)
class BesideRows:
    """An artifact of the class's `kind`, made from a table and its rows of some splits; `made` is said in errors.

    With `table`, `open` raises ProvenanceError for one that was made from another table.
    """

    artifact: Artifact

    kind: ClassVar[str]
    made: ClassVar[str]

    @classmethod
    def open(cls, path: Path | str, table: EncodedTable | None = None) -> Self:
        beside = cls(open_kind(path, cls.kind))
        if table is not None and beside.artifact.manifest.parents["table"].digest != table.artifact.digest:
            what = f"{beside.label} was {cls.made} another table than {table.label}"
            raise ProvenanceError(what, fix="run tgeokd distill on this table")
        return beside

    @property
    def label(self) -> str:
        """`ratios/criteo/v000001`."""
        return self.artifact.label

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose rows have values."""
        return tuple(self.artifact.manifest.schema["splits"])

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of all shards, in order."""
        return tuple(self._shards.entries)

    def shards_of(self, split: str) -> tuple[str, ...]:
        """The names of the shards of a split, in order."""
        return self._shards.of(split)

    def column(self, unit: Unit, name: str) -> pa.Array:
        """One column of a unit's rows."""
        shard = self._shards.entry(unit.shard).path
        return read_group(self.artifact.file(shard), unit.group, unit.rows, [name]).column(name).combine_chunks()

    def read(self, shard: str, *columns: str) -> pa.Table:
        """Columns of a whole shard."""
        return read_shard(self.artifact.file(shard), self._shards.entry(shard).rows or 0, columns)

    def check_splits(self, splits: tuple[str, ...]) -> None:
        """ProvenanceError for a split whose rows have no values."""
        missing = [split for split in splits if split not in self.splits]
        if missing:
            what = f"{self.label} has nothing for the split {missing[0]!r}, only for {', '.join(self.splits)}"
            raise ProvenanceError(what, fix="run tgeokd distill again")

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.artifact)


def write_beside(
    path: Path, row_ids: NDArray[np.int64], columns: Mapping[str, NDArray[Any]], groups: list[int]
) -> None:
    """One shard: row_id and `columns`, [N] or as lists [N, K], in row groups of the sizes `groups`."""
    table = pa.table({"row_id": pa.array(row_ids), **{name: _stored(values) for name, values in columns.items()}})
    plain = {"use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True, **plain) as writer:
        first = 0
        for rows in groups:
            writer.write_table(table.slice(first, rows), row_group_size=max(rows, 1))
            first += rows


def like_shard(entry: FileEntry) -> dict[str, object]:
    """What the entry of such a shard takes over from the table's."""
    return {key: entry.extra[key] for key in ("split", "shard", "groups", "row_ids")} | {"of": entry.sha256}


def _stored(values: NDArray[Any]) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
