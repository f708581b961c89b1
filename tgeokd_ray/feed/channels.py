"""What a channel model says of each row, stored beside the rows. N rows, C classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.feed.beside import BesideRows

COLUMNS = ("credibility", "noise", "teacher_part", "offset", "target", "hard_target")


@dataclass(frozen=True)
class ChannelTable(BesideRows):
    """An artifact of kind "channels": `credibility`, `noise`, `teacher_part` and `offset` [N], the denoised label
    `target` and its form for choices, `hard_target` [N, C], as `objectives.channel.Channel` names them."""

    kind: ClassVar[str] = "channels"
    made: ClassVar[str] = "fitted to"

    def arrays(self, shard: str) -> dict[str, NDArray[Any]]:
        """Row ids and all columns of one shard."""
        stored = self.read(shard, "row_id", *COLUMNS)
        return {column: _plain(stored.column(column)) for column in stored.column_names}


@dataclass(frozen=True)
class ChannelColumn:
    """What of a channel stands beside rows: `target` or `hard_target` as `Rows.targets`, or `offset`."""

    channel: ChannelTable
    name: Literal["target", "hard_target", "offset"]

    @property
    def role(self) -> str:
        """The column of a unit that it becomes."""
        return "offset" if self.name == "offset" else "target"


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    return np.asarray(array.flatten().to_numpy()).reshape(-1, array.type.list_size)
