"""How often each text of an id space occurs, over any number of rows: exact, in bounded memory, the rest on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.artifacts.disk import explained
from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.tables.coding import as_words, in_process_hash, text_of

MAX_DISTINCT = 5_000_000
# Rows of counts that all spaces of a table hold in memory together; about 40 bytes each, and the text.
MAX_HELD = 1 << 22
_PENDING_ROWS = 1 << 20
_PARTS = 64
_COUNTS = pa.schema([("value", pa.large_string()), ("count", pa.int64())])


def merge_counts(parts: Sequence[pa.Table]) -> pa.Table:
    """The sum of several counts; associative, and the order of its rows says nothing."""
    if len(parts) == 1:
        return parts[0].combine_chunks()
    whole = pa.concat_tables(parts).combine_chunks() if parts else _COUNTS.empty_table()
    if not whole.num_rows:
        return _COUNTS.empty_table()
    values, counts = whole["value"].combine_chunks(), whole["count"].to_numpy()
    words = as_words(values)
    if words is not None:  # sorting numbers takes a quarter of the time that a dictionary of them does
        order = np.argsort(words)
        ordered = words[order]
        firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        return counts_of(text_of(ordered[firsts]).cast(pa.large_string()), np.add.reduceat(counts[order], firsts))
    coded = values.dictionary_encode()
    # Sums of float64 are exact up to 2**53 rows.
    sums = np.bincount(coded.indices.to_numpy(), weights=counts, minlength=len(coded.dictionary))
    return counts_of(coded.dictionary.cast(pa.large_string()), sums)


def counts_of(words: pa.Array, counts: NDArray[Any]) -> pa.Table:
    """The count of each word that occurs."""
    table = pa.table([words, pa.array(counts.astype(np.int64))], schema=_COUNTS)
    return table if counts.all() else table.filter(pa.array(counts > 0))


class Counter:
    """Counts of one id space over any number of parts: exact, also where some of them lie on disk.

    Parts are merged when they have grown as large as what is known, so adding stays cheap. DataError as soon as more
    than `max_distinct` values are known to occur `min_count` times or more.
    """

    def __init__(self, name: str, max_distinct: int = MAX_DISTINCT, min_count: int = 1) -> None:
        self._name, self._max_distinct, self._min_count = name, max_distinct, min_count
        self._known, self._pending, self._pending_rows = _COUNTS.empty_table(), list[pa.Table](), 0
        self._runs: list[Path] = []

    @property
    def held(self) -> int:
        """Rows of counts in memory."""
        return int(self._known.num_rows) + self._pending_rows

    def add(self, counts: pa.Table) -> None:
        """Count one more part."""
        self._pending.append(counts)
        self._pending_rows += counts.num_rows
        if self._pending_rows > max(_PENDING_ROWS, self._known.num_rows):
            self.merge()

    def merge(self) -> None:
        """Bring the counts in memory together."""
        if self._pending:
            self._known = merge_counts([self._known, *self._pending])
            self._pending, self._pending_rows = [], 0
        self._check(self._frequent(self._known).num_rows)

    def spill(self, path: Path) -> None:
        """Write the counts in memory to the file `path`, cut into 64 parts by a hash of the text, and forget them."""
        self.merge()
        with explained(path), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _COUNTS) as writer:
            for part in _cut(self._known):
                writer.write_batch(part)
        self._runs.append(path)
        self._known = _COUNTS.empty_table()

    def parts(self) -> Iterator[pa.Table]:
        """All counts, in tables that have no text in common: one, or 64 where some lie on disk."""
        self.merge()
        if not self._runs:
            yield self._known
            return
        held = _cut(self._known)
        with ExitStack() as stack, explained(self._runs[0]):
            files = [pa.ipc.open_file(stack.enter_context(pa.OSFile(str(path)))) for path in self._runs]
            for number in range(_PARTS):
                batches = [*(file.get_batch(number) for file in files), held[number]]
                yield merge_counts([pa.Table.from_batches([batch]) for batch in batches])

    def frequent(self) -> pa.Table:
        """The counts of the values that occur `min_count` times or more; the order of rows says nothing."""
        kept, rows = [_COUNTS.empty_table()], 0
        for part in self.parts():
            kept.append(self._frequent(part))
            rows += kept[-1].num_rows
            self._check(rows)
        return pa.concat_tables(kept).combine_chunks()

    def _frequent(self, counts: pa.Table) -> pa.Table:
        return counts if self._min_count == 1 else counts.filter(pc.greater_equal(counts["count"], self._min_count))

    def _check(self, rows: int) -> None:
        if rows <= self._max_distinct:
            return
        kind, _, name = self._name.partition(":")
        often = "" if self._min_count == 1 else f" that occur {self._min_count} times or more"
        where = " in the train rows" + (" of the shared id space" if kind == "shared" else "")
        expected, got = f"at most {self._max_distinct}", f"at least {rows}"
        problem = Problem(f"too many distinct values{often}{where}", column=name, expected=expected, got=got)
        more = "" if self._min_count == 1 else " or a larger `min_count`"
        raise DataError([problem], fix=f"give {name!r} `buckets`{more} in the card, or ignore the column")


class Counts:
    """Counters of several id spaces that hold at most `max_held` rows of counts in memory together, but for one part.

    What is more goes to a folder beneath `folder` (the system's own for temporary files without one), which goes with
    the context.
    """

    def __init__(self, counters: Mapping[str, Counter], folder: Path | None = None, max_held: int = MAX_HELD) -> None:
        self.counters, self._folder, self._max_held = counters, folder, max_held
        self._spilled: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def __enter__(self) -> Counts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spilled is not None:
            self._spilled.cleanup()

    def add(self, counts: Iterable[tuple[str, pa.Table]]) -> None:
        """Count one more part of each space named."""
        for name, part in counts:
            self.counters[name].add(part)
        if self._held <= self._max_held:
            return
        for counter in self.counters.values():
            counter.merge()
        if self._held > self._max_held // 2:  # else merging was enough, and more than the next part fits
            largest = sorted(self.counters.values(), key=lambda counter: counter.held)
            while self._held > self._max_held // 2:
                largest.pop().spill(self._new_file())

    @property
    def _held(self) -> int:
        return sum(counter.held for counter in self.counters.values())

    def _new_file(self) -> Path:
        if self._spilled is None:
            with explained(self._folder or Path(tempfile.gettempdir())):
                self._spilled = tempfile.TemporaryDirectory(prefix="tmp-counts-", dir=self._folder)
        self._files += 1
        return Path(self._spilled.name) / f"{self._files:06d}.arrow"


def _cut(counts: pa.Table) -> list[pa.RecordBatch]:
    """The counts in 64 parts by a hash of the text."""
    parts = (in_process_hash(counts["value"].combine_chunks()) >> np.uint64(58)).astype(np.uint8)
    order = np.argsort(parts, kind="stable")
    bounds = np.searchsorted(parts[order], np.arange(_PARTS + 1))
    ordered = counts.take(pa.array(order)).combine_chunks()
    empty = pa.RecordBatch.from_pylist([], schema=_COUNTS)
    batches = (ordered.slice(a, b - a).to_batches() for a, b in pairwise(bounds))
    return [batch[0] if batch else empty for batch in batches]
