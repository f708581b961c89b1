"""Raw columns of one piece of a file to typed ones; what is wrong with a value is noted, not raised. N rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tgeokd_ray.errors import SHOWN
from tgeokd_ray.tables.card_columns import NumericColumn
from tgeokd_ray.tables.card_splits import seconds
from tgeokd_ray.tables.cards import LABEL, ROW, ROW_ID, TIME, WEIGHT, Card
from tgeokd_ray.tables.findings import Findings
from tgeokd_ray.tables.validation import did_you_mean

Flags = NDArray[np.bool_]


@dataclass
class Cells:
    """The typed columns of a card from raw ones, piece by piece; problems go to `findings`.

    `labels` tells whether label, weight and time are read. Text may come as bytes; it must be UTF-8. `nul` tells
    whether the file holds a NUL byte, so that only such files are searched for it. `strip` takes blanks off texts.
    """

    card: Card
    findings: Findings
    labels: bool = True
    nul: Callable[[], bool] = bool
    strip: bool = False
    _first: int = 0

    def typed(self, piece: pa.Table) -> pa.Table:
        """The next rows: `@row`, the card's own columns under their reserved names, features in the card's order."""
        card, rows = self.card, np.arange(self._first, self._first + piece.num_rows)
        columns = {ROW: pa.array(rows)}
        if card.row_id.column is not None:
            columns[ROW_ID] = self._row_ids(piece, card.row_id.column)
        if self.labels:
            columns[LABEL] = self._labels(piece)
            if card.weight is not None:
                columns[WEIGHT] = self._weights(piece, card.weight)
            if card.splits.kind == "time" and card.splits.column is not None:
                columns[TIME] = self._times(piece, card.splits.column)
        columns |= {column.name: self._numbers(piece, column) for column in card.columns.numeric}
        columns |= {name: self._texts(piece, name) for name in card.categorical}
        self._first += piece.num_rows
        return pa.table(columns)

    def _note(self, bad: Flags, column: str, texts: pa.Array, what: str, expected: str) -> None:
        """One problem per flagged row, with its value."""
        rows = np.flatnonzero(bad)
        for row in rows[:SHOWN]:
            value = texts[int(row)].as_py()
            self.findings.add(self._first + int(row), what, column=column, expected=expected, got=value)
        self.findings.count(max(len(rows) - SHOWN, 0))

    def _texts(self, piece: pa.Table, name: str) -> pa.Array:
        """A column as text; bytes that are no text are noted and become null."""
        column = piece[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            column = self._decoded(column, name)
        texts = column.cast(pa.large_string())
        if self.nul():
            bad = _flags(pc.match_substring(texts, "\0"))
            self._note(bad, name, texts, "the text holds a NUL byte", "text")
        return pc.utf8_trim_whitespace(texts) if self.strip else texts

    def _decoded(self, column: pa.Array, name: str) -> pa.Array:
        try:
            return column.cast(pa.large_string())
        except pa.ArrowInvalid:
            bad = np.array([value is not None and not _is_utf8(value) for value in column.to_pylist()])
            self._note(bad, name, column, "the bytes are not UTF-8 text", "UTF-8")
            return pc.if_else(pa.array(bad), None, column).cast(pa.large_string())

    def _numbers(self, piece: pa.Table, column: NumericColumn) -> pa.Array:
        """A numeric column as float64, null where it is missing."""
        raw = piece[column.name].combine_chunks()
        if _is_number(raw.type):
            texts, numbers = raw, raw.cast(pa.float64(), safe=False)
        else:
            texts = self._texts(piece, column.name)
            numbers = self._parsed(texts, pl.Float64, column.name, "is not a number")
        values = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
        given = ~_flags(numbers.is_null())
        if column.nan == "error":
            self._note(given & np.isnan(values), column.name, texts, "is not a number (NaN)", "a number, or none")
        if column.inf == "error":
            what = "is not a finite number"
            self._note(np.isinf(values), column.name, texts, what, "a finite number (or `inf: clip` in the card)")
        return pa.array(values, mask=np.isnan(values))

    def _parsed(self, texts: pa.Array, kind: type[pl.DataType], name: str, what: str) -> pa.Array:
        """Texts as numbers; blanks around one are no harm; what is none is noted and becomes null."""
        series = pl.Series(texts)
        numbers = series.cast(kind, strict=False)
        bad = (numbers.is_null() & series.is_not_null()).to_numpy()
        if bad.any():
            again = series.str.strip_chars().cast(kind, strict=False)
            numbers = numbers.fill_null(again)
            bad &= again.is_null().to_numpy()
            expected = "a whole number of 64 bits" if kind is pl.Int64 else "a number"
            missing = "" if kind is pl.Int64 else " (or list the text under format.null_values)"
            self._note(bad, name, texts, what, expected + missing)
        return numbers.to_arrow()

    def _labels(self, piece: pa.Table) -> pa.Array:
        """Class indices."""
        label = self.card.label
        texts = self._texts(piece, label.column)
        known = label.texts
        codes = pc.index_in(texts, value_set=pa.array(list(known), type=pa.large_string()))
        unknown = _flags(codes.is_null()) & ~_flags(texts.is_null())
        if unknown.any():
            first = texts[int(np.flatnonzero(unknown)[0])].as_py()
            expected = _some(list(known)) + did_you_mean(first, known)
            self._note(unknown, label.column, texts, "the label is not one of the classes", expected)
        self._note(_flags(texts.is_null()), label.column, texts, "the label is missing", _some(list(known)))
        return pa.array(list(known.values()), type=pa.int32()).take(codes)

    def _row_ids(self, piece: pa.Table, name: str) -> pa.Array:
        """Row ids as they are in the file: whole numbers, or texts."""
        raw = piece[name].combine_chunks()
        self._note(_flags(raw.is_null()), name, raw, "the row id is missing", "an id for every row")
        if self.card.row_id.type == "text":
            return self._texts(piece, name)
        if pa.types.is_integer(raw.type):
            return raw.cast(pa.int64(), safe=False)
        return self._parsed(self._texts(piece, name), pl.Int64, name, "the row id is not a whole number")

    def _weights(self, piece: pa.Table, name: str) -> pa.Array:
        """Row weights."""
        raw = piece[name].combine_chunks()
        if _is_number(raw.type):
            texts, weights = raw, raw.cast(pa.float64(), safe=False)
        else:
            texts = self._texts(piece, name)
            weights = self._parsed(texts, pl.Float64, name, "the weight is not a number")
        values = weights.fill_null(0.0).to_numpy(zero_copy_only=False)
        self._note(_flags(texts.is_null()), name, texts, "the weight is missing", "a weight for every row")
        bad = ~np.isfinite(values) | (values < 0)
        self._note(bad, name, texts, "the weight cannot be used", "a finite number, 0 or more")
        return weights

    def _times(self, piece: pa.Table, name: str) -> pa.Array:
        """Seconds or plain numbers, NaN where the time is missing: such a row belongs to no period."""
        raw = piece[name].combine_chunks()
        if self.card.splits.time == "number":
            if _is_number(raw.type):
                return raw.cast(pa.float64(), safe=False).fill_null(np.nan)
            return self._parsed(self._texts(piece, name), pl.Float64, name, "the time is not a number").fill_null(
                np.nan
            )
        if pa.types.is_temporal(raw.type):
            moments = raw.cast(pa.timestamp("us", tz=getattr(raw.type, "tz", None)), safe=False)
            return pc.divide(moments.cast(pa.int64()).cast(pa.float64()), 1e6).fill_null(np.nan)
        texts = self._texts(piece, name)
        coded = texts.dictionary_encode()
        moments = np.array([*(_moment(text) for text in coded.dictionary.to_pylist()), np.nan])
        times = moments[coded.indices.fill_null(len(moments) - 1).to_numpy(zero_copy_only=False)]
        bad = np.isnan(times) & ~_flags(texts.is_null())
        self._note(bad, name, texts, "is no time", "ISO 8601, for instance 2024-01-31T12:00:00")
        return pa.array(times)


def _flags(mask: pa.Array) -> Flags:
    return np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _moment(text: str) -> float:
    try:
        return seconds(text.strip())
    except ValueError:
        return float("nan")


def _some(texts: list[str]) -> str:
    shown = ", ".join(repr(text) for text in texts[:12])
    return f"one of {shown}" + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")
