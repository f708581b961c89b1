"""What a channel model says of each row, stored: an artifact whose shards have the names of the table's, row by row.

N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgeokd_ray.artifacts import Artifact
from tgeokd_ray.errors import ProvenanceError
from tgeokd_ray.feed.parquet import read_group, read_shard
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.units import Shards, Unit, open_kind

Values = Mapping[str, NDArray[np.float32]]
COLUMNS = ("credibility", "noise", "teacher_part", "offset", "target", "hard_target")


@dataclass(frozen=True)
class ChannelTable:
    """An artifact of kind "channels": `credibility`, `noise`, `teacher_part` and `offset` [N], the denoised label
    `target` and its form for choices, `hard_target` [N, C], as `objectives.channel.Channel` names them.

    With `table`, `open` raises ProvenanceError for a channel that was fitted to another table.
    """

    artifact: Artifact

    @classmethod
    def open(cls, path: Path | str, table: EncodedTable | None = None) -> ChannelTable:
        channel = cls(open_kind(path, "channels"))
        if table is not None and channel.artifact.manifest.parents["table"].digest != table.artifact.digest:
            what = f"{channel.label} was fitted to another table than {table.label}"
            raise ProvenanceError(what, fix="fit it to this table: tgeokd distill")
        return channel

    @property
    def label(self) -> str:
        """`channels/criteo/v000001`."""
        return self.artifact.label

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose rows it tells of."""
        return tuple(self.artifact.manifest.schema["splits"])

    def column(self, unit: Unit, name: str) -> pa.Array:
        """One of COLUMNS for the rows of a unit."""
        shard = self._shards.entry(unit.shard).path
        return read_group(self.artifact.file(shard), unit.group, unit.rows, [name]).column(name).combine_chunks()

    def shard(self, name: str) -> dict[str, NDArray[Any]]:
        """Row ids and all columns of one shard."""
        entry = self._shards.entry(name)
        stored = read_shard(self.artifact.file(name), entry.rows or 0, ["row_id", *COLUMNS])
        return {column: _plain(stored.column(column)) for column in stored.column_names}

    def shards(self, split: str) -> tuple[str, ...]:
        """The names of the shards of a split, in order."""
        return self._shards.of(split)

    def check_splits(self, splits: tuple[str, ...]) -> None:
        """ProvenanceError for a split of whose rows it tells nothing."""
        missing = [split for split in splits if split not in self.splits]
        if missing:
            what = f"{self.label} has nothing for the split {missing[0]!r}, only for {', '.join(self.splits)}"
            raise ProvenanceError(what, fix="fit it again: tgeokd distill")

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.artifact)


@dataclass(frozen=True)
class ChannelColumn:
    """What of a channel stands beside rows: `target` or `hard_target` as `Rows.targets`, or `offset`."""

    channel: ChannelTable
    name: Literal["target", "hard_target", "offset"]

    @property
    def role(self) -> str:
        """The column of a unit that it becomes."""
        return "offset" if self.name == "offset" else "target"


def write_channel(path: Path, row_ids: NDArray[np.int64], values: Values, groups: list[int]) -> None:
    """One shard: row_id and COLUMNS, [N] or as lists [N, C], in row groups of the sizes `groups`."""
    columns = {name: _stored(values[name]) for name in COLUMNS}
    table = pa.table({"row_id": pa.array(row_ids), **columns})
    plain = {"use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True, **plain) as writer:
        first = 0
        for rows in groups:
            writer.write_table(table.slice(first, rows), row_group_size=max(rows, 1))
            first += rows


def _stored(values: NDArray[np.float32]) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    return np.asarray(array.flatten().to_numpy()).reshape(-1, array.type.list_size)
