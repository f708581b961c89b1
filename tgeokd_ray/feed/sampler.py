"""Which rows a global batch has: a pure function of (seed, epoch, step), the same for every number of workers.

The units of an epoch are shuffled and dealt to 12 lanes; a global batch takes its share of every lane; a world of W
workers, W a divisor of 12, serves the lanes l with l mod W = rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed.table import Unit

LANES = 12
WINDOW_UNITS = 4
LARGE_UNIT = 4_096  # rows from which an epoch begins with one unit a lane: reading four takes noticeably long
_DEAL, _ROWS = 0, 1  # what a stream of random numbers is for


@dataclass(frozen=True)
class Window:
    """Consecutive units of a lane whose rows are shuffled together: rows [first, end) of the lane."""

    lane: int
    number: int
    units: tuple[Unit, ...]
    first: int
    end: int


@dataclass(frozen=True)
class Epoch:
    """The order of one epoch: the windows of each lane, and which of a lane's rows each step takes."""

    seed: int
    number: int
    lanes: tuple[tuple[Window, ...], ...]
    steps: int
    repeats: tuple[int, ...] | None

    def rows(self, lane: int) -> int:
        """Rows of a lane, repeats counted."""
        return self.lanes[lane][-1].end if self.lanes[lane] else 0

    def ends(self, lane: int) -> NDArray[np.int64]:
        """Step s takes rows [ends[s], ends[s + 1]) of the lane; [steps + 1], floor((s n + phase) / steps).

        The phase, the rows of the lanes before modulo the steps, spreads the odd rows of the lanes over the steps.
        """
        phase = sum(self.rows(before) for before in range(lane)) % self.steps
        ends: NDArray[np.int64] = (np.arange(self.steps + 1) * self.rows(lane) + phase) // self.steps
        return ends

    def order(self, window: Window, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Positions in the window's stored rows, whose classes are `labels`, in the order in which they are served.

        Every row once, or as often as its class is repeated; one without a label (-1) once.
        """
        positions = np.arange(len(labels))
        if self.repeats is not None:
            of_label = np.asarray((*self.repeats, 1))  # -1, no label, takes the last
            positions = np.repeat(positions, of_label[labels])
        return positions[_permutation(len(positions), _ROWS, self.seed, self.number, window.lane, window.number)]


class Sampler:
    """The order of `units` in global batches of about `batch_rows` rows, every row once an epoch.

    A batch has its share of each lane rounded down or up, so N / steps rows give or take one per lane. `repeats` [C]
    are whole factors by class: a row of class c comes `repeats[c]` times an epoch. ConfigError for a batch below one
    row, a negative seed, or factors below one.
    """

    def __init__(
        self, units: Sequence[Unit], batch_rows: int, seed: int, *, repeats: Sequence[int] | None = None
    ) -> None:
        if batch_rows < 1:
            raise ConfigError(f"batch_rows must be >= 1, got {batch_rows}")
        if seed < 0:
            raise ConfigError(f"the seed of the data must be >= 0, got {seed}")
        if repeats is not None and min(repeats) < 1:
            raise ConfigError(f"a class can not be repeated fewer than 1 times, got {list(repeats)}")
        self.units = tuple(units)
        self.seed = seed
        self.repeats = None if repeats is None else tuple(int(factor) for factor in repeats)
        self.rows = sum(self.served_rows(unit) for unit in self.units)
        self.steps_per_epoch = -(-self.rows // batch_rows)

    def served_rows(self, unit: Unit) -> int:
        """Rows that a unit contributes to an epoch: its rows, each as often as its class is repeated."""
        if self.repeats is None:
            return unit.rows
        more = sum(count * (factor - 1) for count, factor in zip(unit.labels, self.repeats, strict=True))
        return unit.rows + more

    def epoch(self, number: int) -> Epoch:
        """The order of epoch `number`: units shuffled, then each dealt to the lane with the fewest rows so far."""
        dealt: list[list[Unit]] = [[] for _ in range(LANES)]
        rows = [0] * LANES
        for index in _permutation(len(self.units), _DEAL, self.seed, number, 0, 0):
            lane = rows.index(min(rows))
            dealt[lane].append(self.units[index])
            rows[lane] += self.served_rows(self.units[index])
        lanes = tuple(tuple(self._windows(lane, units)) for lane, units in enumerate(dealt))
        return Epoch(self.seed, number, lanes, max(self.steps_per_epoch, 1), self.repeats)

    def _windows(self, lane: int, units: Sequence[Unit]) -> list[Window]:
        """Windows of 4 units; in a long lane the first is shorter, by lane: not all lanes reach a new one at once.

        Before it comes one of a single unit where units are large, so that an epoch can begin soon.
        """
        heads = [1 + lane % WINDOW_UNITS] if len(units) > WINDOW_UNITS else []
        heads = [1, *heads] if sum(unit.rows for unit in units) >= LARGE_UNIT * max(len(units), 1) else heads
        starts = [0, *accumulate(heads)]
        starts += range(starts.pop(), len(units), WINDOW_UNITS)
        pieces = [units[start:end] for start, end in pairwise([*starts, len(units)])]
        windows, first = [], 0
        for number, piece in enumerate(piece for piece in pieces if piece):
            end = first + sum(self.served_rows(unit) for unit in piece)
            windows.append(Window(lane, number, tuple(piece), first, end))
            first = end
        return windows


def lanes(rank: int, world: int) -> tuple[int, ...]:
    """The lanes that worker `rank` of `world` serves; ConfigError unless `world` divides 12."""
    if world < 1 or LANES % world:
        divisors = ", ".join(str(n) for n in range(1, LANES + 1) if LANES % n == 0)
        raise ConfigError(f"the number of workers must be one of {divisors}, got {world}")
    if not 0 <= rank < world:
        raise ConfigError(f"the rank must be >= 0 and < {world}, got {rank}")
    return tuple(range(rank, LANES, world))


def oversampling_factors(label_counts: Sequence[int] | NDArray[np.int64], limit: int) -> tuple[int, ...]:
    """How often to repeat the rows of each class so that classes come about equally often, at most `limit` times.

    round(most frequent class / this class); 1 for a class without rows.
    """
    most = int(max(label_counts))
    return tuple(min(limit, max(1, round(most / int(count)))) if count else 1 for count in label_counts)


def _permutation(size: int, *key: int) -> NDArray[np.int64]:
    """A random order of range(size), fixed by the whole numbers `key`.

    Sorts the raw 64-bit stream of PCG64: numpy keeps raw streams between versions, its own shuffles not. A sort that is
    not stable takes a third of the time, and differs only where two of the numbers are equal.
    """
    stream = np.random.PCG64(np.random.SeedSequence(key)).random_raw(size)
    order = np.argsort(stream)
    ascending = stream[order]
    return np.argsort(stream, kind="stable") if (ascending[1:] == ascending[:-1]).any() else order
