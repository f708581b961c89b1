"""What a stored ratio does at a strength and a level: rows and mean ratios by class, by geometry, by column, by region.

Everything is a sum over rows, which adds up over shards in any order. N rows, C classes, M teachers, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from tgeokd_ray.errors import UserError
from tgeokd_ray.feed import DirectReader, LogitsTable
from tgeokd_ray.feed.batches import decode
from tgeokd_ray.feed.ratios import RatiosTable
from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.feed.table import EncodedTable
from tgeokd_ray.feed.teachers import places
from tgeokd_ray.objectives.points import Context, Points
from tgeokd_ray.objectives.rule_pack import RulePack
from tgeokd_ray.objectives.rules import Given

BINS = 100
GEOMETRY = ("wrong_near", "wrong_far", "right_near", "right_far")  # 2 * right + far
Sums = dict[str, NDArray[np.float64]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """A column that rows are grouped by: ids, `size` of them from `offset` on, or else a number, cut at `cuts`.

    `index` is its place among the student's categorical or numeric columns. A value on a cut belongs below it.
    """

    name: str
    index: int
    offset: int = 0
    size: int = 0
    cuts: tuple[float, ...] = ()

    @property
    def num_groups(self) -> int:
        return self.size or len(self.cuts) + 1

    def groups(self, rows: Rows) -> NDArray[np.int64]:
        """The group of each row, [N] in 0..G-1."""
        if self.size:
            return np.asarray(rows.categorical[:, self.index].numpy() - self.offset, dtype=np.int64)
        return np.searchsorted(np.asarray(self.cuts, np.float32), rows.numeric[:, self.index].numpy(), side="left")


@dataclass(frozen=True)
class Truth:
    """A Parquet file of the ratio that is known to be good for each row, and the names of the regions in it.

    Its columns are row_id, region and ratio_teacher_0, one for each teacher.
    """

    file: str
    regions: tuple[str, ...]

    def load(self, num_teachers: int) -> Known:
        """The whole file in memory."""
        columns = [f"ratio_teacher_{m}" for m in range(num_teachers)]
        table = pq.read_table(self.file, columns=["row_id", "region", *columns]).sort_by("row_id")
        region = np.searchsorted(np.asarray(self.regions), table.column("region").to_numpy(zero_copy_only=False))
        shares = np.stack([table.column(name).to_numpy() for name in columns], axis=1)
        return Known(table.column("row_id").to_numpy(), region, shares.astype(np.float64), len(self.regions))


@dataclass(frozen=True)
class Known:
    """Ascending row ids [N], the region [N] of each row and the share of each teacher [N, M] that is good for it."""

    row_ids: NDArray[np.int64]
    region: NDArray[np.int64]
    shares: Floats
    num_regions: int

    def against(self, row_ids: NDArray[np.int64], shares: Floats) -> Sums:
        """Sums of other shares [N, M] of some rows beside the known ones; rows that are not known do not count."""
        place, there = places(self.row_ids, row_ids)
        region, known, a = self.region[place[there]], self.shares[place[there]], shares[there]
        moments = np.stack([np.ones_like(a), a, known, a * a, known * known, a * known], -1).sum(0)
        by_region = _summed(region, self.num_regions, known.sum(1))
        return _tally("region", region, self.num_regions, a.sum(1)) | {"known": by_region, "moments": moments}


@dataclass(frozen=True)
class CountEffect:
    """`shard -> sums` of one shard of a table, over its rows with a label; a UserError is returned, not raised.

    `rule` is the stored ratio as it is asked about. `rows/NAME` [G] counts, `sums/NAME` [G] adds up the teachers' share
    of each row: of `bins` [100], `class` [C], `segment_K` and `region`. Of ratios with distances, `geometry_M` is each
    teacher's own share of the rows that it scored, in the order of GEOMETRY. With a truth: `known` [G] its shares by
    region, and `moments` [M, 6] of own and known shares, 1, a, r, a^2, r^2, a r.
    """

    table: str
    logits: tuple[str, ...]
    ratios: str
    rule: Given
    segments: tuple[Segment, ...] = ()
    truth: Truth | None = None

    def __call__(self, shard: str) -> Sums | UserError:
        try:
            return add_up(self._unit_sums(shard))
        except UserError as error:
            return error

    def _unit_sums(self, shard: str) -> Iterator[Sums]:
        table = EncodedTable.open(Path(self.table))
        logits = [LogitsTable.open(Path(path), table) for path in self.logits]
        ratios = RatiosTable.open(Path(self.ratios), table)
        units, split = table.shard_units(shard), table.entry(shard).extra["split"]
        truth = None if self.truth is None else self.truth.load(len(logits))
        far = _far(ratios, shard, len(logits))
        for unit, piece in zip(units, DirectReader(table, logits, split, ratios=[ratios])(units), strict=True):
            rows = decode(piece, len(table.classes)).as_batch()
            own = None if far is None else far[unit.first : unit.first + unit.rows]
            yield self.of_rows(rows, own, len(table.classes), truth)

    def of_rows(self, rows: Rows, far: Floats | None, num_classes: int, truth: Known | None = None) -> Sums:
        """The sums of some rows; `far` [N, M] is 1 or 0, NaN for a row that the teacher did not score."""
        known = rows.labels.numpy() >= 0
        shares = _shares(self.rule, rows)[known]
        labels, total = rows.labels.numpy()[known], shares.sum(1)
        bins = np.minimum((total * BINS).astype(np.int64), BINS - 1)
        sums = _tally("bins", bins, BINS, total) | _tally("class", labels, num_classes, total)
        for k, segment in enumerate(self.segments):
            sums |= _tally(f"segment_{k}", segment.groups(rows)[known], segment.num_groups, total)
        if far is not None:
            right = rows.logits.argmax(-1).numpy()[known] == labels[:, None]
            for m, quarter in enumerate((2 * right + far[known]).T):
                there = ~np.isnan(quarter)
                own = shares[there, m]
                sums |= _tally(f"geometry_{m}", quarter[there].astype(np.int64), len(GEOMETRY), own)
        return sums if truth is None else sums | truth.against(rows.row_id.numpy()[known], shares)


def _far(ratios: RatiosTable, shard: str, num_teachers: int) -> Floats | None:
    """1 for the rows of a shard whose distance is above its median, else 0, NaN where there is none, [N, M]; None for
    ratios without distances."""
    if not ratios.median_distances:
        return None
    stored = ratios.read(shard, "distance").column("distance").combine_chunks()
    distances = stored.flatten().to_numpy().reshape(-1, num_teachers)
    medians = np.array([np.nan if value is None else value for value in ratios.median_distances])
    return np.where(np.isnan(distances), np.nan, distances > medians)


def add_up(parts: Iterable[Sums]) -> Sums:
    """The sums of all parts together; a name that a part lacks has nothing to add."""
    total: Sums = {}
    for part in parts:
        total |= {name: total[name] + value if name in total else value for name, value in part.items()}
    return total


def _tally(name: str, groups: NDArray[np.int64], num_groups: int, values: Floats) -> Sums:
    return {
        f"rows/{name}": _summed(groups, num_groups, np.ones(len(groups))),
        f"sums/{name}": _summed(groups, num_groups, values),
    }


def _summed(groups: NDArray[np.int64], num_groups: int, values: Floats) -> Floats:
    return np.asarray(np.bincount(groups, weights=values, minlength=num_groups), dtype=np.float64)


def _shares(rule: Given, rows: Rows) -> Floats:
    """Each teacher's share of a row's weights, [N, M] in float64, as a student that is trained with `rule` has them."""
    num_rows, num_teachers, num_classes = rows.logits.shape
    points = Points(
        student_logits=torch.zeros(1, num_rows, num_classes, dtype=torch.float64),  # which a given ratio does not see
        teacher_logits=rows.logits,
        labels=rows.labels,
        class_means=torch.zeros(num_teachers, num_classes, num_classes),
        row_weights=rows.weights,
        ratio_logits=rows.ratios[..., :-1],
        ratio_gates=rows.ratios[..., -1],
    )
    weights = RulePack.of([rule]).mixture({}, points, rows.covered, Context(progress=1.0))[0].numpy()
    return np.asarray(weights[:, 1:] / weights.sum(1, keepdims=True), dtype=np.float64)
