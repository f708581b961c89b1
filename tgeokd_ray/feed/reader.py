"""Reading units: rows of an encoded table with each teacher's logits beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa

from tgeokd_ray.feed.arrow import flat
from tgeokd_ray.feed.channels import ChannelColumn
from tgeokd_ray.feed.parquet import read_group
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.table import EncodedTable, LogitsTable
from tgeokd_ray.feed.teachers import teacher
from tgeokd_ray.feed.units import Unit

AHEAD_UNITS, READERS = 8, 2


class UnitReader(Protocol):
    """Units as Arrow tables, in the order given: the columns of the table, then logits_0 ... logits_{M-1}; covered_m
    beside those of a teacher that lacks rows; ratio_0 ... ratio_{Q-1} for stored ratios; of a channel target or
    offset."""

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]: ...


class DirectReader:
    """Reads units of some splits from files that this process sees, in two threads eight units ahead of the consumer.

    Of the features it reads those that `table` shows, no others: a student's reader never opens the teacher's own.
    ProvenanceError, before anything is read, for logits of another table, or without some of the splits' rows;
    IntegrityError for damaged pages, wrong row counts and logits that are not finite. An error of a thread is raised
    where its unit would have come; closing the iterator ends the threads.
    """

    def __init__(
        self,
        table: EncodedTable,
        logits: Sequence[LogitsTable],
        *splits: str,
        ratios: Sequence[RatiosTable] = (),
        channel: ChannelColumn | None = None,
    ) -> None:
        self._table = table
        self._columns = ["row_id", "label", *table.feature_columns, *(["weight"] if table.has_weights else [])]
        self._teachers = {split: [teacher(table, one, split) for one in logits] for split in splits}
        self._lacking = [any(split in one.uncovered for split in splits) for one in logits]
        self._ratios = tuple(ratios)
        for one in ratios:
            one.check_splits(splits)
        self._channel = channel
        if channel is not None:
            channel.channel.check_splits(splits)

    def __call__(self, units: Sequence[Unit]) -> Iterator[pa.Table]:
        remaining = iter(units)
        with ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="units") as thread:
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
        for index, source in enumerate(self._teachers[unit.split]):
            table = table.append_column(f"logits_{index}", source.column(unit, table.column("row_id")))
            if self._lacking[index]:  # in one of the splits: then the column is there for all
                covered = source.covered(unit, table.column("row_id"))
                all_there = flat(np.ones(unit.rows, np.uint8)) if covered is None else covered
                table = table.append_column(f"covered_{index}", all_there)
        for index, ratios in enumerate(self._ratios):
            table = table.append_column(f"ratio_{index}", ratios.column(unit, "ratio"))
        told = self._channel
        return table if told is None else table.append_column(told.role, told.channel.column(unit, told.name))
