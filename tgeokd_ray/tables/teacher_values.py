"""The values of a teacher from elsewhere: cells to numbers, each checked, numbers to logits.

N rows, C classes, W values of a row in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN
from tgeokd_ray.tables.findings import Findings
from tgeokd_ray.tables.teacher_columns import Form

# A probability is kept off 0, and a single score off 1 as well, by this much before the logarithm is taken.
CLIP = 1e-7
LARGEST = float(np.finfo(np.float32).max)
# How far the probabilities of a row may sum from 1: files are often rounded.
TOLERANCE = 1e-3
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Values:
    """Reads the values of pieces of one file; problems go to `findings`, rows counted from `first`."""

    form: Form
    classes: Sequence[str]
    findings: Findings
    first: int

    def read(self, piece: pa.Table) -> Numbers:
        """Values [N, W] in the order of the file, NaN where one could not be used."""
        if self.form.shape == "list":
            values, missing = self._lists(piece[self.form.columns[0]].combine_chunks())
        else:
            parts = [self._column(piece[name].combine_chunks(), name) for name in self.form.columns]
            values, missing = (np.stack(both, axis=1) for both in zip(*parts, strict=True))
        self._note(missing, values, "the value is missing", "a number")
        finite = np.abs(values) <= LARGEST  # NaN is not
        self._note(~finite & ~missing, values, "the value is not a finite number", "a finite number")
        if self.form.kind == "probabilities":
            self._check_probabilities(values, np.isfinite(values))
        return values

    def _check_probabilities(self, values: Numbers, finite: Flags) -> None:
        outside = finite & ((values < 0) | (values > 1))
        hint = "in [0, 1] (or are these logits? then --kind logits)"
        self._note(outside, values, "the probability is out of range", hint)
        if self.form.shape == "score":
            return
        sums = values.sum(axis=1)
        fine = finite.all(axis=1) & ~outside.any(axis=1)
        bad = np.flatnonzero(fine & (np.abs(sums - 1) > TOLERANCE))
        column = self.form.columns[0] if self.form.shape == "list" else None
        for row in bad[:SHOWN].tolist():
            what, got = "the probabilities do not sum to 1", round(float(sums[row]), 6)
            self.findings.add(self.first + row, what, column=column, expected=f"1 within {TOLERANCE:g}", got=got)
        self.findings.count(max(len(bad) - SHOWN, 0))

    def _column(self, column: pa.Array, name: str) -> tuple[Numbers, Flags]:
        """(values, missing) of a column of numbers, or of their texts as bytes."""
        missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=bool)
        if not pa.types.is_large_binary(column.type) and not pa.types.is_binary(column.type):
            return _floats(column), missing
        texts = pl.Series(column.cast(pa.large_binary())).cast(pl.String, strict=False).str.strip_chars()
        numbers = texts.cast(pl.Float64, strict=False)
        bad = np.flatnonzero(numbers.is_null().to_numpy() & ~missing)
        for row in bad[:SHOWN].tolist():
            got = column[row].as_py().decode("utf-8", "replace")
            self.findings.add(self.first + row, "the value is not a number", column=name, expected="a number", got=got)
        self.findings.count(max(len(bad) - SHOWN, 0))
        values = numbers.fill_null(np.nan).to_numpy().copy()
        values[bad] = 0.0  # told already; not to be told again as a value that is not finite
        return values, missing

    def _lists(self, lists: pa.Array) -> tuple[Numbers, Flags]:
        """(values, missing) of a column of lists; a row whose list is of another width is noted, and is zeros."""
        width = len(self.classes)
        lists = lists.cast(pa.large_list(lists.type.value_type))
        lengths = lists.value_lengths().fill_null(-1).to_numpy()
        for row in np.flatnonzero(lengths != width)[:SHOWN].tolist():
            none = lengths[row] < 0
            what = "the list is missing" if none else "the list has another width"
            got = None if none else f"{lengths[row]} values"
            expected = f"{width} values, one per class"
            self.findings.add(self.first + row, what, column=self.form.columns[0], expected=expected, got=got)
        self.findings.count(max(int((lengths != width).sum()) - SHOWN, 0))
        fine = lengths == width
        flat = lists.filter(pa.array(fine)).flatten()
        values, missing = np.zeros((len(lists), width)), np.zeros((len(lists), width), dtype=bool)
        values[fine] = _floats(flat).reshape(-1, width)
        missing[fine] = flat.is_null().to_numpy(zero_copy_only=False).reshape(-1, width)
        if self.form.kind == "probabilities":
            values[~fine] = 1 / width  # told already; not to be told again as a wrong sum
        return values, missing

    def _note(self, bad: Flags, values: Numbers, what: str, expected: str) -> None:
        """One problem per flagged value, with its column, or with its class where it stands in a list."""
        rows, places = np.nonzero(bad)
        for row, place in zip(rows[:SHOWN].tolist(), places[:SHOWN].tolist(), strict=True):
            column = self.form.columns[0 if self.form.shape == "list" else place]
            where = f" (value {place + 1} of the list)" if self.form.shape == "list" else ""
            got = None if what.endswith("missing") else float(values[row, place])
            self.findings.add(self.first + row, what + where, column=column, expected=expected, got=got)
        self.findings.count(max(len(rows) - SHOWN, 0))


def to_logits(values: Numbers, form: Form, negative: int) -> tuple[NDArray[np.float32], int]:
    """(logits [N, C] in the table's order of classes, how many values were clipped).

    Probabilities become their logarithms, those below 1e-7 as if they were 1e-7; a score p becomes 0 for the negative
    class and log p / (1 - p) for the other, p between 1e-7 and 1 - 1e-7.
    """
    clipped = 0
    if form.kind == "probabilities":
        top = 1 - CLIP if form.shape == "score" else np.inf
        clipped = int(((values < CLIP) | (values > top)).sum())
        kept = np.clip(values, CLIP, top)
        values = np.log(kept) - np.log1p(-kept) if form.shape == "score" else np.log(kept)
    if form.shape == "score":
        zeros = np.zeros_like(values)
        values = np.concatenate([values, zeros] if negative == 1 else [zeros, values], axis=1)
    elif form.shape == "list":
        values = values[:, list(form.places)]
    with np.errstate(over="ignore"):  # noted already
        return values.astype(np.float32), clipped


def _floats(column: pa.Array) -> Numbers:
    """Numbers of any type as float64, NaN where one is missing."""
    if pa.types.is_float16(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    found: Numbers = pc.cast(column, pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return found
