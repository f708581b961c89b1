"""Rows in the object store: read once for all workers and runs of a plan, one copy per node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import ray

from tgeokd_ray.cluster.store import Shared, share
from tgeokd_ray.feed import Rows, UnitReader, Wanted, decode
from tgeokd_ray.feed.rows import collect
from tgeokd_ray.feed.wanted import Key
from tgeokd_ray.training.data import Source, all_wanted
from tgeokd_ray.training.spec import RunSpec

STORE_SHARE = 0.5  # of the object store; the rest is for what Ray Data has in flight


@dataclass(frozen=True)
class SharedRows:
    """Rows by what was wanted; picklable, it keeps them alive where it is held. `bytes` are in the store, `left` were
    estimated to be too many for it."""

    rows: Mapping[Key, Shared]
    bytes: int = 0
    left: int = 0

    def get(self, wanted: Wanted) -> Rows | None:
        """The rows as views of the node's one copy; None where they are not shared."""
        found = self.rows.get(wanted.key)
        return None if found is None else Rows.from_arrays(found.get())


def share_rows(specs: Sequence[RunSpec], source: Source) -> SharedRows:
    """Put the rows that the runs read into the object store, each once: in the order of the runs, as long as they are
    no more than a run may hold in memory and half of the store has room."""
    room = STORE_SHARE * float(ray.cluster_resources().get("object_store_memory", 0.0))
    shared: dict[Key, Shared] = {}
    left: dict[Key, int] = {}
    put = 0
    for spec in specs:
        for wanted in (one for one in all_wanted(spec) if one.rows and one.key not in {*shared, *left}):
            size = _size(wanted)
            if size > min(room, spec.cache_bytes):
                left[wanted.key] = size
                continue
            shared[wanted.key] = share(_collected(source.reader(wanted), wanted).to_arrays())
            room, put = room - size, put + size
            pa.default_memory_pool().release_unused()  # what reading left: the driver lives as long as the workers
    return SharedRows(shared, put, sum(left.values()))


def _collected(reader: UnitReader, wanted: Wanted) -> Rows:
    """All rows, in stored order."""
    parts = (decode(piece, len(wanted.table.classes)) for piece in reader(wanted.units))
    first = next(parts)
    return collect(chain([first], parts), first, wanted.rows)


def _size(wanted: Wanted) -> int:
    """Bytes in memory: id 8, label 4, weight 4, 4 for each number, category, logit, ratio and denoised class of a row,
    1 for each teacher and each pixel."""
    table, teachers = wanted.table, len(wanted.logits)
    pixels = 0 if table.image is None else table.num_numeric
    numbers = table.num_numeric - pixels + table.num_categorical + teachers * len(table.classes)
    numbers += len(wanted.ratios) * (teachers + 1) + (0 if wanted.channel is None else len(table.classes))
    return (16 + pixels + teachers + 4 * numbers) * wanted.rows
