"""Numbers for a network: warped, then centred and scaled by the train rows. N rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.errors import DataError, Problem
from tgeokd_ray.hashing import Words
from tgeokd_ray.tables.cards import NumericColumn

Floats = NDArray[np.float64]

CLIP = 10.0
SAMPLE = 1 << 15
KNOTS = 257


def _no_words() -> Words:
    return np.zeros(0, dtype=np.uint64)


def _no_floats() -> Floats:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class NumericSummary:
    """What is known of one column's finite train values: count, mean, sum of squared deviations, range, and a sample.

    The sample is kept for kind `quantile` only: the values of the `SAMPLE` rows of smallest hash, so it does not
    depend on how rows were cut or merged. With n > SAMPLE train values, a quantile q taken from it has a rank error of
    standard deviation sqrt(q (1 - q) / SAMPLE), at most 0.0028; with fewer it is exact.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = np.inf
    greatest: float = -np.inf
    hashes: Words = field(default_factory=_no_words)
    sample: Floats = field(default_factory=_no_floats)

    @classmethod
    def of(cls, column: NumericColumn, values: Floats, hashes: Words) -> NumericSummary:
        """The summary of some train rows; `hashes` [N] are of their row ids. Only finite values count."""
        finite = np.isfinite(values)
        values = values[finite]
        if not len(values):
            return cls()
        sample = _smallest(hashes[finite], values) if column.kind == "quantile" else (_no_words(), _no_floats())
        if column.kind == "log1p":
            values = signed_log1p(values)
        mean = float((values / len(values)).sum())
        with np.errstate(over="ignore"):
            squares = float(((values - mean) ** 2).sum())
        return cls(len(values), mean, squares, float(values.min()), float(values.max()), *sample)

    def merge(self, other: NumericSummary) -> NumericSummary:
        """The summary of both parts (Chan, Golub and LeVeque, 1979); associative but for rounding."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        gap, share = other.mean - self.mean, other.count / count
        hashes = np.concatenate([self.hashes, other.hashes])
        return NumericSummary(
            count,
            self.mean + gap * share,
            self.squares + other.squares + gap * gap * self.count * share,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
            *_smallest(hashes, np.concatenate([self.sample, other.sample])),
        )


@dataclass(frozen=True, eq=False)
class NumericEncoding:
    """How one column is encoded: `(warp(x) - mean) / std`, cut to -10..10; 0 for a missing value and a constant column.

    `warp` is sign(x) log(1 + |x|), or x, or the share of train values below x (ties: the middle of their ranks),
    read off at 257 quantiles with straight lines between. Values that are to stay `as_is` are cut, and no more.
    Infinite values are missing or cut, as the card says.
    """

    name: str
    kind: str
    missing_flag: bool
    infinite: str
    mean: float
    std: float
    knots: Floats = field(default_factory=_no_floats)
    levels: Floats = field(default_factory=_no_floats)

    @classmethod
    def fit(cls, column: NumericColumn, summary: NumericSummary) -> NumericEncoding:
        """The encoding from the summary of all train rows. DataError if squares of the values overflow."""
        mean, std, knots, levels = summary.mean, 0.0, _no_floats(), _no_floats()
        if column.kind == "quantile" and summary.count:
            knots, levels = _quantiles(summary.sample)
            ranks = np.interp(summary.sample, knots, levels)
            mean, std = float(ranks.mean()), float(ranks.std())
        elif column.kind == "as_is":
            mean, std = 0.0, 1.0
        elif summary.count and summary.least < summary.greatest:
            std = float(np.sqrt(summary.squares / summary.count))
        if not np.isfinite(std):
            got = f"{summary.least:g} to {summary.greatest:g}"
            problem = Problem("the squares of the values overflow", column=column.name, got=got)
            raise DataError([problem], fix=f"encode {column.name!r} with kind log1p or quantile")
        return cls(column.name, column.kind, column.missing_flag, column.inf, mean, std, knots, levels)

    def transform(self, values: Floats) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(encoded, missing) of the values [N]; NaN is missing."""
        missing = np.isnan(values) if self.infinite == "clip" else ~np.isfinite(values)
        if self.std == 0:
            return np.zeros(len(values), dtype=np.float32), missing
        with np.errstate(over="ignore"):  # what overflows is cut
            scaled = (self._warp(np.where(missing, 0.0, values)) - self.mean) / self.std
        encoded = np.where(missing, 0.0, np.clip(scaled, -CLIP, CLIP))
        return encoded.astype(np.float32), missing

    def _warp(self, values: Floats) -> Floats:
        if self.kind == "log1p":
            return signed_log1p(values)
        return np.interp(values, self.knots, self.levels) if self.kind == "quantile" else values

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts."""
        arrays = {"knots": self.knots.tolist(), "levels": self.levels.tolist()}
        return {**{name: getattr(self, name) for name in _PLAIN}, **arrays}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> NumericEncoding:
        """The inverse of `to_json`."""
        arrays = [np.asarray(state[name], dtype=np.float64) for name in ("knots", "levels")]
        return cls(*(state[name] for name in _PLAIN), *arrays)


_PLAIN = ("name", "kind", "missing_flag", "infinite", "mean", "std")


def signed_log1p(values: Floats) -> Floats:
    """sign(x) log(1 + |x|): odd, monotone, like x near 0 and like the logarithm far away."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def _smallest(hashes: Words, values: Floats) -> tuple[Words, Floats]:
    """The `SAMPLE` pairs of smallest hash, in order; ties, which only repeated row ids have, by value."""
    order = np.lexsort((values, hashes))[:SAMPLE]
    return hashes[order], values[order]


def _quantiles(sample: Floats) -> tuple[Floats, Floats]:
    """Distinct quantiles of the sample, ascending, and the mean level of each."""
    levels = np.linspace(0.0, 1.0, KNOTS)
    knots, places, counts = np.unique(
        np.quantile(sample, levels, method="inverted_cdf"), return_inverse=True, return_counts=True
    )
    return knots, np.bincount(places, weights=levels) / counts
