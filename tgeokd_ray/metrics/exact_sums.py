"""Sums without rounding: the same digits however the values are cut into batches, workers and merges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOWEST = -1073  # frexp's exponent of the smallest float64
NUM_EXPONENTS = 1024 - LOWEST + 1
LOW_BITS = 26  # a 53-bit mantissa is kept as 27 high and 26 low bits, so that int64 holds the sum of 2^36 rows


class ExactSums:
    """Exact sums of float64 values >= 0 in `num_groups` groups, by addition of integers.

    A value is an integer mantissa times a power of two. The mantissas of one exponent are added as int64, in two
    halves [2, groups, exponents]; `totals` puts them together in Python integers and rounds once. Any order of `add`
    and `merge` gives the same digits, those of math.fsum. Exact up to 2**36 values a group.
    """

    def __init__(self, num_groups: int) -> None:
        self.halves: NDArray[np.int64] = np.zeros((2, num_groups, NUM_EXPONENTS), dtype=np.int64)

    def add(self, values: NDArray[np.float64], groups: NDArray[np.int64] | int) -> None:
        """Add `values` [N] to their `groups` [N] (or all to one group)."""
        mantissas, exponents = np.frexp(values)
        integers = np.ldexp(mantissas, 53).astype(np.int64)
        cells = exponents.astype(np.int64) - LOWEST + np.asarray(groups) * NUM_EXPONENTS
        for half, part in zip(self.halves, (integers >> LOW_BITS, integers & (1 << LOW_BITS) - 1), strict=True):
            np.add.at(half.reshape(-1), cells, part)

    def merge(self, other: ExactSums) -> ExactSums:
        """The sums over both."""
        merged = ExactSums(0)
        merged.halves = self.halves + other.halves
        return merged

    def totals(self) -> NDArray[np.float64]:
        """[groups], each the exact sum rounded once to float64."""
        totals = np.zeros(self.halves.shape[1])
        for group in range(len(totals)):
            high, low = self.halves[:, group]
            used = np.flatnonzero(high | low).tolist()
            integer = sum(((int(high[e]) << LOW_BITS) + int(low[e])) << e for e in used)
            totals[group] = integer / (1 << 53 - LOWEST)
        return totals
