"""Cross-fitting: which fold a row is in, and a reader that hides a fold from the teacher that will score it.

N rows, F folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.feed.reader import UnitReader
from tgeokd_ray.feed.units import Unit
from tgeokd_ray.hashing import key, keyed

MAX_FOLDS = 254
# In the fold column: the mean of all F teachers scored the row, none of which was trained on it.
FOLD_MEAN = 255
_FOLD = key("fold")


def fold_of(row_ids: NDArray[np.int64], folds: int) -> NDArray[np.uint8]:
    """The fold [N] of each row, by hash of its id: it stays when the table grows."""
    hashed = keyed(row_ids.astype(np.int64).view(np.uint64), _FOLD)
    return (hashed % np.uint64(folds)).astype(np.uint8)


@dataclass(frozen=True)
class WithoutFold:
    """A UnitReader whose rows of one fold weigh nothing: they are read with the others, so that the batches of all F
    teachers hold the same rows, but teach nothing."""

    reader: UnitReader
    fold: int
    folds: int

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]:
        for table in self.reader(units):
            seen = fold_of(table.column("row_id").to_numpy(), self.folds) != self.fold
            own = table.column("weight").to_numpy() if "weight" in table.column_names else np.float32(1)
            rest = table.drop_columns(["weight"]) if "weight" in table.column_names else table
            yield rest.append_column("weight", pa.array((seen * own).astype(np.float32)))
