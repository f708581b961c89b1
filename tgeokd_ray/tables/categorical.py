"""Values from a set for a network: whole numbers in one fused table of embeddings. N rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.hashing import key
from tgeokd_ray.tables.cards import CategoricalColumn
from tgeokd_ray.tables.coding import Lookup
from tgeokd_ray.tables.text_hash import text_hash

MISSING, UNSEEN, RESERVED_IDS = 0, 1, 2
_BUCKET = key("bucket")


def space_name(column: CategoricalColumn) -> str:
    """The id space of a column: its own, or the one it shares with other columns."""
    return f"shared:{column.shared}" if column.shared is not None else f"column:{column.name}"


@dataclass(frozen=True)
class Space:
    """One id space: `size` ids from `offset` on. Its ids are 0 missing, 1 unseen or rare, then the values in order, or
    the buckets that their hashes fall into (then nothing is ever unseen)."""

    name: str
    offset: int
    size: int
    values: tuple[str, ...] | None

    @classmethod
    def fit(cls, column: CategoricalColumn, counts: pa.Table | None, offset: int) -> Space:
        """The id space of a column from the counts of the values that are frequent enough: the most frequent first,
        equal counts in the order of the texts' UTF-8 bytes."""
        if column.buckets is not None or counts is None:
            return cls(space_name(column), offset, RESERVED_IDS + (column.buckets or 0), None)
        order = pc.sort_indices(counts, sort_keys=[("count", "descending"), ("value", "ascending")])
        values = counts["value"].take(order).to_pylist()
        return cls(space_name(column), offset, RESERVED_IDS + len(values), tuple(values))

    def transform(self, codes: NDArray[np.int32], words: pa.Array) -> NDArray[np.int32]:
        """Ids [N] in the fused table, `offset` included, of rows that are `codes` [N] of `words`; see `coded`."""
        if self.values is None:
            buckets = np.uint64(self.size - RESERVED_IDS)
            ids = RESERVED_IDS + (text_hash(words, _BUCKET) % buckets).astype(np.int64)
        else:
            found = self._lookup.find(words)
            ids = np.where(found < 0, UNSEEN, found + RESERVED_IDS)
        return np.append(ids + self.offset, MISSING + self.offset).astype(np.int32)[codes]

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(pa.array(self.values or (), type=pa.large_string()))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts; the name says which columns use the space."""
        values = None if self.values is None else list(self.values)
        return {"name": self.name, "offset": self.offset, "size": self.size, "values": values}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Space:
        """The inverse of `to_json`."""
        values = None if state["values"] is None else tuple(state["values"])
        return cls(state["name"], state["offset"], state["size"], values)
