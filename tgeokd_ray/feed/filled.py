"""A split that is put together from its units in whatever order they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tgeokd_ray.feed.rows import Rows, empty_like
from tgeokd_ray.feed.units import Unit


class Filled:
    """`whole`: the rows of a split in stored order once every unit, which begins at `firsts`, has been put there."""

    def __init__(self, layout: Rows, firsts: Mapping[Unit, int]) -> None:
        self._firsts = firsts
        self.whole = empty_like(layout, sum(unit.rows for unit in firsts))

    def put(self, units: Sequence[Unit], parts: Sequence[Rows]) -> None:
        """Copy the rows of some units to their places."""
        for unit, part in zip(units, parts, strict=True):
            first = self._firsts[unit]
            for target, source in zip(self.whole.tensors(), part.tensors(), strict=True):
                target[first : first + unit.rows].copy_(source)
