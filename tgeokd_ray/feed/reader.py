"""Reading units: rows of an encoded table with each teacher's logits beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import pyarrow as pa

from tgeokd_ray.feed.parquet import read_group
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.teachers import teacher
from tgeokd_ray.feed.units import Unit

AHEAD_UNITS = 2


class UnitReader(Protocol):
    """Units as Arrow tables, in the order given: the columns of the table, then logits_0 ... logits_{M-1}; covered_m
    beside those of a teacher that lacks rows."""

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]: ...


class DirectReader:
    """Reads units of one split from files that this process sees, in a thread two units ahead of the consumer.

    Of the features it reads those that `table` shows, no others: a student's reader never opens the teacher's own.
    ProvenanceError, before anything is read, for logits of another table or without some of the split's rows;
    IntegrityError for damaged pages, wrong row counts and logits that are not finite. An error of the thread is raised
    where its unit would have come; closing the iterator ends the thread.
    """

    def __init__(self, table: EncodedTable, logits: Sequence[LogitsTable], split: str) -> None:
        self._table = table
        self._columns = ["row_id", "label", *table.feature_columns, *(["weight"] if table.has_weights else [])]
        self._teachers = [teacher(table, one, split) for one in logits]

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]:
        remaining = iter(units)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="units") as thread:
            pending: deque[Future[pa.Table]] = deque()
            try:
                pending.extend(thread.submit(self.read, unit) for unit in islice(remaining, AHEAD_UNITS))
                while pending:
                    table = pending.popleft().result()
                    pending.extend(thread.submit(self.read, unit) for unit in islice(remaining, 1))
                    yield table
            finally:
                for future in pending:
                    future.cancel()

    def read(self, unit: Unit) -> pa.Table:
        """One unit, in the calling thread."""
        table = read_group(self._table.artifact.file(unit.shard), unit.group, unit.rows, self._columns)
        for index, source in enumerate(self._teachers):
            table = table.append_column(f"logits_{index}", source.column(unit, table.column("row_id")))
            covered = source.covered(unit, table.column("row_id"))
            if covered is not None:
                table = table.append_column(f"covered_{index}", covered)
        return table
