"""Values from a set for a network: whole numbers in one fused table of embeddings. N rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.hashing import key
from tgeokd_ray.tables.cards import CategoricalColumn
from tgeokd_ray.tables.text_hash import text_hash

MISSING, UNSEEN, RESERVED_IDS = 0, 1, 2
MAX_DISTINCT = 5_000_000
_PENDING_ROWS = 1 << 20
_BUCKET = key("bucket")
_COUNTS = pa.schema([("value", pa.large_string()), ("count", pa.int64())])


def space_name(column: CategoricalColumn) -> str:
    """The id space of a column: its own, or the one it shares with other columns."""
    return f"shared:{column.shared}" if column.shared is not None else f"column:{column.name}"


def count_values(texts: Iterable[pa.Array]) -> pa.Table:
    """How often each text occurs in the arrays together: value, count. Nulls are not counted."""
    parts = [pc.value_counts(array.drop_null().cast(pa.large_string())) for array in texts]
    return merge_counts([pa.table([p.field(0), p.field(1)], schema=_COUNTS) for p in parts])


def merge_counts(parts: Sequence[pa.Table]) -> pa.Table:
    """The sum of several counts; associative, and the order of its rows is that of the parts."""
    if len(parts) == 1:
        return parts[0].combine_chunks()
    grouped = pa.concat_tables(parts, promote_options="none") if parts else _COUNTS.empty_table()
    summed = grouped.group_by("value", use_threads=False).aggregate([("count", "sum")])
    return pa.table([summed["value"], summed["count_sum"]], schema=_COUNTS).combine_chunks()


class Counter:
    """Counts of one id space over any number of parts, in memory that its distinct values bound.

    Parts are merged when they have grown as large as what is known, so adding stays cheap. DataError as soon as more
    than `max_distinct` values are known.
    """

    def __init__(self, name: str, max_distinct: int = MAX_DISTINCT) -> None:
        self._name, self._max_distinct = name, max_distinct
        self._known, self._pending, self._pending_rows = _COUNTS.empty_table(), list[pa.Table](), 0

    def add(self, counts: pa.Table) -> None:
        """Count one more part."""
        self._pending.append(counts)
        self._pending_rows += counts.num_rows
        if self._pending_rows > max(_PENDING_ROWS, self._known.num_rows):
            self.total()

    def total(self) -> pa.Table:
        """The counts of all parts so far."""
        if self._pending:
            self._known = merge_counts([self._known, *self._pending])
            self._pending, self._pending_rows = [], 0
        if self._known.num_rows > self._max_distinct:
            kind, _, name = self._name.partition(":")
            what = "too many distinct values in the train rows" + (
                " of the shared id space" if kind == "shared" else ""
            )
            expected, got = f"at most {self._max_distinct}", f"at least {self._known.num_rows}"
            problem = Problem(what, column=name, expected=expected, got=got)
            raise DataError([problem], fix=f"give {name!r} `buckets` in the card, or ignore the column")
        return self._known


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
        """The id space of a column, of the values that occur `min_count` times or more: the most frequent first, equal
        counts in the order of the texts' UTF-8 bytes."""
        if column.buckets is not None or counts is None:
            return cls(space_name(column), offset, RESERVED_IDS + (column.buckets or 0), None)
        kept = counts.filter(pc.greater_equal(counts["count"], column.min_count))
        order = pc.sort_indices(kept, sort_keys=[("count", "descending"), ("value", "ascending")])
        values = kept["value"].take(order).to_pylist()
        return cls(space_name(column), offset, RESERVED_IDS + len(values), tuple(values))

    @cached_property
    def _known(self) -> pa.Array:
        return pa.array(self.values or (), type=pa.large_string())

    def transform(self, texts: pa.Array) -> NDArray[np.int32]:
        """Ids [N] in the fused table, `offset` included."""
        coded = texts.cast(pa.large_string()).dictionary_encode()
        words = coded.dictionary
        if self.values is None:
            buckets = np.uint64(self.size - RESERVED_IDS)
            ids = RESERVED_IDS + (text_hash(words, _BUCKET) % buckets).astype(np.int64)
        else:
            found = pc.index_in(words, value_set=self._known)
            ids = pc.fill_null(pc.add(found, RESERVED_IDS), UNSEEN).to_numpy(zero_copy_only=False).astype(np.int64)
        codes = pc.fill_null(coded.indices, len(words)).to_numpy(zero_copy_only=False)
        return np.asarray(np.append(ids, MISSING)[codes] + self.offset, dtype=np.int32)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts; the name says which columns use the space."""
        values = None if self.values is None else list(self.values)
        return {"name": self.name, "offset": self.offset, "size": self.size, "values": values}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Space:
        """The inverse of `to_json`."""
        values = None if state["values"] is None else tuple(state["values"])
        return cls(state["name"], state["offset"], state["size"], values)
