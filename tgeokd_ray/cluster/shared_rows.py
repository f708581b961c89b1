"""Rows in the object store: read once for all workers and runs of a plan, one copy per node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import ray

from tgeokd_ray.cluster.store import Shared, share
from tgeokd_ray.feed import EncodedTable, LogitsTable, Rows, UnitReader, decode
from tgeokd_ray.feed.rows import collect
from tgeokd_ray.training.data import Source
from tgeokd_ray.training.spec import RunSpec

STORE_SHARE = 0.5  # of the object store; the rest is for what Ray Data has in flight
Key = tuple[str, bool, tuple[str, ...], str]


@dataclass(frozen=True)
class SharedRows:
    """Splits by table, who sees it, logits and name; picklable, it keeps them alive where it is held."""

    splits: Mapping[Key, Shared]

    def get(self, table: EncodedTable, logits: Sequence[LogitsTable], split: str) -> Rows | None:
        """The rows of a split as views of the node's one copy; None where it is not shared."""
        found = self.splits.get(_key(table, logits, split))
        return None if found is None else Rows.from_arrays(found.get())


def share_rows(specs: Sequence[RunSpec], source: Source) -> SharedRows:
    """Put the splits that the runs read into the object store, each once: in the order of the runs, as long as a split
    is no larger than a run may hold in memory and half of the store has room."""
    room = STORE_SHARE * float(ray.cluster_resources().get("object_store_memory", 0.0))
    splits: dict[Key, Shared] = {}
    for spec in specs:
        table = EncodedTable.open(Path(spec.table), model=spec.kind)
        logits = tuple(LogitsTable.open(Path(path), table) for path in spec.logits)
        for split, sources in _splits(spec, table, logits):
            key = _key(table, sources, split)
            if key in splits:
                continue
            size = _size(table, sources, split)
            if size <= min(room, spec.cache_bytes):
                splits[key] = share(_collected(source.reader(table, sources, split), table, split).to_arrays())
                room -= size
            pa.default_memory_pool().release_unused()  # what reading left: the driver lives as long as the workers
    return SharedRows(splits)


def _splits(
    spec: RunSpec, table: EncodedTable, logits: tuple[LogitsTable, ...]
) -> Iterator[tuple[str, tuple[LogitsTable, ...]]]:
    """What `open_data` will ask for, where there are rows; a split that lacks them is refused there."""
    wanted = [(spec.split, logits), ("valid", ()), ("test", ())]
    wanted += [(spec.outer_split, ())] if logits else []
    yield from ((split, sources) for split, sources in wanted if table.splits.get(split))


def _collected(reader: UnitReader, table: EncodedTable, split: str) -> Rows:
    """All rows of a split, in stored order."""
    units = table.units(split)
    parts = (decode(piece, len(table.classes)) for piece in reader(units))
    first = next(parts)
    return collect(chain([first], parts), first, table.splits[split])


def _size(table: EncodedTable, logits: Sequence[LogitsTable], split: str) -> int:
    """Bytes in memory: id 8, label 4, weight 4, 4 for each number, category and logit of a row, 1 for each teacher."""
    per_row = 16 + len(logits) + 4 * (table.num_numeric + table.num_categorical + len(logits) * len(table.classes))
    return per_row * table.splits[split]


def _key(table: EncodedTable, logits: Sequence[LogitsTable], split: str) -> Key:
    return str(table.artifact.path), table.whole, tuple(str(one.artifact.path) for one in logits), split
