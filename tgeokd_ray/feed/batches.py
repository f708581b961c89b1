"""One worker's part of every global batch, and passes over a split in stored order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tgeokd_ray.feed.ahead import ahead
from tgeokd_ray.feed.filled import Filled
from tgeokd_ray.feed.reader import UnitReader
from tgeokd_ray.feed.rows import Rows, collect, concatenate, decode
from tgeokd_ray.feed.sampler import Epoch, Sampler, Window, lanes
from tgeokd_ray.feed.units import Unit

__all__ = ["Feed", "Rows", "decode"]

CACHE_BYTES = 1 << 30
LARGE_BYTES = 1 << 25  # of a split: reading it, or putting together one of its batches, is felt beside a step
AHEAD_BATCHES = 2

Piece = TypeVar("Piece", Rows, NDArray[np.int64])


def as_stored(rows: Rows) -> Rows:
    """Serve the rows as they were stored."""
    return rows


class Feed:
    """Rows of one split for worker `rank` of `world`.

    What all workers together get in a step does not depend on `world`, on where reading began, or on the cache. A split
    that fits in `cache_bytes` is read once and held, a large one while its first epoch is served; of one that does not,
    up to 12 / world windows of four units are in memory. One unit more is read at first, for the widths of the columns.
    Batches of a large split, and those that are to be `pinned` for a GPU, are put together on a thread, two ahead. With
    `shared`, all rows of the split in stored order, nothing is read or held. `prepare` changes rows as they were
    stored, before they are served. ConfigError unless `world` divides 12.
    """

    def __init__(
        self,
        reader: UnitReader,
        sampler: Sampler,
        rank: int = 0,
        world: int = 1,
        *,
        cache_bytes: int = CACHE_BYTES,
        shared: Rows | None = None,
        prepare: Callable[[Rows], Rows] = as_stored,
        pinned: bool = False,
    ) -> None:
        self._reader = reader
        self._shared = None if shared is None else prepare(shared)
        self._prepare, self._pinned = prepare, pinned
        self._sampler = sampler
        self._lanes = lanes(rank, world)
        self._rank, self._world = rank, world
        self._cache_bytes = cache_bytes
        self._held: dict[tuple[Unit, ...], Rows] = {}
        self._last_ends: tuple[int, list[tuple[int, NDArray[np.int64]]]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self._sampler.steps_per_epoch

    @property
    def rows(self) -> int:
        """Rows of an epoch on all workers, repeats counted."""
        return self._sampler.rows

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Rows]:
        """This worker's rows of the steps of an epoch from `start_step` on, lane by lane; parts may be empty.

        Unless the split is held, starting late reads the windows in flight at that step and what follows, no more.
        """
        if start_step >= self.steps_per_epoch:
            return
        batches = self._batches(self._sampler.epoch(epoch), start_step)
        yield from ahead(batches, AHEAD_BATCHES) if self._large or self._pinned else batches

    def shares(self, epoch: int, step: int) -> tuple[tuple[int, int], ...]:
        """(lane, rows) of each of this worker's lanes in a batch, in the order in which the batch holds them."""
        return tuple((lane, int(ends[step + 1] - ends[step])) for lane, ends in self._ends(epoch))

    def sequential(self, batch_rows: int) -> Iterator[Rows]:
        """This worker's share of the split, every world-th unit, in stored order, at most `batch_rows` rows at a time.

        All workers yield equally many batches; one with fewer rows ends with empty ones.
        """
        shares = [self._sampler.units[rank :: self._world] for rank in range(self._world)]
        num_batches = [-(-_num_rows(share) // batch_rows) for share in shares]
        if max(num_batches) == 0:
            return
        share = shares[self._rank]
        held = self._hold(share)
        for rows in _rebatched(self._decoded(share) if held is None else [held], batch_rows):
            yield rows.as_batch()
        for _ in range(max(num_batches) - num_batches[self._rank]):
            yield self._layout.as_batch()

    def _batches(self, order: Epoch, start_step: int) -> Generator[Rows, None, None]:
        for rows in self._parts(order, start_step):
            yield rows.as_batch().pinned() if self._pinned else rows.as_batch()

    def _parts(self, order: Epoch, start_step: int) -> Generator[Rows, None, None]:
        """The batches from memory where the split is held, else while it is read; a large one is held as it is read."""
        units = self._sampler.units
        filled = None
        if self._large and self._world == 1 and start_step == 0 and self._shared is None and units not in self._held:
            filled = Filled(self._layout, self._firsts) if self._fits(units) else None
        held = self._hold(units) if filled is None else None
        if held is not None:
            yield from self._gathered(held, order, start_step)
            return
        yield from self._streamed(order, start_step, filled)
        if filled is not None:
            self._held[units] = filled.whole

    @property
    def _large(self) -> bool:
        """Whether to read all of the split, or to put a batch of it together, takes long."""
        return self._sampler.rows * self._layout.bytes_per_row >= LARGE_BYTES

    def _ends(self, epoch: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Where the steps of an epoch end in each of this worker's lanes; that of the last epoch is kept."""
        if self._last_ends is None or self._last_ends[0] != epoch:
            order = self._sampler.epoch(epoch)
            self._last_ends = epoch, [(lane, order.ends(lane)) for lane in self._lanes]
        return self._last_ends[1]

    def _gathered(self, held: Rows, order: Epoch, start_step: int) -> Iterator[Rows]:
        """Each batch by one gather from the held split: where the rows of a lane lie is laid out window by window."""
        labels = held.labels.numpy()
        ends = {lane: order.ends(lane).tolist() for lane in self._lanes}

        def places(window: Window) -> NDArray[np.int64]:
            parts = [np.arange(self._firsts[unit], self._firsts[unit] + unit.rows) for unit in window.units]
            stored = np.concatenate(parts)
            return stored[order.order(window, labels[stored])]

        for pieces in _served(ends, _schedule(order, ends, start_step), places, range(start_step, order.steps)):
            yield held.take(torch.from_numpy(np.concatenate(pieces or [np.empty(0, dtype=np.int64)])))

    def _streamed(self, order: Epoch, start_step: int, filled: Filled | None) -> Iterator[Rows]:
        """Each batch from one window per lane; windows are read in the order in which the lanes reach them."""
        ends = {lane: order.ends(lane).tolist() for lane in self._lanes}
        windows = _schedule(order, ends, start_step)
        decoded = self._decoded([unit for window in windows for unit in window.units])

        def shuffled(window: Window) -> Rows:
            parts = [next(decoded) for _ in window.units]
            if filled is not None:
                filled.put(window.units, parts)
            rows = concatenate(parts)
            return rows.take(torch.from_numpy(order.order(window, rows.labels.numpy())))

        for pieces in _served(ends, windows, shuffled, range(start_step, order.steps)):
            yield concatenate(pieces or [self._layout])

    def _hold(self, units: tuple[Unit, ...]) -> Rows | None:
        """The rows of `units` in memory, read at the first call; None if they do not fit beside what is held, and for a
        part of rows that are shared already."""
        if self._shared is not None:
            return self._shared if units == self._sampler.units else None
        if units not in self._held:
            if not self._fits(units):
                return None
            self._held[units] = collect(self._decoded(units), self._layout, _num_rows(units))
        return self._held[units]

    def _fits(self, units: tuple[Unit, ...]) -> bool:
        total = _num_rows(units) + sum(len(held) for held in self._held.values())
        return total * self._layout.bytes_per_row <= self._cache_bytes

    @cached_property
    def _layout(self) -> Rows:
        """No rows, with the columns of this split."""
        return next(self._decoded(self._sampler.units[:1])).take(torch.empty(0, dtype=torch.int64))

    @cached_property
    def _firsts(self) -> dict[Unit, int]:
        """Where each unit begins in the split as a whole."""
        units = self._sampler.units
        return dict(zip(units, accumulate((unit.rows for unit in units), initial=0), strict=False))

    def _decoded(self, units: Sequence[Unit]) -> Iterator[Rows]:
        if self._shared is not None:
            yield from (self._shared[self._firsts[unit] : self._firsts[unit] + unit.rows] for unit in units)
            return
        num_classes = len(self._sampler.units[0].labels)
        for table in self._reader(units):
            yield self._prepare(decode(table, num_classes))


def _num_rows(units: Iterable[Unit]) -> int:
    return sum(unit.rows for unit in units)


def _schedule(order: Epoch, ends: Mapping[int, Sequence[int]], start_step: int) -> list[Window]:
    """The windows that these lanes need from `start_step` on, in the order in which they are reached."""
    reached = []
    for lane, lane_ends in ends.items():
        for window in order.lanes[lane]:
            if window.first < window.end and window.end > lane_ends[start_step]:
                first = max(window.first, lane_ends[start_step])  # of a lane that may have no rows in this step
                reached.append((bisect_right(lane_ends, first) - 1, lane, window.number, window))
    return [window for *_, window in sorted(reached, key=lambda item: item[:3])]


def _served(
    ends: Mapping[int, Sequence[int]],
    windows: Iterable[Window],
    opened: Callable[[Window], Piece],
    steps: range,
) -> Iterator[list[Piece]]:
    """The pieces that every step takes of the windows, lane by lane; a window is opened when a lane reaches it."""
    coming = iter(windows)
    current: dict[int, tuple[Window, Piece]] = {}
    for step in steps:
        pieces = []
        for lane, lane_ends in ends.items():
            first, end = lane_ends[step : step + 2]
            while first < end:
                if lane not in current or first >= current[lane][0].end:
                    current.pop(lane, None)
                    window = next(coming)
                    current[lane] = window, opened(window)
                window, rows = current[lane]
                piece = rows[first - window.first : end - window.first]
                pieces.append(piece)
                first += len(piece)
        yield pieces


def _rebatched(parts: Iterable[Rows], batch_rows: int) -> Iterator[Rows]:
    """The same rows in pieces of `batch_rows`; the last piece may be shorter."""
    pieces: list[Rows] = []
    room = batch_rows
    for part in parts:
        first = 0
        while first < len(part):
            pieces.append(part[first : first + room])
            first += len(pieces[-1])
            room -= len(pieces[-1])
            if room == 0:
                yield concatenate(pieces)
                pieces, room = [], batch_rows
    if pieces:
        yield concatenate(pieces)
